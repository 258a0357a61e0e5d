//! Starts a machine that was frozen after its entrypoint had exited, and owns it. Its agent is spoken with, and nothing else is
//! started in it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::source::NoStarts;
use super::spawn::{Outputs, Recipe};
use super::supervise::own;
use super::supervisor::{Beginning, MachineRole};
use super::{StartError, Vm};
use crate::environment::EnvironmentDir;

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
    let source = NoStarts(connection);
    let role = MachineRole::of_running(runner_id.to_owned());
    Ok(own((source, begin), role, opened, run_dir, (outputs, detached)))
}
