//! Shared helpers for the whole-system tests, which run the real `dayfly` as a user would and check what it leaves behind.
//!
//! `make test` sets the variables that the helpers read: `DAYFLY_BINARY` (target/release/dayfly), `DAYFLY_STATE`, and
//! `DAYFLY_TEST_IMAGE` (the id of the built-in image in that state folder).

#![expect(clippy::missing_panics_doc, reason = "tests fail by a panic")]

pub mod lab;
pub mod machines;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longest time that one run of dayfly may take, unless [`Dayfly::within`] allows more. A run needs far less even on a loaded host.
const RUN_LIMIT: Duration = Duration::from_secs(600);

/// Returns the value of an environment variable. If it is not set, the panic message says how to set it.
pub fn prepared(variable: &str) -> PathBuf {
    match std::env::var_os(variable) {
        Some(value) => value.into(),
        None => panic!("{variable} is not set: run `make test`, or see CONTRIBUTING.md for a single test"),
    }
}

/// Returns the DNS server that machines use if they were given this one: the gate of their own network, if this user may make any.
pub fn name_server(dns: &str) -> &str {
    let tun = std::fs::File::options().read(true).write(true).open("/dev/net/tun");
    if tun.is_ok() { "10.0.2.2" } else { dns }
}

/// Returns the id of the image that tests boot, regardless of other images in the state folder.
pub fn image() -> String {
    image_of("DAYFLY_TEST_IMAGE")
}

/// Returns the id of an image that was built for the tests, from the environment variable that names it.
pub fn image_of(variable: &str) -> String {
    prepared(variable).display().to_string()
}

/// A state folder for one test, with links into the common one. Use it if another test could remove this test's instances.
pub struct OwnState(TempDir);

impl OwnState {
    /// Creates a state folder that shares the images, runner apps and templates.
    pub fn new() -> Self {
        Self::sharing(&["images", "runner-apps", "templates"])
    }

    /// Creates a state folder that shares the inputs of image builds, but no image.
    pub fn without_images() -> Self {
        Self::sharing(&["kernels", "runner-apps", "tools"])
    }

    /// Creates a state folder that shares the images, but no template.
    pub fn without_templates() -> Self {
        Self::sharing(&["images", "runner-apps"])
    }

    /// Creates a state folder with copies of the common templates, so that changes to them affect no other test.
    pub fn with_own_templates() -> Self {
        let state = Self::without_templates();
        let templates = prepared("DAYFLY_STATE").join("templates");
        if templates.is_dir() {
            // `cp` keeps the holes of sparse files.
            let copied = Command::new("cp").arg("-a").arg(templates).arg(state.path()).status();
            assert!(copied.expect("cp").success());
        }
        state
    }

    fn sharing(folders: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let common = prepared("DAYFLY_STATE");
        for shared in folders {
            std::fs::create_dir_all(common.join(shared)).expect("the common folder");
            std::os::unix::fs::symlink(common.join(shared), folder.path().join(shared)).expect("a link");
        }
        Self(folder)
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for OwnState {
    /// Kills the machines of a failed test. The test has killed its `dayfly`, but the machines outlive that.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        processes_holding(self.path()).into_iter().for_each(kill);
    }
}

impl Default for OwnState {
    fn default() -> Self {
        Self::new()
    }
}

/// A `dayfly` command in an isolated environment: an empty temporary folder, no terminal, no colours.
pub struct Dayfly {
    command: Command,
    folder: TempDir,
    limit: Duration,
}

/// The result of a command that has exited.
#[derive(Debug)]
pub struct Ended {
    /// Exit status, or `None` if a signal killed the command.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Files that the command left in its folder for temporary files.
    pub temporary: Vec<PathBuf>,
}

impl Dayfly {
    /// Creates a command with these arguments.
    pub fn new<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let temporary = folder.path().join("tmp");
        std::fs::create_dir(&temporary).expect("tmp");
        let mut command = Command::new(prepared("DAYFLY_BINARY"));
        command
            .args(arguments)
            .current_dir(folder.path())
            .env("DAYFLY_STATE", prepared("DAYFLY_STATE"))
            .env("TMPDIR", &temporary)
            .env("NO_COLOR", "1")
            // The tests of a long run must not get another image half way.
            .env("RUNNER_MAX_AGE", "never")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self { command, folder, limit: RUN_LIMIT }
    }

    /// Creates a `dayfly demo --json` command for this workflow, with one machine at a time.
    pub fn demo<'a>(workflow: &str, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let mut dayfly = Self::new(["demo", "--json", "--parallel", "1", "--workflow", "workflow.yml"]);
        dayfly.command.args(arguments);
        std::fs::write(dayfly.folder.path().join("workflow.yml"), workflow).expect("workflow file");
        dayfly
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Sets the longest time that the run may take.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Returns the folder that the command is started in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the command.
    pub fn start(mut self) -> Running {
        let mut child = self.command.spawn().expect("dayfly starts");
        let stderr = lines_of(child.stderr.take().expect("piped"));
        let lines = lines_of(child.stdout.take().expect("piped"));
        Running {
            child: Mortal(child),
            lines,
            seen: String::new(),
            stderr,
            folder: self.folder,
            limit: self.limit,
            began: Instant::now(),
        }
    }

    /// Starts the command and waits until it exits.
    pub fn run(self) -> Ended {
        self.start().wait()
    }
}

