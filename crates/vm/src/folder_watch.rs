//! Folders that tell when something in them changes.
//!
//! All share one inotify instance and one thread: a user has 128 instances as a rule, and a host more machines than that.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::sync::Notify;

/// One folder that is watched, until this is dropped.
#[derive(Debug)]
pub(crate) struct FolderWatch {
    watches: Arc<Watches>,
    descriptor: i32,
    changed: Arc<Notify>,
}

impl FolderWatch {
    /// Watches what is made, written and moved in, from now on.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let watches = Watches::of_this_process()?;
        let changed = Arc::new(Notify::new());
        let written = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::CREATE;
        let descriptor = watches.add(path, written, Some(&changed))?;
        Ok(Self { watches, descriptor, changed })
    }

    /// From now on tells what is removed, too. Others who watch the same folder are told as well.
    pub(crate) fn watch_removals(&self, path: &Path) -> io::Result<()> {
        self.watches.add(path, WatchFlags::DELETE, None).map(drop)
    }

    /// Waits until something has changed since the last call, or since the watch began. Safe to be cancelled.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for FolderWatch {
    fn drop(&mut self) {
        self.watches.remove(self.descriptor, &self.changed);
    }
}

/// Who wants to know about which folder.
type Readers = HashMap<i32, Vec<Arc<Notify>>>;

#[derive(Debug)]
struct Watches {
    inotify: OwnedFd,
    readers: Mutex<Readers>,
}

impl Watches {
    /// The one of this process, made on first use, with the thread that reads it.
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

    /// Adds to what is watched of a folder, and a reader if given. The lock is held meanwhile, so that its first event
    /// finds the reader there.
    fn add(&self, path: &Path, events: WatchFlags, reader: Option<&Arc<Notify>>) -> io::Result<i32> {
        let mut readers = self.readers();
        // The same folder has the same descriptor, whoever asks.
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
            // A folder that is gone has taken its watch along.
            let _ = inotify::remove_watch(&self.inotify, descriptor);
        }
    }

    /// Passes events on, for as long as the process lives.
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
                Err(error) => return tracing::error!("folders are watched no longer: {error}"),
            }
        }
    }
}
