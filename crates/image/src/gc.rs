//! Makes room for new images: removes pulled layers, then the least recently used images.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::error::failed;
use super::{Image, ImageError, Store};
use dayfly_host::stage;

/// The result of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// Ids and lengths, in bytes, of the removed images.
    pub images: Vec<(String, u64)>,
    /// Number of removed layers. Pulled layers only save a download.
    pub layers: usize,
    /// Length of the removed layers, bytes.
    pub layer_bytes: u64,
    /// Ids of images that were not removed because machines use them.
    pub in_use: Vec<String>,
    /// Length of the remaining images and layers, bytes.
    pub left_bytes: u64,
}

/// A lock that keeps all layers while some of them are pulled or read.
#[derive(Debug)]
pub(super) struct LayersInUse {
    _lock: File,
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

    /// Removes layers, oldest first, then images that no machine uses, least recently used first, until the rest has at most
    /// `keep` bytes.
    ///
    /// # Errors
    /// Something cannot be read or removed.
    pub fn gc(&self, keep: u64) -> Result<Collected, ImageError> {
        let mut images = self.list()?;
        images.sort_by_key(|image| fs::metadata(image.root()).and_then(|file| file.modified()).ok());
        let layers = self.layers()?;
        let total = |sizes: &mut dyn Iterator<Item = u64>| sizes.sum::<u64>();
        let mut collected = Collected {
            left_bytes: total(&mut images.iter().map(|image| image.manifest().bytes()))
                + total(&mut layers.iter().map(|layer| layer.bytes)),
            ..Collected::default()
        };
        self.collect_layers(layers, keep, &mut collected)?;
        for image in images {
            if collected.left_bytes <= keep {
                break;
            }
            match self.remove(&image) {
                Ok(()) => {
                    let bytes = image.manifest().bytes();
                    collected.left_bytes = collected.left_bytes.saturating_sub(bytes);
                    collected.images.push((image.id().to_owned(), bytes));
                }
                Err(ImageError::InUse { id }) => collected.in_use.push(id),
                Err(error) => return Err(error),
            }
        }
        Ok(collected)
    }

    fn collect_layers(
        &self,
        layers: Vec<Layer>,
        keep: u64,
        collected: &mut Collected,
    ) -> Result<(), ImageError> {
        if layers.is_empty() || collected.left_bytes <= keep {
            return Ok(());
        }
        let lock = self.layers_lock()?;
        match lock.try_lock() {
            Ok(()) => {}
            // Another process pulls or reads layers.
            Err(TryLockError::WouldBlock) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &self.blobs())(error)),
        }
        for layer in layers {
            if collected.left_bytes <= keep {
                break;
            }
            stage::remove_tree(&self.blobs().join(&layer.name))?;
            collected.left_bytes = collected.left_bytes.saturating_sub(layer.bytes);
            collected.layers += 1;
            collected.layer_bytes += layer.bytes;
        }
        Ok(())
    }

    /// Returns the pulled layers, the oldest first.
    fn layers(&self) -> Result<Vec<Layer>, ImageError> {
        let folder = self.blobs();
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed("read", &folder))?,
        };
        let mut layers: Vec<Layer> = entries.flatten().filter_map(|entry| Layer::of(&entry.path())).collect();
        layers.sort_by_key(|layer| layer.pulled);
        Ok(layers)
    }
}

struct Layer {
    name: String,
    bytes: u64,
    pulled: Option<SystemTime>,
}

impl Layer {
    fn of(folder: &Path) -> Option<Self> {
        // A partial layer counts too, whether its pull is still running or was interrupted.
        let blob = ["blob", "blob.part"].iter().find_map(|name| fs::metadata(folder.join(name)).ok())?;
        let name = folder.file_name()?.to_str()?.to_owned();
        Some(Self { name, bytes: blob.len(), pulled: blob.modified().ok() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::FileDigest;
    use super::super::store::tests::manifest;
    use super::super::store::{MANIFEST, ROOT};
    use super::*;

    fn put(store: &Store, id: &str, bytes: u64, age_s: u64) -> Image {
        let folder = store.folder().join(id);
        fs::create_dir_all(&folder).expect("folder");
        let mut manifest = manifest(id, 1);
        manifest.files.insert(ROOT.to_owned(), FileDigest { bytes, sha256: String::new() });
        fs::write(folder.join(ROOT), "x").expect("root");
        fs::write(folder.join(MANIFEST), serde_json::to_vec(&manifest).expect("json")).expect("write");
        let root = File::options().write(true).open(folder.join(ROOT)).expect("root");
        root.set_modified(SystemTime::now() - Duration::from_secs(age_s)).expect("time");
        store.find(id).expect("there")
    }

    fn put_layer(store: &Store, name: &str, bytes: usize) {
        let folder = store.blobs().join(name);
        fs::create_dir_all(&folder).expect("folder");
        fs::write(folder.join("blob"), vec![0; bytes]).expect("blob");
    }

    #[test]
    fn what_was_not_used_for_the_longest_time_goes_first_and_what_runs_stays() {
        let state = tempfile::tempdir().expect("folder");
        let store = Store::new(state.path());
        let old = put(&store, "aa", 100, 300);
        put(&store, "bb", 100, 200);
        put(&store, "cc", 100, 100);
        put_layer(&store, "11", 50);
        let used = old.open_root().expect("in use");
        assert_eq!(
            store.gc(1000).expect("nothing to do"),
            Collected { left_bytes: 350, ..Collected::default() }
        );
        let collected = store.gc(150).expect("collected");
        assert_eq!((collected.layers, collected.layer_bytes), (1, 50));
        assert_eq!(collected.images, [("bb".to_owned(), 100), ("cc".to_owned(), 100)]);
        assert_eq!((collected.in_use, collected.left_bytes), (vec!["aa".to_owned()], 100));
        drop(used);
        let newer = put(&store, "dd", 100, 250);
        store.touch(&newer);
        store.touch(&old);
        assert_eq!(store.gc(100).expect("collected").images, [("dd".to_owned(), 100)]);
    }

    #[test]
    fn layers_stay_while_somebody_pulls() {
        let state = tempfile::tempdir().expect("folder");
        let store = Store::new(state.path());
        put_layer(&store, "11", 50);
        let pulling = store.use_layers().expect("locked");
        assert_eq!(store.gc(0).expect("nothing may go").layers, 0);
        drop(pulling);
        assert_eq!(store.gc(0).expect("collected").layers, 1);
    }
}
