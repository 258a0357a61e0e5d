//! A reserve of space: a file with blocks of its own, which is removed when the disk is full, so that what frees more space can
//! be written down, and created again once there is space.

use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

/// Longest reserve, bytes.
const LENGTH_MAX: u64 = 64 * 1024 * 1024;
/// Part of the free space that the reserve takes at most.
const PART_OF_FREE: u64 = 16;
/// Shortest reserve that is worth a file, bytes: some dozens of short records.
const LENGTH_MIN: u64 = 64 * 1024;

/// A reserve of space.
#[derive(Debug, Clone)]
pub struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// Returns the reserve at a path.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Creates the file if it does not exist and the disk has space for it. A failure is only logged, because
    /// everything works without a reserve too.
    pub fn keep(&self) {
        if self.path.exists() {
            return;
        }
        if let Err(error) = self.create() {
            tracing::debug!("no reserve of space in {}: {error}", self.path.display());
        }
    }

    fn create(&self) -> io::Result<()> {
        let statistics = rustix::fs::statvfs(self.path.parent().unwrap_or(Path::new("/")))?;
        let free = statistics.f_bavail.saturating_mul(statistics.f_frsize);
        let length = (free / PART_OF_FREE).min(LENGTH_MAX);
        if length < LENGTH_MIN {
            return Ok(());
        }
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&self.path)?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, length).inspect_err(|_| {
            // Half a reserve would look like a whole one.
            let _ = std::fs::remove_file(&self.path);
        })?;
        Ok(())
    }

    /// Removes the file. Returns true if it existed.
    pub fn release(&self) -> bool {
        std::fs::remove_file(&self.path).is_ok()
    }
}

#[cfg(test)]
#[expect(unsafe_code, reason = "a thread enters a namespace")]
mod tests {
    use super::*;
    use crate::left_out::root_may;
    use std::io::Write as _;

    /// Runs work in a folder that is a file system of so many MiB. Other users than root skip it, because only root may mount
    /// one.
    fn on_small_disk(mib: u32, work: impl FnOnce(&Path) + Send + 'static) {
        use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
        if !root_may("mount a small file system") {
            return;
        }
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().to_owned();
        let done = std::thread::spawn(move || {
            // SAFETY: the thread keeps no descriptor whose meaning depends on a mount namespace, and exits after this.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
                .expect("a namespace");
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private");
            let size = std::ffi::CString::new(format!("size={mib}m")).expect("text");
            mount("tmpfs", &path, "tmpfs", MountFlags::empty(), size.as_c_str())
                .expect("a small file system");
            work(&path);
        });
        done.join().expect("no panic");
    }

    /// Writes a file until the disk is full.
    fn fill(path: &Path) {
        let mut file = std::fs::File::create(path).expect("created");
        while file.write_all(&[7; 4096]).is_ok() {}
    }

    #[test]
    fn the_reserve_has_blocks_frees_them_and_comes_back() {
        on_small_disk(4, |folder| {
            let reserve = Reserve::at(folder.join("reserve"));
            reserve.keep();
            let length = std::fs::metadata(folder.join("reserve")).expect("created").len();
            assert!((LENGTH_MIN..=4 * 1024 * 1024 / PART_OF_FREE).contains(&length), "{length} bytes");
            fill(&folder.join("filler"));
            reserve.keep();
            assert!(std::fs::write(folder.join("more"), vec![1; 4096]).is_err(), "the disk is full");
            assert!(reserve.release() && !reserve.release());
            std::fs::write(folder.join("more"), vec![1; 100_000]).expect("there is space again");
            reserve.keep();
            assert!(!folder.join("reserve").exists(), "too little is free");
            std::fs::remove_file(folder.join("filler")).expect("removed");
            reserve.keep();
            assert!(folder.join("reserve").exists());
        });
    }
}
