//! The processes of dayfly that a soak holds against its faults: an orchestrator and some `dayfly runner`, each of
//! which is started again after it was killed, as a service manager does.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Exit status of a process that a forge or the host cannot serve ([`crate::exit`]).
const CANNOT: i32 = 3;
/// Pause before a process that ended by itself is started again.
const AGAIN: Duration = Duration::from_secs(2);
/// Most words of the processes that wait for the soak.
const WORDS_MAX: usize = 1024;
/// Variables of these beginnings are settings of dayfly and are not handed down.
const SETTINGS: [&str; 3] = ["RUNNER_", "ORCHESTRATOR_", "DAYFLY_"];

/// The command line of a process.
#[derive(Debug, Clone, Default)]
pub(super) struct CommandLine {
    /// The process in words, for people.
    pub(super) name: String,
    /// True for a `dayfly runner`, which ends at any time if the forge refuses it a runner for good. An orchestrator replaces
    /// such a loop, and a service manager such a process.
    pub(super) is_loop: bool,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    /// The file for its standard error.
    pub(super) log: PathBuf,
    /// Its folder for temporary files.
    pub(super) temporary: PathBuf,
}

/// News of a process.
#[derive(Debug)]
pub(super) enum Word {
    /// It has prepared everything and serves.
    Ready { child: usize },
    /// It tells that the forge has reported the end of a runner's job.
    Concluded { runner: String, conclusion: String },
    /// It has exited.
    Exited { child: usize, status: io::Result<ExitStatus> },
}

/// The state of a process.
#[derive(Debug)]
enum State {
    Running {
        process: OwnedFd,
        pid: u32,
        is_ready: bool,
        order: Order,
    },
    /// It is to be started at this time.
    Due(Instant),
    /// It has ended and stays so.
    Over,
}

/// The soak's order to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// None: it serves.
    Serve,
    /// It was killed, and is started again this long after its exit.
    Die(Duration),
    /// It was asked to end for good.
    End,
}

#[derive(Debug)]
struct Child {
    command: CommandLine,
    state: State,
}

/// The processes.
pub(super) struct Children {
    all: Vec<Child>,
    /// The program and the arguments that start them in their namespace; empty if they share the soak's.
    entry: Vec<String>,
    words: mpsc::Sender<Word>,
    /// Number of processes that ended because the forge has refused them, and were started again.
    pub(super) refusals: u32,
    /// True once they are to end, so that none is started again.
    is_ending: bool,
}

impl Children {
    /// Creates the processes, which are due now, and the stream of their words. `entry` starts them in their namespace.
    pub(super) fn new(commands: Vec<CommandLine>, entry: Vec<String>) -> (Self, mpsc::Receiver<Word>) {
        let (words, received) = mpsc::channel(WORDS_MAX);
        let now = Instant::now();
        let all = commands.into_iter().map(|command| Child { command, state: State::Due(now) }).collect();
        (Self { all, entry, words, refusals: 0, is_ending: false }, received)
    }

    /// Returns the time at which the next process is to be started.
    pub(super) fn next_start(&self) -> Option<Instant> {
        let due = |child: &Child| match child.state {
            State::Due(at) => Some(at),
            _ => None,
        };
        self.all.iter().filter_map(due).min()
    }

    /// Starts the processes that are due.
    ///
    /// # Errors
    /// A process cannot be started.
    pub(super) fn start_due(&mut self) -> io::Result<()> {
        let now = Instant::now();
        for (number, child) in self.all.iter_mut().enumerate() {
            if matches!(child.state, State::Due(at) if at <= now) {
                child.state = start(number, (&child.command, &self.entry), &self.words)?;
            }
        }
        Ok(())
    }

    /// Returns the ids of the processes that run.
    pub(super) fn pids(&self) -> Vec<u32> {
        let pid = |child: &Child| match child.state {
            State::Running { pid, .. } => Some(pid),
            _ => None,
        };
        self.all.iter().filter_map(pid).collect()
    }

    /// Returns true if all processes serve.
    pub(super) fn are_ready(&self) -> bool {
        self.all.iter().all(|child| matches!(child.state, State::Running { is_ready: true, .. }))
    }

    /// Returns true if no process runs, and none will.
    pub(super) fn are_over(&self) -> bool {
        self.all.iter().all(|child| matches!(child.state, State::Over))
    }

