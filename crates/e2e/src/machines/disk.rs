//! A disk that is as long as a test says.
#![expect(unsafe_code, reason = "a thread enters a mount namespace")]

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount,
};
use rustix::thread::UnshareFlags;

/// A tmpfs that this thread sees, and what it starts from now on, and nobody else.
pub struct Disk {
    path: PathBuf,
}

/// What fills a disk, from another thread.
pub struct Filler {
    path: PathBuf,
}

impl Disk {
    /// One of this length in bytes, over an empty folder. Root only.
    pub fn over(path: &Path, length: u64) -> Self {
        // SAFETY: a mount namespace concerns the calling thread alone, which keeps its files.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.expect("a mount namespace");
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private");
        let options = std::ffi::CString::new(format!("mode=755,size={length}")).expect("no zero");
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), options.as_c_str()).expect("a tmpfs");
        Self { path: path.to_owned() }
    }

    /// Gives it another length, bytes.
    pub fn resize(&self, length: u64) {
        let options = std::ffi::CString::new(format!("size={length}")).expect("no zero");
        mount_remount(&self.path, MountFlags::empty(), options.as_c_str()).expect("another size");
    }

    /// How much of it is used, bytes.
    pub fn used(&self) -> u64 {
        let statistics = rustix::fs::statvfs(&self.path).expect("statistics");
        (statistics.f_blocks - statistics.f_bfree) * statistics.f_frsize
    }

    /// What fills it.
    pub fn filler(&self) -> Filler {
        Filler { path: self.path.clone() }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // So that the folder below can be removed.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}

impl Filler {
    /// Writes a file that leaves so many bytes free.
    pub fn fill(&self, file: &Path, free: u64) {
        let statistics = rustix::fs::statvfs(&self.path).expect("statistics");
        let length = (statistics.f_bavail * statistics.f_frsize).saturating_sub(free);
        let file = File::create(file).expect("a file");
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length).expect("room");
    }
}
