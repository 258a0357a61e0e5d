//! Removes the remains of instances whose process has exited.
//!
//! The registration is deleted first, so that no running job is killed: if it is deleted or gone, the machine is destroyed
//! too. If the forge calls it busy, a job runs in the machine, and the run is left alone.
//!
//! A run whose machine lives is not removed if this start serves its place: an heir takes it over ([`inherit`]). A loop of this
//! process whose task has panicked is treated in the same way ([`panicked`]).

mod clear;
mod inherit;
mod panicked;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dayfly_forge::{Forge, ForgeError, RunnerScope};
use dayfly_vm::EnvironmentDir;

use crate::fact::{Fact, FactRecord, Moment, RegistrationEnd};
use crate::history::History;
use crate::instance::{self, Abandoned, InstanceError, SESSIONS, Served, Serves, machine_of, reserve_of};
use crate::journal::{self, JournalContent, JournalError};
use crate::reaper::Leftover;
use crate::registration::{self, WhenBusy};
use crate::runner::remove_run;
use crate::state::{RegistrationState, RunnerState, VmState};
pub use clear::{Clearer, Clearing, KeptRun, LeftRegistration, clear};
pub(crate) use inherit::Home;
pub use inherit::{Heir, Inherited};
pub(crate) use panicked::after_panic;

/// The result of a sweep.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Runs whose machine, registration and files are removed.
    pub cleared: Vec<ClearedRun>,
    /// Runs that the heir takes over, with the number of the place in `serving` that they belong to.
    pub inherited: Vec<(usize, Inherited)>,
    /// Runs that were left, with the reason.
    pub left: Vec<(PathBuf, String)>,
    /// Those of them that the heir's process should try again to remove, with the number of their place in `serving`.
    pub to_retry: Vec<(usize, Leftover)>,
    /// Records that could not be read, as after a power cut, and were removed with what is left of their runs.
    pub damaged: Vec<PathBuf>,
}

/// A run that was removed.
#[derive(Debug)]
pub struct ClearedRun {
    /// Its folder.
    pub folder: PathBuf,
    /// Name of the job that was lost with its machine: the process that died had not seen the job's end.
    pub lost_job: Option<String>,
}

/// The folder of instances cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SweepError(#[from] InstanceError);

