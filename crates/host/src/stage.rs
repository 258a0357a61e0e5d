//! Builds folders under a lock: a stage gets its final name by one rename, or is removed.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use crate::tool::{self, Reach};

/// Interval at which a wait for another maker's build checks the lock and the cancellation.
pub const LOOK: Duration = Duration::from_millis(200);

/// Errors of building a folder.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The maker cancelled while it waited for another one.
    #[error("stopped")]
    Cancelled,
    #[error("cannot {what} {}: {source}", path.display())]
    /// An operation on a file failed.
    Io {
        /// The attempted operation.
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StageError {
    let path = path.to_owned();
    move |source| StageError::Io { what, path, source }
}

/// A builder of folders in a store.
pub trait Maker {
    /// Reports that another maker builds the same folder and that this one waits for it. Called once.
    fn waits(&mut self) {}

    /// Returns true if the folder is no longer needed.
    fn is_cancelled(&self) -> bool {
        false
    }

    /// Stops the processes that a killed maker has left running in its stage. The stage is removed afterwards.
    fn end_leftover(&self, _stage: &Path) -> Result<(), StageError> {
        Ok(())
    }
}

/// Returns the folder that holds the stages of a store.
pub fn folder_of(store: &Path) -> PathBuf {
    store.join(".build")
}

/// The right to build the folder of one id. Other makers of the same id wait until the claim is dropped.
#[derive(Debug)]
pub struct Claim {
    store: PathBuf,
    id: String,
    _lock: File,
}

impl Claim {
    /// Waits for the right to build `id`. Removes the remains of interrupted builds.
    pub fn wait(store: &Path, id: &str, maker: &mut dyn Maker) -> Result<Self, StageError> {
        let mut told = false;
        loop {
            if let Some(claim) = Self::take(store, id, maker)? {
                return Ok(claim);
            }
            if !std::mem::replace(&mut told, true) {
                maker.waits();
            }
            if maker.is_cancelled() {
                return Err(StageError::Cancelled);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Returns the right to build `id`, or none if another maker holds it.
    pub fn take(store: &Path, id: &str, maker: &dyn Maker) -> Result<Option<Self>, StageError> {
        let stages = folder_of(store);
        make_folder(&stages)?;
        sweep(&stages, maker)?;
        let path = stages.join(format!("{id}.lock"));
        loop {
            let file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(failed("open", &path))?;
            match file.try_lock() {
                // The previous holder may have removed the name.
                Ok(()) if same_file(&file, &path) => {
                    return Ok(Some(Self { store: store.to_owned(), id: id.to_owned(), _lock: file }));
                }
                Ok(()) => {}
                Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
                Err(TryLockError::WouldBlock) => return Ok(None),
            }
        }
    }

    /// Creates an empty folder to build in.
    pub fn stage(&self) -> Result<Stage, StageError> {
        let path = folder_of(&self.store).join(&self.id);
        remove_tree(&path)?;
        make_folder(&path)?;
        Ok(Stage { path, to: self.store.join(&self.id) })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Removed while it is locked, so that only its holder removes it.
        let _ = fs::remove_file(folder_of(&self.store).join(format!("{}.lock", self.id)));
    }
}

/// A folder that is being built. It is removed when it is dropped.
#[derive(Debug)]
pub struct Stage {
    path: PathBuf,
    to: PathBuf,
}

impl Stage {
    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Publishes the folder: syncs its files to disk, then renames it to its final name.
    pub fn finish(self) -> Result<(), StageError> {
        for entry in fs::read_dir(&self.path).map_err(failed("read", &self.path))? {
            let path = entry.map_err(failed("read", &self.path))?.path();
            File::open(&path).and_then(|file| file.sync_all()).map_err(failed("write", &path))?;
        }
        put(&self.path, &self.to).map_err(failed("rename to", &self.to))?;
        // Syncs the name itself.
        if let Some(parent) = self.to.parent() {
            File::open(parent).and_then(|folder| folder.sync_all()).map_err(failed("write", parent))?;
        }
        Ok(())
    }
}

/// Renames a folder to its final name in one step. A folder that has this name already gets the name `from`, whether it is
/// complete or not, so that no reader ever finds half of either.
fn put(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE) {
        Err(Errno::NOENT) => fs::rename(from, to),
        // This file system cannot exchange names. For a moment no folder has the name, as before the first build.
        Err(Errno::INVAL | Errno::NOSYS) => {
            let aside = from.with_extension("old");
            fs::rename(to, &aside)?;
            fs::rename(from, to)?;
            fs::rename(&aside, from)
        }
        exchanged => Ok(exchanged?),
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.path) {
            tracing::warn!("{error}");
        }
    }
}

/// Removes the remains of interrupted builds and removals: each folder that no living process has locked.
pub fn sweep(stages: &Path, maker: &dyn Maker) -> Result<(), StageError> {
    let entries = match fs::read_dir(stages) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed("read", stages))?,
    };
    for entry in entries {
        let path = entry.map_err(failed("read", stages))?.path();
        let is_lock = path.extension().is_some_and(|extension| extension == "lock");
        if is_lock || !path.is_dir() {
            continue;
        }
        let lock = path.with_extension("lock");
        // Locked during the removal, so that two processes that start at once do not remove the same folder.
        let held = File::open(&lock).ok();
        if held.as_ref().is_none_or(|file| file.try_lock().is_ok()) {
            maker.end_leftover(&path)?;
            remove_tree(&path)?;
            let _ = fs::remove_file(&lock);
        }
    }
    Ok(())
}

