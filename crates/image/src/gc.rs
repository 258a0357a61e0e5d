//! Makes room for new images: removes pulled layers, then the images and the parts of images that were unused for the longest
//! time.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::error::failed;
use super::in_use::{is_in_use, remove_bundle};
use super::kernel::KERNELS;
use super::runner_app::RUNNER_APPS;
use super::store::MANIFEST;
use super::tools::TOOLS;
use super::{Image, ImageError, Store};
use dayfly_host::stage;

/// A kind of things that a collection removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A pulled layer. It only saves a download, so layers go before everything else.
    Layer,
    /// An image.
    Image,
    /// Tools for images that lack them.
    Tools,
    /// A kernel for images that have none.
    Kernel,
    /// A runner app.
    RunnerApp,
}

/// The bundles that images are made with, and the names of their folders in the state folder.
const BUNDLES: [(Kind, &str); 3] =
    [(Kind::Tools, TOOLS), (Kind::Kernel, KERNELS), (Kind::RunnerApp, RUNNER_APPS)];

/// A thing that a collection may remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its kind.
    pub kind: Kind,
    /// Its id.
    pub id: String,
    /// Its length, bytes.
    pub bytes: u64,
    /// Time of its last use; for a layer, of its pull.
    pub used: Option<SystemTime>,
}

/// The result of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// The removed items.
    pub removed: Vec<Item>,
    /// The items that would have been removed, but are in use by a process. Layers that a pull needs are not listed.
    pub in_use: Vec<Item>,
    /// Length of everything that is left, bytes.
    pub left_bytes: u64,
}

impl Collected {
    /// Returns the removed items of a kind.
    pub fn removed_of(&self, kind: Kind) -> impl Iterator<Item = &Item> {
        self.removed.iter().filter(move |item| item.kind == kind)
    }
}

/// Decides what goes: layers first, then the rest, each the least recently used first, until the rest has at most `keep`
/// bytes. `remove` removes an item, or returns false if it is in use.
fn collect(
    mut items: Vec<Item>,
    keep: u64,
    remove: &mut dyn FnMut(&Item) -> Result<bool, ImageError>,
) -> Result<Collected, ImageError> {
    items.sort_by(|one, other| {
        let rank = |item: &Item| (item.kind != Kind::Layer, item.used);
        rank(one).cmp(&rank(other)).then_with(|| (one.kind, &one.id).cmp(&(other.kind, &other.id)))
    });
    let left_bytes = items.iter().fold(0, |sum: u64, item| sum.saturating_add(item.bytes));
    let mut collected = Collected { left_bytes, ..Collected::default() };
    for item in items {
        if collected.left_bytes <= keep {
            break;
        }
        if remove(&item)? {
            collected.left_bytes = collected.left_bytes.saturating_sub(item.bytes);
            collected.removed.push(item);
        } else if item.kind != Kind::Layer {
            collected.in_use.push(item);
        }
    }
    Ok(collected)
}

/// A lock that keeps all layers while some of them are pulled or read.
#[derive(Debug)]
pub(super) struct LayersInUse {
    _lock: File,
}

/// The lock of a collection on all layers.
enum LayersLock {
    /// Nothing has asked for it yet.
    Unasked,
    Held {
        _lock: File,
    },
    /// Another process pulls or reads layers.
    InUse,
}

