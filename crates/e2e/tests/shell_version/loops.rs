//! Tests that a loop that fails is replaced, and that no other loop is affected.

use rustix::process::Signal;

use super::stage::{HELLO, REPOSITORY, Stage, listening};

/// A job that has become root in its machine and stops the entrypoint, which then writes a `.brk` with the right secret.
const REBEL: &str = "
on: push
jobs:
  rebel:
    runs-on: self-hosted
    steps:
      - run: |
          for process in /proc/[0-9]*; do
            if tr '\\0' ' ' < $process/cmdline | grep -q 'dayfly-guest entrypoint'; then kill -TERM ${process#/proc/}; fi
          done
          sleep 60
";

#[tokio::test]
async fn a_loop_that_a_job_has_ended_is_replaced_and_counted_and_its_sibling_goes_on() {
    let stage = Stage::new();
    let mut orchestrator =
        stage.with_token(["orchestrator", "--json", "-n", "2", "--", "-p", REPOSITORY]).start();
    listening(&mut orchestrator);
    listening(&mut orchestrator);
    let run = stage.lab.dispatch(REBEL).await;
    let started = orchestrator.wait_for_event("job_started");
    let replaced = orchestrator.wait_for_event("loop_replaced");
    assert_eq!(
        (&replaced["loop"], &replaced["count"], &replaced["pause_ms"]),
        (&started["loop"], &1.into(), &1000.into())
    );
    assert_ne!(stage.lab.conclusion_of(run).await, "success");
    let again = orchestrator.wait_for("the replacement", |event| {
        event["event"] == "listening" && event["loop"] == started["loop"]
    });
    assert_ne!(again["runner"], started["runner"]);
    stage.job(HELLO).await;
    orchestrator.signal(Signal::TERM);
    let ended = orchestrator.wait();
    ended.assert_status(143);
    for event in ended.events_of("loop_replaced") {
        assert_eq!(event["loop"], started["loop"], "the other loop is not affected");
    }
    stage.assert_nothing_left(&ended).await;
    stage.lab.stop();
}
