//! The record of a machine's group in its run folder. It is written before the group is created, and removed last.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dayfly_host::file;
use serde::{Deserialize, Serialize};

use super::PREFIX;
use super::group::{Group, GroupFolder};
use crate::machine::LeftoverError;
use crate::machine::record::boot_id;

/// Name of the record.
const RECORD: &str = "cgroup.json";

/// The folders of a machine's group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GroupRecord {
    /// Id of the host's boot. No group outlives it.
    boot_id: String,
    folders: Vec<GroupFolder>,
}

impl GroupRecord {
    pub(super) fn of(folders: Vec<GroupFolder>) -> io::Result<Self> {
        Ok(Self { boot_id: boot_id()?, folders })
    }

    /// Writes the record; a failure leaves no partial one.
    pub(super) fn write(&self, run_dir: &Path) -> io::Result<()> {
        // Not flushed: a power cut that loses it takes the group along.
        file::replace(&run_dir.join(RECORD), &serde_json::to_vec(self)?)
    }

    /// Returns the folders of the group if they are of this boot.
    fn into_folders(self) -> io::Result<Vec<GroupFolder>> {
        // A folder with another name was not created by dayfly, so the record is not believed.
        let is_ours = |folder: &GroupFolder| {
            folder.path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
        };
        let is_of_this_boot = self.boot_id == boot_id()?;
        Ok(if is_of_this_boot { self.folders.into_iter().filter(is_ours).collect() } else { Vec::new() })
    }
}

/// Returns the folders of the group of a run folder; none if it has no record that can be read.
pub(super) fn folders_of(run_dir: &Path) -> Vec<GroupFolder> {
    let read = || -> io::Result<Vec<GroupFolder>> {
        serde_json::from_slice::<GroupRecord>(&fs::read(run_dir.join(RECORD))?)?.into_folders()
    };
    read().unwrap_or_default()
}

/// Returns the group of a machine that is taken over; none if it has none.
pub(crate) fn find(run_dir: &Path) -> Option<Group> {
    let folders = folders_of(run_dir);
    (!folders.is_empty()).then(|| Group::found(folders))
}

/// Kills what is left in the group of a run folder, and removes the group and its record. Does nothing if there is no
/// record. Returns the path of a damaged record, which is removed: no group outlives the boot whose end damages
/// records. Blocks until the killed processes have exited.
///
/// # Errors
/// The record cannot be read, a process does not exit, or the kernel refuses. The record stays then.
pub(crate) fn remove(run_dir: &Path) -> Result<Option<PathBuf>, LeftoverError> {
    let path = run_dir.join(RECORD);
    let failed = |what| {
        let path = path.clone();
        move |source| LeftoverError::Io { what, path, source }
    };
    let content = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        content => content.map_err(failed("read"))?,
    };
    let record = serde_json::from_slice::<GroupRecord>(&content).ok();
    let damaged = record.is_none().then(|| path.clone());
    if let Some(record) = record {
        let folders = record.into_folders().map_err(failed("use"))?;
        Group::found(folders).remove().map_err(failed("remove the control group of"))?;
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove")(error)),
        _ => Ok(damaged),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Version;
    use super::*;

    fn record(boot_id: &str, path: PathBuf) -> GroupRecord {
        let folder = GroupFolder { version: Version::V2, path, has_memory: true };
        GroupRecord { boot_id: boot_id.to_owned(), folders: vec![folder] }
    }

    #[test]
    fn a_record_of_another_boot_or_with_a_foreign_folder_leads_to_nothing() {
        let (run, groups) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        let ours = groups.path().join(format!("{PREFIX}x"));
        let foreign = groups.path().join("system.slice");
        for folder in [&ours, &foreign] {
            fs::create_dir(folder).expect("a folder");
        }
        let boot = boot_id().expect("an id");
        for record in [record("another", ours.clone()), record(&boot, foreign.clone())] {
            record.write(run.path()).expect("written");
            assert!(find(run.path()).is_none(), "{record:?}");
            assert_eq!(remove(run.path()).expect("removed"), None);
            assert!(ours.exists() && foreign.exists() && !run.path().join(RECORD).exists());
        }
        record(&boot, ours.clone()).write(run.path()).expect("written");
        assert_eq!(remove(run.path()).expect("removed"), None);
        assert!(!ours.exists() && foreign.exists());
    }

    #[test]
    fn a_damaged_record_is_removed_and_told_and_a_missing_one_is_no_error() {
        let run = tempfile::tempdir().expect("folder");
        assert_eq!(remove(run.path()).expect("nothing"), None);
        for content in ["", "{\"boot_id\":\"", "\0\0"] {
            fs::write(run.path().join(RECORD), content).expect("a record");
            assert!(find(run.path()).is_none());
            assert_eq!(remove(run.path()).expect("removed"), Some(run.path().join(RECORD)), "{content:?}");
            assert_eq!(fs::read_dir(run.path()).expect("read").count(), 0);
        }
    }
}
