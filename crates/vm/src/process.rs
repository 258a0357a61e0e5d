//! Processes by descriptor, so that a wait or a kill never hits another process that got the same number.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;

/// Longest time that a killed process which another process has started may take to exit. Freeing gigabytes of memory takes
/// a moment.
const REAP_LIMIT: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    parent: Parent,
    descriptor: AsyncFd<OwnedFd>,
    kill_signal: Signal,
}

/// The process that has started a process, and that learns its exit status.
#[derive(Debug)]
enum Parent {
    /// This process.
    This(Child),
    /// An earlier process, which has died, or an earlier owner in this process.
    Earlier(TakenOver),
}

/// The ids of the processes that this process has taken over.
static TAKEN_OVER: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// A process that was taken over. Its id is in the list until this is dropped.
#[derive(Debug)]
struct TakenOver(u32);

impl TakenOver {
    fn new(pid: u32) -> Self {
        TAKEN_OVER.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
        Self(pid)
    }
}

impl Drop for TakenOver {
    fn drop(&mut self) {
        TAKEN_OVER.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// Returns the ids of the processes that this process has taken over.
pub(crate) fn taken_over() -> BTreeSet<u32> {
    TAKEN_OVER.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// How a process stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The process exited with this status.
    Exited(i32),
    /// This signal killed the process.
    Signalled(i32),
    /// The process has exited. Only its parent could learn its status.
    Unknown,
}

impl Process {
    /// Takes over a child. No other code may wait for it.
    pub(crate) fn new(mut child: Child) -> io::Result<Self> {
        let pid = Pid::from_child(&child);
        let descriptor = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .map_err(io::Error::from)
            .and_then(crate::readiness::readable);
        match descriptor {
            Ok(descriptor) => Ok(Self { parent: Parent::This(child), descriptor, kill_signal: Signal::KILL }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Takes over a process that an earlier process, or an earlier owner in this process, has started.
    pub(crate) fn of_earlier(pid: u32, descriptor: OwnedFd) -> io::Result<Self> {
        let descriptor = crate::readiness::readable(descriptor)?;
        Ok(Self { parent: Parent::Earlier(TakenOver::new(pid)), descriptor, kill_signal: Signal::KILL })
    }

    /// Makes [`Process::kill`] send another signal, for a process that then kills others and exits after them.
    pub(crate) fn killed_by(self, kill_signal: Signal) -> Self {
        Self { kill_signal, ..self }
    }

    /// Returns the process id.
    pub(crate) fn id(&self) -> u32 {
        match &self.parent {
            Parent::This(child) => child.id(),
            Parent::Earlier(process) => process.0,
        }
    }

    /// Waits until the process has exited. Cancel-safe, and may be called again.
    pub(crate) async fn wait(&mut self) -> io::Result<Ending> {
        loop {
            let mut ready = self.descriptor.readable().await?;
            match &mut self.parent {
                Parent::This(child) => {
                    if let Some(status) = child.try_wait()? {
                        return Ok(status.into());
                    }
                }
                Parent::Earlier(_) => return Ok(ending_of_child(self.descriptor.get_ref())),
            }
            ready.clear_ready();
        }
    }

    /// Returns true if the process has exited. Its status remains available to [`Process::wait`].
    pub(crate) fn has_ended(&self) -> bool {
        self.exits_within(Timespec { tv_sec: 0, tv_nsec: 0 })
    }

    /// Waits for the process to exit. The descriptor of a process is readable from then on.
    fn exits_within(&self, limit: Timespec) -> bool {
        let mut descriptors = [PollFd::new(self.descriptor.get_ref(), PollFlags::IN)];
        !matches!(poll(&mut descriptors, Some(&limit)), Ok(0))
    }

    /// Blocks until a process that was just killed has exited, for an owner that cannot use `await`. Takes milliseconds.
    pub(crate) fn reap(&mut self) {
        let has_exited = matches!(self.parent, Parent::This(_)) || self.exits_within(REAP_LIMIT);
        let reaped = match &mut self.parent {
            Parent::This(child) => child.wait().map(drop),
            Parent::Earlier(_) if has_exited => Ok(()),
            Parent::Earlier(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        if let Err(error) = reaped {
            tracing::debug!(pid = self.id(), "cannot wait for a process: {error}");
        }
    }

    /// Kills the process. Does nothing if it has already exited.
    pub(crate) fn kill(&self) {
        if let Err(error) = rustix::process::pidfd_send_signal(self.descriptor.get_ref(), self.kill_signal) {
            tracing::debug!(pid = self.id(), "cannot kill a process: {error}");
        }
    }
}

/// Returns how a process has stopped, if it is a child of this process that no other code waits for, and removes the zombie.
fn ending_of_child(descriptor: &OwnedFd) -> Ending {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match rustix::process::waitid(WaitId::PidFd(descriptor.as_fd()), options) {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Ending::Exited(code),
            (None, Some(signal)) => Ending::Signalled(signal),
            (None, None) => Ending::Unknown,
        },
        Ok(None) | Err(_) => Ending::Unknown,
    }
}

impl From<ExitStatus> for Ending {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exited(code),
            (None, signal) => Self::Signalled(signal.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    #[tokio::test]
    async fn endings_are_told_apart() {
        for (script, ending) in [("exit 7", Ending::Exited(7)), ("kill -15 $$", Ending::Signalled(15))] {
            let child = Command::new("sh").args(["-c", script]).spawn().expect("spawn");
            assert_eq!(Process::new(child).expect("process").wait().await.expect("wait"), ending);
        }
    }

    fn of_earlier(pid: u32) -> Process {
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
        let descriptor = rustix::process::pidfd_open(id, PidfdFlags::empty()).expect("a descriptor");
        Process::of_earlier(pid, descriptor).expect("process")
    }

    #[tokio::test]
    async fn the_end_of_a_process_of_an_earlier_process_is_seen_without_its_status() {
        let mut parent = Command::new("sh");
        parent.args(["-c", "sleep 60 >/dev/null 2>&1 & echo $!"]);
        let output = parent.output().expect("run").stdout;
        let pid = String::from_utf8(output).expect("text").trim().parse().expect("a number");
        let mut process = of_earlier(pid);
        assert_eq!((process.id(), process.has_ended()), (pid, false));
        assert!(taken_over().contains(&pid));
        process.kill();
        assert_eq!(process.wait().await.expect("wait"), Ending::Unknown);
        process.reap();
        assert!(process.has_ended());
        drop(process);
        assert!(!taken_over().contains(&pid));
    }

    #[tokio::test]
    #[expect(clippy::zombie_processes, reason = "the code under test waits for it")]
    async fn a_child_of_this_process_that_had_another_owner_leaves_its_status_and_no_zombie() {
        for (script, ending) in [("exit 7", Ending::Exited(7)), ("kill -15 $$", Ending::Signalled(15))] {
            let child = Command::new("sh").args(["-c", script]).spawn().expect("spawn");
            let mut process = of_earlier(child.id());
            let stat = format!("/proc/{}/stat", process.id());
            assert_eq!(process.wait().await.expect("wait"), ending);
            assert!(std::fs::read_to_string(stat).is_err(), "it is reaped");
        }
    }

    #[tokio::test]
    async fn waiting_can_be_given_up_and_taken_up_again() {
        let child = Command::new("sleep").arg("60").spawn().expect("spawn");
        let mut process = Process::new(child).expect("process");
        assert!(tokio::time::timeout(Duration::from_millis(20), process.wait()).await.is_err());
        assert!(!process.has_ended());
        process.kill();
        assert_eq!(process.wait().await.expect("wait"), Ending::Signalled(9));
        process.kill();
    }
}