/// Errors of removing one run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunSweepError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("its registration {name} cannot be deleted: {source}")]
    Forge { name: String, source: ForgeError },
    #[error("a job still runs in its machine")]
    Busy,
    #[error("its registration is in {scope} at {forge}; a start for that forge, scope and prefix removes it")]
    OtherForge { scope: RunnerScope, forge: String },
    #[error(transparent)]
    Vm(#[from] dayfly_vm::LeftoverError),
    #[error(transparent)]
    Environment(#[from] dayfly_vm::EnvironmentError),
    #[error("its record cannot be kept in the history: {0}")]
    History(std::io::Error),
    #[error("its folder cannot be removed: {0}")]
    Folder(std::io::Error),
}

/// A forge, scope and prefix that a start serves, and the client with which it deletes registrations there.
#[derive(Debug, Clone)]
pub struct Serving {
    /// The client.
    pub forge: Forge,
    /// The forge, the scope and the prefix.
    pub serves: Serves,
}

/// Removes abandoned instances under `state`: those of a private lab, because their registrations died with it, those
/// without runs, and those that served a forge, scope and prefix that this start serves. All others wait for a start of
/// their own, because several systems may share a host. Runs whose machine lives go to `heir`, if there is one.
///
/// # Errors
/// The folder of instances cannot be read. The errors of single runs are in [`Sweep::left`].
pub async fn sweep(state: &Path, serving: &[Serving], heir: Option<&Heir>) -> Result<Sweep, SweepError> {
    let mut sweep = Sweep::default();
    let history = History::of(state);
    if let Err(error) = dayfly_vm::sweep_templates(state).await {
        sweep.left.push((state.to_owned(), error.to_string()));
    }
    if let Err(error) = dayfly_vm::sweep_probes(state).await {
        sweep.left.push((state.to_owned(), error.to_string()));
    }
    if let Err(error) = dayfly_vm::check::sweep_checks(state).await {
        sweep.left.push((state.to_owned(), error.to_string()));
    }
    dayfly_vm::sweep_groups(state).await;
    for abandoned in instance::abandoned(state)? {
        // Spares belong to no forge and no scope, so any start may destroy them.
        for spare in abandoned.spares()? {
            match sweep_spare(&spare).await {
                Ok(damaged) => sweep.damaged.extend(damaged),
                Err(error) => sweep.left.push((spare, error.to_string())),
            }
        }
        let is_ours = is_ours(&abandoned.served, serving);
        if !is_ours && (!abandoned.runs()?.is_empty() || has_sessions(&abandoned.folder)) {
            continue;
        }
        if let Some(heir) = heir.filter(|_| is_ours) {
            heir.inherit_sessions(&abandoned.folder);
        }
        let (inherited, to_retry) = (sweep.inherited.len(), sweep.to_retry.len());
        sweep_instance(&abandoned, (serving, &history), heir, &mut sweep).await?;
        if sweep.inherited.len() > inherited || sweep.to_retry.len() > to_retry {
            let home = Home::of(abandoned);
            sweep.inherited[inherited..].iter_mut().for_each(|(_, run)| run.home = Some(Arc::clone(&home)));
            sweep.to_retry[to_retry..].iter_mut().for_each(|(_, left)| left.home = Some(Arc::clone(&home)));
            continue;
        }
        let folder = abandoned.folder.clone();
        let damaged = (abandoned.served == Served::Unreadable).then(|| abandoned.record());
        match abandoned.remove() {
            Ok(true) => sweep.damaged.extend(damaged),
            Ok(false) => {}
            Err(error) => sweep.left.push((folder, error.to_string())),
        }
    }
    Ok(sweep)
}

/// Returns true if a scale set's session may still be open because of this instance.
fn has_sessions(instance: &Path) -> bool {
    std::fs::read_dir(instance.join(SESSIONS)).is_ok_and(|mut notes| notes.next().is_some())
}

fn is_ours(served: &Served, serving: &[Serving]) -> bool {
    match served {
        Served::Known(served) => served
            .iter()
            .any(|one| one.private_lab || serving.iter().any(|own| own.serves.is_same_place(one))),
        Served::Nothing => false,
        // Each run says itself which forge it served.
        Served::Unreadable => true,
    }
}

async fn sweep_instance(
    abandoned: &Abandoned,
    (serving, history): (&[Serving], &History),
    heir: Option<&Heir>,
    sweep: &mut Sweep,
) -> Result<(), InstanceError> {
    let private_lab = abandoned.is_of_private_lab();
    // The process may have died because the disk is full, and what follows needs some space.
    reserve_of(&abandoned.folder.join("runs")).release();
    for run in abandoned.runs()? {
        let JournalContent { records, is_damaged } = match journal::read_content(&run) {
            Ok(content) => content,
            Err(error) => {
                sweep.left.push((run, error.to_string()));
                continue;
            }
        };
        if let Some(heir) = heir.filter(|_| !private_lab)
            && let Ok(Some(inherited)) = heir.inherit(&run, &records, serving, sweep.inherited.len())
        {
            sweep.inherited.push(inherited);
            continue;
        }
        let state = RunnerState::of(&records);
        let run_left = LeftRun { folder: &run, records: &records, state: &state, history };
        let removed =
            if private_lab { run_left.remove(None).await } else { run_left.remove_at_a_forge(serving).await };
        match removed {
            Ok(damaged) => {
                sweep.damaged.extend(damaged);
                sweep.damaged.extend(is_damaged.then(|| run.join(journal::FILE_NAME)));
                sweep.cleared.push(ClearedRun { folder: run, lost_job: lost_job(&state) });
            }
            Err(error) => {
                let index = records.first().map(|first| first.loop_index);
                let is_heirs = heir.zip(index).is_some_and(|(heir, index)| heir.takes(index));
                let place = serving.iter().position(|own| is_registered_at(&state, &own.serves));
                sweep.to_retry.extend(place.filter(|_| is_heirs).map(|place| (place, run.clone().into())));
                sweep.left.push((run, error.to_string()));
            }
        }
    }
    Ok(())
}

/// Returns the name of the job that a runner had when its process died.
fn lost_job(state: &RunnerState) -> Option<String> {
    state.job.running().filter(|_| state.vm != VmState::None).map(str::to_owned)
}

/// Returns true if a runner was registered at this forge, in this scope and with this prefix.
fn is_registered_at(state: &RunnerState, serves: &Serves) -> bool {
    let (Some(begun), Some(runner)) = (&state.begun, &state.runner) else { return false };
    begun.forge == serves.forge
        && begun.scope == serves.scope
        && runner.name == runner.id.name(&serves.prefix)
}

async fn sweep_spare(spare: &Path) -> Result<Vec<PathBuf>, RunSweepError> {
    let damaged = dayfly_vm::destroy_leftover(spare).await?;
    std::fs::remove_dir_all(spare).map_err(RunSweepError::Folder)?;
    Ok(damaged)
}

/// Removes one run of this process. Returns its records that could not be read.
pub(crate) async fn sweep_run(
    run: &Path,
    forge: &Forge,
    history: &History,
) -> Result<Vec<PathBuf>, RunSweepError> {
    let records = journal::read(run)?;
    let state = RunnerState::of(&records);
    LeftRun { folder: run, records: &records, state: &state, history }.remove(Some(forge)).await
}

/// A run that is to be removed.
struct LeftRun<'a> {
    folder: &'a Path,
    records: &'a [FactRecord],
    state: &'a RunnerState,
    history: &'a History,
}

