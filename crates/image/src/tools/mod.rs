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
use super::once::{Once, read_manifest, write_manifest};
use super::{BuildSettings, ImageError, Progress};
use dayfly_host::digest::{digest_of, id_of};
pub(super) use table::{Wanted, wanted};

/// Version of this builder. It is raised if a change here gives another bundle for the same packages.
const VERSION: &str = "3";
/// Name of the folder whose files are put into images.
const TREE: &str = "tree";

/// A bundle of tools that can be added to any image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// Its folder.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: ToolsManifest,
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
}

impl Tools {
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

/// Returns the tools from the state folder. Builds them if needed (takes a minute or two and downloads 120 MB).
///
/// # Errors
/// See [`ImageError`].
pub fn tools(settings: &BuildSettings, progress: &mut dyn FnMut(Progress)) -> Result<Tools, ImageError> {
    let suite = debian::suite(settings);
    let id = id_of_suite(&suite);
    let once = Once { settings, store: "tools", id: &id, what: "the tools for images" };
    once.get(progress, open, |stage, progress| {
        let tools = make::make(settings, &suite, stage.path(), progress)?;
        write_manifest(stage.path(), &ToolsManifest { id: id.clone(), suite: suite.clone(), tools })
    })
}

/// Returns true if the tools include a thing of this name, as [`crate::Origin::lacks`] and the findings of a check name it.
#[must_use]
pub fn is_tool(name: &str) -> bool {
    wanted().iter().any(|wanted| wanted.name == name && wanted.tool.is_some())
}

/// Returns the id of the bundle that [`tools`] would return.
pub(super) fn id(settings: &BuildSettings) -> String {
    id_of_suite(&debian::suite(settings))
}

fn id_of_suite(suite: &str) -> String {
    id_of(&digest_of(&[VERSION, suite]))
}

fn open(folder: &Path) -> Result<Option<Tools>, ImageError> {
    let manifest = read_manifest(folder)?;
    Ok(manifest.map(|manifest| Tools { folder: folder.to_owned(), manifest }))
}
