//! A machine's folder that is removed when its handle is dropped.

use std::io;
use std::path::{Path, PathBuf};

use super::record;

/// A machine's folder. Dropping it removes the folder and the machine's network, but not its process: the holder must own
/// the process too, and drop the process first. If the holder is killed, the record in the folder leads to what is left.
#[derive(Debug)]
pub(crate) struct MachineFolder {
    path: PathBuf,
    is_gone: bool,
}

impl MachineFolder {
    /// Creates the folder.
    pub(crate) fn make(path: PathBuf) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        Ok(Self { path, is_gone: false })
    }

    /// Returns the path of the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Renames the folder in one step and hands it over to a new holder, which then has to remove it.
    pub(crate) fn move_to(mut self, path: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, path)?;
        self.is_gone = true;
        Ok(())
    }
}

impl Drop for MachineFolder {
    fn drop(&mut self) {
        if self.is_gone {
            return;
        }
        if let Err(error) = record::remove_files_now(&self.path) {
            tracing::warn!("{error}");
        }
        if let Err(error) = record::remove_folder(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}
