//! An instance: one process that runs loops, and its locked folder `instances/<random>/`.
//!
//! ```text
//!   instances/<random>/
//!     lock            held (flock) as long as the process lives
//!     instance.json   the forge, the scope and the prefix of each pool that it serves
//!     taken-over      there if its process has died, and another one goes on with its runs and holds its lock
//!     control.sock    requests to an orchestrator
//!     status.json     state of its loops, for `dayfly ps` ([`crate::status`])
//!     environment/    one folder per loop: the handshake with the entrypoints
//!     reserve         space that ends of runners may use on a full disk
//!     sessions/       the sessions of its scale sets, for the process after it
//!     runs/<id>/      one folder per runner: journal, and vm/ with the machine's sockets, disk and console log
//!     spares/<id>/    one folder per spare machine; it becomes the vm/ of a run
//!     lab/            data of a lab that lives only as long as this process (`dayfly demo`)
//! ```
//!
//! If the lock is free, the process has exited, normally or by a crash, and [`crate::recovery`] cleans up.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_forge::{Forge, RunnerScope};
use dayfly_host::file;
use dayfly_host::reserve::Reserve;
use rand::RngExt as _;
use rand::distr::Alphanumeric;
use serde::{Deserialize, Serialize};

use crate::pool::PoolSpec;
use crate::runner_id::RunnerId;

/// Folder of all instances, under the state folder.
pub const FOLDER: &str = "instances";

/// Folder of the spare machines of an instance.
pub(crate) const SPARES: &str = "spares";
/// Folder of the data of a private lab.
const LAB: &str = "lab";
/// Folder of the notes of scale sets' sessions.
pub(crate) const SESSIONS: &str = "sessions";
/// The lock, and its name until it is held.
const LOCK: &str = "lock";
const NEW_LOCK: &str = "lock.new";
/// The record of what the instance serves.
pub(crate) const RECORD: &str = "instance.json";
/// The reserve of space.
const RESERVE: &str = "reserve";
/// Marks an instance whose runs belong to the instance of another process, which holds its lock.
const TAKEN_OVER: &str = "taken-over";

/// Longest time that a process may take between the creation of its folder and of the lock in it.
const STARTING_MAX: Duration = Duration::from_secs(60);

/// Number of attempts to lock what only readers hold, and the pause after each.
const READERS_PATIENCE: (u32, Duration) = (20, Duration::from_millis(5));

/// The forge and the scope of a pool that an instance serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serves {
    /// Name of the pool; none for a pool of a command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Base URL of the forge's API.
    pub forge: String,
    /// Scope of its runners.
    pub scope: RunnerScope,
    /// Prefix of the names of VMs and registrations.
    pub prefix: String,
    /// True if the forge is a lab inside this process, so that all registrations vanish with the process.
    pub private_lab: bool,
    /// Labels of its runners; none if they follow each job, or if an earlier version wrote the record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

impl Serves {
    /// Returns the record for a pool.
    pub fn of(pool: &PoolSpec, forge: &Forge) -> Self {
        Self {
            pool: pool.name.clone(),
            forge: forge.base().url().to_string(),
            scope: pool.scope.clone(),
            prefix: pool.prefix.clone(),
            private_lab: false,
            labels: Vec::new(),
        }
    }

    /// Returns true if `other` is the same pool after a reload, which may have changed its labels.
    pub fn is_replaced_by(&self, other: &Self) -> bool {
        self.pool == other.pool && self.private_lab == other.private_lab && self.is_same_place(other)
    }

    /// Returns true if both have their registrations in the same place, whatever the pools are called.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        self.forge == other.forge && self.scope == other.scope && self.prefix == other.prefix
    }
}

/// The error of an instance's folder that cannot be created, locked, read or removed.
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
    serves: Vec<Serves>,
    _lock: File,
}

