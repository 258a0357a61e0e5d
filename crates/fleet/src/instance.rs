//! An instance: one process that runs loops, and its locked folder `instances/<random>/`.
//!
//! ```text
//!   instances/<random>/
//!     lock            held (flock) as long as the process lives
//!     instance.json   whom it serves: forge, scope, prefix
//!     status.json     what its loops do, for `dayfly ps` ([`crate::status`])
//!     environment/    one folder per loop: the handshake with the entrypoints
//!     runs/<id>/      one folder per runner: journal, and vm/ with all of its machine: sockets, disk, console log
//!     spares/<id>/    one folder per spare machine; it becomes the vm/ of a run
//!     lab/            data of a lab that lives and dies with this process (`dayfly demo`)
//! ```
//!
//! A lock that is free belongs to a process that is gone, however it went: [`crate::recovery`] then clears up.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_forge::RunnerScope;
use dayfly_host::file;
use rand::RngExt as _;
use rand::distr::Alphanumeric;
use serde::{Deserialize, Serialize};

/// Folder of all instances under the state folder.
pub const FOLDER: &str = "instances";

/// Folder of the spare machines of an instance.
const SPARES: &str = "spares";

/// How long a process may take from making its folder to making the lock in it.
const STARTING_MAX: Duration = Duration::from_secs(60);

/// Whom an instance serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serves {
    /// Base URL of the forge's API.
    pub forge: String,
    /// Where its runners belong.
    pub scope: RunnerScope,
    /// Prefix of the names of VMs and registrations.
    pub prefix: String,
    /// The forge is a lab inside this very process: when it is gone, so is every registration.
    pub private_lab: bool,
}

/// A folder of an instance that cannot be made, locked, read or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}", path.display())]
pub struct InstanceError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstanceError {
    let path = path.to_owned();
    move |source| InstanceError { what, path, source }
}

/// This process's instance. Dropping it frees the lock; [`Instance::remove`] removes the folder.
#[derive(Debug)]
pub struct Instance {
    folder: PathBuf,
    serves: Serves,
    _lock: File,
}

impl Instance {
    /// Makes a new instance folder under `state`, mode 0700, and locks it.
    ///
    /// # Errors
    /// The folder cannot be made: no space, no rights.
    pub fn create(state: &Path, serves: Serves) -> Result<Self, InstanceError> {
        let all = state.join(FOLDER);
        private_folder(&all)?;
        let random: String = rand::rng().sample_iter(Alphanumeric).take(8).map(char::from).collect();
        let folder = all.join(random);
        private_folder(&folder)?;
        let path = folder.join("lock");
        let lock = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("make", &path))?;
        lock.lock().map_err(failed("lock", &path))?;
        let instance = Self { folder, serves, _lock: lock };
        instance.write_record()?;
        private_folder(&instance.runs())?;
        private_folder(&instance.environment())?;
        Ok(instance)
    }

    /// Tells whom it serves where that is known only after the folder is there (a private lab's address).
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn serve(&mut self, serves: Serves) -> Result<(), InstanceError> {
        self.serves = serves;
        self.write_record()
    }

    fn write_record(&self) -> Result<(), InstanceError> {
        let path = self.folder.join("instance.json");
        let text = serde_json::to_vec_pretty(&self.serves)
            .map_err(io::Error::from)
            .map_err(failed("write", &path))?;
        file::replace_durably(&path, &text).map_err(failed("write", &path))
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whom it serves.
    pub fn serves(&self) -> &Serves {
        &self.serves
    }

    /// Where the folders of its runs are.
    pub fn runs(&self) -> PathBuf {
        self.folder.join("runs")
    }

    /// The common environment directory of its loops.
    pub fn environment(&self) -> PathBuf {
        self.folder.join("environment")
    }

    /// Where the folders of its spare machines are.
    pub fn spares(&self) -> PathBuf {
        self.folder.join(SPARES)
    }

    /// Where the data of a private lab is.
    pub fn lab(&self) -> PathBuf {
        self.folder.join("lab")
    }

    /// Removes the folder if no run is left in it; one with runs stays for [`crate::recovery`].
    /// Returns whether it is gone.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn remove(self) -> Result<bool, InstanceError> {
        remove_if_no_runs(&self.folder)
    }
}

/// An instance whose process is gone. Holding it holds its lock, so that nobody else clears it up as well.
#[derive(Debug)]
pub struct Abandoned {
    /// Its folder.
    pub folder: PathBuf,
    /// Whom it served; none where the process died before it was written.
    pub serves: Option<Serves>,
    _lock: File,
}

impl Abandoned {
    /// The folders of the runs that it left.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn runs(&self) -> Result<Vec<PathBuf>, InstanceError> {
        folders_in(&self.folder.join("runs"))
    }

    /// The folders of the spare machines that it left.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn spares(&self) -> Result<Vec<PathBuf>, InstanceError> {
        folders_in(&self.folder.join(SPARES))
    }

    /// Removes the folder if no run is left in it. Returns whether it is gone.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn remove(self) -> Result<bool, InstanceError> {
        remove_if_no_runs(&self.folder)
    }
}

