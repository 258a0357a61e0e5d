//! The kept machines on the disk: list, find, lock, remove.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::manifest::FORMAT;
use super::{BASE, DISK, KeptMaker, KeptManifest, LOCK, MACHINE, MANIFEST, ROOT, STATE};
use crate::machine::{LeftoverError, destroy_leftover};
use dayfly_host::clock::now_s;
use dayfly_host::space;
use dayfly_host::stage::{self, StageError};

/// Folder of all kept machines, under the state folder.
pub const FOLDER: &str = "kept";

/// Why kept machines could not be listed, locked or removed.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// A file cannot be used.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The attempted operation.
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A process uses the machine.
    #[error("the kept machine {0} is in use: it is thawed, or being removed")]
    InUse(String),
    /// A process that died has left a thawed machine, which cannot be removed.
    #[error(transparent)]
    Left(#[from] LeftoverError),
    /// A folder cannot be made or removed.
    #[error(transparent)]
    Stage(#[from] StageError),
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeptError {
    let path = path.to_owned();
    move |source| KeptError::Io { what, path, source }
}

/// A machine that is kept.
#[derive(Debug, Clone)]
pub struct KeptMachine {
    folder: PathBuf,
    manifest: KeptManifest,
}

/// A kept machine that no other process thaws or removes as long as this exists.
#[derive(Debug)]
pub struct LockedMachine {
    machine: KeptMachine,
    _lock: File,
}

/// The folders of the store.
#[derive(Debug, Default)]
struct Found {
    /// The machines, the oldest first.
    machines: Vec<KeptMachine>,
    /// Those whose description cannot be read, or is of another version.
    damaged: Vec<PathBuf>,
}

fn look(state: &Path) -> Result<Found, KeptError> {
    let store = state.join(FOLDER);
    let entries = match fs::read_dir(&store) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::default()),
        entries => entries.map_err(failed("read", &store))?,
    };
    let mut found = Found::default();
    for entry in entries {
        let path = entry.map_err(failed("read", &store))?.path();
        match KeptMachine::open(&path) {
            Some(machine) => found.machines.push(machine),
            None if path.is_dir() && path != stage::folder_of(&store) => found.damaged.push(path),
            None => {}
        }
    }
    found.machines.sort_by_key(|machine| machine.manifest.kept_s);
    Ok(found)
}

/// Returns the kept machines, the oldest first. Folders with a damaged description are left out; [`collect`] removes them.
///
/// # Errors
/// The folder cannot be read.
pub fn list(state: &Path) -> Result<Vec<KeptMachine>, KeptError> {
    Ok(look(state)?.machines)
}

/// Returns the kept machine of a runner, if there is one.
///
/// # Errors
/// The folder cannot be read.
pub fn find(state: &Path, runner: &str) -> Result<Option<KeptMachine>, KeptError> {
    Ok(list(state)?.into_iter().find(|machine| machine.manifest.about.runner == runner))
}

impl KeptMachine {
    pub(super) fn open(folder: &Path) -> Option<Self> {
        let text = fs::read(folder.join(MANIFEST)).ok()?;
        let manifest: KeptManifest = serde_json::from_slice(&text).ok()?;
        (manifest.format == FORMAT).then(|| Self { folder: folder.to_owned(), manifest })
    }

    /// Returns the description.
    pub fn manifest(&self) -> &KeptManifest {
        &self.manifest
    }

    /// Returns the folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the space that the machine takes, bytes: its memory, its disk, and its share of the files that have other names, so
    /// that a file counts in full once only kept machines have it.
    pub fn bytes(&self) -> u64 {
        let share = |file: fs::Metadata| space::on_disk(&file) / file.nlink().max(1);
        let of = |name| fs::metadata(self.folder.join(name)).map_or(0, share);
        [STATE, DISK, BASE, ROOT].into_iter().map(of).fold(0, u64::saturating_add)
    }

    /// Returns true if a process uses the machine: it is thawed, or being removed.
    pub fn is_in_use(&self) -> bool {
        matches!(lock(&self.folder), Err(KeptError::InUse(_)))
    }

    /// Locks the machine for a thaw or its removal. Removes what a process has left that died with the machine thawed.
    ///
    /// # Errors
    /// Another process uses the machine, or it is gone.
    pub async fn lock(self) -> Result<LockedMachine, KeptError> {
        let lock = lock(&self.folder)?;
        clear(&self.folder).await?;
        Ok(LockedMachine { machine: self, _lock: lock })
    }
}

impl LockedMachine {
    /// Returns the machine.
    pub fn machine(&self) -> &KeptMachine {
        &self.machine
    }

    /// Returns the folder of the machine while it is thawed.
    pub(super) fn run_dir(&self) -> PathBuf {
        self.machine.folder.join(MACHINE)
    }

    /// Ends the thawed machine and removes its files. The kept machine stays.
    ///
    /// # Errors
    /// It cannot be removed.
    pub async fn clear(&self) -> Result<(), KeptError> {
        clear(&self.machine.folder).await
    }

    /// Removes the machine.
    ///
    /// # Errors
    /// A file cannot be removed. A later [`collect`] removes the rest.
    pub async fn remove(self) -> Result<(), KeptError> {
        self.clear().await?;
        remove(&self.machine.folder)
    }
}

