//! The folders of soaks that were killed, with what their processes have left.
//!
//! A soak holds the lock of its folder while it runs. It removes the folder at its end, or only the lock's file if the folder stays.
//! So a free lock is that of a soak that was killed, and a folder that a user has kept has no lock.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dayfly_fleet::history::History;
use dayfly_fleet::instance;
use dayfly_fleet::recovery::clear;
use dayfly_fleet::status::Status;

use super::mounts;

/// The folder of all soaks in a state folder.
pub(super) const FOLDER: &str = "soak";
/// The state folder of a soak's processes, in the folder of the soak.
pub(super) const STATE: &str = "state";
/// The file that is locked while a soak runs.
const LOCK: &str = "lock";

/// Creates and locks the file of a soak that begins. The lock ends with the process.
///
/// # Errors
/// It cannot be created, or another process has it.
pub(super) fn lock(folder: &Path) -> io::Result<File> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(folder.join(LOCK))?;
    file.try_lock().map_err(io::Error::from)?;
    Ok(file)
}

/// Removes the file of a soak whose folder stays.
pub(super) fn unlock(folder: &Path) -> io::Result<()> {
    fs::remove_file(folder.join(LOCK))
}

/// The folder of a soak that was killed. Nobody else removes it until this is dropped.
#[derive(Debug)]
pub(crate) struct LeftSoak {
    folder: PathBuf,
    _lock: File,
}

/// Returns the folders of soaks in a state folder that were killed.
///
/// # Errors
/// A folder cannot be read.
pub(crate) fn all(state: &Path) -> io::Result<Vec<LeftSoak>> {
    let entries = match fs::read_dir(state.join(FOLDER)) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut folders: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    folders.sort();
    folders.into_iter().filter_map(|folder| found(folder).transpose()).collect()
}

fn found(folder: PathBuf) -> io::Result<Option<LeftSoak>> {
    let lock = match File::open(folder.join(LOCK)) {
        Ok(lock) => lock,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    match lock.try_lock() {
        Ok(()) => Ok(Some(LeftSoak { folder, _lock: lock })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl LeftSoak {
    /// Returns the folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the name of the folder: the seed and the process of the soak.
    pub(crate) fn name(&self) -> String {
        self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Removes the machines that the soak's processes have left, and the folder. Their jobs are those of a lab that died with the
    /// soak, so that nobody waits for them.
    ///
    /// # Errors
    /// A process of the soak lives, or something cannot be removed. The reason is in words.
    pub(crate) async fn remove(self) -> Result<(), String> {
        let state = self.folder.join(STATE);
        let living: Vec<String> = instance::all(&state)
            .map_err(|error| error.to_string())?
            .iter()
            .filter(|seen| seen.alive)
            .map(|seen| {
                Status::read(&seen.folder)
                    .ok()
                    .flatten()
                    .map_or("?".to_owned(), |status| status.pid.to_string())
            })
            .collect();
        if !living.is_empty() {
            return Err(format!("processes of the soak live: end them with kill {}", living.join(" ")));
        }
        for abandoned in instance::abandoned(&state).map_err(|error| error.to_string())? {
            let clearing = clear(abandoned, (&[], &History::of(&state)), true).await;
            let clearing = clearing.map_err(|error| error.to_string())?;
            if let Some(kept) = clearing.kept.first() {
                return Err(format!("{}: {}", kept.folder.display(), kept.why));
            }
        }
        // It was a disk that could be made full.
        mounts::remove_disk(&state).map_err(|error| format!("its disk cannot be removed: {error}"))?;
        fs::remove_dir_all(&self.folder).map_err(|error| format!("it cannot be removed: {error}"))?;
        if let Some(all) = self.folder.parent() {
            // Another soak may have its folder there.
            let _ = fs::remove_dir(all);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a state folder with the folders of some soaks.
    fn state(soaks: &[&str]) -> tempfile::TempDir {
        let state = tempfile::tempdir().expect("folder");
        for name in soaks {
            fs::create_dir_all(state.path().join(FOLDER).join(name).join(STATE)).expect("a soak");
        }
        state
    }

    fn names(state: &Path) -> Vec<String> {
        all(state).expect("read").iter().map(LeftSoak::name).collect()
    }

    #[tokio::test]
    async fn only_the_folder_of_a_soak_that_was_killed_is_left_and_removed() {
        let state = state(&["1-10", "2-20", "3-30"]);
        let folder = |name: &str| state.path().join(FOLDER).join(name);
        let running = lock(&folder("1-10")).expect("locked");
        drop(lock(&folder("2-20")).expect("locked"));
        drop(lock(&folder("3-30")).expect("locked"));
        unlock(&folder("3-30")).expect("its user keeps it");
        assert_eq!(names(state.path()), ["2-20"]);
        let left = all(state.path()).expect("read").remove(0);
        assert_eq!(names(state.path()), [""; 0], "one process at a time removes it");
        left.remove().await.expect("removed");
        assert_eq!(
            (folder("1-10").exists(), folder("2-20").exists(), folder("3-30").exists()),
            (true, false, true)
        );
        drop(running);
        assert_eq!(names(state.path()), ["1-10"]);
    }

    #[tokio::test]
    async fn a_soak_whose_processes_live_stays_and_names_them() {
        let state = state(&["1-10"]);
        let folder = state.path().join(FOLDER).join("1-10");
        drop(lock(&folder).expect("locked"));
        let alive = instance::Instance::create(&folder.join(STATE), Vec::new()).expect("an instance");
        Status::begin().write(alive.folder()).expect("a status");
        let left = all(state.path()).expect("read").remove(0);
        let why = left.remove().await.expect_err("it stays");
        assert_eq!(why, format!("processes of the soak live: end them with kill {}", std::process::id()));
        drop(alive);
        all(state.path()).expect("read").remove(0).remove().await.expect("removed");
        assert!(!state.path().join(FOLDER).exists());
    }

    #[test]
    fn a_state_folder_without_soaks_has_none_left() {
        assert_eq!(names(tempfile::tempdir().expect("folder").path()), [""; 0]);
    }
}
