//! Creates the scratch disk of a machine: a sparse file with an empty ext4, or the overlay of a fork.
//!
//! The ext4 has no journal, because nothing on it outlives the machine. Its inode tables are marked as zeroed, as they are in a
//! sparse file, so that the guest does not zero them in the background. Each machine gets a new one: 20 ms and 400 KiB for
//! 32 GiB.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::StartError;
use crate::vmm::overlay;

/// Default of [`VmHost::reserve_disk`](crate::VmHost::reserve_disk). A job that fills its disk up to this amount still
/// works.
pub const DISK_RESERVE_MIB: u64 = 1024;
/// Paths where e2fsprogs installs the program. Its folder is not in every user's search path.
const MKE2FS: [&str; 2] = ["/usr/sbin/mke2fs", "/sbin/mke2fs"];

/// Creates the disk and opens it. Replaces an existing file. `reserve_mib` must be free before.
pub(crate) fn make_scratch(path: &Path, size_mib: u64, reserve_mib: u64) -> Result<File, StartError> {
    check_space(path, reserve_mib)?;
    let failed = |reason: String| StartError::Disk { path: path.to_owned(), reason };
    let io_failed =
        |source| StartError::Io { what: "make the machine's disk", path: path.to_owned(), source };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(io_failed)?;
    file.set_len(size_mib * 1024 * 1024).map_err(io_failed)?;
    let mke2fs = MKE2FS.iter().map(Path::new).find(|path| path.is_file()).ok_or_else(|| {
        failed(format!(
            "none of {} is there; install e2fsprogs: apt-get install e2fsprogs",
            MKE2FS.join(", ")
        ))
    })?;
    let output = Command::new(mke2fs)
        .args(["-q", "-F", "-t", "ext4", "-O", "^has_journal,^resize_inode", "-m", "0"])
        .args(["-E", "lazy_itable_init=0,root_owner=0:0"])
        .arg(path)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|source| StartError::Io { what: "run", path: mke2fs.to_path_buf(), source })?;
    if output.status.success() {
        return Ok(file);
    }
    let no_space = check_space(path, 1).err();
    let _ = std::fs::remove_file(path);
    if let Some(no_space) = no_space {
        return Err(no_space);
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Creates the overlay of a fork and opens it. Replaces an existing file. `reserve_mib` must be free before.
pub(crate) fn make_overlay(path: &Path, size_mib: u64, reserve_mib: u64) -> Result<File, StartError> {
    check_space(path, reserve_mib)?;
    overlay::make(path, size_mib * 1024 * 1024).map_err(|source| StartError::Io {
        what: "make the overlay",
        path: path.to_owned(),
        source,
    })
}

fn check_space(path: &Path, needed_mib: u64) -> Result<(), StartError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let free_mib = dayfly_host::space::free_mib(folder).map_err(|source| StartError::Io {
        what: "look at the space of",
        path: folder.to_owned(),
        source,
    })?;
    if free_mib < needed_mib {
        return Err(StartError::NoSpace { path: folder.to_owned(), free_mib, needed_mib });
    }
    Ok(())
}

#[cfg(test)]
#[expect(unsafe_code, reason = "a thread enters a namespace")]
mod tests {
    use super::*;
    use dayfly_host::left_out::root_may;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_disk_of_32_gibibytes_takes_next_to_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("scratch.img");
        let file = make_scratch(&path, 32 * 1024, 1).expect("make");
        let metadata = file.metadata().expect("metadata");
        assert_eq!(metadata.len(), 32 << 30);
        assert!(metadata.blocks() * 512 < 4 << 20, "{} KiB", metadata.blocks() / 2);
        assert_eq!(metadata.mode() & 0o777, 0o600);
        make_scratch(&path, 256, 1).expect("replaces it");
        assert_eq!(std::fs::metadata(&path).expect("metadata").len(), 256 << 20);
        let refused = make_overlay(&path, 256, 1 << 40).expect_err("no disk has an exbibyte");
        assert!(
            matches!(refused, StartError::NoSpace { needed_mib, .. } if needed_mib == 1 << 40),
            "{refused}"
        );
    }

    #[test]
    fn no_machine_starts_on_a_disk_that_is_nearly_full_neither_from_its_kernel_nor_as_a_fork() {
        use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
        if !root_may("mount a small file system") {
            return;
        }
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("scratch.img");
        let refused = std::thread::spawn(move || {
            // SAFETY: the thread keeps no descriptor whose meaning depends on a mount namespace, and exits after this.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
                .expect("a namespace");
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private");
            let folder = path.parent().expect("a folder");
            mount("tmpfs", folder, "tmpfs", MountFlags::empty(), c"size=16m").expect("a small file system");
            [make_scratch(&path, 256, DISK_RESERVE_MIB), make_overlay(&path, 256, DISK_RESERVE_MIB)]
                .map(|made| made.expect_err("no space").to_string())
        })
        .join()
        .expect("no panic");
        for reason in refused {
            assert!(reason.contains("16 MiB are free, 1024 MiB are needed at least"), "{reason}");
        }
    }
}
