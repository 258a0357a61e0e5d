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
    /// Digest of the inputs that all generations of this image share. Empty if it is `inputs`; see [`Self::recipe`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub recipe: String,
    /// Number of images of the same recipe that were built before this one and became too old.
    #[serde(default, skip_serializing_if = "is_first")]
    pub generation: u32,
}

fn is_first(generation: &u32) -> bool {
    *generation == 0
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
    /// Time at which it was created, by its own configuration, seconds since 1970-01-01 UTC. None if the configuration does
    /// not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_s: Option<i64>,
    /// The bundles of this host in it. None in manifests of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundles: Option<Bundles>,
}

/// The times at which the bundles in an image were built, seconds since 1970-01-01 UTC. None: there is none in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bundles {
    /// The kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_s: Option<i64>,
    /// The tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools_s: Option<i64>,
}

impl Bundles {
    /// Returns true if this host has a newer bundle than one of these. `newest` are the times of the host's bundles.
    pub(super) fn are_older_than(self, newest: Self) -> bool {
        let is_older = |in_image: Option<i64>, newest: Option<i64>| {
            in_image.zip(newest).is_some_and(|(in_image, newest)| in_image < newest)
        };
        is_older(self.kernel_s, newest.kernel_s) || is_older(self.tools_s, newest.tools_s)
    }
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

    /// Returns the digest of the inputs that all generations of this image share.
    #[must_use]
    pub fn recipe(&self) -> &str {
        if self.recipe.is_empty() { &self.inputs } else { &self.recipe }
    }

    /// Returns the time that its packages are from, seconds since 1970-01-01 UTC: for a built image the time of the build,
    /// when the package index was read; for an imported one the time in its own configuration, if that says one.
    #[must_use]
    pub fn packages_s(&self) -> Option<i64> {
        match &self.origin {
            Some(origin) => origin.created_s,
            None => Some(self.created_s),
        }
    }

    /// Returns the bundles of this host in it, for an imported image.
    pub(super) fn bundles(&self) -> Option<Bundles> {
        // Earlier versions did not write which bundles they added, but added none that was built later.
        let unknown = Bundles { kernel_s: Some(self.created_s), tools_s: Some(self.created_s) };
        self.origin.as_ref().map(|origin| origin.bundles.unwrap_or(unknown))
    }

    /// Returns the length of all files, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_outdated_if_one_of_its_own_bundles_has_a_successor() {
        let bundles = |kernel_s, tools_s| Bundles { kernel_s, tools_s };
        for (in_image, newest, outdated) in [
            (bundles(Some(5), Some(5)), bundles(Some(5), Some(5)), false),
            (bundles(Some(5), Some(5)), bundles(Some(5), Some(6)), true),
            (bundles(Some(5), None), bundles(Some(6), None), true),
            (bundles(None, None), bundles(Some(6), Some(6)), false),
            // Its own were removed, or this one was built before the clock was set back.
            (bundles(Some(5), Some(5)), bundles(None, None), false),
            (bundles(Some(5), Some(5)), bundles(Some(4), Some(4)), false),
        ] {
            assert_eq!(in_image.are_older_than(newest), outdated, "{in_image:?} {newest:?}");
        }
    }
}
