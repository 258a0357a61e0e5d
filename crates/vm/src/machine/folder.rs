//! A folder of a machine that nobody else looks after.

use std::io;
use std::path::{Path, PathBuf};

use super::record;

/// A machine's folder, which goes with all that it tells of but the process when this is dropped: whoever holds this holds
/// the process too, and drops it before. What is left of one whose holder was killed is found by the record in it.
#[derive(Debug)]
pub(crate) struct MachineFolder {
    path: PathBuf,
    is_gone: bool,
}

impl MachineFolder {
    /// Makes it.
    pub(crate) fn make(path: PathBuf) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        Ok(Self { path, is_gone: false })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it to somebody else, under another name, in one step.
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