impl Instance {
    /// Creates a new instance folder under `state`, mode 0700, and locks it.
    ///
    /// # Errors
    /// The folder cannot be created, e.g. because there is no space or no permission.
    pub fn create(state: &Path, serves: Vec<Serves>) -> Result<Self, InstanceError> {
        let all = state.join(FOLDER);
        private_folder(&all)?;
        let random: String = rand::rng().sample_iter(Alphanumeric).take(8).map(char::from).collect();
        let folder = all.join(random);
        private_folder(&folder)?;
        let lock = new_lock(&folder)?;
        let instance = Self { folder, serves, _lock: lock };
        instance.write_record()?;
        private_folder(&instance.runs())?;
        private_folder(&instance.environment())?;
        private_folder(&instance.sessions())?;
        Ok(instance)
    }

    /// Replaces the record of the forges and scopes that the instance serves. The address of a private lab is known only
    /// after the folder exists.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn serve(&mut self, serves: Vec<Serves>) -> Result<(), InstanceError> {
        self.serves = serves;
        self.write_record()
    }

    fn write_record(&self) -> Result<(), InstanceError> {
        let path = self.folder.join(RECORD);
        let text = serde_json::to_vec_pretty(&self.serves)
            .map_err(io::Error::from)
            .map_err(failed("write", &path))?;
        file::replace_durably(&path, &text).map_err(failed("write", &path))
    }

    /// Returns the instance's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the forges and scopes that the instance serves.
    pub fn serves(&self) -> &[Serves] {
        &self.serves
    }

    /// Returns the folder that contains the folders of its runs.
    pub fn runs(&self) -> PathBuf {
        self.folder.join("runs")
    }

    /// Returns the common environment directory of its loops.
    pub fn environment(&self) -> PathBuf {
        self.folder.join("environment")
    }

    /// Returns the folder of the notes of its scale sets' sessions.
    pub fn sessions(&self) -> PathBuf {
        self.folder.join(SESSIONS)
    }

    /// Returns the folder that contains the folders of its spare machines.
    pub fn spares(&self) -> PathBuf {
        self.folder.join(SPARES)
    }

    /// Returns the folder for the data of a private lab.
    pub fn lab(&self) -> PathBuf {
        self.folder.join(LAB)
    }

    /// Removes the folder if it contains no run and no spare machine; otherwise it stays for [`crate::recovery`].
    /// Returns true if the folder was removed.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn remove(self) -> Result<bool, InstanceError> {
        remove_if_no_runs(&self.folder)
    }
}

/// An instance whose process has exited. This value holds the instance's lock, so that no other process cleans it up too.
#[derive(Debug)]
pub struct Abandoned {
    /// The instance's folder.
    pub folder: PathBuf,
    /// The forges and scopes that it served.
    pub served: Served,
    _lock: File,
}

/// The forges and scopes that an instance served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Served {
    /// These.
    Known(Vec<Serves>),
    /// The process died before it wrote the record, so it has no run.
    Nothing,
    /// The record is damaged, as after a power cut.
    Unreadable,
}

impl Abandoned {
    /// Returns the folders of the runs that the process left behind.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn runs(&self) -> Result<Vec<PathBuf>, InstanceError> {
        folders_in(&self.folder.join("runs"))
    }

    /// Hides the instance from [`all`] as long as its lock is held, because its runs are shown by the process that goes on with
    /// them.
    pub(crate) fn hide(&self) {
        // If that fails, the instance is shown with the last state of its loops.
        let _ = fs::write(self.folder.join(TAKEN_OVER), "");
    }

    /// Returns the path of the instance's record.
    pub(crate) fn record(&self) -> PathBuf {
        self.folder.join(RECORD)
    }

    /// Returns true if the forge was a lab inside the process, so that all registrations vanished with it.
    pub(crate) fn is_of_private_lab(&self) -> bool {
        match &self.served {
            Served::Known(serves) => serves.iter().any(|serves| serves.private_lab),
            Served::Nothing => false,
            // Only such a lab has its data in the instance.
            Served::Unreadable => self.folder.join(LAB).is_dir(),
        }
    }

    /// Returns the folders of the spare machines that the process left behind.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn spares(&self) -> Result<Vec<PathBuf>, InstanceError> {
        folders_in(&self.folder.join(SPARES))
    }

    /// Removes the folder if it contains no run and no spare machine. Returns true if the folder was removed.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn remove(self) -> Result<bool, InstanceError> {
        remove_if_no_runs(&self.folder)
    }
}

