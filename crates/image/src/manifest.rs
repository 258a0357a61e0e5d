//! The manifest of an image.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::oci::{Digest, RunConfig};

/// Version of the layout of manifests and image folders.
pub(super) const FORMAT: u32 = 1;

/// The entry in [`Origin::lacks`] of an image without a Docker daemon.
pub(super) const NO_DOCKER: &str = "Docker";

/// The manifest of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the layout. Images with another version are not used.
    pub format: u32,
    /// The image's id.
    pub id: String,
    /// Digest of all inputs.
    pub inputs: String,
    /// Debian's name of the release, e.g. `bookworm`. For an imported image, its own name and release, e.g. `ubuntu noble`.
    pub suite: String,
    /// Release of the kernel, e.g. `6.1.0-56-cloud-amd64`.
    pub kernel: String,
    /// Time of the build, seconds since 1970-01-01 UTC.
    pub created_s: i64,
    /// The runner app in it.
    pub runner_app: RunnerAppManifest,
    /// Its files.
    pub files: BTreeMap<String, FileDigest>,
    /// Its packages and their versions.
    pub packages: BTreeMap<String, String>,
    /// The source of an imported image. None if the image was built on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// The source of an imported image, and the changes that the import made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The name by which it was first requested.
    pub name: String,
    /// The digest that the name resolved to at that time.
    pub digest: Digest,
    /// Digests of its unpacked layers, the lowest first.
    pub layers: Vec<Digest>,
    /// Its own run configuration. The runner app runs jobs as the user that the loop names, whatever the image says.
    pub run: RunConfig,
    /// The parts that the host has added, as shown to users.
    pub added: Vec<String>,
    /// The things that jobs need and the image lacks, as shown to users.
    pub lacks: Vec<String>,
    /// Number of device nodes in its layers. They are left out, because machines get theirs from their kernel.
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
    /// Version of the toolchain that built it, e.g. `go1.26.6`.
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
    /// Returns true if a Docker daemon can be started in the image.
    #[must_use]
    pub fn has_docker(&self) -> bool {
        match &self.origin {
            Some(origin) => !origin.lacks.iter().any(|lack| lack == NO_DOCKER),
            // A built image has Docker only if its package list names it.
            None => self.packages.contains_key("docker.io"),
        }
    }

    /// Returns the length of all files, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }
}
