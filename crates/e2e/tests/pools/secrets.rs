//! The secrets of a job and of its forge, searched for in everything that is left of the job on its host.

use std::fs;
use std::path::{Path, PathBuf};

use dayfly_e2e::lab::LabProcess;
use dayfly_e2e::{Dayfly, OwnState, processes_naming};
use rustix::process::Signal;

use super::inside::machine_pool;
use crate::Config;

/// The name of the secret in the repository.
const NAME: &str = "MARKER";
const JOB: &str = r#"
on: push
jobs:
  a:
    runs-on: plain
    steps:
      - run: |
          echo "the secret is $MARKER"
          echo "$MARKER" >kept-in-the-machine
          until test -e /tmp/gate; do sleep 0.1; done
        env: { MARKER: "${{ secrets.MARKER }}" }
"#;

/// Shows the secret that the job has written, as soon as it is there.
const SHOW: &str = "for i in $(seq 600); do f=$(find /home /root /tmp -name kept-in-the-machine -size +0); \
                    [ -z \"$f\" ] || exec cat \"$f\"; sleep 0.1; done";

/// Returns the files below a folder; those behind links belong to other tests.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

fn holds(bytes: &[u8], marker: &str) -> bool {
    bytes.windows(marker.len()).any(|part| part == marker.as_bytes())
}

/// Returns the processes of this host whose arguments or environment hold a marker.
fn processes_with(markers: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").expect("proc").flatten() {
        let read = |name: &str| fs::read(process.path().join(name)).unwrap_or_default();
        let (arguments, environment) = (read("cmdline"), read("environ"));
        if markers.iter().any(|marker| holds(&arguments, marker) || holds(&environment, marker)) {
            found.push(String::from_utf8_lossy(&arguments).replace('\0', " "));
        }
    }
    found
}

/// Runs a script in a machine, and returns what it has printed.
fn exec(state: &Path, runner: &str, script: &str) -> String {
    let ended = Dayfly::new(["exec", runner, "--", "sh", "-c", script]).env("DAYFLY_STATE", state).run();
    ended.assert_status(0);
    ended.stdout
}

#[tokio::test]
async fn no_secret_of_a_job_or_a_forge_is_in_a_process_or_in_a_file_that_is_left() {
    let (lab, state) = (LabProcess::start(), OwnState::new());
    let marker = format!("dayfly-marker-{}", std::process::id());
    lab.forge.put_secret("o", "r", NAME, &marker).await.expect("a secret");
    let config = Config::new(&lab, &machine_pool());
    let mut orchestrator = config.command().env("DAYFLY_STATE", state.path()).start();
    let run = lab.dispatch(JOB).await;
    let started = orchestrator.wait_for_event("job_started");
    let runner = started["runner"].as_str().expect("an id");
    let markers = [marker.as_str(), lab.token.as_str()];
    // The job has its secret, so the search looks for the right text.
    assert_eq!(exec(state.path(), runner, SHOW).trim(), marker);
    assert!(!processes_naming(started["name"].as_str().expect("a name")).is_empty(), "a machine runs");
    assert_eq!(processes_with(&markers), [""; 0]);
    let is_env = |path: &PathBuf| path.extension().is_some_and(|end| end == "env");
    assert!(!files(state.path()).iter().any(is_env), "the settings of a machine that runs");
    exec(state.path(), runner, "touch /tmp/gate");
    assert_eq!(lab.conclusion_of(run).await, "success");
    orchestrator.wait_for_event("ended");
    orchestrator.signal(Signal::TERM);
    let ended = orchestrator.wait();
    ended.assert_status(143);
    for marker in markers {
        assert!(!ended.stdout.contains(marker) && !ended.stderr.contains(marker), "printed");
    }
    let left = files(state.path());
    assert!(!left.is_empty(), "logs and the history stay");
    for path in left {
        let bytes = fs::read(&path).expect("readable");
        assert!(!markers.iter().any(|marker| holds(&bytes, marker)), "{}", path.display());
    }
    lab.stop();
}
