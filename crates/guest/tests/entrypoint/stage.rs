//! Shared helpers: a folder with everything that an entrypoint needs, and a running entrypoint.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dayfly_guest::envfile;
use dayfly_guest::runner_app::parse_relayed;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

pub(crate) const ID: &str = "2-k3V9x0q";
pub(crate) const SECRET: &str = "s3cret of the loop";

/// Timeout of every wait, far longer than any of them takes. A test that reaches it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An app that runs until it is stopped, and reports the stop. It sleeps in short steps, so that the trap runs soon.
pub(crate) const UNTIL_STOPPED: &str = "trap 'echo stopped; exit 0' TERM\necho 'Listening for Jobs'\n\
    while :; do sleep 0.05; done\n";

pub(crate) struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    /// Creates a folder with an environment directory, the settings of a runner with a JIT config, and a script in place
    /// of a runner app.
    pub(crate) fn new(app: &str) -> Self {
        let stage = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(stage.path("environment")).unwrap();
        stage.write_env(&[("RUNNER_JITCONFIG", &jit_config())]);
        stage.write_script("app.sh", app);
        stage
    }

    /// Like [`Stage::new`], but with a registration token.
    pub(crate) fn with_token(app: &str) -> Self {
        let stage = Self::new(app);
        stage.write_env(&[
            ("RUNNER_TOKEN", "AAAA-registration"),
            ("RUNNER_GITHUB", "http://10.0.2.2:8080"),
            ("RUNNER_PRINCIPAL", "o/r"),
            ("RUNNER_LABELS", "self-hosted,Linux,X64,big"),
        ]);
        stage
    }

    /// Writes the settings of the runner: these, and those that every loop writes.
    pub(crate) fn write_env(&self, more: &[(&str, &str)]) {
        let usual = [("RUNNER_SECRET", SECRET), ("RUNNER_NAME", "GH-runner"), ("RUNNER_ID", ID)];
        let variables: Vec<_> = usual.into_iter().chain(more.iter().copied()).collect();
        std::fs::write(self.note("env"), envfile::render(&variables).unwrap()).unwrap();
    }

    pub(crate) fn write_script(&self, name: &str, script: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn note(&self, suffix: &str) -> PathBuf {
        self.path("environment").join(format!("{ID}.{suffix}"))
    }

    pub(crate) fn start(&self) -> Entrypoint {
        let app = self.path("app.sh");
        self.start_with(&["--app", app.to_str().unwrap()], &[])
    }

    /// Starts the entrypoint with more options and variables.
    pub(crate) fn start_with(&self, options: &[&str], environment: &[(&str, &str)]) -> Entrypoint {
        Entrypoint::start(&mut self.command(options, environment))
    }

    pub(crate) fn command(&self, options: &[&str], environment: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dayfly-guest"));
        command.args(["entrypoint", "-i", ID, "-u", ""]);
        command.arg("--environment").arg(self.path("environment")).arg("--app-dir").arg(self.path("app"));
        command.args(options).env_clear().env("LEAK", "from outside").env("RUNNER_DOCKER", "0");
        command.env("RUNNER_LOGDIR", self.path("logs")).env("RUNNER_WORKDIR", self.path("work"));
        command.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }
}

pub(crate) fn jit_config() -> String {
    let jit = serde_json::json!({
        ".runner": STANDARD.encode(r#"{"AgentName":"n"}"#),
        ".credentials": STANDARD.encode("{}"),
        ".credentials_rsaparams": STANDARD.encode(r#"{"d":"key"}"#),
    });
    STANDARD.encode(jit.to_string())
}

pub(crate) struct Entrypoint {
    pub(crate) child: Child,
    lines: Receiver<String>,
    pub(crate) seen: String,
}

impl Entrypoint {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // Sending fails if the test has failed and no longer receives.
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines, seen: String::new() }
    }

    /// Reads lines until all texts have been seen, now or earlier.
    pub(crate) fn wait_for(&mut self, texts: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        while !texts.iter().all(|text| self.seen.contains(text)) {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push_str(&(line + "\n")),
                Err(_) => panic!("not all of {texts:?} in:\n{}", self.seen),
            }
        }
    }

    pub(crate) fn wait_for_line(&mut self, text: &str) {
        self.wait_for(&[text]);
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until the entrypoint has exited. Returns its output and its exit status.
    pub(crate) fn end(mut self) -> (String, Option<i32>) {
        let start = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "it does not end:\n{}", self.seen);
            std::thread::sleep(Duration::from_millis(5));
        }
        // A leftover process may hold the pipe open, so only lines that come soon are read.
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(1)) {
            self.seen.push_str(&(line + "\n"));
        }
        (std::mem::take(&mut self.seen), self.child.wait().unwrap().code())
    }
}

impl Drop for Entrypoint {
    fn drop(&mut self) {
        // In a passing test the entrypoint has already exited. Otherwise the second signal also kills its programs.
        for _ in 0..200 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn runner_lines(output: &str) -> Vec<&str> {
    lines_of("runner", output)
}

/// Returns the texts of the lines from one source.
pub(crate) fn lines_of<'a>(source: &str, output: &'a str) -> Vec<&'a str> {
    let relayed = output.lines().filter_map(parse_relayed);
    relayed.filter(|line| line.source == source && line.runner_id == ID).map(|line| line.text).collect()
}

pub(crate) fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Waits until `so` returns true.
pub(crate) fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "{what}: never");
        std::thread::sleep(Duration::from_millis(5));
    }
}