/// An instance, as another process sees it.
#[derive(Debug)]
pub struct InstanceInfo {
    /// The instance's folder.
    pub folder: PathBuf,
    /// The forges and scopes that it serves; none if the record cannot be read.
    pub serves: Vec<Serves>,
    /// True if the instance's process lives.
    pub alive: bool,
}

/// Returns all instances under `state` without locking them.
///
/// # Errors
/// The folder cannot be read.
pub fn all(state: &Path) -> Result<Vec<InstanceInfo>, InstanceError> {
    let mut found = Vec::new();
    for folder in folders_in(&state.join(FOLDER))? {
        let Ok(lock) = File::open(folder.join(LOCK)) else { continue };
        // The lock is shared and held only for a moment, so that two readers do not mistake each other for the instance.
        let alive = matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock));
        drop(lock);
        if alive && folder.join(TAKEN_OVER).exists() {
            continue;
        }
        let serves = match read_record(&folder) {
            Ok(Served::Known(serves)) => serves,
            Ok(Served::Nothing | Served::Unreadable) | Err(_) => Vec::new(),
        };
        found.push(InstanceInfo { serves, folder, alive });
    }
    Ok(found)
}

/// The content of [`RECORD`]. Versions with one pool for each instance wrote that pool alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Record {
    Pools(Vec<Serves>),
    Pool(Serves),
}

impl From<Record> for Vec<Serves> {
    fn from(record: Record) -> Self {
        match record {
            Record::Pools(pools) => pools,
            Record::Pool(pool) => vec![pool],
        }
    }
}

fn read_record(folder: &Path) -> Result<Served, InstanceError> {
    let path = folder.join(RECORD);
    match fs::read(&path) {
        Ok(text) => Ok(serde_json::from_slice::<Record>(&text)
            .map_or(Served::Unreadable, |record| Served::Known(record.into()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Served::Nothing),
        Err(source) => Err(InstanceError { what: "read", path, source }),
    }
}

/// Returns all instances under `state` whose process has exited. The returned values hold their locks.
///
/// # Errors
/// The folder cannot be read.
pub fn abandoned(state: &Path) -> Result<Vec<Abandoned>, InstanceError> {
    let mut found = Vec::new();
    for folder in folders_in(&state.join(FOLDER))? {
        let path = folder.join(LOCK);
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            // There is a folder but no lock yet: its process is starting, or died between the two.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !is_older_than(&folder, STARTING_MAX) {
                    continue;
                }
                let _ = fs::remove_file(folder.join(NEW_LOCK));
                if fs::remove_dir(&folder).is_ok() || !folder.join("runs").is_dir() {
                    // Other contents than an instance's are not dayfly's.
                    continue;
                }
                // A disk has lost the lock, and no process holds what has no name.
                found.push(Abandoned { served: read_record(&folder)?, _lock: new_lock(&folder)?, folder });
                continue;
            }
            Err(source) => return Err(InstanceError { what: "open", path, source }),
        };
        if lock_dead(&lock).map_err(failed("lock", &path))? {
            found.push(Abandoned { served: read_record(&folder)?, folder, _lock: lock });
        }
    }
    Ok(found)
}

/// Locks the lock of an instance, unless the instance or another process that sweeps holds it. Readers ([`all`]) hold it for a moment;
/// they are waited for, so that they do not keep a dead instance from being swept.
fn lock_dead(lock: &File) -> io::Result<bool> {
    for _ in 0..READERS_PATIENCE.0 {
        match lock.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => {}
        }
        // Shared with readers, never with an instance.
        match lock.try_lock_shared() {
            Ok(()) => lock.unlock()?,
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => return Ok(false),
        }
        std::thread::sleep(READERS_PATIENCE.1);
    }
    Ok(false)
}

