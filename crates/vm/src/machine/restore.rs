//! Starts a machine that was frozen after its entrypoint had exited, and owns it. Its agent is spoken with, and nothing else is
//! started in it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::source::{StartSource, Started};
use super::spawn::{Outputs, Recipe};
use super::supervise::own;
use super::supervisor::{Beginning, MachineRole};
use super::{StartError, Vm};
use crate::environment::EnvironmentDir;
use crate::network::Connection;
use crate::pace::Turn;

/// Starts the machine by a recipe that names its state. [`super::VmEvent::TakenOver`] is the first event, because its agent is
/// greeted as that of a machine which runs already.
pub(crate) async fn restore(recipe: Recipe, runner_id: &str, environment: &Path) -> Result<Vm, StartError> {
    let io_error = |source| StartError::Io { what: "open", path: environment.to_owned(), source };
    let opened = EnvironmentDir::open(environment, runner_id);
    let opened = opened.map_err(std::io::Error::other).map_err(io_error)?;
    let (outputs, detached) = (Outputs::new(), Arc::<AtomicBool>::default());
    let (connection, run_dir) = (Arc::clone(&recipe.connection), recipe.run_dir.clone());
    let vmm = Arc::new(recipe).spawn(&outputs, &detached).await?;
    // Its lines were kept while its job ran.
    let begin = Beginning::TakeOver { vmm, lines_seen: u64::MAX };
    let source = OneRestore { _connection: connection };
    let role = MachineRole::of_running(runner_id.to_owned());
    Ok(own((source, begin), role, opened, run_dir, (outputs, detached)))
}

/// The source of a machine that is started once. It keeps the machine's network.
#[derive(Debug)]
struct OneRestore {
    _connection: Arc<Connection>,
}

impl StartSource for OneRestore {
    async fn spawn(
        &mut self,
        _turn: Option<Turn>,
        _outputs: &Outputs,
        _detached: &Arc<AtomicBool>,
    ) -> Result<Started, StartError> {
        Err(StartError::Vanished)
    }
}
