//! `dayfly-guest step PROGRAM ARGS`: runs the program of a step as GitHub's runner does, for a runner app that gives each
//! step a terminal (github-act-runner).
//!
//! ```text
//!   runner app ── terminal ── this program ── pipe ── program, and what it starts
//!                                               └──── after its exit: a reader that drops the rest
//! ```
//!
//! The program has no terminal, so that a pager or a program that asks for a password ends instead of waiting for a key. Its
//! standard input is at its end. The step ends with the program. Processes that it leaves running live on, and their output
//! is dropped, but never refused. If this program is killed, as the runner app does after a timeout, the program is killed
//! too.
#![expect(unsafe_code, reason = "session and death signal must be set between fork and exec")]

use std::ffi::OsString;
use std::io::{self, PipeReader, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::console;

/// First argument with which this program reads its standard input to the end.
pub(crate) const DROP: &str = "drop-output";
const OWN_PROGRAM: &str = "/proc/self/exe";
/// Bytes that are read at once.
const READ: usize = 64 * 1024;
/// Time without any work of the runner app after which it has read the last lines of a program that has failed. The app
/// stops reading the terminal as soon as a step fails, and would lose them, although they say why it failed.
const QUIET: Duration = Duration::from_millis(300);
/// Longest time to wait for that.
const QUIET_WITHIN: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);
/// Exit statuses of a shell that cannot start a program: it does not exist, or cannot be executed.
const ABSENT: u8 = 127;
const UNUSABLE: u8 = 126;

/// Runs the program, and returns its exit status as a shell does.
pub(crate) fn run(args: &[OsString]) -> ExitCode {
    let Some((program, args)) = args.split_first() else {
        console::say("usage: dayfly-guest step PROGRAM [ARGS]");
        return ExitCode::from(2);
    };
    let code = match start(program, args) {
        Ok((child, output)) => match relay(child, output) {
            Ok(status) => code_of(status),
            Err(error) => {
                console::say(&format!("lost the output of {}: {error}", program.display()));
                UNUSABLE
            }
        },
        Err(error) => {
            console::say(&format!("cannot start {}: {error}", program.display()));
            if error.kind() == io::ErrorKind::NotFound { ABSENT } else { UNUSABLE }
        }
    };
    if code != 0 {
        wait_until_quiet(&work_of_parent);
    }
    ExitCode::from(code)
}

/// Reads standard input to its end.
pub(crate) fn drop_output() -> ExitCode {
    let mut buffer = vec![0; READ];
    while !matches!(io::stdin().read(&mut buffer), Ok(0) | Err(_)) {}
    ExitCode::SUCCESS
}

/// Starts the program, and returns the pipe of its output.
fn start(program: &OsString, args: &[OsString]) -> io::Result<(Child, PipeReader)> {
    let (output, writer) = io::pipe()?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let own = Some(rustix::process::getpid());
    // SAFETY: only system calls run between fork and exec.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The kernel sends no signal for a parent that died before the call.
            if rustix::process::getppid() == own { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        });
    }
    // The command, which holds the other end of the pipe, goes with the end of this function.
    command.spawn().map(|child| (child, output))
}

