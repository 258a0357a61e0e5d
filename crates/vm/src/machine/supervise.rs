//! Starts the task that owns a machine with an agent.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::mpsc;

use super::handle::Supervising;
use super::owned::Owned;
use super::sessions::Sessions;
use super::source::StartSource;
use super::spawn::Outputs;
use super::supervisor::{Beginning, MachineRole, Supervisor};
use super::{StartError, Vm, record};
use crate::environment::EnvironmentDir;

/// Capacity of the queue of events. If the queue is full, the guest's messages wait.
pub(super) const EVENTS_MAX: usize = 1024;

/// Starts a machine with an agent, and the task that owns it. If the start fails, what it has created is removed again.
pub(crate) async fn supervise(
    mut source: impl StartSource,
    role: MachineRole,
    environment: EnvironmentDir,
    run_dir: PathBuf,
    (outputs, detached): (Outputs, Arc<AtomicBool>),
) -> Result<Vm, StartError> {
    let started = match source.turn().await {
        Ok(turn) => source.spawn(turn, &outputs, &detached).await,
        Err(error) => Err(error),
    };
    let started = match started {
        Ok(started) => started,
        Err(error) => {
            if let Err(left) = record::destroy_leftover(&run_dir).await {
                tracing::warn!("{left}");
            }
            return Err(error);
        }
    };
    Ok(own((source, Beginning::Start(started)), role, environment, run_dir, (outputs, detached)))
}

/// Starts the task that owns a machine whose process runs.
pub(super) fn own(
    (source, begin): (impl StartSource, Beginning),
    role: MachineRole,
    environment: EnvironmentDir,
    run_dir: PathBuf,
    (outputs, detached): (Outputs, Arc<AtomicBool>),
) -> Vm {
    let (event_sender, events) = mpsc::channel(EVENTS_MAX);
    let (orders, order_receiver) = mpsc::channel(4);
    let supervisor = Supervisor {
        source,
        role,
        environment,
        outputs: outputs.clone(),
        events: event_sender,
        orders: order_receiver,
        detached: Arc::clone(&detached),
        owned: Owned::new(&run_dir),
        sessions: Sessions::open(&run_dir),
    };
    let supervisor = Supervising::Running(tokio::spawn(supervisor.run(begin)));
    Vm { events, orders, supervisor, outputs, run_dir, detached, parts: None }
}
