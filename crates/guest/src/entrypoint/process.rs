//! Processes that the entrypoint starts: each in a group of its own, as a user, its output through a pipe.
#![expect(unsafe_code, reason = "the signal mask must change between fork and exec")]

use super::supervisor::Event;
use super::user::Account;
use super::{app::AppError, app::at, orphans, signals};
use dayfly_guest::runner_app::{Launch, StopSignal};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::io::{self, PipeReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::SyncSender;

/// A process that runs, or has ended and is not reaped yet.
pub(super) struct Process {
    child: Child,
    pid: Pid,
    stop_signal: StopSignal,
}

/// Starts what `launch` says: its end comes as an event, and what it prints (standard output and error in one)
/// through the pipe. `None` for the account: no change of user.
pub(super) fn start(
    launch: &Launch,
    account: Option<&Account>,
    events: &SyncSender<Event>,
) -> Result<(Process, PipeReader), AppError> {
    let (child, output) = spawn(launch, account)?;
    Ok((watch(child, launch.stop_signal, events), output))
}

/// The same, without anybody who hears of its end yet.
pub(super) fn spawn(launch: &Launch, account: Option<&Account>) -> Result<(Child, PipeReader), AppError> {
    let program = &launch.program;
    let (output, writer) = io::pipe().map_err(at("no pipe for", program))?;
    let copy = writer.try_clone().map_err(at("no pipe for", program))?;
    let mut command = Command::new(program);
    command.args(&launch.args).env_clear().envs(launch.env.iter().map(|(name, value)| (name, value)));
    command.envs(launch.secret.iter().map(|secret| (secret.name, &secret.value)));
    command.current_dir(&launch.folder).stdin(Stdio::null()).stdout(writer).stderr(copy).process_group(0);
    let account = account.cloned();
    // SAFETY: between fork and exec only system calls are made, on memory that was there before.
    unsafe {
        command.pre_exec(|| {
            signals::unblock();
            Ok(())
        });
    }
    if let Some(account) = account {
        account.apply_to(&mut command);
    }
    Ok((orphans::spawn(&mut command).map_err(at("cannot start", program))?, output))
}

/// Sends an event when a process has ended.
pub(super) fn watch(child: Child, stop_signal: StopSignal, events: &SyncSender<Event>) -> Process {
    let pid = Pid::from_child(&child);
    let events = events.clone();
    std::thread::spawn(move || {
        // Not reaped here: until it is, its process group's number cannot be another's.
        let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        // Never full for long: the receiver handles events until this one.
        let _ = events.send(Event::Ended(pid));
    });
    Process { child, pid, stop_signal }
}

/// Whether a child has ended already; it stays to be reaped.
pub(super) fn has_ended(pid: Pid) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    !matches!(rustix::process::waitid(WaitId::Pid(pid), look), Ok(None))
}

/// Ends a process, and all of its group, that nobody has ever watched.
pub(super) fn discard(mut child: Child) {
    let _ = rustix::process::kill_process_group(Pid::from_child(&child), Signal::KILL);
    let _ = orphans::reap(&mut child);
}

impl Process {
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether it has ended already; it stays to be reaped.
    pub(super) fn has_ended(&self) -> bool {
        has_ended(self.pid)
    }

    /// Asks it and all that it started to end.
    pub(super) fn ask_to_end(&self) {
        let signal = match self.stop_signal {
            StopSignal::Interrupt => Signal::INT,
            StopSignal::Terminate => Signal::TERM,
        };
        // One that has just ended is no error.
        let _ = rustix::process::kill_process_group(self.pid, signal);
    }

    /// Ends them by force.
    pub(super) fn kill(&self) {
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
    }

    /// Takes the status of one that has ended, and ends what it left behind in its group.
    pub(super) fn reap(&mut self) -> io::Result<ExitStatus> {
        self.kill();
        orphans::reap(&mut self.child)
    }
}
