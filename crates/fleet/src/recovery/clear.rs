//! Removes an instance whose process has died because an administrator asks for it, whichever place it served.

use std::path::{Path, PathBuf};

use dayfly_forge::{Forge, RunnerScope};
use serde::Serialize;
use tokio::time::Instant;

use super::{LeftRun, RunSweepError, sweep_spare};
use crate::fact::RegistrationEnd;
use crate::history::History;
use crate::instance::{Abandoned, InstanceError, machine_of, reserve_of};
use crate::journal;
use crate::registration::{self, WhenBusy};
use crate::state::{RegistrationState, RunnerState};

/// A client for the registrations of one owner at a forge.
#[derive(Debug, Clone)]
pub struct Clearer {
    /// The client.
    pub forge: Forge,
    /// The owner.
    pub scope: RunnerScope,
}

/// The result of clearing an instance.
#[derive(Debug, Default, Serialize)]
pub struct Clearing {
    /// Ids of the runners that are removed.
    pub removed: Vec<String>,
    /// Those that stay.
    pub kept: Vec<KeptRun>,
    /// Registrations that may still exist at their forge.
    pub registrations: Vec<LeftRegistration>,
    /// True if the instance is gone.
    pub is_gone: bool,
}

/// A run that was not removed.
#[derive(Debug, Serialize)]
pub struct KeptRun {
    /// Its folder.
    pub folder: PathBuf,
    /// The reason.
    pub why: String,
}

/// A registration of a runner that is removed on this host.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct LeftRegistration {
    /// Its name.
    pub name: String,
    /// Its id, if it is known.
    pub id: Option<u64>,
    /// Its owner.
    pub scope: String,
    /// Base URL of the forge's API.
    pub forge: String,
    /// The reason why it was not deleted.
    pub why: String,
}

/// The reasons to keep a run.
#[derive(Debug, thiserror::Error)]
enum Keep {
    #[error("a job still runs in its machine")]
    Busy,
    #[error(
        "its machine lives, and may have a job: only its forge {forge} knows, for which no credential was given"
    )]
    Unknown { forge: String },
    #[error(transparent)]
    Failed(#[from] RunSweepError),
}

/// Removes the runs and spares of an instance, and then the instance. The registration of a runner is deleted first if there is a
/// client for it. With `force`, machines are removed too that have a job, or may have one, and runs whose journal cannot be read.
///
/// # Errors
/// A folder cannot be read or removed. The errors of single runs are in [`Clearing::kept`].
pub async fn clear(
    abandoned: Abandoned,
    (clearers, history): (&[Clearer], &History),
    force: bool,
) -> Result<Clearing, InstanceError> {
    let mut clearing = Clearing::default();
    let is_private_lab = abandoned.is_of_private_lab();
    reserve_of(&abandoned.folder.join("runs")).release();
    for spare in abandoned.spares()? {
        if let Err(error) = sweep_spare(&spare).await {
            clearing.kept.push(KeptRun { folder: spare, why: error.to_string() });
        }
    }
    for run in abandoned.runs()? {
        match clear_run(&run, is_private_lab, (clearers, history), force).await {
            Ok(left) => {
                clearing.registrations.extend(left);
                clearing.removed.push(run.file_name().unwrap_or_default().to_string_lossy().into_owned());
            }
            Err(why) => clearing.kept.push(KeptRun { folder: run, why: why.to_string() }),
        }
    }
    clearing.is_gone = abandoned.remove()?;
    Ok(clearing)
}

/// Removes a run. Returns its registration if that may still exist.
async fn clear_run(
    run: &Path,
    is_private_lab: bool,
    (clearers, history): (&[Clearer], &History),
    force: bool,
) -> Result<Option<LeftRegistration>, Keep> {
    let records = match journal::read(run) {
        Ok(records) => records,
        Err(_) if force => Vec::new(),
        Err(error) => return Err(Keep::Failed(error.into())),
    };
    let state = RunnerState::of(&records);
    let left = match is_private_lab {
        true => None,
        false => end_registration(run, &state, clearers, force).await?,
    };
    LeftRun { folder: run, records: &records, state: &state, history }.remove(None).await?;
    match left {
        // The job is lost with its machine now, so the forge may let go of the registration.
        Some((clearer, left)) if clearer.is_some() => Ok(insist(&state, clearer, left).await),
        left => Ok(left.map(|(_, left)| left)),
    }
}

/// Deletes the registration of a run whose machine may live. Returns it, with its client, if it may still exist although its
/// machine may be removed.
async fn end_registration<'a>(
    run: &Path,
    state: &RunnerState,
    clearers: &'a [Clearer],
    force: bool,
) -> Result<Option<(Option<&'a Clearer>, LeftRegistration)>, Keep> {
    let (Some(begun), Some(runner)) = (&state.begun, &state.runner) else { return Ok(None) };
    if state.registration == RegistrationState::None {
        return Ok(None);
    }
    let left = |why: String| LeftRegistration {
        name: runner.name.clone(),
        id: state.registration.id(),
        scope: begun.scope.to_string(),
        forge: begun.forge.clone(),
        why,
    };
    let is_there =
        |one: &&Clearer| one.forge.base().url().as_str() == begun.forge && one.scope == begun.scope;
    let Some(clearer) = clearers.iter().find(is_there) else {
        let may_have_a_job = dayfly_vm::may_live(&machine_of(run)).unwrap_or(true);
        if may_have_a_job && !force {
            return Err(Keep::Unknown { forge: begun.forge.clone() });
        }
        return Ok(Some((None, left("no credential for its forge was given".to_owned()))));
    };
    let ended =
        registration::end(&clearer.forge, &begun.scope, &runner.name, state.registration, WhenBusy::Leave)
            .await;
    match ended {
        Ok(outcome) if outcome.how != RegistrationEnd::Busy => Ok(None),
        Ok(_) if force => Ok(Some((Some(clearer), left("the forge says that it has a job".to_owned())))),
        Ok(_) => Err(Keep::Busy),
        Err(error) if force => Ok(Some((Some(clearer), left(error.to_string())))),
        Err(source) => Err(RunSweepError::Forge { name: runner.name.clone(), source }.into()),
    }
}

