//! Runs the programs of a build: writes their output to the log as it comes, and kills them if the build is cancelled.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};

use dayfly_host::tool::{self, Reach};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::{Cancel, ImageError, Progress};

/// Interval at which the build checks for a cancellation while a program prints nothing.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// Lines that an error quotes.
const TAIL_LINES: usize = 15;
/// Longest line, bytes. The rest of a longer line becomes the next line.
const LINE_MAX: usize = 4096;

/// A program run of a build, with its names for messages.
pub(super) struct Step<'a> {
    pub(super) program: &'static str,
    pub(super) package: &'static str,
    pub(super) phase: &'static str,
    pub(super) cancel: &'a Cancel,
    pub(super) log: &'a mut File,
    pub(super) progress: &'a mut dyn FnMut(Progress),
}

/// Returns a command with a clean environment that the kernel kills when this process dies, because a build without its builder would go on for
/// minutes. With `inside`, the command gets process and mount namespaces of its own, so that its children and mounts end
/// with it.
pub(super) fn mortal(program: &str, reach: Reach, inside: bool) -> Command {
    let mut command = tool::command("setpriv", reach);
    command.args(["--pdeathsig", "KILL", "--"]);
    if inside {
        command.args(["unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child", "--"]);
    }
    command.arg(program);
    command
}

impl Step<'_> {
    /// Runs programs that are connected by pipes until they exit. The output of the last one goes to the log.
    pub(super) fn run(self, commands: Vec<Command>) -> Result<(), ImageError> {
        self.run_from(Stdio::null(), commands)
    }

    /// Does the same as [`Self::run`], but the first program reads `input`.
    pub(super) fn run_from(mut self, mut input: Stdio, commands: Vec<Command>) -> Result<(), ImageError> {
        let (reader, writer) =
            io::pipe().map_err(|error| self.failed(error.to_string(), &VecDeque::new()))?;
        let mut children = Children(Vec::new());
        let last = commands.len().saturating_sub(1);
        for (index, mut command) in commands.into_iter().enumerate() {
            let printer = || writer.try_clone().map(OwnedFd::from).map(Stdio::from);
            let spawned = printer().and_then(|errors| {
                let output = if index == last { printer()? } else { Stdio::piped() };
                command
                    .stdin(std::mem::replace(&mut input, Stdio::null()))
                    .stdout(output)
                    .stderr(errors)
                    .spawn()
            });
            let mut child = match spawned {
                Ok(child) => child,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(ImageError::NoProgram { program: self.program, package: self.package });
                }
                Err(error) => return Err(self.failed(error.to_string(), &VecDeque::new())),
            };
            if let Some(output) = child.stdout.take() {
                input = Stdio::from(output);
            }
            children.0.push(child);
        }
        // Otherwise the pipe would never end.
        drop((writer, input));
        let tail = self.follow(File::from(OwnedFd::from(reader)))?;
        for child in &mut children.0 {
            let status = child.wait().map_err(|error| self.failed(error.to_string(), &tail))?;
            if !status.success() {
                return Err(self.failed_with(status, &tail));
            }
        }
        Ok(())
    }

    /// Reads the output to its end and returns its last lines.
    fn follow(&mut self, mut output: File) -> Result<VecDeque<String>, ImageError> {
        let mut tail = VecDeque::new();
        let mut line = Vec::new();
        let mut buffer = [0; 8192];
        loop {
            if self.cancel.is_cancelled() {
                return Err(ImageError::Cancelled);
            }
            let mut polled = [PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN)];
            match rustix::event::poll(&mut polled, Some(&LOOK)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(self.failed(error.to_string(), &tail)),
            }
            let count = output.read(&mut buffer).map_err(|error| self.failed(error.to_string(), &tail))?;
            for &byte in &buffer[..count] {
                // Progress bars end their lines with a carriage return.
                if byte == b'\n' || byte == b'\r' || line.len() == LINE_MAX {
                    self.keep(std::mem::take(&mut line), &mut tail);
                } else {
                    line.push(byte);
                }
            }
            if count == 0 {
                self.keep(line, &mut tail);
                return Ok(tail);
            }
        }
    }

    fn keep(&mut self, line: Vec<u8>, tail: &mut VecDeque<String>) {
        if line.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        // Errors are ignored, because the log is only for people to read. If the disk is full, the program itself fails.
        let _ = writeln!(self.log, "{text}");
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(text.clone());
        (self.progress)(Progress::Line { text });
    }

    fn failed_with(&self, status: ExitStatus, tail: &VecDeque<String>) -> ImageError {
        // `setpriv` and `unshare` start the program, and exit with 127 if it does not exist.
        if status.code() == Some(127) {
            return ImageError::NoProgram { program: self.program, package: self.package };
        }
        self.failed(status.to_string(), tail)
    }

    fn failed(&self, status: String, tail: &VecDeque<String>) -> ImageError {
        let tail = tail.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        ImageError::Failed { program: self.program, phase: self.phase, status, tail }
    }
}

/// Running programs. They are killed when this is dropped.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            if matches!(child.try_wait(), Ok(None)) {
                let _ = child.kill();
            }
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn run(cancel: &Cancel, scripts: &[&str]) -> (Result<(), ImageError>, Vec<String>) {
        let mut log = tempfile::tempfile().expect("log");
        let mut lines = Vec::new();
        let mut progress = |progress| {
            if let Progress::Line { text } = progress {
                lines.push(text);
            }
        };
        let step = Step {
            program: "sh",
            package: "dash",
            phase: "testing",
            cancel,
            log: &mut log,
            progress: &mut progress,
        };
        let commands = scripts.iter().map(|script| {
            let mut command = mortal("sh", Reach::Host, false);
            command.args(["-c", script]);
            command
        });
        let result = step.run(commands.collect());
        (result, lines)
    }

    #[test]
    fn programs_are_piped_and_their_lines_are_told() {
        let (result, lines) = run(&Cancel::default(), &["echo to-pipe; echo to-log >&2", "tr a-z A-Z"]);
        result.expect("success");
        assert!(lines.contains(&"TO-PIPE".to_owned()) && lines.contains(&"to-log".to_owned()), "{lines:?}");
    }

    #[test]
    fn a_failure_quotes_the_last_lines() {
        let (result, _) = run(&Cancel::default(), &["echo the reason >&2; exit 3"]);
        let text = result.expect_err("failure").to_string();
        assert_eq!(text, "sh failed (exit status: 3) while testing; its last lines:\nthe reason");
    }

    #[test]
    fn a_program_that_is_not_there_is_named_with_its_package() {
        let mut log = tempfile::tempfile().expect("log");
        let cancel = Cancel::default();
        let step = Step {
            program: "nix",
            package: "nix-bin",
            phase: "x",
            cancel: &cancel,
            log: &mut log,
            progress: &mut |_| {},
        };
        let result = step.run(vec![mortal("/nonexistent/program", Reach::Host, false)]);
        assert!(matches!(result, Err(ImageError::NoProgram { package: "nix-bin", .. })), "{result:?}");
    }

    #[test]
    fn a_cancelled_build_ends_its_programs() {
        let cancel = Cancel::default();
        let later = cancel.clone();
        let start = Instant::now();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            later.cancel();
        });
        let (result, _) = run(&cancel, &["exec sleep 60"]);
        assert!(matches!(result, Err(ImageError::Cancelled)));
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
