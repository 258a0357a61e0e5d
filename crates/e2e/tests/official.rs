//! Tests of GitHub's own runner app (actions/runner) in machines, with the lab as its forge. `make test-official` builds the
//! image, from an archive of the app that the user gives or that is downloaded.

use std::time::Duration;

use dayfly_e2e::lab::LabProcess;
use dayfly_e2e::{Ended, image_of};

const JOB: &str = r#"
on: workflow_dispatch
jobs:
  make:
    runs-on: self-hosted
    outputs:
      word: ${{ steps.speak.outputs.word }}
    steps:
      - id: speak
        run: |
          echo "::add-mask::hidden-$((20 + 1))"
          echo "masked hidden-21"
          echo "word=dayfly" >>"$GITHUB_OUTPUT"
      - run: |
          libraries=$(ldd /bin/sh | grep -o '/[^ ]*')
          tar --create --dereference --absolute-names /bin/sh $libraries | docker import - box
          docker run --rm box /bin/sh -c 'echo in a container'
  take:
    needs: make
    runs-on: self-hosted
    steps:
      - run: echo "heard ${{ needs.make.outputs.word }}"
"#;

/// A job that waits until it is cancelled or its time is over.
const LONG: &str = r#"
on: workflow_dispatch
jobs:
  wait:
    runs-on: self-hosted
    timeout-minutes: 1
    steps:
      - run: |
          echo "the step runs"
          sleep 300
      - if: always()
        run: echo "cleaned up"
"#;

fn image() -> String {
    image_of("DAYFLY_TEST_OFFICIAL_IMAGE")
}

/// Asserts that the loop's log has the app's own words for the end of a job, and none of its diagnostics.
#[track_caller]
fn assert_told(ended: &Ended, results: &[&str]) {
    for result in results {
        assert!(ended.stdout.contains(&format!("completed with result: {result}")), "{ended:#?}");
    }
    assert!(!ended.stdout.contains(" INFO Listener]"), "diagnostics are not part of the log: {ended:#?}");
}

/// Waits until a line with this text is in the log of a run's only job.
async fn until_logged(lab: &LabProcess, run: u64, text: &str) {
    let logged = async {
        while !lab.logs_of(run).await.iter().any(|(_, log)| log.contains(text)) {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(300), logged).await.expect("the line is logged");
}

#[tokio::test]
async fn jobs_with_outputs_masks_and_docker_succeed() {
    let lab = LabProcess::start();
    let runner = lab.runner(["-r", "2", "-i", &image()]);
    let run = lab.dispatch(JOB).await;
    assert_eq!(lab.conclusion_of(run).await, "success", "{:#?}", lab.logs_of(run).await);
    let logs: String = lab.logs_of(run).await.into_iter().map(|(_, log)| log).collect();
    for text in ["masked ***", "in a container", "heard dayfly"] {
        assert!(logs.contains(text), "no {text:?} in {logs}");
    }
    assert!(!logs.contains("hidden-21"), "{logs}");
    let ended = runner.wait();
    ended.assert_status(0).assert_nothing_left();
    assert_told(&ended, &["Succeeded"]);
    assert_eq!(lab.registrations().await, Vec::<String>::new());
    lab.stop();
}

#[tokio::test]
async fn a_cancelled_job_ends_soon_and_cleans_up() {
    let lab = LabProcess::start();
    let runner = lab.runner(["-r", "1", "-i", &image()]);
    let run = lab.dispatch(LONG).await;
    until_logged(&lab, run, "the step runs").await;
    lab.cancel(run).await;
    assert_eq!(lab.conclusion_of(run).await, "cancelled");
    until_logged(&lab, run, "cleaned up").await;
    let ended = runner.wait();
    ended.assert_status(0).assert_nothing_left();
    assert_told(&ended, &["Canceled"]);
    lab.stop();
}

#[tokio::test]
async fn a_job_whose_time_is_over_ends_and_cleans_up() {
    let lab = LabProcess::start();
    let runner = lab.runner(["-r", "1", "-i", &image()]);
    let run = lab.dispatch(LONG).await;
    let conclusion = lab.conclusion_of(run).await;
    assert!(conclusion == "cancelled" || conclusion == "failure", "{conclusion}");
    until_logged(&lab, run, "cleaned up").await;
    runner.wait().assert_status(0).assert_nothing_left();
    lab.stop();
}

#[tokio::test]
async fn one_registration_runs_two_jobs_if_it_is_not_ephemeral() {
    let lab = LabProcess::start();
    let runner = lab.runner(["--registration", "token", "--ephemeral", "false", "-r", "1", "-i", &image()]);
    let mut names = Vec::new();
    for _ in 0..2 {
        let run = lab.dispatch(JOB).await;
        assert_eq!(lab.conclusion_of(run).await, "success", "{:#?}", lab.logs_of(run).await);
        names.extend(lab.registrations().await);
    }
    names.dedup();
    assert_eq!(names.len(), 1, "one registration: {names:?}");
    runner.signal(rustix::process::Signal::TERM);
    runner.wait().assert_nothing_left();
    assert_eq!(lab.registrations().await, Vec::<String>::new());
    lab.stop();
}
