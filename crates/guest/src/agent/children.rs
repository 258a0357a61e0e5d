//! Child processes of process 1: those it started, and orphans.

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions};
use std::collections::HashMap;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, PoisonError};

/// Who waits for which child. One thread reaps for all, so nobody calls `wait` on a child itself.
#[derive(Default)]
pub(super) struct Children {
    waiting: Mutex<HashMap<i32, SyncSender<ExitStatus>>>,
    started: Condvar,
}

impl Children {
    /// Starts a process; its status comes through the channel.
    pub(super) fn spawn(&self, mut command: Command) -> io::Result<(Pid, Receiver<ExitStatus>)> {
        // Held over the start: an early end is reaped only once it is known who waits for it, and a start that
        // fails reaps its own child before anybody else looks.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.spawn()?;
        let (sender, receiver) = sync_channel(1);
        waiting.insert(child.id().cast_signed(), sender);
        self.started.notify_all();
        Ok((Pid::from_child(&child), receiver))
    }

    /// Reaps every child that ends, for ever.
    pub(super) fn reap(&self) -> ! {
        loop {
            // Only a look: the child is taken below, under the lock.
            let ended = rustix::process::waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if matches!(ended, Err(Errno::CHILD)) && waiting.is_empty() {
                // No child, so none can appear but by `spawn`.
                drop(self.started.wait(waiting).unwrap_or_else(PoisonError::into_inner));
                continue;
            }
            while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
                if let Some(sender) = waiting.remove(&pid.as_raw_nonzero().get()) {
                    // Nobody may want to know any more.
                    let _ = sender.try_send(ExitStatus::from_raw(status.as_raw()));
                }
            }
        }
    }
}
