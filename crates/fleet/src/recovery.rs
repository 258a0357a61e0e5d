//! Removes the remains of instances whose process has exited.
//!
//! The registration is deleted first, so that no running job is killed: if it is deleted or gone, the machine is destroyed
//! too. If the forge calls it busy, a job runs in the machine, and the run is left alone.

use std::path::{Path, PathBuf};

use dayfly_forge::{Forge, ForgeError};
use dayfly_vm::EnvironmentDir;

use crate::fact::RegistrationEnd;
use crate::instance::{self, Abandoned, InstanceError, Serves, machine_of};
use crate::journal::{self, JournalError};
use crate::registration::{self, WhenBusy};
use crate::state::RunnerState;

/// The result of a sweep.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Runs whose machine, registration and files are removed.
    pub cleared: Vec<PathBuf>,
    /// Runs that were left, with the reason.
    pub left: Vec<(PathBuf, String)>,
}

/// The folder of instances cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SweepError(#[from] InstanceError);

/// Errors of removing one run.
#[derive(Debug, thiserror::Error)]
enum RunSweepError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("its registration {name} cannot be deleted: {source}")]
    Forge { name: String, source: ForgeError },
    #[error("a job still runs in its machine")]
    Busy,
    #[error(transparent)]
    Vm(#[from] dayfly_vm::LeftoverError),
    #[error(transparent)]
    Environment(#[from] dayfly_vm::EnvironmentError),
    #[error("its folder cannot be removed: {0}")]
    Folder(std::io::Error),
}

/// Removes abandoned instances under `state`: those of a private lab, because their registrations died with it, those
/// without runs, and those that served the same forge, scope and prefix as this start. All others wait for a start of
/// their own, because several systems may share a host.
///
/// # Errors
/// The folder of instances cannot be read. The errors of single runs are in [`Sweep::left`].
pub async fn sweep(state: &Path, serving: Option<(&Forge, &Serves)>) -> Result<Sweep, SweepError> {
    let mut sweep = Sweep::default();
    if let Err(error) = dayfly_vm::sweep_templates(state).await {
        sweep.left.push((state.to_owned(), error.to_string()));
    }
    if let Err(error) = dayfly_vm::check::sweep_checks(state).await {
        sweep.left.push((state.to_owned(), error.to_string()));
    }
    for abandoned in instance::abandoned(state)? {
        // Spares belong to no forge and no scope, so any start may destroy them.
        for spare in abandoned.spares()? {
            if let Err(error) = sweep_spare(&spare).await {
                sweep.left.push((spare, error.to_string()));
            }
        }
        if !abandoned.runs()?.is_empty() && !is_ours(abandoned.serves.as_ref(), serving) {
            continue;
        }
        sweep_instance(&abandoned, serving, &mut sweep).await?;
        let folder = abandoned.folder.clone();
        if let Err(error) = abandoned.remove() {
            sweep.left.push((folder, error.to_string()));
        }
    }
    Ok(sweep)
}

/// Removes the runs of a loop of this process that has panicked.
pub(crate) async fn sweep_loop(runs: &Path, index: u32, forge: &Forge) -> Sweep {
    let mut sweep = Sweep::default();
    let folders = match instance::folders_in(runs) {
        Ok(folders) => folders,
        Err(error) => {
            sweep.left.push((runs.to_owned(), error.to_string()));
            return sweep;
        }
    };
    let begins = format!("{index}-");
    let of_loop =
        |run: &PathBuf| run.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&begins));
    for run in folders.into_iter().filter(of_loop) {
        match sweep_run(&run, false, Some(forge)).await {
            Ok(()) => sweep.cleared.push(run),
            Err(error) => sweep.left.push((run, error.to_string())),
        }
    }
    sweep
}

fn is_ours(served: Option<&Serves>, serving: Option<(&Forge, &Serves)>) -> bool {
    let Some(served) = served else { return false };
    served.private_lab || serving.is_some_and(|(_, serves)| serves == served)
}

async fn sweep_instance(
    abandoned: &Abandoned,
    serving: Option<(&Forge, &Serves)>,
    sweep: &mut Sweep,
) -> Result<(), InstanceError> {
    let private_lab = abandoned.serves.as_ref().is_some_and(|served| served.private_lab);
    for run in abandoned.runs()? {
        match sweep_run(&run, private_lab, serving.map(|(forge, _)| forge)).await {
            Ok(()) => sweep.cleared.push(run),
            Err(error) => sweep.left.push((run, error.to_string())),
        }
    }
    Ok(())
}

async fn sweep_spare(spare: &Path) -> Result<(), RunSweepError> {
    dayfly_vm::destroy_leftover(spare).await?;
    std::fs::remove_dir_all(spare).map_err(RunSweepError::Folder)
}

async fn sweep_run(run: &Path, private_lab: bool, forge: Option<&Forge>) -> Result<(), RunSweepError> {
    let state = RunnerState::of(&journal::read(run)?);
    if let Some(forge) = forge.filter(|_| !private_lab) {
        end_registration(&state, forge).await?;
    }
    dayfly_vm::destroy_leftover(&machine_of(run)).await?;
    if let (Some(begun), Some(runner)) = (&state.begun, &state.runner)
        && begun.environment.is_dir()
    {
        // The directory may be the user's own, and outlive the instance.
        EnvironmentDir::open(&begun.environment, runner.id.as_str())?.clear()?;
    }
    std::fs::remove_dir_all(run).map_err(RunSweepError::Folder)
}

async fn end_registration(state: &RunnerState, forge: &Forge) -> Result<(), RunSweepError> {
    let (Some(begun), Some(runner)) = (&state.begun, &state.runner) else { return Ok(()) };
    let name = &runner.name;
    let ended = registration::end(forge, &begun.scope, name, state.registration, WhenBusy::Leave).await;
    match ended.map_err(|source| RunSweepError::Forge { name: name.clone(), source })?.how {
        RegistrationEnd::Deleted | RegistrationEnd::Gone => Ok(()),
        RegistrationEnd::Busy => Err(RunSweepError::Busy),
    }
}
