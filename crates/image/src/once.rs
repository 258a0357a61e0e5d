//! Builds the parts that images are made with (runner app, kernel, tools) at first use, and stores them in the state folder.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::failed;
use super::progress::Waiter;
use super::store::MANIFEST;
use super::{BuildSettings, ImageError, Progress};
use dayfly_host::stage::{Claim, Stage};

/// A part that is built once.
pub(super) struct Once<'a> {
    pub(super) settings: &'a BuildSettings,
    /// Name of the folder of such parts in the state folder.
    pub(super) store: &'a str,
    pub(super) id: &'a str,
    /// Name of the part in messages.
    pub(super) what: &'a str,
}

impl Once<'_> {
    /// Returns the part that `open` finds in its folder. If it finds none, calls `make` to fill the folder first. Other
    /// builds that need the part wait. If `make` fails, its half-built folder is removed.
    pub(super) fn get<T>(
        &self,
        progress: &mut dyn FnMut(Progress),
        open: impl Fn(&Path) -> Result<Option<T>, ImageError>,
        make: impl FnOnce(&Stage, &mut dyn FnMut(Progress)) -> Result<(), ImageError>,
    ) -> Result<T, ImageError> {
        let store = self.settings.state.join(self.store);
        let folder = store.join(self.id);
        if let Some(made) = open(&folder)? {
            return Ok(made);
        }
        let mut waiter = Waiter { what: self.what, cancel: &self.settings.cancel, progress };
        let claim = Claim::wait(&store, self.id, &mut waiter)?;
        // Another process may have built it in the meantime.
        if let Some(made) = open(&folder)? {
            return Ok(made);
        }
        let stage = claim.stage()?;
        make(&stage, progress)?;
        stage.finish()?;
        let gone =
            || ImageError::Unusable { what: format!("{} was removed right after it was built", self.what) };
        open(&folder)?.ok_or_else(gone)
    }
}

/// Reads a folder's manifest. Returns none if the folder has no manifest.
pub(super) fn read_manifest<M: DeserializeOwned>(folder: &Path) -> Result<Option<M>, ImageError> {
    let path = folder.join(MANIFEST);
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read(&path).map_err(failed("read", &path))?;
    serde_json::from_slice(&text).map(Some).map_err(|source| ImageError::Manifest { path, source })
}

/// Writes a folder's manifest.
pub(super) fn write_manifest<M: Serialize>(folder: &Path, manifest: &M) -> Result<(), ImageError> {
    let path = folder.join(MANIFEST);
    let text = serde_json::to_vec_pretty(manifest).map_err(|error| failed("write", &path)(error.into()))?;
    fs::write(&path, text).map_err(failed("write", &path))
}
