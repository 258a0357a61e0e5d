//! Builds the parts that images are made with (runner app, kernel, tools) at first use, or if they are too old, and stores
//! them in the state folder.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::failed;
use super::in_use;
use super::progress::Waiter;
use super::series::Series;
use super::store::MANIFEST;
use super::{BuildSettings, ImageError, Progress};
use dayfly_host::stage::{Claim, Stage};

/// A part that is built once.
pub(super) struct Once<'a> {
    pub(super) settings: &'a BuildSettings,
    /// Name of the folder of such parts in the state folder.
    pub(super) store: &'a str,
    /// Name of the part in messages.
    pub(super) what: &'a str,
}

impl Once<'_> {
    /// Returns the part that `open` finds in its folder. If it finds none, calls `make` to fill the folder first. Other
    /// builds that need the part wait. If `make` fails, its half-built folder is removed.
    pub(super) fn get<T>(
        &self,
        id: &str,
        progress: &mut dyn FnMut(Progress),
        open: impl Fn(&Path) -> Result<Option<T>, ImageError>,
        make: impl FnOnce(&Stage, &mut dyn FnMut(Progress)) -> Result<(), ImageError>,
    ) -> Result<T, ImageError> {
        let store = self.settings.state.join(self.store);
        let folder = store.join(id);
        let open = |folder: &Path| unless_damaged(open(folder), &store, id);
        if let Some(made) = open(&folder)? {
            return Ok(made);
        }
        let mut waiter = Waiter { what: self.what, cancel: &self.settings.cancel, progress };
        let claim = Claim::wait(&store, id, &mut waiter)?;
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

    /// Returns the newest part of a series. If there is none, or if it is older than the settings allow, calls `make` with the
    /// number of the next one. Processes that need the next one at once build it once, and the one before stays until it is
    /// complete.
    pub(super) fn newest<T>(
        &self,
        series: &Series,
        progress: &mut dyn FnMut(Progress),
        open: impl Fn(&Path) -> Result<Option<T>, ImageError>,
        make: impl FnOnce(&Stage, u32, &mut dyn FnMut(Progress)) -> Result<(), ImageError>,
    ) -> Result<T, ImageError> {
        let newest = series.newest()?;
        if let Some(newest) = newest.filter(|newest| !self.settings.is_too_old(newest.created_s))
            && let Some(made) = open(&series.folder().join(series.id(newest.number)))?
        {
            return Ok(made);
        }
        let next = newest.map_or(0, |newest| newest.number.saturating_add(1));
        let made =
            self.get(&series.id(next), progress, open, |stage, progress| make(stage, next, progress))?;
        if let Err(error) = series.remove_older() {
            tracing::warn!("the predecessors of {} are not removed: {error}", self.what);
        }
        Ok(made)
    }
}

