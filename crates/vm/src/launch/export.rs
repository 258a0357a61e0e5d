//! Restricts what a file server sees of this host to one folder or file, at one path.
#![expect(unsafe_code, reason = "entering a namespace, and a call without a safe wrapper")]

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

/// Path of the export in the server's namespace. It is fixed, so that no special character of the host's path has to pass
/// through options.
pub(crate) const EXPORT: &str = "/run/export";

/// A folder or file that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Export {
    /// Path of the folder or file on the host.
    pub(crate) source: PathBuf,
    /// True for a file. The server then serves a folder that contains only this file, as [`Export::FILE`].
    pub(crate) file: bool,
    /// True if no program may write to the export.
    pub(crate) read_only: bool,
}

impl Export {
    /// Name of a single file in the folder that is served.
    pub(crate) const FILE: &str = "file";

    /// Enters a mount namespace where `/run` holds nothing but the export.
    pub(super) fn enter(&self) -> io::Result<()> {
        // SAFETY: this process has one thread, and holds no descriptor whose meaning depends on a mount namespace.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        // Opened before the tmpfs covers it, because it may be below /run itself.
        let source = rustix::fs::open(&self.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        mount("tmpfs", "/run", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0755,size=64k")?;
        std::fs::create_dir(EXPORT)?;
        let mut target = PathBuf::from(EXPORT);
        if self.file {
            target.push(Self::FILE);
            std::fs::File::create(&target)?;
        }
        mount_bind_recursive(format!("/proc/self/fd/{}", source.as_raw_fd()), &target)?;
        drop(source);
        // All attributes apply to the mounts below it, too, which a remount would not do. The server opens no device and
        // gets no rights from a file, even if there are some in the folder already.
        let hidden = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
        let read_only = if self.read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
        set_attributes(&target, hidden | read_only, libc::AT_RECURSIVE)?;
        if self.file {
            // Nothing can be created beside the file.
            mount_bind_recursive(EXPORT, EXPORT)?;
            make_folder_read_only()?;
        }
        Ok(())
    }
}

fn make_folder_read_only() -> io::Result<()> {
    set_attributes(Path::new(EXPORT), libc::MOUNT_ATTR_RDONLY, 0)
}

fn set_attributes(target: &Path, attributes: u64, flags: i32) -> io::Result<()> {
    let path = CString::new(target.as_os_str().as_encoded_bytes()).map_err(io::Error::other)?;
    // `struct mount_attr` of linux/mount.h: set, clear, propagation, user namespace.
    let request = [attributes, 0, 0, 0];
    // SAFETY: the path is terminated, and the request has the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            request.as_ptr(),
            size_of_val(&request),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
