//! Runs programs of the image for its steps.

use super::log::Log;
use std::collections::VecDeque;
use std::io::{PipeReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// Longest time that one program may take. Hundreds of megabytes of packages may come over a slow connection.
const TIME_MAX: Duration = Duration::from_secs(45 * 60);

/// Number of last lines that an error shows.
const LAST_LINES: usize = 20;

/// Largest size in bytes of the output that [`Program::answer`] returns.
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

/// Formats the last lines, which are shown below the error.
fn shown(last: &str) -> String {
    if last.is_empty() { String::new() } else { format!("; its last lines:\n{last}") }
}

/// A command line with its environment, input and folder. It is a value, so that it can be inspected before it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) words: Vec<String>,
    /// Variables that are set over those of this process.
    pub(super) env: Vec<(&'static str, String)>,
    /// Standard input, for secrets. It is never shown.
    pub(super) input: String,
    /// Working folder; empty for the current one.
    pub(super) folder: std::path::PathBuf,
}

impl Program {
    pub(super) fn new<W: Into<String>>(words: impl IntoIterator<Item = W>) -> Self {
        let words = words.into_iter().map(Into::into).collect();
        Self { words, env: vec![("LC_ALL", "C.UTF-8".to_owned())], ..Self::default() }
    }

    /// Adds arguments.
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

    /// Returns the start of the command line, for messages. The line of an installation names hundreds of packages.
    fn line(&self) -> String {
        let start = self.words.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(" ");
        if self.words.len() > 8 { format!("{start} ...") } else { start }
    }

    /// Runs the program until it exits. `-v` shows its output.
    pub(super) fn run(&self, log: &Log) -> Result<(), ProgramError> {
        self.relay(|line| log.detail(line), log)
    }

    /// Runs the program until it exits, and returns its standard output and error.
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
                    // The whole group: package managers start other programs. A program that has just exited is no error.
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

    /// Writes the program's input, and returns its lines as they are printed, until no process holds its output.
    fn feed_and_read(&self, child: &mut Child, output: PipeReader) -> Receiver<String> {
        if let Some(mut stdin) = child.stdin.take() {
            // The input is far smaller than a pipe, so the write does not block. A program that does not read it has its own
            // reason, and reports it.
            let _ = stdin.write_all(self.input.as_bytes());
        }
        let (sender, lines) = sync_channel(64);
        std::thread::spawn(move || {
            crate::lines::for_each(output, |line| {
                // An error means that the program was killed, and that its lines are not awaited any more.
                let _ = sender.send(line.to_owned());
            });
        });
        lines
    }
}

fn joined(lines: VecDeque<String>) -> String {
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

/// Returns a log for tests that discards all lines.
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
