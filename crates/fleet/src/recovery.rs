//! Clearing up after instances whose process is gone, however it went.
//!
//! The order is the one that never kills a job: the registration first. Deleted or gone: the machine may go too. Busy:
//! a job runs in it, and it is left alone.

use std::path::{Path, PathBuf};

use dayfly_forge::client::{Deletion, Forge, ForgeError};

use crate::instance::{self, Abandoned, InstanceError, Serves};
use crate::journal::{self, JournalError, RegistrationRemains};
use crate::settings::Principal;

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
    #[error("it serves {forge} {principal}, not the forge and repository of this start")]
    OtherForge { forge: String, principal: String },
    #[error(transparent)]
    Vm(#[from] dayfly_vm::LeftoverError),
    #[error("its folder cannot be removed: {0}")]
    Folder(std::io::Error),
}

/// Clears up every abandoned instance under `state`: those of a private lab whole, since their registrations died with
/// it, and those that served the same forge and repository as `serves`, if given.
///
/// # Errors
/// The folder of instances cannot be read. What goes wrong with one run is in [`Sweep::left`].
pub async fn sweep(state: &Path, serving: Option<(&Forge, &Serves)>) -> Result<Sweep, SweepError> {
    let mut sweep = Sweep::default();
    for abandoned in instance::abandoned(state)? {
        sweep_instance(&abandoned, serving, &mut sweep).await?;
        let folder = abandoned.folder.clone();
        if let Err(error) = abandoned.remove() {
            sweep.left.push((folder, error.to_string()));
        }
    }
    Ok(sweep)
}

async fn sweep_instance(
    abandoned: &Abandoned,
    serving: Option<(&Forge, &Serves)>,
    sweep: &mut Sweep,
) -> Result<(), InstanceError> {
    for run in abandoned.runs()? {
        match sweep_run(&run, abandoned.serves.as_ref(), serving).await {
            Ok(()) => sweep.cleared.push(run),
            Err(error) => sweep.left.push((run, error.to_string())),
        }
    }
    Ok(())
}

async fn sweep_run(
    run: &Path,
    served: Option<&Serves>,
    serving: Option<(&Forge, &Serves)>,
) -> Result<(), RunSweepError> {
    let remains = journal::remains(&journal::read(run)?);
    if let Some(registration) = remains.registration
        && !served.is_some_and(|served| served.private_lab)
    {
        end_registration(&registration, serving).await?;
    }
    dayfly_vm::destroy_leftover(run).await?;
    std::fs::remove_dir_all(run).map_err(RunSweepError::Folder)
}

async fn end_registration(
    registration: &RegistrationRemains,
    serving: Option<(&Forge, &Serves)>,
) -> Result<(), RunSweepError> {
    let same =
        |serves: &Serves| serves.forge == registration.forge && serves.principal == registration.principal;
    let Some((forge, _)) = serving.filter(|(_, serves)| same(serves)) else {
        return Err(RunSweepError::OtherForge {
            forge: registration.forge.clone(),
            principal: registration.principal.clone(),
        });
    };
    let failed = |source| RunSweepError::Forge { name: registration.name.clone(), source };
    let Ok(principal) = registration.principal.parse::<Principal>() else { return Ok(()) };
    let scope = principal.scope();
    let id = match registration.id {
        Some(id) => Some(id),
        None => forge
            .find_runner_by_name(&scope, &registration.name)
            .await
            .map_err(failed)?
            .map(|runner| runner.id),
    };
    match id {
        None => Ok(()),
        Some(id) => match forge.delete_runner(&scope, id).await.map_err(failed)? {
            Deletion::Deleted | Deletion::Gone => Ok(()),
            Deletion::Busy => Err(RunSweepError::Busy),
        },
    }
}
