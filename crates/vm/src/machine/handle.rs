//! What the owner of a machine holds.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::spawn::Outputs;
use super::supervisor::Order;
use super::{Exit, LeftoverError, VmEvent, record};

/// A machine. Dropping it ends the machine, unless it was let go with [`Vm::detach`].
#[derive(Debug)]
pub struct Vm {
    pub(super) events: mpsc::Receiver<VmEvent>,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) supervisor: Supervising,
    pub(super) outputs: Outputs,
    pub(super) run_dir: PathBuf,
    pub(super) detached: Arc<AtomicBool>,
}

/// The task that owns the machine, or how the machine ended.
#[derive(Debug)]
pub(super) enum Supervising {
    /// It lives.
    Running(JoinHandle<Exit>),
    /// It is gone.
    Ended(Exit),
}

impl Vm {
    /// The next event; [`VmEvent::Gone`] is the last one, then `None`. Safe to be cancelled. Events that are not
    /// fetched hold the guest up, once the queue is full.
    pub async fn next_event(&mut self) -> Option<VmEvent> {
        self.events.recv().await
    }

    /// The last lines that console and VMM have printed.
    pub fn console_tail(&self) -> String {
        self.outputs.tail()
    }

    /// Ends the machine: asks its agent to power off, after `grace` its VMM to quit, and after 3 s more kills it.
    /// Events that come meanwhile are dropped.
    pub async fn stop(&mut self, grace: Duration) -> Exit {
        // A full queue holds an order already.
        let _ = self.orders.try_send(Order::Stop(grace));
        self.finish().await
    }

    /// Ends the machine at once. Events that come meanwhile are dropped.
    pub async fn kill(&mut self) -> Exit {
        let _ = self.orders.try_send(Order::Kill);
        // Its network ends beside it: the kernel takes as long for the one as for the other.
        let run_dir = self.run_dir.clone();
        let network = tokio::task::spawn_blocking(move || crate::network::remove(&run_dir));
        let exit = self.finish().await;
        if let Ok(Err(error)) = network.await {
            // What removes the machine's files tries again, and tells.
            tracing::debug!("{error}");
        }
        exit
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
        // A supervisor that panicked has dropped its VMM, which killed it.
        self.supervisor = Supervising::Ended(exit.unwrap_or(Exit::Killed));
        self.exit()
    }

    fn exit(&self) -> Exit {
        match &self.supervisor {
            Supervising::Ended(exit) => exit.clone(),
            Supervising::Running(_) => Exit::Killed,
        }
    }

    /// Removes all files of the machine from its run folder, except logs. One that lives is killed before.
    ///
    /// # Errors
    /// A file cannot be removed, or a tool cannot remove what it has made.
    pub async fn destroy(mut self) -> Result<(), LeftoverError> {
        if matches!(self.supervisor, Supervising::Running(_)) {
            self.kill().await;
        }
        record::destroy_leftover(&self.run_dir).await
    }

    /// Lets the machine go: it lives on when this process has ended. Its forwarded port works as long as this process.
    pub fn detach(self) {
        self.detached.store(true, Ordering::Relaxed);
    }
}
