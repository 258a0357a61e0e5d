//! Gives a program a root folder that holds only its own files, so that nothing else of this host has a path for it.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode};
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, move_mount, open_tree, unmount,
};
use serde::{Deserialize, Serialize};

use super::export::Export;
use super::mounts::{WITHOUT_RIGHTS, enter_namespace, set_attributes};

/// The folder that becomes the root. Every host has it, and its content is hidden in the new namespace only.
const PLACE: &str = "/tmp";
/// The only part of `/proc`, which leads to a process's own descriptors.
const OWN_PROCESS: &str = "/proc/self";

/// The content of a root folder. Each path but that of the export leads to the same file as on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnRoot {
    /// Files and folders, for reading.
    pub(crate) files: Vec<PathBuf>,
    /// Devices.
    pub(crate) devices: Vec<PathBuf>,
    /// The folder or file that the program serves, at its own path.
    pub(crate) export: Option<Export>,
}

/// A part of the host's tree, before it is attached.
struct Part {
    /// Its path in the new root.
    target: PathBuf,
    is_folder: bool,
    tree: OwnedFd,
}

impl OwnRoot {
    /// Enters a mount namespace with this root.
    ///
    /// All parts are opened first, because the new root hides the folder that it takes. Afterwards the old root is detached, so
    /// that no name leads to it, and the new one cannot be written to.
    pub(super) fn enter(&self) -> io::Result<()> {
        enter_namespace()?;
        let mut parts = Vec::new();
        for path in outermost(&self.files) {
            parts.push(Part::open(path, WITHOUT_RIGHTS | libc::MOUNT_ATTR_RDONLY)?);
        }
        for path in &self.devices {
            parts.push(Part::open(path, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC)?);
        }
        if let Some(export) = &self.export {
            let read_only = if export.read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
            let part = Part::open(&export.source, WITHOUT_RIGHTS | read_only)?;
            parts.push(Part { target: export.target(), ..part });
        }
        parts.push(Part::open(Path::new(OWN_PROCESS), WITHOUT_RIGHTS | libc::MOUNT_ATTR_NOEXEC)?);
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("tmpfs", PLACE, "tmpfs", flags, c"mode=0755,size=1m")?;
        // The program's user must be able to pass the folders.
        let before = rustix::process::umask(Mode::from_raw_mode(0o022));
        for part in &parts {
            part.attach()?;
        }
        rustix::process::umask(before);
        drop(parts);
        std::env::set_current_dir(PLACE)?;
        rustix::process::pivot_root(".", ".")?;
        unmount(".", UnmountFlags::DETACH)?;
        std::env::set_current_dir("/")?;
        set_attributes(CWD, c"/", libc::MOUNT_ATTR_RDONLY, 0)
    }
}

impl Part {
    fn open(path: &Path, attributes: u64) -> io::Result<Self> {
        let with_path =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let is_folder = fs::metadata(path).map_err(with_path)?.is_dir();
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mut below = 0;
        if is_folder {
            flags |= OpenTreeFlags::AT_RECURSIVE;
            below = libc::AT_RECURSIVE;
        }
        let tree = open_tree(CWD, path, flags).map_err(|error| with_path(error.into()))?;
        set_attributes(tree.as_fd(), c"", attributes, libc::AT_EMPTY_PATH | below).map_err(with_path)?;
        Ok(Self { target: path.to_owned(), is_folder, tree })
    }

    fn attach(&self) -> io::Result<()> {
        let target = Path::new(PLACE).join(self.target.strip_prefix("/").map_err(io::Error::other)?);
        if self.is_folder {
            fs::create_dir_all(&target)?;
        } else {
            fs::create_dir_all(target.parent().unwrap_or(Path::new(PLACE)))?;
            fs::File::create(&target)?;
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        Ok(move_mount(&self.tree, "", CWD, &target, flags)?)
    }
}

/// Returns the paths that lie in no other one of them, sorted.
fn outermost(paths: &[PathBuf]) -> Vec<&Path> {
    let mut sorted: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    // By their parts, so that a folder comes right before all that it holds.
    sorted.sort();
    sorted.dedup_by(|path, before| path.starts_with(*before));
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_folder_comes_with_it() {
        let paths = [
            "/usr/share/qemu",
            "/usr/share/qemu/a",
            "/usr/share/qemu-b",
            "/lib/c",
            "/lib/c",
            "/usr/share/qemu/d/e",
        ];
        let paths = paths.map(PathBuf::from);
        let expected = ["/lib/c", "/usr/share/qemu", "/usr/share/qemu-b"].map(Path::new);
        assert_eq!(outermost(&paths), expected);
    }
}
