//! A disk whose size a test sets.
#![expect(unsafe_code, reason = "a thread enters a mount namespace")]

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount,
};
use rustix::thread::UnshareFlags;

/// A tmpfs that only this thread can see, and the threads and processes that it starts from now on.
pub struct Disk {
    path: PathBuf,
}

/// A handle that fills a disk from another thread.
pub struct Filler {
    path: PathBuf,
}

impl Disk {
    /// Mounts a disk of this length in bytes over an empty folder. Requires root.
    pub fn over(path: &Path, length: u64) -> Self {
        // SAFETY: a mount namespace concerns the calling thread alone, which keeps its files.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.expect("a mount namespace");
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private");
        let options = std::ffi::CString::new(format!("mode=755,size={length}")).expect("no NUL byte");
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), options.as_c_str()).expect("a tmpfs");
        Self { path: path.to_owned() }
    }

    /// Changes the length of the disk, in bytes.
    pub fn resize(&self, length: u64) {
        let options = std::ffi::CString::new(format!("size={length}")).expect("no NUL byte");
        mount_remount(&self.path, MountFlags::empty(), options.as_c_str()).expect("another size");
    }

    /// Returns how much of the disk is used, in bytes.
    pub fn used(&self) -> u64 {
        let statistics = rustix::fs::statvfs(&self.path).expect("statistics");
        (statistics.f_blocks - statistics.f_bfree) * statistics.f_frsize
    }

    /// Returns a handle that fills the disk.
    pub fn filler(&self) -> Filler {
        Filler { path: self.path.clone() }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Otherwise the folder below could not be removed.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}

impl Filler {
    /// Creates a file that leaves `free` bytes of the disk free.
    pub fn fill(&self, file: &Path, free: u64) {
        let statistics = rustix::fs::statvfs(&self.path).expect("statistics");
        let length = (statistics.f_bavail * statistics.f_frsize).saturating_sub(free);
        let file = File::create(file).expect("a file");
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length).expect("room");
    }
}
