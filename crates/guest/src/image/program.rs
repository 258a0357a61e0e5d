//! Programs of the image that its steps run.

use super::log::Log;
use std::collections::VecDeque;
use std::io::{PipeReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// How long one program may take: package lists of hundreds of megabytes come over slow lines.
const TIME_MAX: Duration = Duration::from_secs(45 * 60);

/// How many of its last lines an error tells.
const LAST_LINES: usize = 20;

/// Most bytes of output that are kept of a program that is asked something.
const ANSWER_MAX: usize = 4 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error("cannot start {program}: {source}")]
    Start {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{line} ended with {status}{}", shown(last))]
    Failed { line: String, status: String, code: Option<i32>, last: String },
    #[error("{line} has not ended for {} minutes, and was killed{}", TIME_MAX.as_secs() / 60, shown(last))]
    Endless { line: String, last: String },
    #[error("{line} has printed more than {} MiB", ANSWER_MAX / 1024 / 1024)]
    Verbose { line: String },
}

/// The last lines, below the error.
fn shown(last: &str) -> String {
    if last.is_empty() { String::new() } else { format!("; its last lines:\n{last}") }
}

/// A command line, and what is given to it besides. A value, so that it can be looked at before anything runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) words: Vec<String>,
    /// Variables over those of this process.
    pub(super) env: Vec<(&'static str, String)>,
    /// Standard input; what is secret goes here. Never shown.
    pub(super) input: String,
    /// Working folder; empty for the current one.
    pub(super) folder: std::path::PathBuf,
}

impl Program {
    pub(super) fn new<W: Into<String>>(words: impl IntoIterator<Item = W>) -> Self {
        let words = words.into_iter().map(Into::into).collect();
        Self { words, env: vec![("LC_ALL", "C.UTF-8".to_owned())], ..Self::default() }
    }

    /// More arguments.
    pub(super) fn with<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.words.extend(words.into_iter().map(Into::into));
        self
    }

    pub(super) fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, value.to_owned()));
        self
    }

    pub(super) fn input(mut self, input: String) -> Self {
        self.input = input;
        self
    }

    pub(super) fn in_folder(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.folder);
        self
    }

    /// Its start, for people: an installation names hundreds of packages.
    fn line(&self) -> String {
        let start = self.words.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(" ");
        if self.words.len() > 8 { format!("{start} ...") } else { start }
    }

    /// Runs it to its end; `-v` shows what it prints.
    pub(super) fn run(&self, log: &Log) -> Result<(), ProgramError> {
        self.relay(|line| log.detail(line), log)
    }

    /// What it prints on standard output and error.
    pub(super) fn answer(&self, log: &Log) -> Result<String, ProgramError> {
        let mut answer = String::new();
        self.relay(
            |line| {
                if answer.len() <= ANSWER_MAX {
                    answer.push_str(line);
                    answer.push('\n');
                }
            },
            log,
        )?;
        if answer.len() > ANSWER_MAX { Err(ProgramError::Verbose { line: self.line() }) } else { Ok(answer) }
    }

    fn relay(&self, mut each: impl FnMut(&str), log: &Log) -> Result<(), ProgramError> {
        log.detail(&format!("+ {}", self.line()));
        let start = |source| ProgramError::Start { program: self.words[0].clone(), source };
        let (mut child, output) = self.spawn().map_err(start)?;
        let lines = self.feed_and_read(&mut child, output);
        let mut last = VecDeque::new();
        let deadline = Instant::now() + TIME_MAX;
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    each(&line);
                    if last.len() == LAST_LINES {
                        last.pop_front();
                    }
                    last.push_back(format!("  {line}"));
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    // Its whole group: package managers start others. One that has just ended is no error.
                    let group = rustix::process::Pid::from_child(&child);
                    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                    let _ = child.wait();
                    return Err(ProgramError::Endless { line: self.line(), last: joined(last) });
                }
            }
        }
        let status = child.wait().map_err(start)?;
        if status.success() {
            return Ok(());
        }
        let (code, status) = (status.code(), status.to_string());
        Err(ProgramError::Failed { line: self.line(), status, code, last: joined(last) })
    }

    fn spawn(&self) -> std::io::Result<(Child, PipeReader)> {
        let (output, writer) = std::io::pipe()?;
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdout(writer.try_clone()?).stderr(writer).process_group(0);
        command.stdin(if self.input.is_empty() { Stdio::null() } else { Stdio::piped() });
        if !self.folder.as_os_str().is_empty() {
            command.current_dir(&self.folder);
        }
        Ok((command.spawn()?, output))
    }

    /// Its lines come as they are printed, until nobody holds its output any more.
    fn feed_and_read(&self, child: &mut Child, output: PipeReader) -> Receiver<String> {
        if let Some(mut stdin) = child.stdin.take() {
            // Far less than a pipe holds, so nothing waits. One that does not read has its own reason, and tells it.
            let _ = stdin.write_all(self.input.as_bytes());
        }
        let (sender, lines) = sync_channel(64);
        std::thread::spawn(move || {
            crate::lines::for_each(output, |line| {
                // Nobody waits for it any more: it was killed.
                let _ = sender.send(line.to_owned());
            });
        });
        lines
    }
}

fn joined(lines: VecDeque<String>) -> String {
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

/// A log for tests: nobody reads it.
#[cfg(test)]
pub(super) fn quiet() -> Log {
    Log::open("test", Some("/dev/null"), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_named_with_its_last_lines_and_its_input_is_not() {
        let program = Program::new(["sh", "-c", "cat >/dev/null; seq 30; echo wrong >&2; exit 7"]);
        let error = program.input("s3cret".to_owned()).run(&quiet()).expect_err("failed");
        assert!(matches!(error, ProgramError::Failed { code: Some(7), .. }));
        let text = error.to_string();
        assert!(text.starts_with("sh -c cat >/dev/null; seq 30;"), "{text}");
        assert!(text.contains("\n  12\n") && text.ends_with("\n  30\n  wrong"), "{text}");
        assert!(!text.contains("\n  11\n") && !text.contains("s3cret"), "{text}");
    }

    #[test]
    fn an_answer_is_what_it_prints_in_its_folder_with_its_variables_and_its_input() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let folder = folder.path().canonicalize().expect("there");
        let program = Program::new(["sh", "-c"]).with(["pwd; echo $COLOUR; cat"]).env("COLOUR", "blue");
        let answer = program.input("in".to_owned()).in_folder(&folder).answer(&quiet()).expect("answered");
        assert_eq!(answer, format!("{}\nblue\nin\n", folder.display()));
    }

    #[test]
    fn one_that_is_not_there_is_named() {
        let error = Program::new(["dayfly-no-such-program"]).run(&quiet()).expect_err("absent").to_string();
        assert!(error.starts_with("cannot start dayfly-no-such-program: "), "{error}");
    }
}
