//! Tests of one and of two termination signals, in each phase of a runner's life.

use std::time::Duration;

use rustix::process::Signal;

use super::stage::{REPOSITORY, Stage, listening};

/// A job that runs for ten minutes unless it is stopped.
const LONG: &str =
    "on: push\njobs: { long: { runs-on: self-hosted, steps: [{ run: echo begun; sleep 600 }] } }";

#[tokio::test]
async fn a_signal_in_any_phase_leaves_nothing() {
    let stage = Stage::new();
    for mode in ["jit", "token"] {
        // From before the registration until after the runner app listens, which is after about half a second.
        for delay_ms in (20..800).step_by(60) {
            let words = ["orchestrator", "--json", "-n", "2", "--", "-p", REPOSITORY, "--registration", mode];
            let orchestrator = stage.with_token(words).start();
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            orchestrator.signal(Signal::TERM);
            let ended = orchestrator.wait();
            // Before dayfly handles the signal, the default action kills it. Nothing has been created by then.
            assert!(matches!(ended.status, Some(143) | None), "after {delay_ms} ms: {ended:#?}");
            stage.assert_nothing_left(&ended).await;
        }
    }
    stage.lab.stop();
}

#[tokio::test]
async fn two_signals_end_an_idle_runner_at_once() {
    let stage = Stage::new();
    let mut runner = stage.with_token(["runner", "--json", "-p", REPOSITORY]).start();
    listening(&mut runner);
    runner.signal(Signal::TERM);
    runner.signal(Signal::INT);
    let ended = runner.wait();
    assert!(matches!(ended.status, Some(143 | 130)), "{ended:#?}");
    stage.assert_nothing_left(&ended).await;
    stage.lab.stop();
}

#[tokio::test]
async fn a_busy_runner_ends_its_job_by_the_handshake_and_at_once_at_the_second_signal() {
    let stage = Stage::new();
    for signals in [1, 2] {
        let mut runner = stage.with_token(["orchestrator", "--json", "--", "-p", REPOSITORY]).start();
        listening(&mut runner);
        let run = stage.lab.dispatch(LONG).await;
        runner.wait_for_event("job_started");
        for number in 0..signals {
            if number > 0 {
                runner.wait_for_event("stopping");
            }
            runner.signal(Signal::TERM);
        }
        let ended = runner.wait();
        ended.assert_status(143);
        assert_ne!(stage.lab.conclusion_of(run).await, "success");
        stage.assert_nothing_left(&ended).await;
    }
    stage.lab.stop();
}
