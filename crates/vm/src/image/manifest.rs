//! What an image says about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Layout of manifests and image folders.
pub(super) const FORMAT: u32 = 1;

/// The manifest of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Layout; images of another one are not used.
    pub format: u32,
    /// The image's id.
    pub id: String,
    /// Digest of all inputs.
    pub inputs: String,
    /// Debian's name of the release, e.g. `bookworm`.
    pub suite: String,
    /// Release of the kernel, e.g. `6.1.0-56-cloud-amd64`.
    pub kernel: String,
    /// When it was made, seconds since 1970-01-01 UTC.
    pub created_s: i64,
    /// The runner app in it.
    pub runner_app: RunnerAppManifest,
    /// Its files.
    pub files: BTreeMap<String, FileDigest>,
    /// Its packages and their versions.
    pub packages: BTreeMap<String, String>,
}

/// A runner app in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerAppManifest {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the program.
    pub sha256: String,
    /// What built it, e.g. `go1.26.6`.
    pub toolchain: String,
}

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Its length, bytes.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: String,
}

impl Manifest {
    /// Length of all files, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }
}
