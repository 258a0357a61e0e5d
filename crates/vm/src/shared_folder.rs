//! The folder that a machine of a krun driver shares with its loop. Each run has one of its own, made before its machine and
//! removed after it, because a folder that passes from job to job would pass files from job to job too.
//!
//! A guest writes the folder with the rights of its VMM. If dayfly is root, the folder is a small file system in memory, so that
//! a job cannot fill the host's disk, its inodes or its memory through it. The mount is found by its path alone, so a later
//! process removes what a killed one has left.

use std::ffi::CStr;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Size and number of files of the file system: many times the settings and the notes of one runner.
const LIMITS: &CStr = c"mode=0700,size=4m,nr_inodes=256";
/// Mounts that a path is freed of. Each process that makes the folder leaves at most one.
const MOUNTS_MAX: usize = 16;

/// Makes an empty folder for one run. Returns why its size is not limited, if it is not.
///
/// # Errors
/// The folder exists, or it cannot be made.
pub fn make(path: &Path) -> io::Result<Option<io::Error>> {
    std::fs::DirBuilder::new().mode(0o700).create(path)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match mount("tmpfs", path, "tmpfs", flags, LIMITS) {
        Ok(()) => Ok(None),
        // Without root, and for root in a container, which must not mount.
        Err(error @ (Errno::PERM | Errno::ACCESS)) => Ok(Some(error.into())),
        Err(error) => {
            let _ = std::fs::remove_dir(path);
            Err(error.into())
        }
    }
}

/// Removes the folder with everything in it, without following links. A missing folder is no error.
///
/// # Errors
/// The folder or its file system cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    for _ in 0..MOUNTS_MAX {
        // Detached, because a VMM that is being killed may use it for a moment.
        match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // No mount point, no folder, or no right to have mounted anything.
            Err(Errno::INVAL | Errno::NOENT | Errno::PERM) => break,
            Err(error) => return Err(error.into()),
        }
    }
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
#[expect(unsafe_code, reason = "a thread enters a namespace")]
mod tests {
    use super::*;
    use dayfly_host::left_out::root_may;
    use rustix::mount::{MountPropagationFlags, mount_change};

    /// Calls `work` with a path in a mount namespace of its own.
    fn apart(work: impl FnOnce(&Path) + Send + 'static) {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("environment");
        std::thread::spawn(move || {
            // SAFETY: the thread keeps no descriptor whose meaning depends on a mount namespace, and exits after this.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
                .expect("a namespace");
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private");
            work(&path);
        })
        .join()
        .expect("no panic");
    }

    #[test]
    fn a_job_can_fill_neither_the_space_nor_the_inodes_of_the_host_if_dayfly_is_root() {
        if !root_may("mount a file system") {
            return;
        }
        apart(|path| {
            assert!(make(path).expect("made").is_none());
            let full = std::fs::write(path.join("big"), vec![0; 5 << 20]).expect_err("too much");
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
            std::fs::remove_file(path.join("big")).expect("removed");
            let made = (0..1000).take_while(|n| std::fs::write(path.join(n.to_string()), "").is_ok()).count();
            assert!((200..256).contains(&made), "{made}");
            remove(path).expect("removed");
            assert!(!path.exists());
        });
    }

    #[test]
    fn what_a_killed_process_has_left_is_removed_by_its_path_alone_though_it_is_in_use() {
        if !root_may("mount a file system") {
            return;
        }
        apart(|path| {
            make(path).expect("made");
            mount("tmpfs", path, "tmpfs", MountFlags::empty(), LIMITS).expect("another one over it");
            let used = std::fs::File::create(path.join("used")).expect("a file");
            remove(path).expect("removed");
            assert!(!path.exists());
            drop(used);
        });
    }

    #[test]
    fn a_folder_is_new_for_each_run_and_gone_after_it_and_no_link_is_followed() {
        let folder = tempfile::tempdir().expect("folder");
        let (path, other) = (folder.path().join("environment"), folder.path().join("other"));
        std::fs::create_dir(&other).expect("a folder");
        std::fs::write(other.join("kept"), "").expect("a file");
        make(&path).expect("made");
        std::os::unix::fs::symlink(&other, path.join("link")).expect("a link");
        assert_eq!(make(&path).expect_err("there is one").kind(), io::ErrorKind::AlreadyExists);
        remove(&path).expect("removed");
        remove(&path).expect("nothing is there");
        assert!(!path.exists() && other.join("kept").exists());
        std::os::unix::fs::symlink(&other, &path).expect("a link");
        assert_eq!(make(&path).expect_err("a link").kind(), io::ErrorKind::AlreadyExists);
    }
}
