//! Soaks with plain processes in place of machines, and the light runner as their app: the whole command `dayfly lab
//! soak`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use dayfly_e2e::{Dayfly, Ended, OwnState, processes_holding};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest time of a soak, with its end. Each has a shorter limit of its own.
const LIMIT: Duration = Duration::from_secs(4 * 3600);

/// Returns the program `light-runner`, which cargo puts beside the folder of the test programs.
fn program() -> PathBuf {
    let own = std::env::current_exe().expect("this program");
    let program = own.ancestors().nth(2).expect("target/<profile>").join("light-runner");
    assert!(program.is_file(), "{} is missing: run `cargo build -p dayfly-light-runner`", program.display());
    program
}

/// An installation of the light runner, and a state folder in which no other test looks for what dead processes have
/// left.
struct Stage {
    app: TempDir,
    state: OwnState,
}

impl Stage {
    fn new() -> Self {
        let app = tempfile::tempdir().expect("a temporary folder");
        dayfly_light_runner::install(&program(), app.path()).expect("the installation is laid out");
        Self { app, state: OwnState::new() }
    }

    fn soak(&self, options: &str) -> Dayfly {
        // The soak has a limit of its own, after which it tells which jobs are lost.
        let app = self.app.path().display().to_string();
        let fixed = ["lab", "soak", "--json", "--driver", "process", "--runner-app", &app];
        let words = fixed.into_iter().chain(options.split_whitespace());
        Dayfly::new(words).env("DAYFLY_STATE", self.state.path()).within(LIMIT)
    }

    #[track_caller]
    fn assert_nothing_left(&self, ended: &Ended) {
        assert!(ended.temporary.is_empty(), "{:?}", ended.temporary);
        assert!(!self.state.path().join("soak").exists(), "the folder of the soak is removed");
        assert_eq!(processes_holding(self.state.path()), Vec::<u32>::new());
    }
}

/// Runs a soak, and asserts that all was well, and that processes of each kind were killed. Returns its events.
fn assert_well(options: &str, jobs: u64) -> Vec<Value> {
    let stage = Stage::new();
    let ended = stage.soak(options).run();
    ended.assert_status(0);
    let events = ended.events();
    let verdict = events.last().expect("a verdict");
    assert_eq!(verdict["jobs"], jobs);
    let done = verdict["done"].as_u64().expect("a number");
    assert_eq!(done + verdict["failed_by_fault"].as_u64().expect("a number"), jobs);
    assert!(done > jobs / 2, "most jobs run to their end: {verdict}");
    let left = json!({"registrations": 0, "vms": 0, "files": 0, "processes": 0});
    assert_eq!(verdict["left"], left);
    for victim in ["orchestrator", "loop", "vm"] {
        let is_victim = |event: &&Value| event["event"] == "kill" && event["victim"] == victim;
        assert!(events.iter().any(|event| is_victim(&event)), "no {victim} was killed");
    }
    assert!(events.iter().any(|event| event["event"] == "trouble"), "the host had no trouble");
    stage.assert_nothing_left(&ended);
    events
}

#[test]
fn forty_jobs_survive_kills_of_everything() {
    assert_well("--jobs 40 --seed 14 --faults none --kill-every 2s --limit 10m", 40);
}

#[test]
fn forty_jobs_survive_a_forge_that_fails_while_processes_are_killed() {
    let faults =
        ["cancel-before-pick-up", "drop-reply", "job-theft", "large-ids", "server-error", "session-conflict"];
    let options = format!("--jobs 40 --seed 2 --faults {} --kill-every 2s --limit 10m", faults.join(","));
    let events = assert_well(&options, 40);
    let played: BTreeSet<&str> = events.iter().filter_map(|event| event["fault"].as_str()).collect();
    assert_eq!(played, BTreeSet::from(faults), "each fault has happened");
}

#[test]
fn an_interrupted_soak_leaves_nothing() {
    let stage = Stage::new();
    let mut soak = stage.soak("--jobs 100 --seed 3").start();
    soak.wait_for_event("job_acquired");
    soak.signal(Signal::INT);
    let ended = soak.wait();
    ended.assert_status(130);
    stage.assert_nothing_left(&ended);
}

#[test]
#[ignore = "kept for make test-full: 2,000 jobs with all faults"]
fn two_thousand_jobs_survive_all_faults_and_kills() {
    assert_well("--jobs 2000 --seed 1 --parallel 8 --limit 3h", 2000);
}
