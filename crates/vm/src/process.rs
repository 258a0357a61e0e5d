//! Child processes by descriptor, so that a wait or a kill never hits another process that got the same number.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;

/// A child process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    descriptor: AsyncFd<OwnedFd>,
    kill_signal: Signal,
}

/// How a process stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The process exited with this status.
    Exited(i32),
    /// This signal killed the process.
    Signalled(i32),
}

impl Process {
    /// Takes over a child. No other code may wait for it.
    pub(crate) fn new(mut child: Child) -> io::Result<Self> {
        let pid = Pid::from_child(&child);
        let descriptor = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .map_err(io::Error::from)
            .and_then(crate::readiness::readable);
        match descriptor {
            Ok(descriptor) => Ok(Self { child, descriptor, kill_signal: Signal::KILL }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Makes [`Process::kill`] send another signal, for a process that then kills others and exits after them.
    pub(crate) fn killed_by(self, kill_signal: Signal) -> Self {
        Self { kill_signal, ..self }
    }

    /// Returns the process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the process has exited. Cancel-safe, and may be called again.
    pub(crate) async fn wait(&mut self) -> io::Result<Ending> {
        loop {
            let mut ready = self.descriptor.readable().await?;
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.into());
            }
            ready.clear_ready();
        }
    }

    /// Returns true if the process has exited. Its status remains available to [`Process::wait`].
    pub(crate) fn has_ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let id = WaitId::PidFd(self.descriptor.get_ref().as_fd());
        !matches!(rustix::process::waitid(id, look), Ok(None))
    }

    /// Blocks until a process that was just killed has exited, for an owner that cannot use `await`. Takes milliseconds.
    pub(crate) fn reap(&mut self) {
        if let Err(error) = self.child.wait() {
            tracing::debug!(pid = self.child.id(), "cannot wait for a process: {error}");
        }
    }

    /// Kills the process. Does nothing if it has already exited.
    pub(crate) fn kill(&self) {
        if let Err(error) = rustix::process::pidfd_send_signal(self.descriptor.get_ref(), self.kill_signal) {
            tracing::debug!(pid = self.child.id(), "cannot kill a process: {error}");
        }
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
