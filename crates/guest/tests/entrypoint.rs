//! The entrypoint as a plain process on this machine, with a script for a runner app: it knows files and standard
//! output only, so nothing else is needed.
#![allow(missing_docs, clippy::unwrap_used)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dayfly_guest::envfile;
use dayfly_guest::runner_app::{Ending, Observation, observe, parse_relayed};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const ID: &str = "2-k3V9x0q";
const SECRET: &str = "s3cret of the loop";

/// Far more than anything here takes; a test that reaches it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// An app that runs until it is stopped, and says so. It waits in steps, so that the trap runs soon.
const UNTIL_STOPPED: &str = "trap 'echo stopped; exit 0' TERM\necho 'Listening for Jobs'\n\
    while :; do sleep 0.05; done\n";

struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    /// A folder with an environment directory, the settings of a runner, and a script for a runner app.
    fn new(app: &str) -> Self {
        let stage = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(stage.path("environment")).unwrap();
        let jit = serde_json::json!({
            ".runner": STANDARD.encode(r#"{"AgentName":"n"}"#),
            ".credentials": STANDARD.encode("{}"),
            ".credentials_rsaparams": STANDARD.encode(r#"{"d":"key"}"#),
        });
        let variables = [
            ("RUNNER_JITCONFIG", STANDARD.encode(jit.to_string())),
            ("RUNNER_SECRET", SECRET.to_owned()),
            ("RUNNER_NAME", "GH-runner".to_owned()),
            ("RUNNER_ID", ID.to_owned()),
        ];
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        std::fs::write(stage.note("env"), envfile::render(&variables).unwrap()).unwrap();
        std::fs::write(stage.path("app.sh"), format!("#!/bin/sh\n{app}")).unwrap();
        std::fs::set_permissions(stage.path("app.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn note(&self, suffix: &str) -> PathBuf {
        self.path("environment").join(format!("{ID}.{suffix}"))
    }

    fn start(&self) -> Entrypoint {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dayfly-guest"));
        command.args(["entrypoint", "-i", ID, "-u", ""]);
        command.arg("--environment").arg(self.path("environment"));
        command.arg("--app").arg(self.path("app.sh")).arg("--app-dir").arg(self.path("app"));
        command.env("LEAK", "from outside").env("RUNNER_DOCKER", "0").env("RUNNER_LOGDIR", self.path("logs"));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Entrypoint { child, lines, seen: String::new() }
    }
}

struct Entrypoint {
    child: Child,
    lines: BufReader<ChildStdout>,
    seen: String,
}

impl Entrypoint {
    /// Reads until a line holds `text`.
    fn wait_for_line(&mut self, text: &str) {
        loop {
            let start = self.seen.len();
            assert_ne!(
                self.lines.read_line(&mut self.seen).unwrap(),
                0,
                "no line with {text:?} in:\n{}",
                self.seen
            );
            if self.seen[start..].contains(text) {
                return;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// All that it printed, and how it ended.
    fn end(mut self) -> (String, Option<i32>) {
        let start = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "it does not end:\n{}", self.seen);
            std::thread::sleep(Duration::from_millis(5));
        }
        std::io::Read::read_to_string(&mut self.lines, &mut self.seen).unwrap();
        (std::mem::take(&mut self.seen), self.child.wait().unwrap().code())
    }
}

impl Drop for Entrypoint {
    fn drop(&mut self) {
        // Ended already in a test that passes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn runner_lines(output: &str) -> Vec<&str> {
    let relayed = output.lines().filter_map(parse_relayed);
    relayed.filter(|line| line.source == "runner" && line.runner_id == ID).map(|line| line.text).collect()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_app_gets_its_files_and_a_clean_environment_and_a_finished_job_is_success() {
    let stage = Stage::new(
        "stat -c '%a %n' . .runner .credentials .credentials_rsaparams\ncat .runner\necho\nenv | cut -d= -f1 | sort\n\
         echo \"args: $*\"\necho \"x ( http://h/o/r ): Finished Job 'j' with Status Failed\"\necho err >&2\n",
    );
    let (output, code) = stage.start().end();
    let lines = runner_lines(&output);
    assert_eq!(
        lines[..5],
        ["700 .", "600 .runner", "600 .credentials", "600 .credentials_rsaparams", r#"{"AgentName":"n"}"#]
    );
    let environment: Vec<_> =
        lines[5..].iter().take_while(|line| !line.starts_with("args")).copied().collect();
    // PWD and its like are the shell's own.
    for name in ["LEAK", "RUNNER_SECRET", "RUNNER_JITCONFIG"] {
        assert!(!environment.contains(&name), "{name} in {environment:?}");
    }
    assert!(environment.contains(&"HOME") && environment.contains(&"PATH"), "{environment:?}");
    assert!(lines.contains(&"args: run"), "{output}");
    assert!(lines.contains(&"err"), "{output}");
    assert!(
        lines.iter().any(|line| matches!(observe(line), Some(Observation::JobFinished { .. }))),
        "{output}"
    );
    assert_eq!(code, Some(Ending::JobDone.code()), "{output}");
    assert!(!output.contains(SECRET), "{output}");
}

#[test]
fn the_settings_are_gone_before_the_app_starts_and_the_note_is_there() {
    let stage = Stage::new("ls ../environment\ncat ../environment/*.tkn\n");
    let (output, code) = stage.start().end();
    assert_eq!(runner_lines(&output), ["2-k3V9x0q.tkn", "GH-runner"]);
    assert_eq!(mode(&stage.note("tkn")), 0o600);
    assert_eq!(code, Some(Ending::NoJob.code()), "exit 0 without a job proves nothing:\n{output}");
    assert!(!stage.path("app/.credentials_rsaparams").exists(), "the key outlives its runner");
}

#[test]
fn the_loops_word_stops_the_app_and_a_wrong_secret_does_not() {
    let stage = Stage::new(UNTIL_STOPPED);
    let mut entrypoint = stage.start();
    entrypoint.wait_for_line("Listening for Jobs");
    std::fs::write(stage.note("trm"), "wrong").unwrap();
    entrypoint.wait_for_line("is ignored: it does not hold this runner's secret");
    std::fs::write(stage.note("trm"), format!("{SECRET}\n")).unwrap();
    let (output, code) = entrypoint.end();
    assert!(runner_lines(&output).contains(&"stopped"), "{output}");
    assert_eq!(code, Some(Ending::StoppedByLoop.code()), "{output}");
    assert!(!stage.note("brk").exists(), "the loop asked, so there is nothing to tell it");
}

#[test]
fn the_word_of_a_loop_that_came_first_counts() {
    let stage = Stage::new(UNTIL_STOPPED);
    std::fs::write(stage.note("trm"), SECRET).unwrap();
    let (output, code) = stage.start().end();
    assert_eq!(code, Some(Ending::StoppedByLoop.code()), "{output}");
}

#[test]
fn a_link_in_place_of_the_loops_word_is_ignored() {
    let stage = Stage::new(UNTIL_STOPPED);
    std::fs::write(stage.path("elsewhere"), SECRET).unwrap();
    std::os::unix::fs::symlink(stage.path("elsewhere"), stage.note("trm")).unwrap();
    let mut entrypoint = stage.start();
    entrypoint.wait_for_line("is ignored: ");
    entrypoint.signal(Signal::TERM);
    assert_eq!(entrypoint.end().1, Some(Ending::StoppedBySignal.code()));
}

#[test]
fn a_termination_signal_writes_the_break_note_and_stops_the_app() {
    let stage = Stage::new(UNTIL_STOPPED);
    let mut entrypoint = stage.start();
    entrypoint.wait_for_line("Listening for Jobs");
    entrypoint.signal(Signal::TERM);
    let (output, code) = entrypoint.end();
    assert_eq!(std::fs::read_to_string(stage.note("brk")).unwrap(), SECRET);
    assert_eq!(mode(&stage.note("brk")), 0o600);
    assert!(runner_lines(&output).contains(&"stopped"), "{output}");
    assert_eq!(code, Some(Ending::StoppedBySignal.code()), "{output}");
}

#[test]
fn a_second_signal_kills_an_app_that_does_not_listen() {
    let stage = Stage::new("trap '' TERM\necho 'Listening for Jobs'\nsleep 60 & wait\n");
    let mut entrypoint = stage.start();
    entrypoint.wait_for_line("Listening for Jobs");
    entrypoint.signal(Signal::INT);
    entrypoint.wait_for_line("stopping the runner app");
    entrypoint.signal(Signal::INT);
    let (output, code) = entrypoint.end();
    assert!(output.contains("killing the runner app"), "{output}");
    assert_eq!(code, Some(Ending::StoppedBySignal.code()), "{output}");
}

#[test]
fn what_an_app_leaves_in_its_group_does_not_hold_the_end_up() {
    let stage = Stage::new("sleep 60 &\nexit 7\n");
    let start = Instant::now();
    let (output, code) = stage.start().end();
    assert!(start.elapsed() < Duration::from_secs(10), "{output}");
    assert_eq!(code, Some(Ending::Failed.code()), "{output}");
}

#[test]
fn settings_that_are_refused_are_removed_all_the_same() {
    let stage = Stage::new("echo never");
    std::fs::write(stage.note("env"), "RUNNER_NAME=$(touch /tmp/x)\n").unwrap();
    let (output, code) = stage.start().end();
    assert_eq!(code, Some(Ending::NotStarted.code()));
    assert!(output.contains("line 1: '$' in the value of RUNNER_NAME needs quotes"), "{output}");
    assert!(!stage.note("env").exists() && !stage.note("tkn").exists());
    assert_eq!(runner_lines(&output), [""; 0]);
}

#[test]
fn an_app_that_is_not_there_is_said_and_no_note_is_written() {
    let stage = Stage::new("echo never");
    std::fs::remove_file(stage.path("app.sh")).unwrap();
    let (output, code) = stage.start().end();
    assert_eq!(code, Some(Ending::NotStarted.code()));
    assert!(output.contains("app.sh: No such file"), "{output}");
    assert!(!stage.note("tkn").exists());
}

#[test]
fn wrong_usage_is_status_two() {
    let run = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_dayfly-guest")).args(args).output().unwrap();
    assert_eq!(run(&["entrypoint"]).status.code(), Some(2));
    assert_eq!(run(&[]).status.code(), Some(2));
    assert!(String::from_utf8_lossy(&run(&["entrypoint", "-x"]).stderr).contains("-x is no option"));
}
