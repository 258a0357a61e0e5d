//! Tests that kill orchestrators at random moments: the next start removes what all of them have left.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_e2e::lab::LabProcess;
use dayfly_e2e::machines::enter_network_namespace;
use dayfly_e2e::{Dayfly, OwnState, Running, processes_holding};
use rustix::process::Signal;
use serde_json::Value;

use crate::dice::Dice;
use crate::footprint::assert_no_network_of_a_machine;
use crate::{alone, until};

/// Latest moment at which an orchestrator is killed. By then its machines wait for jobs, and there is a spare.
const LATEST: Duration = Duration::from_secs(6);

const HELLO: &str = "on: push\njobs: { a: { runs-on: [self-hosted, here], steps: [{ run: echo hello }] } }";

fn orchestrator(lab: &LabProcess, state: &OwnState) -> Running {
    let words = ["orchestrator", "--json", "-n", "2", "--parallel-start", "2", "--"];
    let more = ["-g", &lab.url, "-p", &lab.principal, "-L", "here", "--spare", "1"];
    Dayfly::new(words.into_iter().chain(more))
        .env("RUNNER_PAT", &lab.token)
        .env("DAYFLY_STATE", state.path())
        .start()
}

fn folders_in(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Returns the folders of instances that are left. A folder without a lock is not counted, because for a minute it may belong
/// to a process that is about to start.
fn instances(state: &OwnState) -> Vec<PathBuf> {
    let all = folders_in(&state.path().join("instances"));
    all.into_iter().filter(|folder| folder.join("lock").exists()).collect()
}

async fn orchestrators_are_killed(times: u32) {
    let _alone = alone().await;
    enter_network_namespace();
    let (lab, state, mut dice) = (LabProcess::start(), OwnState::with_own_templates(), Dice::new());
    for _ in 0..times {
        let killed = orchestrator(&lab, &state);
        tokio::time::sleep(dice.below(LATEST)).await;
        killed.signal(Signal::KILL);
        assert_eq!(killed.wait().status, None, "it was killed");
    }
    let mut last = orchestrator(&lab, &state);
    // A runner that was idle when its orchestrator was killed says so no more.
    let is_idle = |event: &Value| {
        event["event"] == "listening" || (event["event"] == "vm_taken_over" && event["phase"] == "idle")
    };
    for _ in 0..2 {
        last.wait_for("an idle runner", is_idle);
    }
    assert_eq!(lab.registrations().await.len(), 2, "no other registration of a killed orchestrator is left");
    // A folder whose runner goes on stays as long as the runner.
    let others: Vec<_> =
        instances(&state).into_iter().filter(|folder| !folder.join("taken-over").exists()).collect();
    assert_eq!(others.len(), 1, "other folders of the killed orchestrators are gone: {others:?}");
    let run = lab.dispatch(HELLO).await;
    assert_eq!(lab.conclusion_of(run).await, "success");
    last.signal(Signal::TERM);
    let ended = last.wait();
    ended.assert_status(143).assert_nothing_left();
    for started in ended.events_of("vmm_started") {
        assert_ne!(started["from"], "boot", "the template works: {started}");
    }
    assert_eq!(lab.registrations().await, Vec::<String>::new());
    assert_eq!(instances(&state), Vec::<PathBuf>::new());
    until("no process has a file of the state open", || processes_holding(state.path()).is_empty()).await;
    assert_no_network_of_a_machine();
    lab.stop();
}

#[tokio::test]
async fn the_next_orchestrator_clears_up_after_four_that_were_killed_at_random() {
    orchestrators_are_killed(4).await;
}

#[tokio::test]
#[ignore = "kept for make test-full"]
async fn the_next_orchestrator_clears_up_after_fifty_that_were_killed_at_random() {
    orchestrators_are_killed(50).await;
}
