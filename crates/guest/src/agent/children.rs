//! Child processes of process 1: the processes that it has started, and orphans.

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions};
use std::collections::HashMap;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, PoisonError};

/// The children whose exit statuses are awaited. One thread reaps all children, so no other thread may call `wait`.
#[derive(Default)]
pub(super) struct Children {
    waiting: Mutex<HashMap<i32, SyncSender<ExitStatus>>>,
    started: Condvar,
}

impl Children {
    /// Starts a process. Its exit status comes through the returned channel.
    pub(super) fn spawn(&self, mut command: Command) -> io::Result<(Pid, Receiver<ExitStatus>)> {
        // The lock is held during the start, so that a child that exits early is reaped only after its sender was
        // stored, and so that a failing start reaps its own child before `reap` does.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.spawn()?;
        let (sender, receiver) = sync_channel(1);
        waiting.insert(child.id().cast_signed(), sender);
        self.started.notify_all();
        Ok((Pid::from_child(&child), receiver))
    }

    /// Reaps every child that exits, forever.
    pub(super) fn reap(&self) -> ! {
        loop {
            // `NOWAIT` does not reap the child yet. That happens below, under the lock.
            let ended = rustix::process::waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if matches!(ended, Err(Errno::CHILD)) && waiting.is_empty() {
                // There is no child, so only `spawn` can add one.
                drop(self.started.wait(waiting).unwrap_or_else(PoisonError::into_inner));
                continue;
            }
            while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
                if let Some(sender) = waiting.remove(&pid.as_raw_nonzero().get()) {
                    // The receiver may have been dropped.
                    let _ = sender.try_send(ExitStatus::from_raw(status.as_raw()));
                }
            }
        }
    }
}
