//! Clearing up after instances whose process is gone, however it went.
//!
//! The order is the one that never kills a job: the registration first. Deleted or gone: the machine may go too. Busy:
//! a job runs in it, and it is left alone.

use std::path::{Path, PathBuf};

use dayfly_forge::{Deletion, Forge, ForgeError};

use dayfly_vm::EnvironmentDir;

use crate::instance::{self, Abandoned, InstanceError, Serves, machine_of};
use crate::journal::{self, JournalError, RegistrationRemains};

/// What was found and done.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Runs whose machine, registration and files are gone now.
    pub cleared: Vec<PathBuf>,
    /// Runs that were left, and why.
    pub left: Vec<(PathBuf, String)>,
}

/// Why abandoned instances could not be looked at.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SweepError(#[from] InstanceError);

/// Why one run could not be cleared.
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

/// Clears up abandoned instances under `state`: those of a private lab, since their registrations died with it, those
/// that have no runs, and those that served what this start serves: the same forge, scope, principal and prefix. All
/// others wait for a start of their own; several systems may share a host.
///
/// # Errors
/// The folder of instances cannot be read. What goes wrong with one run is in [`Sweep::left`].
pub async fn sweep(state: &Path, serving: Option<(&Forge, &Serves)>) -> Result<Sweep, SweepError> {
    let mut sweep = Sweep::default();
    if let Err(error) = dayfly_vm::sweep_templates(state).await {
        sweep.left.push((state.to_owned(), error.to_string()));
    }
    if let Err(error) = dayfly_vm::check::sweep_checks(state).await {
        sweep.left.push((state.to_owned(), error.to_string()));
    }
    for abandoned in instance::abandoned(state)? {
        // Machines that are nobody's: whoever comes by ends them.
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

/// Clears up what a loop of this process has left that died of a panic.
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
    let remains = journal::remains(&journal::read(run)?);
    if let Some(registration) = remains.registration
        && !private_lab
        && let Some(forge) = forge
    {
        end_registration(&registration, forge).await?;
    }
    dayfly_vm::destroy_leftover(&machine_of(run)).await?;
    if let Some((environment, id)) = remains.environment
        && environment.is_dir()
    {
        // The directory may be the user's own, and outlive the instance.
        EnvironmentDir::open(&environment, &id)?.clear()?;
    }
    std::fs::remove_dir_all(run).map_err(RunSweepError::Folder)
}

async fn end_registration(registration: &RegistrationRemains, forge: &Forge) -> Result<(), RunSweepError> {
    let failed = |source| RunSweepError::Forge { name: registration.name.clone(), source };
    let scope = &registration.scope;
    let id = match registration.id {
        Some(id) => Some(id),
        None => forge
            .find_runner_by_name(scope, &registration.name)
            .await
            .map_err(failed)?
            .map(|runner| runner.id),
    };
    match id {
        None => Ok(()),
        Some(id) => match forge.delete_runner(scope, id).await.map_err(failed)? {
            Deletion::Deleted | Deletion::Gone => Ok(()),
            Deletion::Busy => Err(RunSweepError::Busy),
        },
    }
}
