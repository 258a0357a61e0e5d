//! Tests of the driver `process` with the light runner in place of the official app: the real `dayfly`, agent and
//! entrypoint, and no machine.

use std::path::PathBuf;

use dayfly_e2e::lab::LabProcess;
use dayfly_e2e::{Dayfly, processes_holding};
use tempfile::TempDir;

const JOB: &str = "
on: push
jobs:
  a:
    runs-on: [self-hosted, light]
    steps:
      - name: speak
        run: echo \"on $RUNNER_NAME with $RUNNER_NOTE\"
      - run: echo second
";

/// Returns the program `light-runner`, which cargo puts beside the folder of the test programs.
fn program() -> PathBuf {
    let own = std::env::current_exe().expect("this program");
    let program = own.ancestors().nth(2).expect("target/<profile>").join("light-runner");
    assert!(program.is_file(), "{} is missing: run `cargo build -p dayfly-light-runner`", program.display());
    program
}

/// An installation of the light runner.
struct Installation(TempDir);

impl Installation {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        dayfly_light_runner::install(&program(), folder.path()).expect("the installation is laid out");
        Self(folder)
    }

    /// Creates a loop of this many runners, which are plain processes of this host.
    fn runners<'a>(&self, lab: &'a LabProcess, count: &'a str) -> Dayfly {
        let arguments = ["-R", "process", "-r", count, "-L", "light"];
        lab.runner_command(arguments).env("RUNNER_INSTALL", self.0.path()).env("RUNNER_NOTE", "a note")
    }

    fn assert_unused(&self) {
        assert_eq!(processes_holding(self.0.path()), Vec::<u32>::new());
        let left: Vec<_> = std::fs::read_dir(self.0.path().join("_work")).into_iter().flatten().collect();
        assert!(left.is_empty(), "work folders are left: {left:?}");
    }
}

#[tokio::test]
async fn a_job_runs_in_plain_processes_with_the_light_runner() {
    let (lab, installation) = (LabProcess::start(), Installation::new());
    let run = lab.dispatch(JOB).await;
    let mut runner = installation.runners(&lab, "1").start();
    let name = runner.wait_for_event("listening")["name"].as_str().expect("a name").to_owned();
    assert_eq!(lab.conclusion_of(run).await, "success");
    let log = lab.logs_of(run).await.remove(0).1;
    assert!(log.contains(&format!("Z on {name} with a note\n")) && log.contains("Z second\n"), "{log}");
    let ended = runner.wait();
    ended.assert_status(0).assert_nothing_left();
    assert!(ended.stdout.contains("Succeeded"), "{ended:#?}");
    assert_eq!(lab.registrations().await, Vec::<String>::new());
    installation.assert_unused();
    lab.stop();
}

#[tokio::test]
async fn a_runner_app_that_vanishes_in_its_job_fails_it_at_once() {
    let (lab, installation) = (LabProcess::start(), Installation::new());
    let run = lab.dispatch(JOB).await;
    let runner = installation.runners(&lab, "1").env("RUNNER_LIGHT_MOOD", "vanish-at-step=2").start();
    // Long before the job's lock is over, because the loop tells the lab.
    let concluded = tokio::time::timeout(std::time::Duration::from_secs(60), lab.conclusion_of(run)).await;
    assert_eq!(concluded.expect("the job fails before its lock is over"), "failure");
    let ended = runner.wait();
    ended.assert_nothing_left();
    let exited = ended.events_of("entrypoint_exited").pop().expect("the entrypoint ended by itself");
    assert_eq!(exited["code"], 4, "the app failed: {exited}");
    assert_eq!(lab.registrations().await, Vec::<String>::new());
    lab.stop();
}

#[tokio::test]
async fn ten_jobs_run_in_one_loop_one_after_another() {
    let (lab, installation) = (LabProcess::start(), Installation::new());
    let numbers = "strategy: { matrix: { n: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] } }";
    let run = lab.dispatch(&JOB.replace("runs-on:", &format!("{numbers}\n    runs-on:"))).await;
    let runner = installation.runners(&lab, "10").start();
    assert_eq!(lab.conclusion_of(run).await, "success");
    runner.wait().assert_status(0).assert_nothing_left();
    assert_eq!(lab.registrations().await, Vec::<String>::new());
    installation.assert_unused();
    lab.stop();
}
