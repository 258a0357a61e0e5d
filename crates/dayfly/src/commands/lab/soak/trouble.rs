//! Makes a trouble of the host, and ends it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use tokio::time::Instant;

use super::children::Children;
use super::mounts::{self, Namespace};
use super::plan::PlannedTrouble;
use crate::cli::Trouble;

/// A trouble that the host has.
#[derive(Debug)]
pub(super) struct RunningTrouble {
    pub(super) trouble: Trouble,
    pub(super) until: Instant,
    remedy: Remedy,
}

/// The way to end a trouble.
#[derive(Debug)]
enum Remedy {
    Continue { process: usize },
    Raise { pid: u32, limit: Rlimit },
    Grow { disk: PathBuf },
    ShowMemory,
}

impl RunningTrouble {
    /// Makes a trouble. Returns none if it is about a process that does not run.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn begin(
        planned: PlannedTrouble,
        children: &Children,
        (state, namespace): (&Path, Option<&Namespace>),
    ) -> io::Result<Option<Self>> {
        let process = planned.process;
        let remedy = match planned.trouble {
            Trouble::Stop if children.send(process, Signal::STOP) => Remedy::Continue { process },
            Trouble::Descriptors => match children.pid(process) {
                Some(pid) => Remedy::Raise { pid, limit: lower(pid)? },
                None => return Ok(None),
            },
            Trouble::Stop => return Ok(None),
            Trouble::Disk => {
                mounts::fill(state)?;
                Remedy::Grow { disk: state.to_owned() }
            }
            Trouble::Memory => {
                let Some(namespace) = namespace else { return Ok(None) };
                namespace.hide_memory(&state.with_file_name("meminfo"))?;
                Remedy::ShowMemory
            }
        };
        Ok(Some(Self { trouble: planned.trouble, until: Instant::now() + planned.lasts, remedy }))
    }

    /// Ends it.
    ///
    /// # Errors
    /// The kernel refuses, so the host keeps the trouble.
    pub(super) fn end(self, children: &Children, namespace: Option<&Namespace>) -> io::Result<()> {
        match self.remedy {
            // A process that was started meanwhile notices nothing.
            Remedy::Continue { process } => {
                children.send(process, Signal::CONT);
                Ok(())
            }
            // One that has ended needs no limit, and its id is not given again so soon.
            Remedy::Raise { pid, limit } => match prlimit(raw(pid)?, Resource::Nofile, limit) {
                Err(error) if error != rustix::io::Errno::SRCH => Err(error.into()),
                _ => Ok(()),
            },
            Remedy::Grow { disk } => mounts::grow(&disk),
            Remedy::ShowMemory => namespace.map_or(Ok(()), Namespace::show_memory),
        }
    }
}

/// Lowers the limit of a process so that it can open nothing. Returns the limit that it had.
fn lower(pid: u32) -> io::Result<Rlimit> {
    // A file that is opened gets the lowest number that is free, which must be below the limit.
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"))?;
    let mut numbers: Vec<u64> =
        open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    let free = numbers.iter().zip(0..).find(|(number, expected)| *number != expected);
    let free = free.map_or(numbers.len() as u64, |(_, expected)| expected);
    let pid = raw(pid)?;
    let maximum = prlimit_of(pid)?.maximum;
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(free), maximum }).map_err(Into::into)
}

/// Returns the limit of a process.
fn prlimit_of(pid: Option<Pid>) -> io::Result<Rlimit> {
    let pid = pid.map_or(0, |pid| pid.as_raw_nonzero().get());
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"));
    let maximum = line.and_then(|line| line.split_ascii_whitespace().nth(1));
    Ok(Rlimit { current: None, maximum: maximum.and_then(|word| word.parse().ok()) })
}

fn raw(pid: u32) -> io::Result<Option<Pid>> {
    i32::try_from(pid).map(Pid::from_raw).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_whose_limit_is_lowered_opens_nothing_until_it_is_raised() {
        let script =
            "echo; while read -r _; do if true </dev/null; then echo opened; else echo refused; fi; done";
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = shell.spawn().expect("sh");
        let mut input = shell.stdin.take().expect("a pipe");
        let mut lines = BufReader::new(shell.stdout.take().expect("a pipe")).lines();
        assert_eq!(lines.next().expect("it has started").expect("a line"), "");
        let mut tries = || {
            input.write_all(b"\n").expect("it reads");
            lines.next().expect("an answer").expect("a line")
        };
        assert_eq!(tries(), "opened");
        let limit = lower(shell.id()).expect("lowered");
        assert_eq!(tries(), "refused");
        let raise = Remedy::Raise { pid: shell.id(), limit };
        let running = RunningTrouble { trouble: Trouble::Descriptors, until: Instant::now(), remedy: raise };
        running.end(&Children::new(Vec::new(), Vec::new()).0, None).expect("raised");
        assert_eq!(tries(), "opened");
        drop(input);
        assert!(shell.wait().expect("it ends").success());
    }
}
