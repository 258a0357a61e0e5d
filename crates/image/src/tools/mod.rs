//! What jobs use, for images that have none of it: Docker's engine, git, sudo and a few more, as Debian packages them.
//!
//! ```text
//!   <state>/tools/<id>/
//!     tree/            what is at /opt/dayfly in a machine: bin, lib, share
//!     manifest.json    which files each tool is made of
//! ```
//!
//! They run in any image, whatever its C library is: their programs name the loader and the libraries in that folder, and
//! nothing else of the image's. That is written into them by `patchelf`, as NixOS does it; a loader that is told by the
//! environment (`LD_LIBRARY_PATH`) would tell whatever they start, too.

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

/// Grows when a change here would make something else of the same packages.
const VERSION: &str = "2";
/// Folder of what is put into images.
const TREE: &str = "tree";

/// Tools that any image can be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// Its folder.
    pub folder: PathBuf,
    /// What they are.
    pub manifest: ToolsManifest,
}

/// What a bundle of tools says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolsManifest {
    /// Its id.
    pub id: String,
    /// Debian's name of the release that its packages are of.
    pub suite: String,
    /// The files of each tool, libraries with them; relative to the folder that they are in.
    pub tools: BTreeMap<String, BTreeSet<String>>,
}

impl Tools {
    /// Where the files are.
    pub(super) fn tree(&self) -> PathBuf {
        self.folder.join(TREE)
    }

    /// All files that these tools are made of.
    pub(super) fn files(&self, names: &[&str]) -> BTreeSet<&str> {
        let of = |name: &&str| self.manifest.tools.get(*name).into_iter().flatten().map(String::as_str);
        names.iter().flat_map(of).collect()
    }
}

/// The tools: from the state folder, or made (a minute or two, and a download of 120 MB).
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

/// The id of the bundle that [`tools`] would return.
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
