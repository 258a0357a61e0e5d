//! Tools that jobs use, for images that lack them: Docker's engine, git, sudo and a few more, from Debian packages.
//!
//! ```text
//!   <state>/tools/<id>/
//!     tree/            the content of /opt/dayfly in a machine: bin, lib, share
//!     manifest.json    the files of each tool
//! ```
//!
//! The tools run in any image, whatever its C library is, because their programs use only the loader and the libraries in
//! that folder. `patchelf` writes these paths into the programs, as NixOS does. The variable `LD_LIBRARY_PATH` would not do,
//! because the tools' child processes would inherit it.

mod elf;
mod make;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::debian;
use super::in_use::InUse;
use super::once::{Once, read_manifest, write_manifest};
use super::series::{self, Generation, Series};
use super::{BuildSettings, ImageError, Progress};
use dayfly_host::clock::now_s;
pub(super) use table::{Wanted, wanted};

/// Name of the folder of tools in the state folder.
pub(super) const TOOLS: &str = "tools";
/// Version of this builder. It is raised if a change here gives another bundle for the same packages.
const VERSION: &str = "3";
/// Name of the folder whose files are put into images.
const TREE: &str = "tree";

/// A bundle of tools that can be added to any image.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Its folder.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: ToolsManifest,
    pub(super) in_use: InUse,
}

/// The manifest of a bundle of tools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolsManifest {
    /// Its id.
    pub id: String,
    /// Debian's name of the release that the packages come from.
    pub suite: String,
    /// The files of each tool and its libraries, relative to the bundle's tree.
    pub tools: BTreeMap<String, BTreeSet<String>>,
    /// Number of bundles that were built before this one and became too old.
    #[serde(default)]
    pub generation: u32,
    /// Time of the build, seconds since 1970-01-01 UTC.
    #[serde(default)]
    pub created_s: i64,
}

impl Tools {
    /// Returns the lock that keeps them.
    pub(super) fn in_use(&self) -> InUse {
        self.in_use.clone()
    }

    /// Returns the folder of the files.
    pub(super) fn tree(&self) -> PathBuf {
        self.folder.join(TREE)
    }

    /// Returns all files of these tools.
    pub(super) fn files(&self, names: &[&str]) -> BTreeSet<&str> {
        let of = |name: &&str| self.manifest.tools.get(*name).into_iter().flatten().map(String::as_str);
        names.iter().flat_map(of).collect()
    }
}

/// Returns the newest tools from the state folder. Builds them if there are none, or if they are older than the settings allow
/// (takes a minute or two and downloads 120 MB).
///
/// # Errors
/// See [`ImageError`].
pub fn tools(settings: &BuildSettings, progress: &mut dyn FnMut(Progress)) -> Result<Tools, ImageError> {
    let series = series_of(settings);
    let once = Once { settings, store: TOOLS, what: "the tools for images" };
    once.newest(&series, progress, open, |stage, generation, progress| {
        let (id, suite) = (series.id(generation), debian::suite(settings));
        let tools = make::make(settings, &suite, stage.path(), progress)?;
        let manifest = ToolsManifest { id, suite, tools, generation, created_s: now_s() };
        write_manifest(stage.path(), &manifest)
    })
}

/// Returns true if the tools include a thing of this name, as [`crate::Origin::lacks`] and the findings of a check name it.
#[must_use]
pub fn is_tool(name: &str) -> bool {
    wanted().iter().any(|wanted| wanted.name == name && wanted.tool.is_some())
}

/// Returns the id of the first of the bundles that [`tools`] returns.
pub(super) fn id(settings: &BuildSettings) -> String {
    series_of(settings).id(0)
}

/// Returns the bundle that [`tools`] would return whatever its age; none if there is none.
pub(super) fn newest(settings: &BuildSettings) -> Result<Option<Generation>, ImageError> {
    series_of(settings).newest()
}

fn series_of(settings: &BuildSettings) -> Series {
    Series::new(&settings.state, TOOLS, &[VERSION, &debian::suite(settings)])
}

fn open(folder: &Path) -> Result<Option<Tools>, ImageError> {
    let Some(in_use) = InUse::of(folder)? else { return Ok(None) };
    let Some(mut manifest) = read_manifest::<ToolsManifest>(folder)? else { return Ok(None) };
    manifest.created_s = series::created_s(folder, manifest.created_s);
    Ok(Some(Tools { folder: folder.to_owned(), manifest, in_use }))
}
