//! Stores the image that each name resolved to at its last lookup.
//!
//! ```text
//!   <state>/images/.names/<id of the name>.json    replaced by a rename
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ImageError;
use super::error::failed;
use crate::oci::Digest;
use dayfly_host::digest::{digest_of, id_of};
use dayfly_host::file;
use dayfly_host::stage::make_folder;

/// The result of a name's last lookup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// The name, with all defaults.
    pub(super) name: String,
    /// Digest of its manifest or index.
    pub(super) digest: Digest,
    /// Digest of all other inputs of the image, because the same manifest gives another image if they change.
    pub(super) options: String,
    /// Id of the image in the store.
    pub(super) image: String,
    /// Digest of all inputs of that image, of which the id is only a part.
    #[serde(default)]
    pub(super) inputs: String,
}

/// The names of a store.
#[derive(Debug, Clone)]
pub(super) struct Names {
    folder: PathBuf,
}

impl Names {
    pub(super) fn new(store: &Path) -> Self {
        Self { folder: store.join(".names") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{}.json", id_of(&digest_of(&[name]))))
    }

    /// Returns the last result of a name. Ignores a file that cannot be parsed, because the next lookup replaces it.
    pub(super) fn get(&self, name: &str) -> Option<Known> {
        let known: Known = serde_json::from_slice(&fs::read(self.path(name)).ok()?).ok()?;
        (known.name == name).then_some(known)
    }

    /// Returns all results, ordered by name.
    pub(super) fn list(&self) -> Vec<Known> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let texts = entries.filter_map(|entry| fs::read(entry.path()).ok());
        let mut all: Vec<Known> = texts.filter_map(|text| serde_json::from_slice(&text).ok()).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// Stores a result.
    pub(super) fn put(&self, known: &Known) -> Result<(), ImageError> {
        make_folder(&self.folder)?;
        let path = self.path(&known.name);
        let text = serde_json::to_vec(known).map_err(|error| failed("write", &path)(error.into()))?;
        file::replace(&path, &text).map_err(failed("write", &path))
    }

    /// Removes all names of an image.
    pub(super) fn forget(&self, image: &str) -> Result<(), ImageError> {
        for known in self.list().iter().filter(|known| known.image == image) {
            let path = self.path(&known.name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_what_it_led_to_last() {
        let store = tempfile::tempdir().expect("a folder");
        let names = Names::new(store.path());
        let known = |name: &str, image: &str| Known {
            name: name.to_owned(),
            digest: Digest::of_digits(&"0".repeat(64)),
            options: String::new(),
            image: image.to_owned(),
            inputs: String::new(),
        };
        assert_eq!(names.get("a"), None);
        for (name, image) in [("a", "1"), ("b", "1"), ("a", "2")] {
            names.put(&known(name, image)).expect("written");
        }
        assert_eq!(names.get("a"), Some(known("a", "2")));
        names.forget("1").expect("removed");
        assert_eq!(names.list(), [known("a", "2")]);
        assert_eq!(fs::read_dir(store.path().join(".names")).expect("folder").count(), 1);
        // If the file cannot be renamed to its final name, it does not remain under its temporary name.
        fs::create_dir(names.path("c")).expect("a folder");
        names.put(&known("c", "1")).expect_err("its place is taken");
        assert_eq!(fs::read_dir(store.path().join(".names")).expect("folder").count(), 2);
    }
}