impl Store {
    /// Records that an image was used just now.
    pub fn touch(&self, image: &Image) {
        // Errors are ignored, because the time only decides which image is removed first.
        let _ = File::open(image.root()).and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Keeps all pulled layers until the result is dropped.
    pub(super) fn use_layers(&self) -> Result<LayersInUse, ImageError> {
        let lock = self.layers_lock()?;
        lock.lock_shared().map_err(failed("lock", &self.blobs()))?;
        Ok(LayersInUse { _lock: lock })
    }

    fn layers_lock(&self) -> Result<File, ImageError> {
        stage::make_folder(&self.blobs())?;
        let path = self.blobs().join("lock");
        File::options().write(true).create(true).truncate(false).open(&path).map_err(failed("open", &path))
    }

    /// Removes layers, oldest first, then images, tools, kernels and runner apps that no process uses, least recently used
    /// first, until the rest has at most `keep` bytes.
    ///
    /// # Errors
    /// Something cannot be read or removed.
    pub fn gc(&self, keep: u64) -> Result<Collected, ImageError> {
        let mut layers = LayersLock::Unasked;
        collect(self.items()?, keep, &mut |item| match item.kind {
            Kind::Layer => {
                let is_free = self.are_layers_free(&mut layers)?;
                if is_free {
                    stage::remove_tree(&self.blobs().join(&item.id))?;
                }
                Ok(is_free)
            }
            Kind::Image => match self.get(&item.id)?.map(|image| self.remove(&image)) {
                Some(Err(ImageError::InUse { .. })) => Ok(false),
                Some(removed) => removed.map(|()| true),
                // Another process has removed it.
                None => Ok(true),
            },
            kind => remove_bundle(&self.bundles(kind), &item.id),
        })
    }

    /// Returns what [`Self::gc`] would remove now.
    ///
    /// # Errors
    /// Something cannot be read.
    pub fn gc_preview(&self, keep: u64) -> Result<Collected, ImageError> {
        let mut layers = LayersLock::Unasked;
        collect(self.items()?, keep, &mut |item| match item.kind {
            Kind::Layer => self.are_layers_free(&mut layers),
            Kind::Image => match self.get(&item.id)? {
                Some(image) => is_in_use(&image.root()).map(|is_used| !is_used),
                None => Ok(true),
            },
            kind => is_in_use(&self.bundles(kind).join(&item.id).join(MANIFEST)).map(|is_used| !is_used),
        })
    }

    /// Locks the layers at the first call, and returns whether that succeeded.
    fn are_layers_free(&self, layers: &mut LayersLock) -> Result<bool, ImageError> {
        if let LayersLock::Unasked = layers {
            let lock = self.layers_lock()?;
            *layers = match lock.try_lock() {
                Ok(()) => LayersLock::Held { _lock: lock },
                Err(TryLockError::WouldBlock) => LayersLock::InUse,
                Err(TryLockError::Error(error)) => return Err(failed("lock", &self.blobs())(error)),
            };
        }
        Ok(matches!(layers, LayersLock::Held { .. }))
    }

    /// Returns everything that a collection may remove.
    fn items(&self) -> Result<Vec<Item>, ImageError> {
        let used = |image: &Image| fs::metadata(image.root()).and_then(|root| root.modified()).ok();
        let images = self.list()?.into_iter().map(|image| Item {
            kind: Kind::Image,
            id: image.id().to_owned(),
            bytes: image.manifest().bytes(),
            used: used(&image),
        });
        let mut items: Vec<Item> = images.collect();
        items.extend(entries_of(&self.blobs())?.iter().filter_map(|folder| layer(folder)));
        for (kind, _) in BUNDLES {
            let folder = self.bundles(kind);
            // Behind a link are the bundles of another state, which collects them itself.
            if !folder.is_symlink() {
                items.extend(entries_of(&folder)?.iter().filter_map(|folder| bundle(kind, folder)));
            }
        }
        Ok(items)
    }

    /// Returns the folder of the bundles of a kind.
    fn bundles(&self, kind: Kind) -> PathBuf {
        let name = BUNDLES.iter().find(|(known, _)| *known == kind).map_or("", |(_, name)| name);
        self.folder().with_file_name(name)
    }
}

/// Returns the paths in a folder; none if it does not exist.
fn entries_of(folder: &Path) -> Result<Vec<PathBuf>, ImageError> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => {
            let entries = entries.map_err(failed("read", folder))?;
            Ok(entries.flatten().map(|entry| entry.path()).collect())
        }
    }
}

fn id_of_folder(folder: &Path) -> Option<String> {
    folder.file_name()?.to_str().map(str::to_owned)
}

fn layer(folder: &Path) -> Option<Item> {
    // A partial layer counts too, whether its pull is still running or was interrupted.
    let blob = ["blob", "blob.part"].iter().find_map(|name| fs::metadata(folder.join(name)).ok())?;
    let id = id_of_folder(folder)?;
    Some(Item { kind: Kind::Layer, id, bytes: blob.len(), used: blob.modified().ok() })
}

fn bundle(kind: Kind, folder: &Path) -> Option<Item> {
    // A folder without a manifest is no bundle.
    let manifest = fs::metadata(folder.join(MANIFEST)).ok()?;
    Some(Item { kind, id: id_of_folder(folder)?, bytes: length_of(folder), used: manifest.modified().ok() })
}

/// Returns the length of all files in a folder, bytes.
fn length_of(folder: &Path) -> u64 {
    let mut folders = vec![folder.to_owned()];
    let mut length: u64 = 0;
    while let Some(folder) = folders.pop() {
        // Files that disappear meanwhile are removed by another process, and have no length any more.
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                length = length.saturating_add(metadata.len());
            }
        }
    }
    length
}

#[cfg(test)]
mod tests;
