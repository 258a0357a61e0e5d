//! Unix sockets in a folder, whose path may have any length.
//!
//! The address of a Unix socket holds 107 bytes. So the folder is opened, and the address is `/proc/self/fd/N/name`, which
//! is always shorter; the kernel follows the descriptor.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, OFlags};

/// An open folder that sockets are created in.
#[derive(Debug)]
pub struct SocketFolder {
    folder: File,
}

impl SocketFolder {
    /// Opens an existing folder.
    ///
    /// # Errors
    /// The folder cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = (OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC).bits();
        let folder = std::fs::OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
        Ok(Self { folder })
    }

    /// Listens on a socket of this name. It replaces the socket that an earlier process has left there.
    ///
    /// # Errors
    /// The socket cannot be created.
    pub fn listen(&self, name: &str) -> io::Result<OwnedFd> {
        match rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(UnixListener::bind(self.path_of(name))?.into())
    }

    /// Connects to the socket of this name.
    ///
    /// # Errors
    /// There is no such socket, or no process listens on it.
    pub async fn connect(&self, name: &str) -> io::Result<tokio::net::UnixStream> {
        tokio::net::UnixStream::connect(self.path_of(name)).await
    }

    /// Returns both ends of a connection: a listening socket on which one connection waits, and that connection. No other
    /// process can connect, because the name is removed.
    ///
    /// # Errors
    /// The socket cannot be created.
    pub fn listen_and_connect(&self, name: &str) -> io::Result<(OwnedFd, OwnedFd)> {
        let listener = self.listen(name)?;
        let connection = UnixStream::connect(self.path_of(name));
        rustix::fs::unlinkat(&self.folder, name, AtFlags::empty())?;
        Ok((listener, connection?.into()))
    }

    fn path_of(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.folder.as_raw_fd()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_with_a_path_longer_than_an_address_is_fine() {
        let root = tempfile::tempdir().expect("folder");
        let deep = root.path().join("x".repeat(120)).join("y".repeat(120));
        std::fs::create_dir_all(&deep).expect("folders");
        let folder = SocketFolder::open(&deep).expect("open");
        let _first = folder.listen("s").expect("listen");
        let listener = UnixListener::from(folder.listen("s").expect("replaces the old one"));
        let _client = folder.connect("s").await.expect("connect");
        listener.accept().expect("accept");
    }
}
