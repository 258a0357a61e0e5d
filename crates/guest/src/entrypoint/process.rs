//! Starts processes: each in its own process group, as a given user, with its output in a pipe.
#![expect(unsafe_code, reason = "the signal mask must change between fork and exec")]

use super::supervisor::Event;
use super::user::Account;
use super::{app::AppError, app::at, orphans, signals};
use crate::memory;
use dayfly_guest::runner_app::{Launch, StopSignal};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::io::{self, PipeReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::SyncSender;

/// A process that runs, or has exited and is not reaped yet.
pub(super) struct Process {
    child: Child,
    pid: Pid,
    stop_signal: StopSignal,
}

/// Starts the program of `launch`. Its exit comes as an event, and its standard output and error through one pipe. The
/// user does not change if `account` is `None`.
pub(super) fn start(
    launch: &Launch,
    account: Option<&Account>,
    events: &SyncSender<Event>,
) -> Result<(Process, PipeReader), AppError> {
    let (child, output) = spawn(launch, account)?;
    Ok((watch(child, launch.stop_signal, events), output))
}

/// Like [`start`], but without an event for the exit until [`watch`] is called.
pub(super) fn spawn(launch: &Launch, account: Option<&Account>) -> Result<(Child, PipeReader), AppError> {
    let program = &launch.program;
    let (output, writer) = io::pipe().map_err(at("no pipe for", program))?;
    let copy = writer.try_clone().map_err(at("no pipe for", program))?;
    let mut command = Command::new(program);
    command.args(&launch.args).env_clear().envs(launch.env.iter().map(|(name, value)| (name, value)));
    command.envs(launch.secret.iter().map(|secret| (secret.name, &secret.value)));
    command.current_dir(&launch.folder).stdin(Stdio::null()).stdout(writer).stderr(copy).process_group(0);
    let account = account.cloned();
    // SAFETY: only system calls run between fork and exec, on memory that was allocated before the fork.
    unsafe {
        command.pre_exec(|| {
            signals::unblock();
            memory::give_up_protection();
            Ok(())
        });
    }
    if let Some(account) = account {
        account.apply_to(&mut command);
    }
    Ok((orphans::spawn(&mut command).map_err(at("cannot start", program))?, output))
}

/// Starts a thread that sends an event when the process has exited.
pub(super) fn watch(child: Child, stop_signal: StopSignal, events: &SyncSender<Event>) -> Process {
    let pid = Pid::from_child(&child);
    let events = events.clone();
    std::thread::spawn(move || {
        // The child is not reaped here: until it is, the number of its process group cannot be reused.
        let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        // The queue is never full for long, because the receiver handles events until this one.
        let _ = events.send(Event::Ended(pid));
    });
    Process { child, pid, stop_signal }
}

/// Returns true if a child has exited. Does not reap it.
pub(super) fn has_ended(pid: Pid) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    !matches!(rustix::process::waitid(WaitId::Pid(pid), look), Ok(None))
}

/// Kills and reaps a process for which [`watch`] was never called, and kills its group.
pub(super) fn discard(mut child: Child) {
    let _ = rustix::process::kill_process_group(Pid::from_child(&child), Signal::KILL);
    let _ = orphans::reap(&mut child);
}

/// Returns the process and the result, or the error after the process was discarded.
pub(super) fn keep_if<T, E>(child: Child, result: Result<T, E>) -> Result<(Child, T), E> {
    match result {
        Ok(value) => Ok((child, value)),
        Err(error) => {
            discard(child);
            Err(error)
        }
    }
}

impl Process {
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns true if the process has exited. Does not reap it.
    pub(super) fn has_ended(&self) -> bool {
        has_ended(self.pid)
    }

    /// Sends the stop signal to the process group.
    pub(super) fn ask_to_end(&self) {
        let signal = match self.stop_signal {
            StopSignal::Interrupt => Signal::INT,
            StopSignal::Terminate => Signal::TERM,
        };
        // A process that has just exited is no error.
        let _ = rustix::process::kill_process_group(self.pid, signal);
    }

    /// Kills the process group.
    pub(super) fn kill(&self) {
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
    }

    /// Reaps the process and returns its status. Before that, kills the processes that may be left in its group.
    pub(super) fn reap(&mut self) -> io::Result<ExitStatus> {
        self.kill();
        orphans::reap(&mut self.child)
    }
}