/// Returns the lines of a stream as they come, without their ends.
fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    lines
}

/// A child process that is killed on drop, so that a failed test does not leave it behind.
struct Mortal(Child);

impl Drop for Mortal {
    fn drop(&mut self) {
        // `kill` sends no signal to a process that was already waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running `dayfly`.
pub struct Running {
    child: Mortal,
    lines: Receiver<String>,
    seen: String,
    stderr: Receiver<String>,
    folder: TempDir,
    limit: Duration,
    began: Instant,
}

impl Running {
    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Waits for the first line of JSON for which `wanted` returns true, and returns it.
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let left = self.limit.saturating_sub(self.began.elapsed());
            let Ok(line) = self.lines.recv_timeout(left) else {
                let _ = self.child.0.kill();
                let _ = self.child.0.wait();
                let next = || self.stderr.recv_timeout(Duration::from_secs(1)).ok();
                let errors: String = std::iter::from_fn(next).map(|line| line + "\n").collect();
                panic!(
                    "{what} did not arrive; standard output so far:\n{}\nstandard error:\n{errors}",
                    self.seen
                );
            };
            self.seen.push_str(&line);
            self.seen.push('\n');
            if let Ok(value) = serde_json::from_str(&line)
                && wanted(&value)
            {
                return value;
            }
        }
    }

    /// Waits for an event of this kind.
    pub fn wait_for_event(&mut self, event: &str) -> Value {
        self.wait_for(event, |value| value["event"] == event)
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid =
            i32::try_from(self.child.0.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("it still runs");
    }

    /// Kills the process, unless it has already exited.
    pub fn kill_if_alive(&self) {
        kill(self.pid());
    }

    /// Waits until the process exits.
    pub fn wait(mut self) -> Ended {
        while let Ok(line) = self.lines.recv_timeout(self.limit.saturating_sub(self.began.elapsed())) {
            self.seen.push_str(&line);
            self.seen.push('\n');
        }
        if self.began.elapsed() >= self.limit {
            let _ = self.child.0.kill();
        }
        let status = self.child.0.wait().expect("its status");
        let temporary = std::fs::read_dir(self.folder.path().join("tmp"))
            .expect("tmp")
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        Ended {
            status: status.code(),
            stdout: self.seen,
            stderr: self.stderr.iter().map(|line| line + "\n").collect(),
            temporary,
        }
    }
}

impl Ended {
    /// Returns the lines of standard output, parsed as JSON.
    pub fn events(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| {
                serde_json::from_str(line)
                    .unwrap_or_else(|error| panic!("not JSON ({error}): {line}\n{self:#?}"))
            })
            .collect()
    }

    /// Returns all events of a kind.
    pub fn events_of(&self, kind: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["event"] == kind).collect()
    }

    /// Returns the last event, which holds the result of the run.
    pub fn done(&self) -> Value {
        let last = self.events().pop().unwrap_or_else(|| panic!("it printed nothing: {self:#?}"));
        assert_eq!(last["event"], "done", "the last event holds the result: {self:#?}");
        last
    }

    /// Returns the log lines of a job as one text.
    pub fn log_of(&self, job: &str) -> String {
        let lines = self.events_of("log").into_iter().filter(|event| event["job"] == job);
        lines.filter_map(|event| Some(event["line"].as_str()?.to_owned() + "\n")).collect()
    }

    /// Returns the names of the machines that were started.
    pub fn machines(&self) -> BTreeSet<String> {
        let events = self.events().into_iter();
        let started =
            events.filter(|event| event["what"] == "vmm_started" || event["event"] == "vmm_started");
        started
            .filter_map(|event| Some(event["name"].as_str().or(event["runner"].as_str())?.to_owned()))
            .collect()
    }

    /// Asserts the exit status.
    #[track_caller]
    pub fn assert_status(&self, status: i32) -> &Self {
        // First, because reports of failures cut long messages.
        let last = [&self.stdout, &self.stderr].map(|text| text.lines().last().unwrap_or_default());
        assert_eq!(self.status, Some(status), "last lines: {last:?}\n{self:#?}");
        self
    }

    /// Asserts that nothing is left: no process of any of its machines, no folder of its instance, no temporary file.
    #[track_caller]
    pub fn assert_nothing_left(&self) -> &Self {
        assert!(self.temporary.is_empty(), "temporary files are left: {:?}", self.temporary);
        for event in self.events_of("instance") {
            let folder = PathBuf::from(event["folder"].as_str().expect("its folder"));
            assert!(!folder.exists(), "{} is left", folder.display());
        }
        for name in self.machines() {
            assert_eq!(processes_naming(&name), Vec::<u32>::new(), "processes of {name} are left");
        }
        self
    }
}

/// Returns the processes whose command line contains `text`.
pub fn processes_naming(text: &str) -> Vec<u32> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).replace('\0', " ").contains(text))
        })
        .collect()
}

/// Returns the processes, other than this one, that have a file below a folder open. VMMs are found this way, because their
/// command lines name no files.
pub fn processes_holding(folder: &Path) -> Vec<u32> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| *pid != std::process::id() && holds_below(*pid, folder)).collect()
}

fn holds_below(pid: u32, folder: &Path) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let is_below = |link: PathBuf| link.starts_with(folder);
    descriptors.flatten().any(|entry| std::fs::read_link(entry.path()).is_ok_and(is_below))
}

/// Kills a process. Does nothing if it has already exited.
pub fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