/// Removes a part whose manifest is damaged, as after a power cut, so that it is built again. Other results stay as they are.
fn unless_damaged<T>(
    opened: Result<Option<T>, ImageError>,
    store: &Path,
    id: &str,
) -> Result<Option<T>, ImageError> {
    let damage = match opened {
        Err(error) if error.is_damage() => error,
        opened => return opened,
    };
    match in_use::remove_bundle(store, id)? {
        true => {
            tracing::warn!(
                "the manifest in {} is damaged; it is removed and built again",
                store.join(id).display()
            );
            Ok(None)
        }
        false => Err(damage),
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::super::Cancel;
    use super::*;

    fn settings(state: &Path, max_age: Option<Duration>) -> BuildSettings {
        BuildSettings {
            state: state.to_owned(),
            suite: None,
            packages: None,
            extra: false,
            go_folders: Vec::new(),
            max_age,
            gently: false,
            cancel: Cancel::default(),
        }
    }

    /// Returns the content of the newest part. `make` fills a new one.
    fn newest(settings: &BuildSettings, make: &dyn Fn(&Stage, u32)) -> String {
        let series = Series::new(&settings.state, "parts", &["inputs"]);
        let once = Once { settings, store: "parts", what: "a part" };
        let open = |folder: &Path| Ok(fs::read_to_string(folder.join("content")).ok());
        let made = once.newest(&series, &mut |_| {}, open, |stage, number, _| {
            make(stage, number);
            write_manifest(stage.path(), &serde_json::json!({ "generation": number, "created_s": 1000 }))
        });
        made.expect("a part")
    }

    fn write(stage: &Stage, number: u32) {
        fs::write(stage.path().join("content"), format!("part {number}")).expect("written");
    }

    fn never(_: &Stage, number: u32) {
        panic!("part {number} is built for nothing");
    }

    #[test]
    fn a_part_that_is_too_old_is_built_anew_and_the_old_one_goes() {
        let state = tempfile::tempdir().expect("a folder");
        let (whatever, young) =
            (settings(state.path(), None), settings(state.path(), Some(Duration::from_secs(60))));
        assert_eq!(newest(&whatever, &write), "part 0");
        assert_eq!(newest(&whatever, &never), "part 0");
        assert_eq!(newest(&young, &write), "part 1");
        assert_eq!(newest(&whatever, &never), "part 1");
        let parts = fs::read_dir(state.path().join("parts")).expect("read").flatten();
        assert_eq!(parts.filter(|entry| entry.file_name() != ".build").count(), 1);
    }

    const HALF_WAY: &str = "DAYFLY_TEST_HALF_WAY";

    /// The builder that the next test kills.
    #[test]
    fn a_builder_half_way_if_asked() {
        let Some(state) = std::env::var_os(HALF_WAY).map(PathBuf::from) else { return };
        newest(&settings(&state, Some(Duration::from_secs(60))), &|stage, number| {
            write(stage, number);
            std::thread::sleep(Duration::from_secs(60));
        });
    }

    #[test]
    fn a_killed_builder_leaves_the_old_part_serving_and_the_next_one_builds_it() {
        let state = tempfile::tempdir().expect("a folder");
        let whatever = settings(state.path(), None);
        assert_eq!(newest(&whatever, &write), "part 0");
        let mut builder = Command::new(std::env::current_exe().expect("a path"))
            .args(["once::tests::a_builder_half_way_if_asked", "--exact", "--nocapture"])
            .env(HALF_WAY, state.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("started");
        let series = Series::new(state.path(), "parts", &["inputs"]);
        let half = series.folder().join(".build").join(series.id(1)).join("content");
        let began = Instant::now();
        while !half.exists() {
            assert!(began.elapsed() < Duration::from_secs(30), "the builder does not begin");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(newest(&whatever, &never), "part 0");
        // The standard library kills by SIGKILL.
        builder.kill().expect("killed");
        builder.wait().expect("ended");
        assert_eq!(newest(&whatever, &never), "part 0");
        let young = settings(state.path(), Some(Duration::from_secs(60)));
        assert_eq!(newest(&young, &write), "part 1");
        assert_eq!(newest(&whatever, &never), "part 1");
        let left = fs::read_dir(series.folder().join(".build")).expect("read").count();
        assert_eq!(left, 0, "half of a part is left");
    }

    #[test]
    fn a_part_whose_manifest_is_damaged_is_built_again_and_one_of_another_version_is_not_touched() {
        let state = tempfile::tempdir().expect("a folder");
        let (settings, folder) = (settings(state.path(), None), state.path().join("parts/a"));
        let once = Once { settings: &settings, store: "parts", what: "a part" };
        let open = |folder: &Path| read_manifest::<String>(folder);
        let make = |stage: &Stage, _: &mut dyn FnMut(Progress)| write_manifest(stage.path(), &"built");
        for content in ["", "\"bu", "\0\0\0"] {
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(folder.join(MANIFEST), content).expect("damaged");
            assert_eq!(once.get("a", &mut |_| {}, open, make).expect("built"), "built", "{content:?}");
        }
        fs::write(folder.join(MANIFEST), "7").expect("another version");
        let error = once.get("a", &mut |_| {}, open, make).expect_err("refused").to_string();
        assert!(error.contains("manifest.json"), "{error}");
        assert_eq!(fs::read_to_string(folder.join(MANIFEST)).expect("it stays"), "7");
    }
}
