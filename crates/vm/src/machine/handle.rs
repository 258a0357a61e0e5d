//! The handle of a machine, held by its owner.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::source::KeptParts;
use super::spawn::Outputs;
use super::supervisor::{Freezing, VmOrder};
use super::{Exit, LeftoverError, VmEvent, record};

/// The handle of a machine. Dropping the handle kills the machine, unless [`Vm::detach`] was called, or a panic drops it: then the
/// machine is let go, because a job in it is not to blame for a bug in this program.
#[derive(Debug)]
pub struct Vm {
    pub(super) events: mpsc::Receiver<VmEvent>,
    pub(super) orders: mpsc::Sender<VmOrder>,
    pub(super) supervisor: Supervising,
    pub(super) outputs: Outputs,
    pub(super) run_dir: PathBuf,
    pub(super) detached: Arc<AtomicBool>,
    /// The parts of the machine that are needed to keep it; none if it cannot be kept.
    pub(super) parts: Option<Arc<dyn KeptParts>>,
}

/// The task that owns the machine, or the exit of a machine that has ended.
#[derive(Debug)]
pub(super) enum Supervising {
    /// The task runs.
    Running(JoinHandle<Exit>),
    /// The machine has ended.
    Ended(Exit),
}

impl Vm {
    /// Returns the next event. [`VmEvent::Gone`] is the last one, then comes `None`. Safe to be cancelled. If events are not
    /// fetched and the queue is full, the guest's messages wait.
    pub async fn next_event(&mut self) -> Option<VmEvent> {
        self.events.recv().await
    }

    /// Returns the last lines that the console and the VMM have printed.
    pub fn console_tail(&self) -> String {
        self.outputs.tail()
    }

    /// Stops the machine: asks its agent to power off, after `grace` asks its VMM to quit, and after 3 s more kills the VMM.
    /// Drops the events that arrive meanwhile.
    pub async fn stop(&mut self, grace: Duration) -> Exit {
        // If the queue is full, it contains an order already.
        let _ = self.orders.try_send(VmOrder::Stop(grace));
        self.finish().await
    }

    /// Kills the machine. Drops the events that arrive meanwhile.
    pub async fn kill(&mut self) -> Exit {
        let _ = self.orders.try_send(VmOrder::Kill);
        // The network is removed at the same time, because the kernel takes as long for it as for the process.
        let run_dir = self.run_dir.clone();
        let network = tokio::task::spawn_blocking(move || crate::network::remove(&run_dir));
        let exit = self.finish().await;
        if let Ok(Err(error)) = network.await {
            // The removal of the machine's files tries again, and returns the error.
            tracing::debug!("{error}");
        }
        exit
    }

    /// Returns the parts of the machine that are needed to keep it, if it can be kept.
    pub(crate) fn parts(&self) -> Option<Arc<dyn KeptParts>> {
        self.parts.clone()
    }

    /// Notes that the machine can be kept.
    pub(crate) fn with_parts(mut self, parts: Arc<dyn KeptParts>) -> Self {
        self.parts = Some(parts);
        self
    }

    /// Cuts the network off, writes the machine to a file, and ends the VMM. Drops the events that arrive meanwhile. The exit is
    /// [`Exit::Frozen`] if the file is whole.
    pub(crate) async fn freeze(&mut self, state: OwnedFd, limit: Duration) -> Exit {
        let order = VmOrder::Freeze(Freezing { state, limit });
        if self.orders.send(order).await.is_err() {
            tracing::debug!("a machine that was to be frozen has ended");
        }
        self.finish().await
    }

    /// Connects the network card of a machine that was kept.
    pub fn connect(&self) {
        let _ = self.orders.try_send(VmOrder::Connect);
    }

    /// Returns the folder of the machine.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    async fn finish(&mut self) -> Exit {
        let Supervising::Running(task) = &mut self.supervisor else {
            return self.exit();
        };
        let mut listening = true;
        let exit = loop {
            tokio::select! {
                exit = &mut *task => break exit,
                event = self.events.recv(), if listening => listening = event.is_some(),
            }
        };
        // If the supervisor panicked, it has dropped its VMM, which killed the VMM.
        self.supervisor = Supervising::Ended(exit.unwrap_or(Exit::Killed));
        self.exit()
    }

    fn exit(&self) -> Exit {
        match &self.supervisor {
            Supervising::Ended(exit) => exit.clone(),
            Supervising::Running(_) => Exit::Killed,
        }
    }

    /// Removes all files of the machine from its run folder, except logs. A machine that still runs is killed first.
    ///
    /// # Errors
    /// A file cannot be removed, or a tool cannot remove the machine that it created.
    pub async fn destroy(mut self) -> Result<(), LeftoverError> {
        if matches!(self.supervisor, Supervising::Running(_)) {
            self.kill().await;
        }
        record::destroy_leftover(&self.run_dir).await.map(drop)
    }

    /// Lets the machine go: it lives on, its sockets are free, and another owner may take it over ([`super::take_over`]).
    pub async fn let_go(mut self) {
        let _ = self.orders.try_send(VmOrder::LetGo);
        self.finish().await;
        crate::network::let_go(&self.run_dir);
    }

    /// Detaches the machine, so that it outlives this process. Its forwarded port works only as long as this process runs.
    pub fn detach(self) {
        self.detached.store(true, Ordering::Relaxed);
        crate::network::let_go(&self.run_dir);
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.orders.try_send(VmOrder::LetGo);
        }
    }
}
