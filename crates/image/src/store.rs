//! The store of complete images.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ImageError;
use super::error::failed;
use super::in_use::{lock_to_use, remove_unused};
use super::manifest::{FORMAT, Manifest};
use super::names::Names;
use dayfly_host::digest::id_of;

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const ROOT: &str = "root.squashfs";
pub(super) const KERNEL: &str = "kernel";
pub(super) const INITRAMFS: &str = "initramfs";
pub(super) const LOG: &str = "build.log";

/// A complete image.
#[derive(Debug, Clone)]
pub struct Image {
    folder: PathBuf,
    manifest: Arc<Manifest>,
}

impl Image {
    /// Returns its id.
    pub fn id(&self) -> &str {
        &self.manifest.id
    }

    /// Returns its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the path of the kernel.
    pub fn kernel(&self) -> PathBuf {
        self.folder.join(KERNEL)
    }

    /// Returns the path of the initramfs. It holds kernel modules only.
    pub fn initramfs(&self) -> PathBuf {
        self.folder.join(INITRAMFS)
    }

    /// Returns the path of the root file system, a squashfs.
    pub fn root(&self) -> PathBuf {
        self.folder.join(ROOT)
    }

    /// Opens the root file system under a shared lock. The image cannot be removed while this file or a copy of its
    /// descriptor is open, unless a holder of a copy gives the lock up.
    ///
    /// # Errors
    /// The file is gone, is being removed, or cannot be read.
    pub fn open_root(&self) -> io::Result<File> {
        let file = File::open(self.root())?;
        lock_to_use(&file)?;
        // If the image was removed before the file was locked, its name no longer exists.
        if self.root().exists() { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

/// The images under a state folder.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Returns the store of a state folder. The folder need not exist.
    pub fn new(state: &Path) -> Self {
        Self { folder: state.join("images") }
    }

    /// Returns the folder of the store.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the folder of pulled layers.
    pub(super) fn blobs(&self) -> PathBuf {
        self.folder.with_file_name("blobs")
    }

    /// Returns all images, newest first. Skips images whose manifest another version of this program wrote. Removes those whose
    /// manifest is damaged.
    ///
    /// # Errors
    /// The folder or a manifest cannot be read.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("read", &self.folder)(error)),
        };
        let mut images = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed("read", &self.folder))?;
            if entry.path().join(MANIFEST).is_file() {
                images.extend(self.open_or_remove(&entry.path())?);
            }
        }
        images.sort_by_key(|image| (std::cmp::Reverse(image.manifest.created_s), image.id().to_owned()));
        Ok(images)
    }

    /// Opens an image. Removes it if its manifest is damaged, as after a power cut: nothing could read it, and it can be built or
    /// pulled again.
    fn open_or_remove(&self, folder: &Path) -> Result<Option<Image>, ImageError> {
        let damage = match Self::open(folder) {
            Err(error) if error.is_damage() => error,
            opened => return opened,
        };
        match remove_unused(&self.folder, folder, &folder.join(ROOT), &|| Ok(()))? {
            true => tracing::warn!("the manifest in {} is damaged; the image is removed", folder.display()),
            false => tracing::warn!("a machine uses the image, so it stays: {damage}"),
        }
        Ok(None)
    }

    pub(super) fn open(folder: &Path) -> Result<Option<Image>, ImageError> {
        let path = folder.join(MANIFEST);
        let text = match fs::read(&path) {
            Ok(text) => text,
            // Another process removed the image after this one found it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let value: serde_json::Value = serde_json::from_slice(&text)
            .map_err(|source| ImageError::Manifest { path: path.clone(), source })?;
        if value.get("format").and_then(serde_json::Value::as_u64) != Some(FORMAT.into()) {
            return Ok(None);
        }
        let manifest =
            serde_json::from_value(value).map_err(|source| ImageError::Manifest { path, source })?;
        Ok(Some(Image { folder: folder.to_owned(), manifest: Arc::new(manifest) }))
    }

    /// Returns the image whose id is `wanted` or starts with it, or the image in the folder `wanted`.
    ///
    /// # Errors
    /// No image matches, or more than one.
    pub fn find(&self, wanted: &str) -> Result<Image, ImageError> {
        if wanted.contains('/')
            && Path::new(wanted).join(MANIFEST).is_file()
            && let Some(image) = Self::open(Path::new(wanted))?
        {
            return Ok(image);
        }
        let images = self.list()?;
        let ids = |images: &[Image]| images.iter().map(|image| image.id().to_owned()).collect::<Vec<_>>();
        let mut fitting: Vec<Image> =
            images.iter().filter(|image| image.id().starts_with(wanted)).cloned().collect();
        match (fitting.pop().filter(|_| !wanted.is_empty()), fitting.is_empty()) {
            (Some(image), true) => Ok(image),
            (Some(image), false) => {
                fitting.push(image);
                Err(ImageError::Ambiguous { wanted: wanted.to_owned(), ids: ids(&fitting) })
            }
            (None, _) => Err(ImageError::NotFound {
                wanted: wanted.to_owned(),
                store: self.folder.clone(),
                known: ids(&images),
            }),
        }
    }

    /// Returns the image of exactly this id, if it is complete.
    pub(super) fn get(&self, id: &str) -> Result<Option<Image>, ImageError> {
        let folder = self.folder.join(id);
        if folder.join(MANIFEST).is_file() { self.open_or_remove(&folder) } else { Ok(None) }
    }

    /// Returns the image of the inputs with this digest, if it is complete. Ids are short enough that who writes two images can
    /// give both one id, so that a reviewed one would lead to the other.
    ///
    /// # Errors
    /// Another image has the id.
    pub(super) fn get_of(&self, inputs: &str) -> Result<Option<Image>, ImageError> {
        let Some(image) = self.get(&id_of(inputs))? else { return Ok(None) };
        if image.manifest.inputs == inputs {
            return Ok(Some(image));
        }
        let what = format!(
            "another image has the id {} already (its inputs are {}, and not {inputs}); remove it with `dayfly image rm {}`",
            image.id(),
            image.manifest.inputs,
            image.id()
        );
        Err(ImageError::Unusable { what })
    }

    /// Returns the names that resolved to this image at their last lookup.
    pub fn names_of(&self, image: &Image) -> Vec<String> {
        let all = Names::new(&self.folder).list().into_iter();
        all.filter(|known| known.image == image.id()).map(|known| known.name).collect()
    }

    /// Removes an image that no machine uses, and forgets its names.
    ///
    /// # Errors
    /// A machine uses it, or a file cannot be removed.
    pub fn remove(&self, image: &Image) -> Result<(), ImageError> {
        let forget = || Names::new(&self.folder).forget(image.id());
        match remove_unused(&self.folder, image.folder(), &image.root(), &forget)? {
            true => Ok(()),
            false => Err(ImageError::InUse { id: image.id().to_owned() }),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use dayfly_host::stage;

    use super::*;
    use crate::manifest::RunnerAppManifest;

    pub(crate) fn manifest(id: &str, created_s: i64) -> Manifest {
        Manifest {
            format: FORMAT,
            id: id.to_owned(),
            inputs: id.to_owned(),
            suite: "bookworm".to_owned(),
            kernel: "6.1".to_owned(),
            created_s,
            runner_app: RunnerAppManifest {
                name: "x".to_owned(),
                version: "1".to_owned(),
                sha256: String::new(),
                toolchain: String::new(),
            },
            files: Default::default(),
            packages: Default::default(),
            origin: None,
            recipe: String::new(),
            generation: 0,
        }
    }

    pub(crate) fn put(store: &Store, id: &str, created_s: i64) {
        let folder = store.folder().join(id);
        fs::create_dir_all(&folder).expect("folder");
        fs::write(folder.join(ROOT), "x").expect("root");
        fs::write(folder.join(MANIFEST), serde_json::to_vec(&manifest(id, created_s)).expect("json"))
            .expect("write");
    }

    #[test]
    fn an_image_of_other_inputs_with_the_same_id_is_refused_by_name() {
        let state = tempfile::tempdir().expect("folder");
        let store = Store::new(state.path());
        let (pinned, other) = (format!("{}b", "a".repeat(63)), format!("{}c", "a".repeat(63)));
        let id = id_of(&pinned);
        put(&store, &id, 1);
        let written = Manifest { inputs: pinned.clone(), ..manifest(&id, 1) };
        let text = serde_json::to_vec(&written).expect("json");
        fs::write(store.folder().join(&id).join(MANIFEST), text).expect("write");
        assert_eq!(store.get_of(&pinned).expect("read").expect("there").id(), id);
        let error = store.get_of(&other).expect_err("refused").to_string();
        assert!(error.contains(&pinned) && error.contains(&other), "{error}");
        assert!(store.get_of(&"b".repeat(64)).expect("read").is_none());
    }

    #[test]
    fn images_are_found_by_the_start_of_their_id() {
        let state = tempfile::tempdir().expect("folder");
        let store = Store::new(state.path());
        assert!(store.list().expect("empty").is_empty());
        assert!(matches!(store.find("a"), Err(ImageError::NotFound { .. })));
        put(&store, "aa11", 5);
        put(&store, "ab22", 7);
        let ids: Vec<_> = store.list().expect("list").iter().map(|image| image.id().to_owned()).collect();
        assert_eq!(ids, ["ab22", "aa11"]);
        assert_eq!(store.find("aa").expect("one").id(), "aa11");
        assert!(matches!(store.find("a"), Err(ImageError::Ambiguous { .. })));
        assert!(matches!(store.find(""), Err(ImageError::NotFound { .. })));
        assert!(matches!(store.find("../aa11"), Err(ImageError::NotFound { .. })));
    }

    #[test]
    fn an_image_whose_manifest_is_damaged_is_removed_unless_a_machine_uses_it_and_does_not_hide_the_others() {
        let state = tempfile::tempdir().expect("folder");
        let store = Store::new(state.path());
        for id in ["aa11", "ab22", "ac33"] {
            put(&store, id, 5);
        }
        let used = store.find("ab22").expect("there").open_root().expect("open");
        for (id, content) in [("aa11", ""), ("ab22", "{\"format\": 1, \"id")] {
            fs::write(store.folder().join(id).join(MANIFEST), content).expect("damaged");
        }
        let ids =
            || store.list().expect("list").iter().map(|image| image.id().to_owned()).collect::<Vec<_>>();
        assert_eq!(ids(), ["ac33"]);
        assert!(!store.folder().join("aa11").exists() && store.folder().join("ab22").exists());
        drop(used);
        assert!(store.get("ab22").expect("no error").is_none());
        assert!(!store.folder().join("ab22").exists());
    }

    #[test]
    fn an_image_in_use_stays_and_one_that_is_free_goes_whole() {
        let state = tempfile::tempdir().expect("folder");
        let store = Store::new(state.path());
        put(&store, "aa11", 5);
        let image = store.find("aa11").expect("there");
        let used = image.open_root().expect("open");
        // As in a VMM: a duplicate of the descriptor keeps the lock.
        let inherited = used.try_clone().expect("clone");
        drop(used);
        assert!(matches!(store.remove(&image), Err(ImageError::InUse { .. })));
        drop(inherited);
        store.remove(&image).expect("free");
        assert!(store.list().expect("list").is_empty());
        assert!(image.open_root().is_err());
        assert_eq!(fs::read_dir(stage::folder_of(store.folder())).expect("read").count(), 0);
    }

    #[test]
    fn an_image_that_somebody_else_removes_meanwhile_is_gone_and_that_is_no_error() {
        let state = tempfile::tempdir().expect("folder");
        let store = Store::new(state.path());
        put(&store, "aa11", 5);
        let image = store.find("aa11").expect("there");
        store.remove(&image).expect("removed");
        store.remove(&image).expect("nothing to do");
        assert!(Store::open(image.folder()).expect("no error").is_none());
    }

    #[test]
    fn a_half_made_or_foreign_image_is_not_listed() {
        let state = tempfile::tempdir().expect("folder");
        let store = Store::new(state.path());
        put(&store, "aa11", 5);
        fs::create_dir_all(store.folder().join(".build/bb22")).expect("stage");
        fs::create_dir_all(store.folder().join("cc33")).expect("no manifest");
        fs::create_dir_all(store.folder().join("dd44")).expect("folder");
        fs::write(store.folder().join("dd44").join(MANIFEST), "{\"format\": 99}").expect("write");
        assert_eq!(store.list().expect("list").len(), 1);
    }
}
