//! What an image says about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::oci::{Digest, RunConfig};

/// Layout of manifests and image folders.
pub(super) const FORMAT: u32 = 1;

/// What is said of an image without a Docker daemon.
pub(super) const NO_DOCKER: &str = "Docker";

/// The manifest of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Layout; images of another one are not used.
    pub format: u32,
    /// The image's id.
    pub id: String,
    /// Digest of all inputs.
    pub inputs: String,
    /// Debian's name of the release, e.g. `bookworm`; of an image from elsewhere what it calls itself, e.g. `ubuntu noble`.
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
    /// Where it comes from, if it was not built here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// Where an image comes from, and what was made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The name that it was asked for by, first.
    pub name: String,
    /// What that name led to then.
    pub digest: Digest,
    /// Digests of its layers, unpacked; the lowest first.
    pub layers: Vec<Digest>,
    /// How it says that it is to be run. Jobs are run by the runner app, as the user that the loop names.
    pub run: RunConfig,
    /// What the host has put into it, in words.
    pub added: Vec<String>,
    /// What it lacks for jobs, in words.
    pub lacks: Vec<String>,
    /// How many device nodes its layers have; machines get theirs from their kernel.
    pub devices_left_out: u64,
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
    /// Whether a Docker daemon can be started in it.
    #[must_use]
    pub fn has_docker(&self) -> bool {
        match &self.origin {
            Some(origin) => !origin.lacks.iter().any(|lack| lack == NO_DOCKER),
            // Built here, from a list of packages that need not name it.
            None => self.packages.contains_key("docker.io"),
        }
    }

    /// Length of all files, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }
}