fn is_older_than(folder: &Path, age: Duration) -> bool {
    let changed = fs::metadata(folder).and_then(|metadata| metadata.modified());
    changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|since| since > age))
}

/// Creates the lock of an instance. It gets its name once it is held, so that a process which looks for abandoned instances
/// never takes it before its instance does.
fn new_lock(folder: &Path) -> Result<File, InstanceError> {
    let (new, path) = (folder.join(NEW_LOCK), folder.join(LOCK));
    let lock = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(failed("make", &new))?;
    lock.lock().map_err(failed("lock", &new))?;
    fs::rename(&new, &path).map_err(failed("name", &path))?;
    Ok(lock)
}

/// Returns the reserve of space of an instance, by its folder of runs. If the disk is full when a runner ends, the reserve is
/// removed, so that the journal can be written; the runner's scratch disk then frees more. Nothing depends on it: without a
/// journal a runner is removed as well.
pub(crate) fn reserve_of(runs: &Path) -> Reserve {
    Reserve::at(runs.with_file_name(RESERVE))
}

/// Returns the folder of the machine of a runner that has not ended, whether or not the process that owns it lives.
///
/// # Errors
/// The folder of instances cannot be read.
pub fn machine_of_runner(state: &Path, id: &RunnerId) -> Result<Option<PathBuf>, InstanceError> {
    let instances = folders_in(&state.join(FOLDER))?;
    let mut machines = instances.iter().map(|folder| machine_of(&folder.join("runs").join(id.as_str())));
    Ok(machines.find(|machine| machine.is_dir()))
}

/// Returns the folder of a run's machine. It is a separate folder, so that a rename makes a spare's folder the machine's.
pub(crate) fn machine_of(run: &Path) -> PathBuf {
    run.join("vm")
}

/// Creates a folder and its parents, mode 0700. Leaves an existing folder unchanged.
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
    for path in removal_order(folder)? {
        let is_folder = fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
        let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        unless_missing(removed).map_err(failed("remove", &path))?;
    }
    // Another process may just have found the empty folder.
    unless_missing(fs::remove_dir(folder)).map_err(failed("remove", folder))?;
    Ok(true)
}

