//! Tests of a disk that fills while an image is pulled, and of garbage collections during a pull: complete files stay,
//! nothing else is left, and a failed pull succeeds once there is space.
//!
//! The disk is a tmpfs that only the test can see and that the test resizes. The test's registry fills it while layers are
//! downloaded. Therefore no result depends on which of two processes is faster.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dayfly_e2e::machines::Disk;
use dayfly_e2e::{Dayfly, Ended, OwnState, Running};
use dayfly_host::left_out::root_may;
use serde_json::Value;

use super::plain::{Plain, digest, layer};

const PAGE: u64 = 4096;
const MIB: u64 = 1024 * 1024;
/// A disk size in bytes that is more than any test here needs.
const ROOMY: u64 = 1024 * MIB;

/// A state folder on a separate disk, and a registry.
struct Stage {
    /// Dropped before the folder that it is mounted over.
    disk: Disk,
    state: OwnState,
    registry: Arc<Plain>,
    first: Vec<u8>,
    second: Vec<u8>,
}

impl Stage {
    /// Creates a stage with two images: `v1` has one layer, and `v2` has one more.
    fn new() -> Self {
        let state = OwnState::without_images();
        let links = ["kernels", "runner-apps"].map(|name| (name, fs::read_link(state.path().join(name))));
        let disk = Disk::over(state.path(), ROOMY);
        for (name, target) in links {
            std::os::unix::fs::symlink(target.expect("a link"), state.path().join(name)).expect("a link");
        }
        let (first, second) = (layer("first", 3 << 20), layer("second", 2 << 20));
        let registry = Plain::start(&[("v1", &[&first]), ("v2", &[&first, &second])]);
        Self { disk, state, registry: Arc::new(registry), first, second }
    }

    fn dayfly(&self, arguments: &[&str]) -> Dayfly {
        of_state(self.state.path(), arguments)
    }

    fn start(&self, tag: &str) -> Running {
        self.dayfly(&["image", "pull", "--json", "--image-tools", "none", &self.registry.name(tag)]).start()
    }

    fn pulled(&self, tag: &str) -> Value {
        pulled(self.start(tag).wait())
    }

    /// Asserts that a pull reports in one message that a disk has no space, which folder is on it, and the remedy.
    fn assert_no_room(&self, tag: &str, what: &str) {
        let ended = self.start(tag).wait();
        ended.assert_status(3);
        let errors: Vec<_> = ended.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        let [error] = errors.as_slice() else { panic!("not one message: {}", ended.stderr) };
        for word in [what, &self.state.path().display().to_string(), "MiB are free", "dayfly image gc"] {
            assert!(error.contains(word), "no {word:?} in {error}");
        }
        assert!(ended.temporary.is_empty(), "{:?}", ended.temporary);
        self.assert_nothing_half_made();
    }

    /// Asserts that stages, locks and unnamed files are gone, and that every file with its final name is complete.
    fn assert_nothing_half_made(&self) {
        for store in ["images", "blobs"] {
            assert_eq!(
                names(&self.state.path().join(store).join(".build")),
                Vec::<PathBuf>::new(),
                "{store}"
            );
        }
        for name in names(&self.state.path().join("images/.names")) {
            let text = fs::read(&name).expect("readable");
            serde_json::from_slice::<Value>(&text).unwrap_or_else(|error| panic!("{name:?}: {error}"));
        }
        for folder in names(&self.state.path().join("images")).iter().filter(|path| !is_hidden(path)) {
            let manifest = fs::read(folder.join("manifest.json")).expect("a manifest");
            let manifest: Value = serde_json::from_slice(&manifest).expect("json");
            for (name, file) in manifest["files"].as_object().expect("files") {
                let length = fs::metadata(folder.join(name)).expect("a file").len();
                assert_eq!(Some(length), file["bytes"].as_u64(), "{name}");
            }
        }
        for folder in
            names(&self.state.path().join("blobs")).iter().filter(|path| path.is_dir() && !is_hidden(path))
        {
            let blob = fs::read(folder.join("blob")).expect("a blob");
            assert!(
                digest(&blob).ends_with(folder.file_name().and_then(|name| name.to_str()).expect("digits"))
            );
        }
    }

    fn has_layer(&self, layer: &[u8]) -> bool {
        blob_of(self.state.path(), &digest(layer)).exists()
    }
}

fn of_state(state: &Path, arguments: &[&str]) -> Dayfly {
    let dayfly = Dayfly::new(arguments.iter().copied()).env("DAYFLY_STATE", state);
    dayfly.env("REGISTRY_AUTH_FILE", "/nonexistent")
}

fn pulled(ended: Ended) -> Value {
    ended.assert_status(0);
    ended.events()[0].clone()
}

fn blob_of(state: &Path, digest: &str) -> PathBuf {
    state.join("blobs").join(digest.trim_start_matches("sha256:")).join("blob")
}