/// Locks the folder of a machine.
fn lock(folder: &Path) -> Result<File, KeptError> {
    let path = folder.join(LOCK);
    let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(failed("lock", &path))?;
    match file.try_lock() {
        // It may have been removed before it was locked.
        Ok(()) if path.exists() => Ok(file),
        Ok(()) | Err(TryLockError::WouldBlock) => {
            let runner = folder.file_name().unwrap_or_default().to_string_lossy();
            Err(KeptError::InUse(runner.into_owned()))
        }
        Err(TryLockError::Error(error)) => Err(failed("lock", &path)(error)),
    }
}

/// Ends the machine that was thawed in a folder, and removes its files.
async fn clear(folder: &Path) -> Result<(), KeptError> {
    let run_dir = folder.join(MACHINE);
    if !run_dir.exists() {
        return Ok(());
    }
    destroy_leftover(&run_dir).await?;
    fs::remove_dir_all(&run_dir).map_err(failed("remove", &run_dir))
}

/// Removes a folder. It loses its name by one rename, so that no process finds half of it.
fn remove(folder: &Path) -> Result<(), KeptError> {
    let stages = stage::folder_of(folder.parent().unwrap_or(Path::new("/")));
    let gone = stages.join(format!("{}.gone", folder.file_name().unwrap_or_default().to_string_lossy()));
    stage::make_folder(&stages)?;
    stage::remove_tree(&gone)?;
    fs::rename(folder, &gone).map_err(failed("remove", folder))?;
    Ok(stage::remove_tree(&gone)?)
}

/// The room that the kept machines have.
#[derive(Debug, Clone, Copy)]
pub struct KeptRoom {
    /// The space that all of them may take, bytes.
    pub bytes_max: u64,
    /// The space that is missing on the disk, bytes.
    pub missing: u64,
}

/// What [`collect`] has removed.
#[derive(Debug, Default)]
pub struct Collected {
    /// Machines whose time was over, or that had no room.
    pub machines: Vec<KeptMachine>,
    /// Folders without a description that can be read.
    pub damaged: Vec<PathBuf>,
}

/// Removes the machines whose time is over, then the oldest ones until the rest has room, and what processes have left that died
/// while they froze, thawed or removed one. A machine that is thawed stays.
///
/// # Errors
/// The folder cannot be read. A machine that cannot be removed is logged and tried again later.
pub async fn collect(state: &Path, room: KeptRoom) -> Result<Collected, KeptError> {
    stage::sweep(&stage::folder_of(&state.join(FOLDER)), &KeptMaker)?;
    let Found { machines, damaged } = look(state)?;
    let ages: Vec<_> =
        machines.iter().map(|machine| (machine.manifest.about.until_s, machine.bytes())).collect();
    let goes = to_remove(&ages, now_s(), room);
    let mut collected = Collected::default();
    for (at, machine) in machines.into_iter().enumerate() {
        let is_left = machine.folder.join(MACHINE).exists();
        if goes.contains(&at) {
            if is_done(remove_unused(&machine.folder).await) {
                collected.machines.push(machine);
            }
        } else if is_left {
            // The process that had thawed it has died, unless the lock is held.
            is_done(machine.lock().await.map(drop));
        }
    }
    for folder in damaged {
        if is_done(remove_unused(&folder).await) {
            collected.damaged.push(folder);
        }
    }
    Ok(collected)
}

async fn remove_unused(folder: &Path) -> Result<(), KeptError> {
    let _lock = lock(folder)?;
    clear(folder).await?;
    remove(folder)
}

/// Logs a failure, unless a process uses the machine.
fn is_done(result: Result<(), KeptError>) -> bool {
    match &result {
        Ok(()) | Err(KeptError::InUse(_)) => {}
        Err(error) => tracing::warn!("{error}"),
    }
    result.is_ok()
}

/// Removes all kept machines, whatever their time is.
///
/// # Errors
/// A machine is thawed, or cannot be removed.
pub async fn remove_all(state: &Path) -> Result<(), KeptError> {
    let Found { machines, damaged } = look(state)?;
    for folder in machines.into_iter().map(|machine| machine.folder).chain(damaged) {
        remove_unused(&folder).await?;
    }
    Ok(())
}

/// Returns the places of the machines that go. `machines` has the end of each one's time and its bytes, the oldest first. Pure.
fn to_remove(machines: &[(i64, u64)], now_s: i64, room: KeptRoom) -> Vec<usize> {
    let is_over = |until_s: i64| until_s <= now_s;
    let sum = |bytes: u64, more: &(i64, u64)| bytes.saturating_add(more.1);
    let (over, living): (Vec<_>, Vec<_>) = machines.iter().partition(|(until_s, _)| is_over(*until_s));
    let mut bytes = living.into_iter().fold(0, sum);
    let missing = room.missing.saturating_sub(over.into_iter().fold(0, sum));
    let bytes_max = room.bytes_max.min(bytes.saturating_sub(missing));
    let mut gone = Vec::new();
    for (at, &(until_s, size)) in machines.iter().enumerate() {
        if is_over(until_s) {
            gone.push(at);
        } else if bytes > bytes_max {
            gone.push(at);
            bytes = bytes.saturating_sub(size);
        }
    }
    gone
}

#[cfg(test)]
mod tests;
