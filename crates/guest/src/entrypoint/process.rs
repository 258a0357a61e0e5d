//! Processes that the entrypoint starts: each in a group of its own, as a user, its output through a pipe.
#![expect(unsafe_code, reason = "user, groups and signal mask must change between fork and exec")]

use super::supervisor::Event;
use super::user::Account;
use super::{app::AppError, app::at, orphans, signals};
use dayfly_guest::runner_app::{Launch, StopSignal};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions};
use std::io::{self, PipeReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::SyncSender;

/// Open files a job's programs may have: what hosted machines give. Some programs walk through all of them.
const OPEN_FILES: u64 = 65_536;

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
        command.pre_exec(move || {
            signals::unblock();
            account.as_ref().map_or(Ok(()), become_user)
        });
    }
    let child = orphans::spawn(&mut command).map_err(at("cannot start", program))?;
    let pid = Pid::from_child(&child);
    let events = events.clone();
    std::thread::spawn(move || {
        // Not reaped here: until it is, its process group's number cannot be another's.
        let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        // Never full for long: the receiver handles events until this one.
        let _ = events.send(Event::Ended(pid));
    });
    Ok((Process { child, pid, stop_signal: launch.stop_signal }, output))
}

fn become_user(account: &Account) -> io::Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let maximum = limit.maximum;
    let current = Some(maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES)));
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
    rustix::thread::set_thread_groups(&account.groups)?;
    rustix::thread::set_thread_gid(account.gid)?;
    rustix::thread::set_thread_uid(account.uid)?;
    Ok(())
}

impl Process {
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether it has ended already; it stays to be reaped.
    pub(super) fn has_ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        !matches!(rustix::process::waitid(WaitId::Pid(self.pid), look), Ok(None))
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
