//! Watches folders for changes.
//!
//! All watches share one inotify instance and one thread, because a user usually has 128 instances, and a host can have
//! more machines than that. If other programs of the user have them all, the folders are looked at again and again.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Time between two looks at a folder that the kernel does not watch.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The watch on one folder, which ends when this is dropped.
#[derive(Debug)]
pub(crate) enum FolderWatch {
    /// The kernel reports changes.
    Told(ToldWatch),
    /// There may be a change from this time on.
    Looking(Mutex<Instant>),
}

/// A watch of the kernel.
#[derive(Debug)]
pub(crate) struct ToldWatch {
    watches: Arc<Watches>,
    descriptor: i32,
    changed: Arc<Notify>,
}

impl FolderWatch {
    /// Watches for files that are created, written or moved into the folder, from now on.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        match Watches::of_this_process().and_then(|watches| ToldWatch::new(watches, path)) {
            Err(error) if is_used_up(&error) => {
                tracing::debug!("{} is not watched but looked at again and again: {error}", path.display());
                Ok(Self::looking())
            }
            told => told.map(Self::Told),
        }
    }

    fn looking() -> Self {
        Self::Looking(Mutex::new(Instant::now() + LOOK_AGAIN))
    }

    /// Reports removed files too, from now on. Other watches of the same folder then also report them.
    pub(crate) fn watch_removals(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Told(told) => told.watches.add(path, WatchFlags::DELETE, None).map(drop),
            Self::Looking(_) => Ok(()),
        }
    }

    /// Waits until something has changed since the last call, or since the watch began, or may have changed. Cancel-safe.
    pub(crate) async fn changed(&self) {
        match self {
            Self::Told(told) => told.changed.notified().await,
            Self::Looking(next) => {
                let at = *next.lock().unwrap_or_else(PoisonError::into_inner);
                tokio::time::sleep_until(at).await;
                *next.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + LOOK_AGAIN;
            }
        }
    }
}

/// Returns true if this user may have no more inotify instances (EMFILE) or watches (ENOSPC). The first is also the error of a
/// process that may open no more files, which fails at the next file.
fn is_used_up(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NOSPC))
}

impl ToldWatch {
    fn new(watches: Arc<Watches>, path: &Path) -> io::Result<Self> {
        let changed = Arc::new(Notify::new());
        let written = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::CREATE;
        let descriptor = watches.add(path, written, Some(&changed))?;
        Ok(Self { watches, descriptor, changed })
    }
}

impl Drop for ToldWatch {
    fn drop(&mut self) {
        self.watches.remove(self.descriptor, &self.changed);
    }
}

/// The readers to notify, by the descriptor of their folder.
type Readers = HashMap<i32, Vec<Arc<Notify>>>;

#[derive(Debug)]
pub(crate) struct Watches {
    inotify: OwnedFd,
    readers: Mutex<Readers>,
}

impl Watches {
    /// Returns the instance of this process. The first call creates it, with the thread that reads it.
    fn of_this_process() -> io::Result<Arc<Self>> {
        static WATCHES: Mutex<Option<Arc<Watches>>> = Mutex::new(None);
        let mut made = WATCHES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watches) = &*made {
            return Ok(Arc::clone(watches));
        }
        let watches =
            Arc::new(Self { inotify: inotify::init(CreateFlags::CLOEXEC)?, readers: Mutex::default() });
        let reading = Arc::clone(&watches);
        std::thread::Builder::new().name("folders".to_owned()).spawn(move || reading.read())?;
        *made = Some(Arc::clone(&watches));
        Ok(watches)
    }

    fn readers(&self) -> std::sync::MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds events to a folder's watch, and a reader if one is given. The lock is held meanwhile, so that the first event
    /// finds the reader.
    fn add(&self, path: &Path, events: WatchFlags, reader: Option<&Arc<Notify>>) -> io::Result<i32> {
        let mut readers = self.readers();
        // The kernel returns the same descriptor for each watch of the same folder.
        let flags = events | WatchFlags::ONLYDIR | WatchFlags::MASK_ADD;
        let descriptor = inotify::add_watch(&self.inotify, path, flags)?;
        readers.entry(descriptor).or_default().extend(reader.cloned());
        Ok(descriptor)
    }

    fn remove(&self, descriptor: i32, reader: &Arc<Notify>) {
        let mut readers = self.readers();
        let Some(of_folder) = readers.get_mut(&descriptor) else { return };
        of_folder.retain(|other| !Arc::ptr_eq(other, reader));
        if of_folder.is_empty() {
            readers.remove(&descriptor);
            // This fails if the folder was removed, because its watch was removed with it.
            let _ = inotify::remove_watch(&self.inotify, descriptor);
        }
    }

    /// Notifies the readers of events, as long as the process runs.
    fn read(&self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            match events.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                    self.readers().values().flatten().for_each(|reader| reader.notify_one());
                }
                Ok(event) => {
                    self.readers()
                        .get(&event.wd())
                        .into_iter()
                        .flatten()
                        .for_each(|reader| reader.notify_one());
                }
                Err(Errno::INTR) => {}
                Err(error) => return tracing::error!("folders are no longer watched: {error}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_the_kernel_does_not_watch_is_looked_at_each_second_however_often_the_wait_is_cancelled()
     {
        let (watch, begun) = (FolderWatch::looking(), Instant::now());
        for seconds in 1..=3 {
            loop {
                tokio::select! {
                    () = watch.changed() => break,
                    () = tokio::time::sleep(Duration::from_millis(300)) => {}
                }
            }
            assert_eq!(begun.elapsed().as_secs(), seconds);
        }
        watch.watch_removals(Path::new("/nonexistent")).expect("nothing to do");
    }

    #[test]
    fn a_folder_is_looked_at_if_instances_or_watches_are_used_up_and_not_if_it_is_missing() {
        let answers = [Errno::MFILE, Errno::NOSPC, Errno::NOENT].map(|errno| is_used_up(&errno.into()));
        assert_eq!(answers, [true, true, false]);
    }
}
