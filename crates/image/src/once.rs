//! What images are made with: made by whoever wants it first, and kept in the state folder under an id.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::failed;
use super::progress::Waiter;
use super::store::MANIFEST;
use super::{BuildSettings, ImageError, Progress};
use dayfly_host::stage::{Claim, Stage};

/// A thing that is made once.
pub(super) struct Once<'a> {
    pub(super) settings: &'a BuildSettings,
    /// The folder of the state folder that such things are in.
    pub(super) store: &'a str,
    pub(super) id: &'a str,
    /// As those who wait for it are told.
    pub(super) what: &'a str,
}

impl Once<'_> {
    /// What `open` finds in its folder, once `make` has filled that where it is not there. Others who want it wait; whatever
    /// ends the making early, nothing of it is left.
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
        // Somebody else may have made it in the meantime.
        if let Some(made) = open(&folder)? {
            return Ok(made);
        }
        let stage = claim.stage()?;
        make(&stage, progress)?;
        stage.finish()?;
        let gone = || ImageError::Unusable { what: format!("somebody has removed {} at once", self.what) };
        open(&folder)?.ok_or_else(gone)
    }
}

/// What a folder's manifest says; none where it has none.
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