/// An instance, seen from outside.
#[derive(Debug)]
pub struct Seen {
    /// Its folder.
    pub folder: PathBuf,
    /// Whom it serves; none where that cannot be read.
    pub serves: Option<Serves>,
    /// Its process lives.
    pub alive: bool,
}

/// All instances under `state`, to look at.
///
/// # Errors
/// The folder cannot be read.
pub fn all(state: &Path) -> Result<Vec<Seen>, InstanceError> {
    let mut found = Vec::new();
    for folder in folders_in(&state.join(FOLDER))? {
        let Ok(lock) = File::open(folder.join("lock")) else { continue };
        // A shared lock, and only for a moment: two that look at once do not take each other for the instance.
        let alive = matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock));
        found.push(Seen { serves: read_record(&folder), folder, alive });
    }
    Ok(found)
}

fn read_record(folder: &Path) -> Option<Serves> {
    serde_json::from_slice(&fs::read(folder.join("instance.json")).ok()?).ok()
}

/// All instances under `state` whose process is gone; their locks are held by what is returned.
///
/// # Errors
/// The folder cannot be read.
pub fn abandoned(state: &Path) -> Result<Vec<Abandoned>, InstanceError> {
    let mut found = Vec::new();
    for folder in folders_in(&state.join(FOLDER))? {
        let path = folder.join("lock");
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            // Between making the folder and its lock: either a process that is starting, or one that died there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if is_older_than(&folder, STARTING_MAX) {
                    // Only an empty one: whatever else may be in it is not ours.
                    let _ = fs::remove_dir(&folder);
                }
                continue;
            }
            Err(source) => return Err(InstanceError { what: "open", path, source }),
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(source)) => return Err(InstanceError { what: "lock", path, source }),
        }
        found.push(Abandoned { serves: read_record(&folder), folder, _lock: lock });
    }
    Ok(found)
}

fn is_older_than(folder: &Path, age: Duration) -> bool {
    let changed = fs::metadata(folder).and_then(|metadata| metadata.modified());
    changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|since| since > age))
}

/// Folder of a run's machine: of its own, so that a spare becomes one by a rename.
pub(crate) fn machine_of(run: &Path) -> PathBuf {
    run.join("vm")
}

/// Makes a folder and its parents, mode 0700; one that is there already is left as it is.
pub(crate) fn private_folder(path: &Path) -> Result<(), InstanceError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make the folder", path))
}

pub(crate) fn folders_in(path: &Path) -> Result<Vec<PathBuf>, InstanceError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(InstanceError { what: "read", path: path.to_owned(), source }),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("read", path))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders)
}

fn remove_if_no_runs(folder: &Path) -> Result<bool, InstanceError> {
    if !folders_in(&folder.join("runs"))?.is_empty() || !folders_in(&folder.join(SPARES))?.is_empty() {
        return Ok(false);
    }
    fs::remove_dir_all(folder).map_err(failed("remove", folder))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serves() -> Serves {
        let scope = RunnerScope::Organization("o".into());
        Serves { forge: "http://f".into(), scope, prefix: "p".into(), private_lab: false }
    }

    #[test]
    fn an_instance_whose_process_lives_is_not_abandoned() {
        let state = tempfile::tempdir().expect("folder");
        let instance = Instance::create(state.path(), serves()).expect("create");
        assert!(abandoned(state.path()).expect("read").is_empty());
        drop(instance);
        let left = abandoned(state.path()).expect("read");
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].serves, Some(serves()));
        // While one clears up, another sees nothing to do.
        assert!(abandoned(state.path()).expect("read").is_empty());
    }

    #[test]
    fn a_folder_with_a_run_in_it_stays() {
        let state = tempfile::tempdir().expect("folder");
        let instance = Instance::create(state.path(), serves()).expect("create");
        let run = instance.runs().join("0-aaaaaaa");
        private_folder(&run).expect("run");
        assert!(!instance.remove().expect("remove"));
        fs::remove_dir(&run).expect("run gone");
        for left in abandoned(state.path()).expect("read") {
            assert!(left.remove().expect("remove"));
        }
        assert_eq!(fs::read_dir(state.path().join(FOLDER)).expect("read").count(), 0);
    }

    #[test]
    fn a_folder_whose_maker_died_before_the_lock_goes_after_a_while() {
        let state = tempfile::tempdir().expect("folder");
        let (old, new) = (state.path().join(FOLDER).join("old"), state.path().join(FOLDER).join("new"));
        for folder in [&old, &new] {
            private_folder(folder).expect("folder");
        }
        let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
        File::open(&old).and_then(|folder| folder.set_modified(hour_ago)).expect("age");
        assert!(abandoned(state.path()).expect("read").is_empty());
        assert!(!old.exists() && new.exists());
    }

    #[test]
    fn folders_are_closed_to_others() {
        use std::os::unix::fs::PermissionsExt as _;
        let state = tempfile::tempdir().expect("folder");
        let instance = Instance::create(state.path(), serves()).expect("create");
        for folder in [instance.folder().to_owned(), instance.environment(), instance.runs()] {
            assert_eq!(fs::metadata(&folder).expect("there").permissions().mode() & 0o777, 0o700);
        }
    }
}
