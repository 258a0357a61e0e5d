//! Locks on images and bundles (tools, kernels, runner apps): what a process uses is not removed.
//!
//! One file stands for each folder: a process that uses the folder has locked that file shared, and one that removes it has
//! locked it alone.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::ImageError;
use super::error::failed;
use super::store::MANIFEST;
use dayfly_host::stage;

/// Interval and number of attempts to lock a file that a collection has locked, perhaps only to look who uses it.
const LOCK_PAUSE: Duration = Duration::from_millis(10);
const LOCK_ATTEMPTS: u32 = 20;

/// Locks a file shared, so that the folder that it stands for is not removed.
///
/// # Errors
/// [`io::ErrorKind::NotFound`]: the folder is being removed.
pub(super) fn lock_to_use(file: &File) -> io::Result<()> {
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock_shared() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "it is being removed"))
}

/// Locks the file that stands for a folder alone. Returns no lock if the file does not exist.
///
/// # Errors
/// [`TryLockError::WouldBlock`]: it is in use.
fn lock_alone(path: &Path) -> Result<Option<File>, TryLockError> {
    match File::open(path) {
        Ok(file) => file.try_lock().map(|()| Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TryLockError::Error(error)),
    }
}

/// Returns true if a process uses the folder that this file stands for.
pub(super) fn is_in_use(lock: &Path) -> Result<bool, ImageError> {
    match lock_alone(lock) {
        Ok(_) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(failed("lock", lock)(error)),
    }
}

/// Removes a folder of a store unless a process uses it, i.e. has locked the file `lock` in it. Calls `forget` between the
/// moment in which the folder is gone and the moment in which the lock is. Returns false if the folder is in use.
pub(super) fn remove_unused(
    store: &Path,
    folder: &Path,
    lock: &Path,
    forget: &dyn Fn() -> Result<(), ImageError>,
) -> Result<bool, ImageError> {
    // Held until the folder is removed, so that no process starts with half of it.
    let _lock = match lock_alone(lock) {
        Ok(held) => held,
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(failed("lock", lock)(error)),
    };
    // A rename removes the folder in one step. The next build removes the remains of an interrupted removal.
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let aside = stage::folder_of(store).join(format!("removed-{name}"));
    stage::remove_tree(&aside)?;
    stage::make_folder(&stage::folder_of(store))?;
    match fs::rename(folder, &aside) {
        // Another process removed it after this one found it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        renamed => renamed.map_err(failed("remove", folder))?,
    }
    forget()?;
    stage::remove_tree(&aside)?;
    Ok(true)
}

/// Keeps a bundle (tools, a kernel, a runner app) from being removed until this and all its clones are dropped.
#[derive(Debug, Clone)]
pub struct InUse {
    _lock: Arc<File>,
}

impl InUse {
    /// Keeps the bundle in a folder, and records that it was used just now. Returns none if there is none, or if it is being
    /// removed.
    pub(super) fn of(folder: &Path) -> Result<Option<Self>, ImageError> {
        let path = folder.join(MANIFEST);
        let lock = match File::open(&path).and_then(|file| lock_to_use(&file).map(|()| file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            lock => lock.map_err(failed("lock", &path))?,
        };
        // The bundle may have been removed before the file was locked.
        if !path.exists() {
            return Ok(None);
        }
        // Errors are ignored, because the time only decides which bundle is removed first.
        let _ = lock.set_modified(SystemTime::now());
        Ok(Some(Self { _lock: Arc::new(lock) }))
    }
}

/// Removes a bundle, unless a process uses it. Returns false if one does.
pub(super) fn remove_bundle(store: &Path, id: &str) -> Result<bool, ImageError> {
    let folder = store.join(id);
    remove_unused(store, &folder, &folder.join(MANIFEST), &|| Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_that_a_process_uses_stays_and_then_goes_whole() {
        let store = tempfile::tempdir().expect("a folder");
        let folder = store.path().join("aa11");
        fs::create_dir_all(folder.join("tree/bin")).expect("folders");
        assert!(InUse::of(&folder).expect("no manifest").is_none());
        fs::write(folder.join(MANIFEST), "{}").expect("written");
        fs::write(folder.join("tree/bin/git"), "12345").expect("written");
        let used = InUse::of(&folder).expect("locked").expect("there");
        let clone = used.clone();
        drop(used);
        assert!(!remove_bundle(store.path(), "aa11").expect("looked"));
        drop(clone);
        assert!(remove_bundle(store.path(), "aa11").expect("removed"));
        assert!(!folder.exists() && InUse::of(&folder).expect("no error").is_none());
        assert!(remove_bundle(store.path(), "aa11").expect("nothing to do"));
    }
}