impl LeftRun<'_> {
    /// Removes the run if this start serves the forge, the scope and the prefix of its registration, which its journal names.
    async fn remove_at_a_forge(&self, serving: &[Serving]) -> Result<Vec<PathBuf>, RunSweepError> {
        let own = serving.iter().find(|own| is_registered_at(self.state, &own.serves));
        match (&self.state.begun, own) {
            (Some(begun), None) if self.state.registration != RegistrationState::None => {
                let (scope, forge) = (begun.scope.clone(), begun.forge.clone());
                Err(RunSweepError::OtherForge { scope, forge })
            }
            _ => self.remove(own.map(|own| &own.forge)).await,
        }
    }

    /// Removes the run's registration if it has a forge, then its machine, keeps its record in the history, and removes its
    /// files. Returns its records that could not be read.
    async fn remove(&self, forge: Option<&Forge>) -> Result<Vec<PathBuf>, RunSweepError> {
        if let Some(forge) = forge {
            end_registration(self.state, forge).await?;
        }
        let records = self.records_with_network().await;
        let damaged = dayfly_vm::destroy_leftover(&machine_of(self.folder)).await?;
        if let Some(forge) = forge.filter(|_| may_have_registered_itself(self.state)) {
            end_registration(self.state, forge).await?;
        }
        if let (Some(begun), Some(runner)) = (&self.state.begun, &self.state.runner)
            && begun.environment.is_dir()
        {
            // The directory may be the user's own, and outlive the instance.
            EnvironmentDir::open(&begun.environment, runner.id.as_str())?.clear()?;
        }
        // Its machine is gone and has freed its space, so the journal may wait for a disk with room.
        self.history.keep_of_the_dead(&records).map_err(RunSweepError::History)?;
        remove_run(self.folder).map_err(RunSweepError::Folder)?;
        Ok(damaged)
    }

    /// Returns the records, with that of the machine's network if its process has died before telling it.
    async fn records_with_network(&self) -> Vec<FactRecord> {
        let mut records = self.records.to_vec();
        let folder = machine_of(self.folder);
        let is_told = records.iter().any(|record| matches!(record.fact, Fact::NetworkUsed { .. }));
        let Some(last) = records.last().filter(|_| !is_told).cloned() else { return records };
        let used = tokio::task::spawn_blocking(move || dayfly_vm::network_use(&folder)).await;
        if let Ok(Some(network)) = used {
            let fact = Fact::NetworkUsed { network: Box::new(network) };
            records.push(FactRecord { at: Moment::now(), fact, ..last });
        }
        records
    }
}

