//! Restricts what a file server sees of this host to one folder or file, at one path.

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, mount, mount_bind_recursive};
use serde::{Deserialize, Serialize};

use super::mounts::{self, WITHOUT_RIGHTS};

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
        mounts::enter_namespace()?;
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
        let read_only = if self.read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
        set_attributes(&target, WITHOUT_RIGHTS | read_only, libc::AT_RECURSIVE)?;
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
    mounts::set_attributes(CWD, &path, attributes, flags)
}
