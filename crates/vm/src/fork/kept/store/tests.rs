use super::*;
use crate::fork::kept::tests::manifest;

/// Keeps a machine with this much memory until a time. Only its description is that of a machine.
fn keep(state: &Path, runner: &str, until_s: i64, kib: usize) -> PathBuf {
    let folder = state.join(FOLDER).join(runner);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(STATE), vec![1; kib * 1024]).expect("written");
    let manifest = serde_json::to_vec(&manifest(runner, until_s)).expect("a description");
    fs::write(folder.join(MANIFEST), manifest).expect("written");
    folder
}

fn runners(state: &Path) -> Vec<String> {
    let machines = list(state).expect("listed");
    let mut runners: Vec<_> =
        machines.into_iter().map(|machine| machine.manifest.about.runner.clone()).collect();
    runners.sort();
    runners
}

const ROOMY: KeptRoom = KeptRoom { bytes_max: 1 << 30, missing: 0 };

#[test]
fn machines_go_after_their_time_and_the_oldest_first_if_there_is_no_room() {
    for (machines, bytes_max, missing, expected) in [
        (vec![], 0, 0, vec![]),
        (vec![(200, 5), (300, 5)], 10, 0, vec![]),
        (vec![(100, 5), (300, 5)], 10, 0, vec![0]),
        (vec![(200, 5), (100, 50), (300, 5)], 10, 0, vec![1]),
        (vec![(200, 5), (300, 5), (400, 5)], 12, 0, vec![0]),
        (vec![(200, 1), (300, 20)], 10, 0, vec![0, 1]),
        (vec![(200, 5)], 0, 0, vec![0]),
        (vec![(200, 5), (300, 5), (400, 5)], 99, 6, vec![0, 1]),
        (vec![(200, 5), (300, 5)], 99, 1000, vec![0, 1]),
        (vec![(200, 5), (100, 5), (300, 5)], 99, 5, vec![1]),
    ] {
        let gone = to_remove(&machines, 100, KeptRoom { bytes_max, missing });
        assert_eq!(gone, expected, "{machines:?} {bytes_max} {missing}");
    }
}

#[tokio::test]
async fn what_is_over_damaged_or_half_made_goes_and_what_is_thawed_stays() {
    let state = tempfile::tempdir().expect("a folder");
    let (state, later) = (state.path(), now_s() + 3600);
    keep(state, "0-good", later, 1);
    keep(state, "1-over", 0, 1);
    let thawed = keep(state, "2-thawed", 0, 1);
    let damaged = keep(state, "3-damaged", later, 1);
    fs::write(damaged.join(MANIFEST), "{\"format\":").expect("written");
    let half_made = stage::folder_of(&state.join(FOLDER)).join("4-half");
    fs::create_dir_all(&half_made).expect("a folder");
    let thawed = KeptMachine::open(&thawed).expect("kept").lock().await.expect("locked");
    assert!(thawed.machine().is_in_use());

    let collected = collect(state, ROOMY).await.expect("collected");
    let gone: Vec<_> = collected.machines.iter().map(|machine| &machine.manifest.about.runner).collect();
    assert_eq!(gone, ["1-over"]);
    assert_eq!(collected.damaged, [damaged]);
    assert_eq!(runners(state), ["0-good", "2-thawed"]);
    assert!(!half_made.exists());

    drop(thawed);
    collect(state, ROOMY).await.expect("collected");
    assert_eq!(runners(state), ["0-good"]);
    let thawed = list(state).expect("listed").remove(0).lock().await.expect("locked");
    assert!(matches!(remove_all(state).await, Err(KeptError::InUse(runner)) if runner == "0-good"));
    drop(thawed);
    remove_all(state).await.expect("removed");
    let left: Vec<_> =
        fs::read_dir(state.join(FOLDER)).expect("read").map(|entry| entry.expect("one").path()).collect();
    assert_eq!(left, [stage::folder_of(&state.join(FOLDER))]);
}

#[tokio::test]
async fn the_files_of_a_thaw_whose_process_has_died_go_and_the_machine_stays() {
    let state = tempfile::tempdir().expect("a folder");
    let run_dir = keep(state.path(), "0-good", now_s() + 3600, 1).join(MACHINE);
    fs::create_dir(&run_dir).expect("a folder");
    fs::write(run_dir.join("scratch.img"), "").expect("written");
    collect(state.path(), ROOMY).await.expect("collected");
    assert!(!run_dir.exists());
    assert_eq!(runners(state.path()), ["0-good"]);
}

#[test]
fn a_file_with_another_name_counts_in_full_once_only_the_machine_has_it() {
    let state = tempfile::tempdir().expect("a folder");
    let folder = keep(state.path(), "0-good", 1, 64);
    let template = state.path().join("template");
    fs::write(&template, vec![1; 1 << 20]).expect("written");
    fs::hard_link(&template, folder.join(BASE)).expect("linked");
    let bytes = || KeptMachine::open(&folder).expect("kept").bytes();
    let before = bytes();
    assert!(before >= (1 << 19) + (64 << 10), "{before}");
    fs::remove_file(template).expect("removed");
    assert!(bytes() > before + (1 << 18), "{before} {}", bytes());
}