/// Creates a folder and its parents, closed to other users: images, blobs and templates may be private.
///
/// If this user is not root, others may pass through the folders but not list them, because mmdebstrap then works as a user
/// of its own, in a folder below.
pub fn make_folder(path: &Path) -> Result<(), StageError> {
    let mode = folder_mode();
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed("make the folder", path))
}

fn folder_mode() -> u32 {
    if rustix::process::geteuid().is_root() { 0o700 } else { 0o711 }
}

/// Closes existing folders to other users, as [`make_folder`] creates them. Earlier versions created them open. Leaves out
/// folders that do not exist or belong to another user.
///
/// # Errors
/// The mode of a folder cannot be changed.
pub fn close_folders<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<(), StageError> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    for path in paths {
        let Ok(metadata) = fs::symlink_metadata(path) else { continue };
        let is_open = metadata.mode() & 0o777 & !folder_mode() != 0;
        if metadata.is_dir() && is_open && metadata.uid() == rustix::process::geteuid().as_raw() {
            let mode = fs::Permissions::from_mode(metadata.mode() & folder_mode());
            fs::set_permissions(path, mode).map_err(failed("close to other users", path))?;
        }
    }
    Ok(())
}

/// Removes a folder and its content. Does nothing if the folder does not exist.
///
/// If this user is not root, an interrupted mmdebstrap leaves files of the user's range of ids, which only a process in a user
/// namespace can remove.
pub fn remove_tree(path: &Path) -> Result<(), StageError> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && remove_in_namespace(path) => Ok(()),
        Err(error) => Err(failed("remove", path)(error)),
    }
}

/// Removes a folder in a user namespace that has this user and the user's range of ids. Returns false if it cannot.
fn remove_in_namespace(path: &Path) -> bool {
    if rustix::process::geteuid().is_root() {
        return false;
    }
    let mut command = tool::command("unshare", Reach::Host);
    command.args(["--map-root-user", "--map-auto", "rm", "--recursive", "--force", "--"]).arg(path);
    command.output().is_ok_and(|output| output.status.success())
}

fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => open.ino() == named.ino() && open.dev() == named.dev(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Test {
        told: u32,
        cancelled: bool,
    }

    impl Maker for Test {
        fn waits(&mut self) {
            self.told += 1;
        }

        fn is_cancelled(&self) -> bool {
            self.cancelled
        }

        fn end_leftover(&self, stage: &Path) -> Result<(), StageError> {
            let _ = fs::rename(stage.join("ended"), stage.with_extension("ended"));
            Ok(())
        }
    }

    fn claim(store: &Path, id: &str) -> Claim {
        Claim::wait(store, id, &mut Test::default()).expect("claim")
    }

    #[test]
    fn folders_are_closed_to_other_users_also_those_of_earlier_versions() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("folder");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        let (old, new) = (folder.path().join("old"), folder.path().join("new/deep"));
        fs::create_dir(&old).expect("folder");
        fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).expect("mode");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/", &link).expect("link");
        close_folders([&*old, &*link, Path::new("/nonexistent")]).expect("closed");
        make_folder(&new).expect("folder");
        for path in [old, new.clone(), new.parent().expect("one").to_owned()] {
            assert_eq!(mode(&path) & 0o066, 0, "{}", path.display());
        }
        let claimed = claim(folder.path(), "a");
        let stage = claimed.stage().expect("stage");
        fs::write(stage.path().join("file"), "x").expect("write");
        stage.finish().expect("finish");
        assert_eq!(mode(&folder.path().join("a")) & 0o066, 0);
    }

    #[test]
    fn a_stage_becomes_whole_or_goes() {
        let folder = tempfile::tempdir().expect("folder");
        let store = folder.path();
        let claimed = claim(store, "a");
        let stage = claimed.stage().expect("stage");
        fs::write(stage.path().join("half"), "x").expect("write");
        drop(stage);
        assert!(!folder_of(store).join("a").exists() && !store.join("a").exists());
        let stage = claimed.stage().expect("stage");
        fs::write(stage.path().join("whole"), "x").expect("write");
        stage.finish().expect("finish");
        assert!(store.join("a/whole").exists());
        let stage = claimed.stage().expect("stage");
        fs::write(stage.path().join("newer"), "x").expect("write");
        stage.finish().expect("finish");
        assert!(store.join("a/newer").exists() && !store.join("a/whole").exists());
        drop(claimed);
        assert_eq!(fs::read_dir(folder_of(store)).expect("read").count(), 0);
    }

    #[test]
    fn what_a_killed_build_has_left_goes_at_the_next_start_and_a_living_one_stays() {
        let folder = tempfile::tempdir().expect("folder");
        let store = folder.path();
        let stages = folder_of(store);
        // As after a kill: the folder and the name of the lock exist, but no process holds the lock.
        fs::create_dir_all(stages.join("dead/deep")).expect("folders");
        fs::write(stages.join("dead/ended"), "").expect("write");
        fs::write(stages.join("dead.lock"), "").expect("lock");
        fs::create_dir_all(stages.join("removed-x")).expect("folders");
        let living = claim(store, "living");
        let stage = living.stage().expect("stage");
        let _other = claim(store, "other");
        assert!(!stages.join("dead").exists() && !stages.join("dead.lock").exists());
        assert!(stages.join("dead.ended").exists(), "its maker's leftovers were ended first");
        assert!(!stages.join("removed-x").exists());
        assert!(stage.path().exists());
    }

    #[test]
    fn a_second_builder_waits_and_says_so_and_can_be_stopped() {
        let folder = tempfile::tempdir().expect("folder");
        let store = folder.path().to_owned();
        let first = claim(&store, "a");
        let mut maker = Test { cancelled: true, told: 0 };
        let stopped = Claim::wait(&store, "a", &mut maker);
        assert!(matches!(stopped, Err(StageError::Cancelled)));
        assert_eq!(maker.told, 1);
        let waiting = std::thread::spawn(move || drop(claim(&store, "a")));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished());
        drop(first);
        waiting.join().expect("gets it");
    }
}
