//! Jobs that are cancelled, interrupted, or lose their runner.

use std::path::PathBuf;
use std::time::Duration;

use dayfly_lab::LabEventKind;
use dayfly_light_runner::{Exit, Mood, Settings};

use crate::stage::{Runner, Stage, one_job};

/// Returns a job whose first step runs until it is interrupted. The step creates a file once it is ready for that.
fn long(stage: &Stage) -> String {
    let ready = ready(stage);
    one_job(&format!(
        "
      - name: long
        run: trap 'echo GOT-INT; exit 1' INT; touch {}; for i in 1 2 3 4 5 6 7 8 9; do sleep 1; done
      - if: cancelled()
        run: echo cancelled step
      - if: always()
        run: echo always step
      - run: echo never
",
        ready.display()
    ))
}

fn ready(stage: &Stage) -> PathBuf {
    stage.path().join("ready")
}

async fn started(stage: &mut Stage) {
    let is_long =
        |event: &LabEventKind| matches!(event, LabEventKind::StepStarted { name, .. } if name == "long");
    stage.wait_for("the long step", is_long).await;
    let is_ready = async {
        while !ready(stage).exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), is_ready).await.expect("the step runs");
}

fn conclusions<'a>(steps: &[(&'a str, &'a str)]) -> Vec<&'a str> {
    steps.iter().map(|step| step.1).collect()
}

#[tokio::test]
async fn a_cancelled_job_still_runs_the_steps_for_that() {
    let mut stage = Stage::set().await;
    let run = stage.start(&long(&stage)).await;
    let runner = stage.runner("one").await;
    started(&mut stage).await;
    assert!(stage.forge.cancel_run("o", "r", run).await.unwrap());
    let outcome = stage.end_of(run).await;
    assert_eq!(outcome.conclusion, "cancelled", "{outcome:?}");
    assert_eq!(
        conclusions(&outcome.steps("a")),
        ["success", "cancelled", "success", "success", "skipped", "success"]
    );
    assert_eq!(outcome.annotations(), [("failure", "The operation was canceled.", Some(2))]);
    assert!(outcome.has_line("GOT-INT") && outcome.has_line("always step"), "{:?}", outcome.lines());
    let (exit, lines) = runner.exit().await;
    assert!(exit == Exit::Success && lines.contains("Job a completed with result: Canceled"), "{lines}");
    stage.nothing_is_left().await;
}

#[tokio::test]
async fn an_interrupted_runner_fails_its_job_and_closes_its_session() {
    let mut stage = Stage::set().await;
    let run = stage.start(&long(&stage)).await;
    let runner = stage.runner("one").await;
    started(&mut stage).await;
    runner.stop();
    let outcome = stage.end_of(run).await;
    assert_eq!(outcome.conclusion, "failure", "{outcome:?}");
    assert_eq!(
        conclusions(&outcome.steps("a")),
        ["success", "cancelled", "skipped", "skipped", "skipped", "success"]
    );
    let shutdown = "##[error]The runner has received a shutdown signal. This can happen when the runner service is \
                    stopped, or a manually started runner is canceled.";
    assert!(outcome.has_line(shutdown), "{:?}", outcome.lines());
    let (exit, lines) = runner.exit().await;
    assert!(exit == Exit::Success && lines.contains("Job a completed with result: Failed"), "{lines}");
    stage.nothing_is_left().await;
}

#[tokio::test]
async fn a_crash_before_the_first_step_leaves_its_reason_at_the_job() {
    let mut stage = Stage::set().await;
    let run = stage.start(&one_job("      - run: echo never\n")).await;
    let settings = Settings { mood: Some(Mood::CrashBeforeSteps), ..stage.settings() };
    let runner = Runner::start(stage.config("crashing").await, settings);
    let outcome = stage.end_of(run).await;
    assert_eq!((outcome.conclusion.as_str(), outcome.steps("a").len()), ("failure", 0));
    let annotations = outcome.annotations();
    assert!(annotations[0].1.contains("UnauthorizedAccessException"), "{annotations:?}");
    assert_eq!((annotations[0].0, annotations[0].2), ("failure", None));
    assert_eq!(runner.exit().await.0, Exit::Success);
    let left = stage.forge.list_runners(&Stage::scope()).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_runner_that_cannot_make_its_work_folder_crashes_in_the_same_way() {
    let mut stage = Stage::set().await;
    let run = stage.start(&one_job("      - run: echo never\n")).await;
    std::fs::write(stage.path().join("app"), "a file").unwrap();
    let runner = stage.runner("homeless").await;
    let outcome = stage.end_of(run).await;
    assert_eq!(outcome.conclusion, "failure");
    assert!(outcome.annotations()[0].1.contains("the job's folders in "), "{:?}", outcome.annotations());
    assert_eq!(runner.exit().await.0, Exit::Success);
}

#[tokio::test]
async fn a_runner_that_vanishes_loses_its_job_when_the_lock_is_over() {
    let mut stage = Stage::set().await;
    let run = stage.start(&one_job("      - run: echo before\n      - run: echo never\n")).await;
    let settings = Settings { mood: Some(Mood::VanishAtStep(2)), ..stage.settings() };
    let (exit, lines) = Runner::start(stage.config("lost").await, settings).exit().await;
    assert!(exit == Exit::Vanished && !lines.contains("completed"), "{lines}");
    assert_eq!(stage.forge.run("o", "r", run).await.unwrap().conclusion, None);
    stage.clock.advance(Duration::from_secs(160));
    let outcome = stage.end_of(run).await;
    assert_eq!(outcome.conclusion, "failure");
    assert!(outcome.has_line("before") && !outcome.has_line("never"), "{:?}", outcome.lines());
    let remark = outcome.jobs[0].remark.clone().unwrap_or_default();
    assert!(remark.contains("lost communication"), "{remark}");
    assert_eq!(stage.forge.list_runners(&Stage::scope()).await.unwrap().len(), 1, "it stays to be swept");
}

#[tokio::test]
async fn a_runner_that_hangs_after_its_job_is_no_longer_registered() {
    let mut stage = Stage::set().await;
    let run = stage.start(&one_job("      - run: echo done\n")).await;
    let settings = Settings { mood: Some(Mood::HangAfterJob), ..stage.settings() };
    let runner = Runner::start(stage.config("hanging").await, settings);
    assert_eq!(stage.end_of(run).await.conclusion, "success");
    runner.says("completed with result: Succeeded").await;
    stage.nothing_is_left().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!runner.has_exited());
    runner.stop();
    assert_eq!(runner.exit().await.0, Exit::Success);
}

#[tokio::test]
async fn a_job_that_was_taken_away_is_abandoned_at_the_next_renewal() {
    let mut stage = Stage::set().await;
    let run = stage.start(&long(&stage)).await;
    let settings = Settings { renewal: Duration::from_millis(700), ..stage.settings() };
    let runner = Runner::start(stage.config("late").await, settings);
    started(&mut stage).await;
    stage.forge.force_cancel_run("o", "r", run).await.unwrap();
    let outcome = stage.end_of(run).await;
    assert_eq!(outcome.conclusion, "cancelled");
    let (exit, lines) = runner.exit().await;
    assert!(exit == Exit::Success && lines.contains("Job a completed with result: Canceled"), "{lines}");
    assert!(!outcome.has_line("always step"), "{:?}", outcome.lines());
}