    /// Kills a process, which starts again after a time. Returns its id, or none if it does not run.
    pub(super) fn kill(&mut self, number: usize, down: Duration) -> Option<u32> {
        let child = self.all.get_mut(number)?;
        match &mut child.state {
            State::Running { process, pid, order: order @ Order::Serve, .. } => {
                signal(process, Signal::KILL);
                *order = Order::Die(down);
                Some(*pid)
            }
            _ => None,
        }
    }

    /// Returns a process in words.
    pub(super) fn name(&self, number: usize) -> &str {
        self.all.get(number).map_or("no process", |child| &child.command.name)
    }

    /// Returns the id of a process; none if it does not run.
    pub(super) fn pid(&self, number: usize) -> Option<u32> {
        match self.all.get(number)?.state {
            State::Running { pid, order: Order::Serve, .. } => Some(pid),
            _ => None,
        }
    }

    /// Sends a signal that ends no process. Returns false if it does not run.
    pub(super) fn send(&self, number: usize, with: Signal) -> bool {
        match self.all.get(number).map(|child| &child.state) {
            Some(State::Running { process, .. }) => {
                signal(process, with);
                true
            }
            _ => false,
        }
    }

    /// Sends a signal that ends the processes for good.
    pub(super) fn end(&mut self, with: Signal) {
        self.is_ending = true;
        for child in &mut self.all {
            match &mut child.state {
                State::Running { process, order, .. } => {
                    *order = Order::End;
                    signal(process, with);
                }
                state => *state = State::Over,
            }
        }
    }

    /// Takes in that a process serves.
    pub(super) fn is_ready(&mut self, number: usize) {
        if let Some(State::Running { is_ready, .. }) = self.all.get_mut(number).map(|child| &mut child.state)
        {
            *is_ready = true;
        }
    }

    /// Takes in that a process has exited. Returns its end in words if nothing that the soak did explains it. A start
    /// that a fault has refused is repeated, as a service manager does.
    pub(super) fn has_exited(&mut self, number: usize, status: io::Result<ExitStatus>) -> Option<String> {
        let is_ending = self.is_ending;
        let child = self.all.get_mut(number)?;
        let State::Running { is_ready, order, .. } = child.state else { return None };
        // Only now, because the start of the next process must find the locks of this one free.
        let due = |pause| if is_ending { State::Over } else { State::Due(Instant::now() + pause) };
        child.state = match order {
            Order::Serve => due(AGAIN),
            Order::Die(down) => due(down),
            Order::End => State::Over,
        };
        if order != Order::Serve {
            return None;
        }
        let is_refused = status.as_ref().is_ok_and(|status| status.code() == Some(CANNOT));
        if is_refused && (!is_ready || child.command.is_loop) {
            self.refusals += 1;
            return None;
        }
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        Some(format!(
            "{} has ended by itself ({how}); see {}",
            child.command.name,
            child.command.log.display()
        ))
    }
}

fn signal(process: &OwnedFd, with: Signal) {
    // It may have exited.
    let _ = rustix::process::pidfd_send_signal(process, with);
}

fn start(
    number: usize,
    (line, entry): (&CommandLine, &[String]),
    words: &mpsc::Sender<Word>,
) -> io::Result<State> {
    // The program of this process, also after an upgrade has put another one in its place.
    let program = format!("/proc/{}/exe", std::process::id());
    let words_of_entry = entry.iter().chain([&program]).collect::<Vec<_>>();
    let mut command = std::process::Command::new(words_of_entry[0]);
    command.args(&words_of_entry[1..]).args(&line.args);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| SETTINGS.iter().any(|start| name.starts_with(start))) {
            command.env_remove(name);
        }
    }
    command.envs(line.env.iter().map(|(name, value)| (name, value)));
    command.env("TMPDIR", &line.temporary).env("NO_COLOR", "1");
    // A group of its own, because Ctrl-C is for the soak, which then ends its children.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(append(&line.log)?);
    let mut child = tokio::process::Command::from(command).spawn()?;
    let pid = child.id().unwrap_or_default();
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    let process = rustix::process::pidfd_open(raw, PidfdFlags::empty())?;
    let (stdout, words) = (child.stdout.take(), words.clone());
    tokio::spawn(async move {
        if let Some(stdout) = stdout {
            listen(number, stdout, &words).await;
        }
        let status = child.wait().await;
        let _ = words.send(Word::Exited { child: number, status }).await;
    });
    Ok(State::Running { process, pid, is_ready: false, order: Order::Serve })
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Passes on the words of a process until it closes its standard output.
async fn listen(child: usize, stdout: impl AsyncRead + Unpin, words: &mpsc::Sender<Word>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Some(word) = parse(child, &line) else { continue };
        if words.send(word).await.is_err() {
            return;
        }
    }
}

