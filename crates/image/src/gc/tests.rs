use std::time::Duration;

use proptest::prelude::*;

use super::super::FileDigest;
use super::super::in_use::InUse;
use super::super::store::ROOT;
use super::super::store::tests::manifest;
use super::*;

fn ago(seconds: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(seconds)
}

fn put(store: &Store, id: &str, bytes: u64, age_s: u64) -> Image {
    let folder = store.folder().join(id);
    fs::create_dir_all(&folder).expect("folder");
    let mut manifest = manifest(id, 1);
    manifest.files.insert(ROOT.to_owned(), FileDigest { bytes, sha256: String::new() });
    fs::write(folder.join(ROOT), "x").expect("root");
    fs::write(folder.join(MANIFEST), serde_json::to_vec(&manifest).expect("json")).expect("write");
    let root = File::options().write(true).open(folder.join(ROOT)).expect("root");
    root.set_modified(ago(age_s)).expect("time");
    store.find(id).expect("there")
}

fn put_layer(store: &Store, name: &str, bytes: usize) {
    let folder = store.blobs().join(name);
    fs::create_dir_all(&folder).expect("folder");
    fs::write(folder.join("blob"), vec![0; bytes]).expect("blob");
}

/// Puts a bundle of `bytes` into the state folder, with its manifest of 2 bytes, and returns its folder.
fn put_bundle(store: &Store, kind: Kind, id: &str, bytes: usize, age_s: u64) -> PathBuf {
    let folder = store.bundles(kind).join(id);
    fs::create_dir_all(folder.join("tree")).expect("folder");
    fs::write(folder.join("tree/file"), vec![0; bytes - 2]).expect("file");
    fs::write(folder.join(MANIFEST), "{}").expect("manifest");
    let manifest = File::open(folder.join(MANIFEST)).expect("manifest");
    manifest.set_modified(ago(age_s)).expect("time");
    folder
}

fn removed(collected: &Collected) -> Vec<&str> {
    collected.removed.iter().map(|item| item.id.as_str()).collect()
}

fn kept(collected: &Collected) -> Vec<&str> {
    collected.in_use.iter().map(|item| item.id.as_str()).collect()
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
    assert_eq!(store.gc(1000).expect("nothing to do"), Collected { left_bytes: 350, ..Collected::default() });
    let collected = store.gc(150).expect("collected");
    assert_eq!(removed(&collected), ["11", "bb", "cc"]);
    assert_eq!(collected.removed_of(Kind::Layer).map(|layer| layer.bytes).sum::<u64>(), 50);
    assert_eq!((kept(&collected), collected.left_bytes), (vec!["aa"], 100));
    drop(used);
    let newer = put(&store, "dd", 100, 250);
    store.touch(&newer);
    store.touch(&old);
    assert_eq!(removed(&store.gc(100).expect("collected")), ["dd"]);
}

#[test]
fn tools_kernels_and_runner_apps_count_and_go_unless_a_process_uses_them() {
    let state = tempfile::tempdir().expect("folder");
    let store = Store::new(state.path());
    put(&store, "aa", 100, 300);
    let tools = put_bundle(&store, Kind::Tools, "t1", 40, 400);
    put_bundle(&store, Kind::Kernel, "k1", 30, 200);
    put_bundle(&store, Kind::RunnerApp, "r1", 20, 100);
    fs::create_dir_all(store.bundles(Kind::Kernel).join(".build/half")).expect("folder");
    let used = InUse::of(&tools).expect("locked").expect("there");
    // The use has changed its time, so that it would be the last to go.
    let preview = store.gc_preview(0).expect("looked");
    assert_eq!(
        (removed(&preview), kept(&preview), preview.left_bytes),
        (vec!["aa", "k1", "r1"], vec!["t1"], 40)
    );
    assert!(store.bundles(Kind::Kernel).join("k1").exists(), "a preview removes nothing");
    assert_eq!(store.gc(0).expect("collected"), preview);
    drop(used);
    assert_eq!(removed(&store.gc(0).expect("collected")), ["t1"]);
    assert!(!tools.exists());
}

#[test]
fn bundles_of_another_state_behind_a_link_are_left_alone() {
    let (state, other) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let (store, others) = (Store::new(state.path()), Store::new(other.path()));
    let tools = put_bundle(&others, Kind::Tools, "t1", 40, 400);
    std::os::unix::fs::symlink(others.bundles(Kind::Tools), store.bundles(Kind::Tools)).expect("a link");
    assert_eq!(store.gc(0).expect("collected"), Collected::default());
    assert!(tools.exists());
}

#[test]
fn layers_stay_while_somebody_pulls() {
    let state = tempfile::tempdir().expect("folder");
    let store = Store::new(state.path());
    put_layer(&store, "11", 50);
    let pulling = store.use_layers().expect("locked");
    assert_eq!(store.gc_preview(0).expect("nothing may go").removed, []);
    assert_eq!(store.gc(0).expect("nothing may go"), Collected { left_bytes: 50, ..Collected::default() });
    drop(pulling);
    assert_eq!(removed(&store.gc(0).expect("collected")), ["11"]);
}

fn items() -> impl Strategy<Value = Vec<(Item, bool)>> {
    let kinds = [Kind::Layer, Kind::Image, Kind::Tools, Kind::Kernel, Kind::RunnerApp];
    let used = proptest::option::of(0_u64..50)
        .prop_map(|at| at.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)));
    let one = (proptest::sample::select(kinds.to_vec()), 0_u64..100, used, any::<bool>());
    proptest::collection::vec(one, 0..20).prop_map(|all| {
        let item = |(index, (kind, bytes, used, is_in_use))| {
            (Item { kind, id: format!("{index:02}"), bytes, used }, is_in_use)
        };
        all.into_iter().enumerate().map(item).collect()
    })
}

proptest! {
    #[test]
    fn a_collection_removes_enough_and_no_more_and_nothing_in_use(all in items(), keep in 0_u64..1000) {
        let is_in_use = |item: &Item| all.iter().any(|(known, is_used)| known.id == item.id && *is_used);
        let given: Vec<Item> = all.iter().map(|(item, _)| item.clone()).collect();
        let total: u64 = given.iter().map(|item| item.bytes).sum();
        let collected = collect(given.clone(), keep, &mut |item| Ok(!is_in_use(item))).expect("no error");
        let freed: u64 = collected.removed.iter().map(|item| item.bytes).sum();
        prop_assert_eq!(collected.left_bytes, total - freed);
        prop_assert!(!collected.removed.iter().any(is_in_use));
        let free_remain = given.iter().any(|item| !is_in_use(item) && !collected.removed.contains(item));
        prop_assert!(collected.left_bytes <= keep || !free_remain, "too little: {:?}", collected);
        let last = collected.removed.last().map_or(0, |item| item.bytes);
        prop_assert!(collected.removed.is_empty() || collected.left_bytes + last > keep, "too much");
        // Each removed item was unused for at least as long as each free one that stays, and layers go first.
        let rank = |item: &Item| (item.kind != Kind::Layer, item.used);
        for stays in given.iter().filter(|item| !is_in_use(item) && !collected.removed.contains(item)) {
            prop_assert!(collected.removed.iter().all(|gone| rank(gone) <= rank(stays)));
        }
    }
}