/// Copies the output until the program exits.
fn relay(mut child: Child, mut output: PipeReader) -> io::Result<ExitStatus> {
    let exit = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let mut is_open = true;
    loop {
        let mut fds = vec![PollFd::new(&exit, PollFlags::IN)];
        if is_open {
            fds.push(PollFd::new(&output, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            result => result?,
        };
        let has_exited = !fds[0].revents().is_empty();
        let is_readable = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        if has_exited {
            break;
        }
        if is_readable {
            is_open = copy_some(&mut output)? > 0;
        }
    }
    if is_open && copy_rest(&mut output)? {
        leave_reader(output.into());
    }
    child.wait()
}

/// Copies what one read returns, and returns its length. A terminal that is gone is no reason to stop the program.
fn copy_some(output: &mut PipeReader) -> io::Result<usize> {
    let mut buffer = [0; READ];
    let length = output.read(&mut buffer)?;
    let _ = io::stdout().write_all(&buffer[..length]).and_then(|()| io::stdout().flush());
    Ok(length)
}

/// Copies what the program has left in the pipe. Returns true if another process still holds the pipe. Another process may
/// write faster than this one reads, so the rest is at most what the pipe holds.
fn copy_rest(output: &mut PipeReader) -> io::Result<bool> {
    let flags = rustix::fs::fcntl_getfl(&*output)?;
    rustix::fs::fcntl_setfl(&*output, flags | OFlags::NONBLOCK)?;
    let mut left = rustix::pipe::fcntl_getpipe_size(&*output)?;
    while left > 0 {
        match copy_some(output) {
            Ok(0) => return Ok(false),
            Ok(length) => left = left.saturating_sub(length),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    rustix::fs::fcntl_setfl(output.as_fd(), flags)?;
    Ok(true)
}

/// Leaves a process that reads the pipe to its end, because a program that writes to a pipe without a reader is killed.
fn leave_reader(output: OwnedFd) {
    let mut command = Command::new(OWN_PROGRAM);
    command.arg(DROP).stdin(output).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: only a system call runs between fork and exec. Afterwards, the exit of this process, which may lead the session
    // of the terminal, would hang the reader up.
    unsafe { command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?)) };
    if let Err(error) = command.spawn() {
        console::say(&format!("processes that the step has left cannot write any more: {error}"));
    }
}

/// Waits until the work does not change any more.
fn wait_until_quiet(work: &dyn Fn() -> Work) {
    let began = Instant::now();
    let (mut last, mut since) = (work(), began);
    while since.elapsed() < QUIET && began.elapsed() < QUIET_WITHIN {
        std::thread::sleep(LOOK);
        let now = work();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

/// The bytes that a process has read, and its processor time. Each is none if it cannot be seen.
type Work = (Option<u64>, Option<u64>);

/// Returns the work of the runner app. Both parts are needed, because the app works on what it has read before it reads on.
fn work_of_parent() -> Work {
    let Some(parent) = rustix::process::getppid() else { return (None, None) };
    let read = |name: &str| {
        let path = format!("/proc/{}/{name}", parent.as_raw_nonzero());
        std::fs::read_to_string(path).unwrap_or_default()
    };
    let bytes = read("io").lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok());
    (bytes, processor_time(&read("stat")))
}

/// Returns the processor time of a process, in ticks, from its `stat` (proc(5): fields 14 and 15, and the second one may have
/// blanks and brackets in it).
fn processor_time(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut next = || fields.next()?.trim().parse::<u64>().ok();
    Some(next()? + next()?)
}

/// Returns the exit status of a shell for a program that has ended so.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_ends_when_nothing_changes_or_after_its_limit() {
        let began = Instant::now();
        wait_until_quiet(&|| (Some(1), None));
        assert!((QUIET..QUIET_WITHIN / 2).contains(&began.elapsed()));
        // Work that ends after a second.
        let (began, busy) = (Instant::now(), Duration::from_secs(1));
        wait_until_quiet(&|| (None, u64::try_from(began.elapsed().min(busy).as_millis()).ok()));
        assert!((busy..QUIET_WITHIN / 2).contains(&began.elapsed()), "{:?}", began.elapsed());
    }

    #[test]
    fn the_processor_time_is_found_behind_any_name() {
        let stat = "812 (a ) b) S 1 812 812 0 -1 4194304 90 0 0 0 17 25 3 4 20 0 1 0 100 0 0";
        assert_eq!(processor_time(stat), Some(42));
        assert_eq!(processor_time(""), None);
        let (bytes, ticks) = work_of_parent();
        assert!(bytes.is_some() && ticks.is_some(), "{bytes:?} {ticks:?}");
    }

    #[test]
    fn the_status_of_a_signal_is_that_of_a_shell() {
        for (raw, expected) in [(0, 0), (7 << 8, 7), (9, 137), (15, 143)] {
            assert_eq!(code_of(ExitStatus::from_raw(raw)), expected);
        }
    }
}