/// The members of a line of JSON that the soak reads.
#[derive(Deserialize)]
struct Line {
    event: String,
    name: Option<String>,
    conclusion: Option<String>,
}

fn parse(child: usize, line: &str) -> Option<Word> {
    let line: Line = serde_json::from_str(line).ok()?;
    match line.event.as_str() {
        "instance" => Some(Word::Ready { child }),
        "job_concluded" => Some(Word::Concluded { runner: line.name?, conclusion: line.conclusion? }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn running() -> (Children, mpsc::Receiver<Word>) {
        let log = PathBuf::from("/tmp/x.log");
        let (mut children, words) = Children::new(
            vec![CommandLine { name: "the orchestrator".to_owned(), log, ..CommandLine::default() }],
            Vec::new(),
        );
        let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).expect("open");
        let order = Order::Serve;
        children.all[0].state = State::Running { process: own, pid: 1, is_ready: false, order };
        (children, words)
    }

    fn exited(code: i32) -> io::Result<ExitStatus> {
        Ok(ExitStatus::from_raw(code << 8))
    }

    #[test]
    fn a_start_that_was_refused_is_repeated_and_any_other_end_is_told() {
        let (mut children, _words) = running();
        assert_eq!((children.has_exited(0, exited(3)), children.refusals), (None, 1));
        assert!(children.next_start().is_some());
        let (mut children, _words) = running();
        children.is_ready(0);
        let told = children.has_exited(0, exited(3)).expect("a crash");
        assert_eq!(told, "the orchestrator has ended by itself (exit status: 3); see /tmp/x.log");
        let (mut children, _words) = running();
        let told = children.has_exited(0, Ok(ExitStatus::from_raw(6))).expect("a crash");
        assert!(told.contains("signal: 6"), "{told}");
        assert!(children.next_start().is_some(), "the jobs still need it");
        let (mut children, _words) = running();
        children.is_ready(0);
        children.all[0].command.is_loop = true;
        assert_eq!(
            (children.has_exited(0, exited(3)), children.refusals),
            (None, 1),
            "a service manager's work"
        );
    }

    #[test]
    fn a_killed_process_is_started_again_only_after_its_exit() {
        let (mut children, _words) = running();
        if let State::Running { order, .. } = &mut children.all[0].state {
            *order = Order::Die(Duration::ZERO);
        }
        assert_eq!((children.kill(0, Duration::ZERO), children.next_start()), (None, None));
        assert_eq!(children.has_exited(0, Ok(ExitStatus::from_raw(9))), None);
        assert!(children.next_start().is_some());
    }

    #[test]
    fn an_ordered_end_is_no_crash_and_final() {
        let (mut children, _words) = running();
        // A process that runs notices nothing of SIGCONT.
        children.end(Signal::CONT);
        assert_eq!(children.has_exited(0, Ok(ExitStatus::from_raw(15))), None);
        assert!(children.are_over() && children.next_start().is_none());
    }

    #[test]
    fn words_are_read_and_other_lines_are_not() {
        assert!(matches!(parse(1, r#"{"event":"instance","folder":"/x"}"#), Some(Word::Ready { child: 1 })));
        let line =
            r#"{"at_ms":1,"event":"job_concluded","name":"a-0-x","job":"soak","conclusion":"success"}"#;
        match parse(0, line) {
            Some(Word::Concluded { runner, conclusion }) => {
                assert_eq!((runner.as_str(), conclusion.as_str()), ("a-0-x", "success"));
            }
            other => panic!("{other:?}"),
        }
        assert!(parse(0, "text").is_none() && parse(0, r#"{"event":"line"}"#).is_none());
    }
}