/// Tries once more to delete a registration, after its machine is gone. Returns it if it may still exist.
async fn insist(
    state: &RunnerState,
    clearer: Option<&Clearer>,
    left: LeftRegistration,
) -> Option<LeftRegistration> {
    let (Some(clearer), Some(begun), Some(runner)) = (clearer, &state.begun, &state.runner) else {
        return Some(left);
    };
    let when_busy = WhenBusy::Insist { until: Instant::now() };
    let ended =
        registration::end(&clearer.forge, &begun.scope, &runner.name, state.registration, when_busy).await;
    match ended {
        Ok(outcome) if outcome.how != RegistrationEnd::Busy => None,
        Ok(_) => Some(left),
        Err(error) => Some(LeftRegistration { why: error.to_string(), ..left }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{RecordedMachine, abandoned_at};
    use super::*;
    use crate::fact::Fact;
    use crate::instance;
    use crate::registration::tests::ScriptedForge;

    const STARTED: [Fact; 3] = [Fact::Registering, Fact::Registered { registration: 7 }, Fact::StartingVm];

    /// An instance whose process has died, with one run whose machine is a process.
    struct Stage {
        state: tempfile::TempDir,
        folder: PathBuf,
        forge: ScriptedForge,
        machine: RecordedMachine,
    }

    impl Stage {
        fn new(deletion: u16, machine_lives: bool) -> Self {
            let state = tempfile::tempdir().expect("folder");
            let forge = ScriptedForge::start(&[deletion], true);
            let folder = abandoned_at(state.path(), forge.forge.base().url().as_str(), &STARTED);
            let mut machine = RecordedMachine::of(&folder.join("runs/0-aaaaaaa"));
            if !machine_lives {
                machine.kill();
            }
            Self { state, folder, forge, machine }
        }

        async fn clear(&self, has_credential: bool, force: bool) -> Clearing {
            let scope = RunnerScope::Organization("o".to_owned());
            let clearer = Clearer { forge: self.forge.forge.clone(), scope };
            let clearers = if has_credential { vec![clearer] } else { Vec::new() };
            let abandoned = instance::abandoned(self.state.path()).expect("read").pop().expect("one");
            let history = History::of(self.state.path());
            clear(abandoned, (&clearers, &history), force).await.expect("cleared")
        }
    }

    #[tokio::test]
    async fn a_runner_goes_with_its_registration_and_a_busy_one_only_by_force() {
        // Deletion, machine lives, credential, force: the instance is gone, and its registration is left.
        for (deletion, lives, credential, force, goes, is_left) in [
            (204, true, true, false, true, false),
            (422, true, true, false, false, false),
            (422, true, true, true, true, true),
            (401, true, true, false, false, false),
            (204, true, false, false, false, false),
            (204, true, false, true, true, true),
            (204, false, false, false, true, true),
        ] {
            let mut stage = Stage::new(deletion, lives);
            let clearing = stage.clear(credential, force).await;
            let case = format!("{deletion} {lives} {credential} {force}: {clearing:?}");
            assert_eq!((clearing.is_gone, !stage.folder.exists()), (goes, goes), "{case}");
            assert_eq!(clearing.kept.len(), usize::from(!goes), "{case}");
            assert_eq!(clearing.registrations.len(), usize::from(is_left), "{case}");
            assert_eq!(stage.machine.is_alive(), !goes, "{case}");
        }
    }

    #[tokio::test]
    async fn a_registration_that_is_left_is_named_with_its_place_and_the_reason() {
        let stage = Stage::new(204, false);
        let clearing = stage.clear(false, false).await;
        assert_eq!(
            clearing.registrations,
            [LeftRegistration {
                name: "p-0-aaaaaaa".to_owned(),
                id: Some(7),
                scope: "o".to_owned(),
                forge: stage.forge.forge.base().url().to_string(),
                why: "no credential for its forge was given".to_owned(),
            }]
        );
        assert_eq!(stage.forge.calls(), [""; 0]);
    }

    #[tokio::test]
    async fn a_run_whose_journal_cannot_be_read_goes_only_by_force() {
        let mut stage = Stage::new(204, true);
        let run = stage.folder.join("runs/0-aaaaaaa");
        let line = "{\"at_ms\":1,\"event\":\"begun\",\"version\":99}\n";
        std::fs::write(run.join(journal::FILE_NAME), line).expect("another version");
        let clearing = stage.clear(true, false).await;
        assert!(clearing.kept[0].why.contains("another version of dayfly"), "{clearing:?}");
        assert!(
            stage.machine.is_alive() && stage.clear(true, true).await.is_gone && !stage.machine.is_alive()
        );
    }
}