/// Returns true if a machine may have registered its runner between a look at the forge and its end.
fn may_have_registered_itself(state: &RunnerState) -> bool {
    state.registration == RegistrationState::Requested && state.vm != VmState::None
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

#[cfg(test)]
pub(crate) mod tests {
    use dayfly_vm::NetworkUse;

    use super::*;
    use crate::fact::tests::record;
    use crate::instance::Instance;
    use crate::journal::Journal;
    use crate::registration::tests::ScriptedForge;

    fn scope() -> RunnerScope {
        RunnerScope::Organization("o".to_owned())
    }

    pub(crate) use super::inherit::tests::RecordedMachine;

    pub(crate) fn serves() -> Serves {
        Serves {
            pool: None,
            forge: "http://127.0.0.1:1/api/v3/".to_owned(),
            scope: scope(),
            prefix: "p".to_owned(),
            private_lab: false,
            labels: Vec::new(),
        }
    }

    /// Creates an instance whose process has exited, with one run that has these facts after the first one. Returns the
    /// instance's folder.
    pub(crate) fn abandoned_with(state: &Path, facts: &[Fact]) -> PathBuf {
        abandoned_at(state, &serves().forge, facts)
    }

    /// Does the same with another forge.
    pub(super) fn abandoned_at(state: &Path, forge: &str, facts: &[Fact]) -> PathBuf {
        let instance = Instance::create(state, vec![Serves { forge: forge.to_owned(), ..serves() }])
            .expect("an instance");
        let machine = machine_of(&instance.runs().join("0-aaaaaaa"));
        std::fs::create_dir_all(&machine).expect("folder");
        let mut journal = Journal::open(machine.parent().expect("the run")).expect("journal");
        let begun = journal::begun("/nonexistent".into(), forge.to_owned(), scope());
        for fact in std::iter::once(&begun).chain(facts) {
            journal.write(&record(fact.clone())).expect("written");
        }
        instance.folder().to_owned()
    }

    /// A forge that does not answer: no test needs it.
    pub(super) fn forge() -> Forge {
        let base = dayfly_forge::ApiBase::from_host_or_url("http://127.0.0.1:1").expect("an address");
        Forge::new(base, "x").expect("a client")
    }

    #[tokio::test]
    async fn a_damaged_record_of_any_kind_is_cleared_and_told_by_the_next_start() {
        let machine = "runs/0-aaaaaaa/vm";
        let records =
            ["vmm.json", "virtiofsd-0.json", "network.json"].map(|name| format!("{machine}/{name}"));
        for name in records.into_iter().chain(["instance.json".to_owned()]) {
            for content in ["", "{\"na"] {
                let state = tempfile::tempdir().expect("folder");
                let folder = abandoned_with(state.path(), &[Fact::StartingVm]);
                std::fs::write(folder.join(&name), content).expect("damaged");
                let sweep = sweep(state.path(), &[Serving { forge: forge(), serves: serves() }], None)
                    .await
                    .expect("swept");
                assert_eq!(sweep.damaged, [folder.join(&name)], "{content:?}");
                assert_eq!((sweep.cleared.len(), sweep.left), (1, Vec::new()), "{name} {content:?}");
                assert!(!folder.exists(), "{name} {content:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_registration_that_is_busy_at_the_start_is_deleted_later_and_its_instance_goes_too() {
        let state = tempfile::tempdir().expect("folder");
        let scripted = ScriptedForge::start(&[422, 204], true);
        let registered = [Fact::Registering, Fact::Registered { registration: 7 }, Fact::StartingVm];
        let folder = abandoned_at(state.path(), &scripted.address, &registered);
        let place = Serves { forge: scripted.address.clone(), ..serves() };
        let own = Instance::create(state.path(), vec![place.clone()]).expect("an instance");
        let serving = [Serving { forge: scripted.forge.clone(), serves: place }];
        let swept = sweep(state.path(), &serving, Some(&Heir::of_all(&own))).await.expect("swept");
        assert!(swept.left[0].1.contains("a job still runs"), "{:?}", swept.left);
        let leftovers = crate::reaper::Leftovers::default();
        for (place, left) in swept.to_retry {
            assert_eq!(place, 0);
            leftovers.add(left);
        }
        let (facts, _stream) = crate::stream::channel();
        let history = History::of(state.path());
        assert!(folder.exists());
        assert!(crate::reaper::reap_once(&leftovers, &scripted.forge, (&facts, &history)).await);
        assert!(!folder.exists(), "with the lock of the process that died");
    }

    #[tokio::test]
    async fn the_record_of_a_run_whose_process_died_is_in_the_history_and_its_folder_stays_until_then() {
        let state = tempfile::tempdir().expect("folder");
        let busy = [Fact::StartingVm, Fact::AgentHello, Fact::JobStarted { job: "j".to_owned() }];
        let folder = abandoned_with(state.path(), &busy);
        let history = History::of(state.path());
        let account = machine_of(&folder.join("runs/0-aaaaaaa")).join("network-use.json");
        std::fs::create_dir_all(account.parent().expect("a folder")).expect("folder");
        let network = NetworkUse { left_out: 3, ..NetworkUse::default() };
        std::fs::write(&account, serde_json::to_vec(&network).expect("JSON")).expect("written");
        std::fs::write(history.folder(), "no folder").expect("in the way");
        let serving = [Serving { forge: forge(), serves: serves() }];
        let failed = sweep(state.path(), &serving, None).await.expect("swept");
        assert!(failed.left[0].1.contains("cannot be kept in the history"), "{:?}", failed.left);
        assert!(folder.join("runs/0-aaaaaaa").join(journal::FILE_NAME).exists());
        std::fs::remove_file(history.folder()).expect("removed");
        assert_eq!(sweep(state.path(), &serving, None).await.expect("swept").cleared.len(), 1);
        assert!(!folder.exists());
        let facts: Vec<Fact> = history
            .facts_of("0-aaaaaaa")
            .expect("read")
            .into_iter()
            .map(|record| record.fact)
            .filter(|fact| !matches!(fact, Fact::Begun { .. }))
            .collect();
        let died = Fact::Over { how: crate::fact::OverHow::ProcessDied, why: None, kind: None };
        let used = Fact::NetworkUsed { network: Box::new(network) };
        assert_eq!(facts, [&busy[..], &[used, died]].concat());
    }

    #[tokio::test]
    async fn the_folder_that_a_machine_of_a_dead_process_shared_is_swept_with_its_file_system() {
        let state = tempfile::tempdir().expect("folder");
        let folder = abandoned_with(state.path(), &[Fact::StartingVm]);
        let shared = folder.join("runs/0-aaaaaaa/environment");
        let unlimited = dayfly_vm::shared_folder::make(&shared).expect("made");
        std::fs::write(shared.join("of-the-job"), "x").expect("written");
        let is_mounted = |path: &Path| {
            let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
            mounts.contains(&path.display().to_string())
        };
        assert_eq!(is_mounted(&shared), unlimited.is_none());
        let swept = sweep(state.path(), &[Serving { forge: forge(), serves: serves() }], None).await;
        assert_eq!(swept.expect("swept").cleared.len(), 1);
        assert!(!folder.exists() && !is_mounted(&shared));
    }

    #[tokio::test]
    async fn a_journal_that_is_empty_or_half_written_does_not_keep_its_run() {
        for content in ["", "{\"at_ms\":1,\"ev"] {
            let state = tempfile::tempdir().expect("folder");
            let folder = abandoned_with(state.path(), &[]);
            std::fs::write(folder.join("runs/0-aaaaaaa").join(journal::FILE_NAME), content).expect("damaged");
            let sweep = sweep(state.path(), &[Serving { forge: forge(), serves: serves() }], None)
                .await
                .expect("swept");
            assert_eq!((sweep.cleared.len(), folder.exists()), (1, false), "{content:?}");
        }
    }

    #[tokio::test]
    async fn a_journal_of_which_the_disk_has_lost_a_part_is_cleared_and_told() {
        for content in ["\0".repeat(64), format!("{}\n", "\0".repeat(64))] {
            let state = tempfile::tempdir().expect("folder");
            let folder = abandoned_with(state.path(), &[]);
            let journal = folder.join("runs/0-aaaaaaa").join(journal::FILE_NAME);
            std::fs::write(&journal, &content).expect("damaged");
            let sweep = sweep(state.path(), &[Serving { forge: forge(), serves: serves() }], None)
                .await
                .expect("swept");
            assert_eq!(sweep.damaged, [journal], "{content:?}");
            assert!(sweep.cleared.len() == 1 && !folder.exists());
        }
    }

    #[tokio::test]
    async fn a_run_of_a_damaged_instance_with_a_registration_elsewhere_is_left_with_that_reason() {
        let state = tempfile::tempdir().expect("folder");
        let folder = abandoned_with(state.path(), &[Fact::Registering]);
        std::fs::write(folder.join("instance.json"), "").expect("damaged");
        let other = Serves { forge: "https://elsewhere/".to_owned(), ..serves() };
        let sweep =
            sweep(state.path(), &[Serving { forge: forge(), serves: other }], None).await.expect("swept");
        assert!(sweep.left[0].1.contains("is in o at http://127.0.0.1:1/"), "{:?}", sweep.left);
        assert!(folder.exists());
    }

    #[tokio::test]
    async fn a_start_removes_the_runs_of_its_own_pools_and_says_which_it_leaves() {
        let state = tempfile::tempdir().expect("folder");
        let folder = abandoned_with(state.path(), &[Fact::Registering]);
        let other = Serves { prefix: "another".to_owned(), ..serves() };
        let instance = |serves: &[Serves]| {
            std::fs::write(folder.join("instance.json"), serde_json::to_vec(serves).expect("json"))
                .expect("a record");
        };
        let serving = |serves: Serves| [Serving { forge: forge(), serves }];
        instance(std::slice::from_ref(&other));
        let swept = sweep(state.path(), &serving(serves()), None).await.expect("swept");
        assert_eq!((swept.cleared.len(), swept.left), (0, Vec::new()), "another system of this host");
        instance(&[other.clone(), serves()]);
        let swept = sweep(state.path(), &serving(other), None).await.expect("swept");
        assert!(swept.left[0].1.contains("forge, scope and prefix"), "{:?}", swept.left);
        let swept = sweep(state.path(), &serving(serves()), None).await.expect("swept");
        assert!(swept.left[0].1.contains("cannot be deleted"), "the forge does not answer: {:?}", swept.left);
        assert!(folder.exists());
    }
}