fn names(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(120), "after 120 s it is still not true that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_disk_that_fills_at_any_point_is_told_and_what_is_whole_on_it_stays_and_is_used() {
    if !root_may("mount a small file system") {
        return;
    }
    let stage = Stage::new();
    let good = stage.pulled("v1");
    let before = stage.disk.used();

    // Before any download: only layers that are not stored yet count.
    stage.disk.resize(before + MIB);
    stage.assert_no_room("v2", "no space for its layers");
    assert_eq!(stage.registry.asked(&digest(&stage.second)), 0);

    // While layers are downloaded: something else fills the disk.
    stage.disk.resize(before + 8 * MIB);
    let (filler, hog) = (stage.disk.filler(), stage.state.path().join("hog"));
    let (second, to) = (digest(&stage.second), hog.clone());
    stage.registry.before_blobs(move |blob| {
        if blob == second {
            filler.fill(&to, MIB);
        }
    });
    stage.assert_no_room("v2", "no space for an image");
    fs::remove_file(&hog).expect("removed");
    stage.registry.before_blobs(|_| {});
    assert!(stage.has_layer(&stage.first) && !stage.has_layer(&stage.second));

    // While the image is converted. A pull with enough space shows how much that takes.
    stage.disk.resize(ROOMY);
    let image = stage.pulled("v2");
    let [root, kernel, initramfs] = ["root.squashfs", "kernel", "initramfs"].map(|name| pages(&image, name));
    stage.dayfly(&["image", "rm", image["id"].as_str().expect("an id")]).run().assert_status(0);
    assert_eq!(stage.registry.asked(&digest(&stage.second)), 2, "complete layers are not downloaded again");
    let filled = stage.disk.used();
    let all = root + kernel + initramfs;
    // The disk fills in mksquashfs, early and late; in the copies of kernel and initramfs; and after one page for the log,
    // with none for the manifest.
    for room in [MIB, root / 2, root + kernel / 2, root + kernel + initramfs / 2, all + PAGE] {
        stage.disk.resize(filled + room);
        stage.assert_no_room("v2", "no space for an image");
    }

    // The first image still works, and the pull that failed succeeds.
    let listed: Value =
        serde_json::from_str(&stage.dayfly(&["image", "ls", "--json"]).run().stdout).expect("a list");
    assert_eq!((listed.as_array().map(Vec::len), &listed[0]["id"]), (Some(1), &good["id"]));
    assert_eq!(stage.pulled("v1")["id"], good["id"]);
    stage.disk.resize(ROOMY);
    assert_eq!(stage.pulled("v2")["id"], image["id"]);
    assert_eq!(stage.registry.asked(&digest(&stage.second)), 2);
}

/// Returns the space that a file takes on the disk, in bytes.
fn pages(image: &Value, name: &str) -> u64 {
    let path = Path::new(image["folder"].as_str().expect("a folder")).join(name);
    fs::metadata(path).expect("a file").len().next_multiple_of(PAGE)
}

#[test]
fn two_pulls_and_collections_in_between_come_to_one_image_and_each_layer_comes_once() {
    if !root_may("mount a small file system") {
        return;
    }
    let stage = Stage::new();
    let older = stage.pulled("v1");
    let (state, registry) = (stage.state.path().to_owned(), Arc::downgrade(&stage.registry));
    let second = digest(&stage.second);
    stage.registry.before_blobs(move |blob| {
        if blob == second {
            // Both pulls have resolved the tag, and wait for the same layer, or soon will.
            wait_until("both pull", || {
                registry
                    .upgrade()
                    .is_none_or(|registry| registry.asked("HEAD /v2/team/app/manifests/v2") >= 2)
            });
            let ended = of_state(&state, &["image", "gc", "--keep-bytes", "0", "--json"]).run();
            let collected = ended.assert_status(0).events()[0].clone();
            assert_eq!(
                (&collected["layers"], collected["images"].as_array().map(Vec::len)),
                (&0.into(), Some(1))
            );
        }
    });
    let pulls = [stage.start("v2"), stage.start("v2")];
    let [one, other] = pulls.map(|pull| pulled(pull.wait()));
    assert_eq!(one["id"], other["id"]);
    assert_ne!(one["id"], older["id"]);
    assert_eq!(stage.registry.asked(&digest(&stage.second)), 1);
    stage.assert_nothing_half_made();

    // Because no pull runs now, two collections at once leave nothing, and neither fails.
    let collections = [(); 2].map(|()| stage.dayfly(&["image", "gc", "--keep-bytes", "0"]).start());
    for collection in collections {
        collection.wait().assert_status(0);
    }
    assert!(!stage.has_layer(&stage.first) && !stage.has_layer(&stage.second));
    stage.assert_nothing_half_made();
}
