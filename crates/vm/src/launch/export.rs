//! The folder or file that a file server serves, at one path.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Path of the export in the server's root. It is fixed, so that no special character of the host's path has to pass
/// through options.
pub(crate) const EXPORT: &str = "/run/export";

/// A folder or file that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Export {
    /// Path of the folder or file on the host.
    pub(crate) source: PathBuf,
    /// True for a file. The server then serves a folder that contains only this file, as [`Export::FILE`]. The folder is part
    /// of the server's root, so nothing can be created beside the file.
    pub(crate) file: bool,
    /// True if no program may write to the export.
    pub(crate) read_only: bool,
}

impl Export {
    /// Name of a single file in the folder that is served.
    pub(crate) const FILE: &str = "file";

    /// Returns the path of the export in the server's root.
    pub(super) fn target(&self) -> PathBuf {
        let mut target = PathBuf::from(EXPORT);
        if self.file {
            target.push(Self::FILE);
        }
        target
    }
}
