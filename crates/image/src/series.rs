//! Bundles (tools, kernels) that are built from the same inputs again and again, because the packages of Debian change.
//!
//! The first bundle of a series has the id of its inputs alone, and each later one also of its number. So two processes that
//! find the same bundle too old build the next one under the same lock.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::Deserialize;

use super::ImageError;
use super::error::failed;
use super::generations::inputs_of;
use super::in_use;
use super::store::{LOG, MANIFEST};
use dayfly_host::digest::{digest_of, id_of};

/// The bundles of the same inputs in a folder of the state.
#[derive(Debug)]
pub(super) struct Series {
    folder: PathBuf,
    recipe: String,
}

/// A bundle of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation {
    /// Its number, from 0.
    pub(super) number: u32,
    /// Time of its build, seconds since 1970-01-01 UTC.
    pub(super) created_s: i64,
}

/// The part of a bundle's manifest that a series needs.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    generation: u32,
    #[serde(default)]
    created_s: i64,
}

impl Series {
    /// Returns the series of these inputs in the folder `name` of a state folder.
    pub(super) fn new(state: &Path, name: &str, inputs: &[&str]) -> Self {
        Self { folder: state.join(name), recipe: digest_of(inputs) }
    }

    /// Returns the folder of its bundles.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the id of a bundle.
    pub(super) fn id(&self, generation: u32) -> String {
        id_of(&inputs_of(&self.recipe, generation))
    }

    /// Returns the newest complete bundle.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(super) fn newest(&self) -> Result<Option<Generation>, ImageError> {
        Ok(self.all()?.into_iter().max_by_key(|generation| generation.number))
    }

    /// Removes all bundles but the newest one, and those that a process reads.
    ///
    /// # Errors
    /// A file cannot be read or removed.
    pub(super) fn remove_older(&self) -> Result<(), ImageError> {
        let Some(newest) = self.newest()? else { return Ok(()) };
        for older in self.all()?.iter().filter(|generation| generation.number < newest.number) {
            in_use::remove_bundle(&self.folder, &self.id(older.number))?;
        }
        Ok(())
    }

    fn all(&self) -> Result<Vec<Generation>, ImageError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed("read", &self.folder))?,
        };
        Ok(entries.flatten().filter_map(|entry| self.generation_in(&entry.path())).collect())
    }

    /// Returns the bundle in a folder; none if it belongs to another series or cannot be read.
    fn generation_in(&self, folder: &Path) -> Option<Generation> {
        let head: Head = serde_json::from_slice(&fs::read(folder.join(MANIFEST)).ok()?).ok()?;
        if folder.file_name()?.to_str()? != self.id(head.generation) {
            return None;
        }
        Some(Generation { number: head.generation, created_s: created_s(folder, head.created_s) })
    }
}

/// Returns the time of a bundle's build, of which its manifest says `written`. Earlier versions wrote none; then it is that of
/// the log, which has not changed since the build.
pub(super) fn created_s(folder: &Path, written: i64) -> i64 {
    if written != 0 {
        return written;
    }
    let modified = fs::metadata(folder.join(LOG)).and_then(|log| log.modified()).ok();
    let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(series: &Series, generation: u32, manifest: &str) {
        let folder = series.folder().join(series.id(generation));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(LOG), "").expect("a log");
        fs::write(folder.join(MANIFEST), manifest).expect("a manifest");
    }

    #[test]
    fn the_newest_bundle_is_the_one_with_the_highest_number_whatever_the_clock_said() {
        let state = tempfile::tempdir().expect("a folder");
        let series = Series::new(state.path(), "tools", &["3", "trixie"]);
        assert_eq!(series.newest().expect("read"), None);
        put(&series, 1, r#"{"generation":1,"created_s":900}"#);
        put(&series, 2, r#"{"generation":2,"created_s":100}"#);
        assert_eq!(series.newest().expect("read"), Some(Generation { number: 2, created_s: 100 }));
        // Neither a bundle of other inputs nor one that is damaged or half built counts.
        let other = Series::new(state.path(), "tools", &["3", "bookworm"]);
        put(&other, 9, r#"{"generation":9,"created_s":1}"#);
        put(&series, 8, "{");
        fs::create_dir_all(series.folder().join(".build").join(series.id(3))).expect("a folder");
        assert_eq!(series.newest().expect("read").map(|newest| newest.number), Some(2));
    }

    #[test]
    fn a_bundle_of_an_earlier_version_is_the_first_and_as_old_as_its_log() {
        let state = tempfile::tempdir().expect("a folder");
        let series = Series::new(state.path(), "tools", &["3", "trixie"]);
        assert_eq!(series.id(0), id_of(&digest_of(&["3", "trixie"])));
        put(&series, 0, "{}");
        let log = fs::File::open(series.folder().join(series.id(0)).join(LOG)).expect("a log");
        log.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(77)).expect("set");
        assert_eq!(series.newest().expect("read"), Some(Generation { number: 0, created_s: 77 }));
    }

    #[test]
    fn older_bundles_go_unless_a_process_reads_them() {
        let state = tempfile::tempdir().expect("a folder");
        let series = Series::new(state.path(), "tools", &["3", "trixie"]);
        let manifests = [0, 1, 2].map(|number| format!(r#"{{"generation":{number},"created_s":5}}"#));
        for (number, manifest) in (0..).zip(&manifests) {
            put(&series, number, manifest);
        }
        let read = in_use::InUse::of(&series.folder().join(series.id(1))).expect("opened").expect("there");
        series.remove_older().expect("removed");
        let mut left: Vec<u32> = series.all().expect("read").iter().map(|bundle| bundle.number).collect();
        left.sort_unstable();
        assert_eq!(left, [1, 2]);
        drop(read);
        series.remove_older().expect("removed");
        assert_eq!(series.all().expect("read").len(), 1);
    }
}