/// Takes the removal of something that is not there as done.
fn unless_missing(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Returns the entries of an instance's folder with the lock last. A process that is killed while it removes them so leaves a
/// folder with a lock that is free, which the next start removes. It never touches a folder that has entries and no lock.
fn removal_order(folder: &Path) -> Result<Vec<PathBuf>, InstanceError> {
    let entries = fs::read_dir(folder).map_err(failed("read", folder))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort_by_key(|path| path.file_name().is_some_and(|name| name == LOCK));
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serves() -> Serves {
        let scope = RunnerScope::Organization("o".into());
        Serves {
            pool: None,
            forge: "http://f".into(),
            scope,
            prefix: "p".into(),
            private_lab: false,
            labels: Vec::new(),
        }
    }

    #[test]
    fn an_instance_whose_process_lives_is_not_abandoned() {
        let state = tempfile::tempdir().expect("folder");
        let instance = Instance::create(state.path(), vec![serves()]).expect("create");
        assert!(abandoned(state.path()).expect("read").is_empty());
        drop(instance);
        let left = abandoned(state.path()).expect("read");
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].served, Served::Known(vec![serves()]));
        // While one process cleans up, another one finds nothing to do.
        assert!(abandoned(state.path()).expect("read").is_empty());
    }

    #[test]
    fn a_reader_does_not_keep_a_dead_instance_from_being_swept() {
        let state = tempfile::tempdir().expect("folder");
        let instance = Instance::create(state.path(), vec![serves()]).expect("create");
        let reader = File::open(instance.folder().join(LOCK)).expect("a lock");
        drop(instance);
        reader.lock_shared().expect("shared");
        let left = std::thread::scope(|scope| {
            let sweep = scope.spawn(|| abandoned(state.path()).expect("read"));
            std::thread::sleep(READERS_PATIENCE.1);
            reader.unlock().expect("unlocked");
            sweep.join().expect("no panic")
        });
        assert_eq!(left.len(), 1);
    }

    #[test]
    fn a_removal_that_was_cut_is_finished_by_the_next_start() {
        let state = tempfile::tempdir().expect("folder");
        let instance = Instance::create(state.path(), vec![serves()]).expect("create");
        let folder = instance.folder().to_owned();
        let order = removal_order(&folder).expect("read");
        assert!(order.len() > 2 && order.last() == Some(&folder.join(LOCK)), "{order:?}");
        drop(instance);
        for kept in (1..order.len()).rev() {
            let path = &order[order.len() - 1 - kept];
            let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            removed.expect("removed");
            assert_eq!(abandoned(state.path()).expect("read").len(), 1, "without {}", path.display());
        }
        let left = abandoned(state.path()).expect("read").remove(0);
        assert!(left.runs().expect("read").is_empty() && left.spares().expect("read").is_empty());
        assert!(left.remove().expect("removed") && !folder.exists());
    }

    #[test]
    fn the_record_of_a_version_with_one_pool_is_read() {
        let state = tempfile::tempdir().expect("folder");
        let instance = Instance::create(state.path(), vec![serves()]).expect("create");
        fs::write(instance.folder().join(RECORD), serde_json::to_vec(&serves()).expect("json")).expect("old");
        drop(instance);
        assert_eq!(abandoned(state.path()).expect("read")[0].served, Served::Known(vec![serves()]));
    }

    #[test]
    fn a_folder_with_a_run_in_it_stays() {
        let state = tempfile::tempdir().expect("folder");
        let instance = Instance::create(state.path(), vec![serves()]).expect("create");
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
    fn an_instance_whose_lock_the_disk_has_lost_is_abandoned_after_a_while() {
        let state = tempfile::tempdir().expect("folder");
        let instance = Instance::create(state.path(), vec![serves()]).expect("create");
        let folder = instance.folder().to_owned();
        drop(instance);
        fs::remove_file(folder.join(LOCK)).expect("lost");
        assert!(abandoned(state.path()).expect("read").is_empty(), "it may be starting");
        let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
        File::open(&folder).and_then(|folder| folder.set_modified(hour_ago)).expect("age");
        let left = abandoned(state.path()).expect("read");
        assert_eq!(left.iter().map(|left| left.folder.clone()).collect::<Vec<_>>(), [folder]);
        assert!(abandoned(state.path()).expect("read").is_empty(), "its lock is held");
    }

    #[test]
    fn an_instance_that_is_starting_is_never_taken_for_an_abandoned_one() {
        let state = tempfile::tempdir().expect("folder");
        let is_done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let looker = scope.spawn(|| {
                let mut found = Vec::new();
                while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                    found
                        .extend(abandoned(state.path()).expect("read").into_iter().map(|found| found.folder));
                }
                found
            });
            // They live as long as this list.
            let all: Vec<_> = (0..300).map(|_| new_instance(state.path())).collect();
            is_done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(looker.join().expect("no panic"), Vec::<PathBuf>::new());
            drop(all);
        });
    }

    /// Creates the folder and the lock of an instance only.
    fn new_instance(state: &Path) -> File {
        let random: String = rand::rng().sample_iter(Alphanumeric).take(8).map(char::from).collect();
        let folder = state.join(FOLDER).join(random);
        private_folder(&folder).expect("folder");
        new_lock(&folder).expect("lock")
    }

    #[test]
    fn folders_are_closed_to_others() {
        use std::os::unix::fs::PermissionsExt as _;
        let state = tempfile::tempdir().expect("folder");
        let instance = Instance::create(state.path(), vec![serves()]).expect("create");
        for folder in [instance.folder().to_owned(), instance.environment(), instance.runs()] {
            assert_eq!(fs::metadata(&folder).expect("there").permissions().mode() & 0o777, 0o700);
        }
    }
}
