//! The remains of instances whose process has died, as they are seen without touching them: for `dayfly ps` and `dayfly doctor`.
//!
//! A start takes over or removes what was left at the places that it serves ([`crate::recovery`]). Remains at another place
//! wait for a start of their own, and without one for ever, so an administrator has to see them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::instance::{self, InstanceError, InstanceInfo, SPARES, Serves, machine_of};
use crate::journal;
use crate::state::{RegistrationState, RunnerState};
use crate::status;

/// The remains of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remains {
    /// The instance's folder.
    pub folder: PathBuf,
    /// Last time at which its process has written one of its records, milliseconds since 1970-01-01 UTC.
    pub since_ms: u64,
    /// The places that it served, each once; empty if the record cannot be read.
    pub places: Vec<Place>,
    /// Its runs.
    pub runs: Vec<RunRemains>,
    /// Number of its spare machines.
    pub spares: usize,
}

/// A place that an instance served.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// Prefix of the names of its runners.
    pub prefix: String,
    /// Owner of its runners.
    pub scope: String,
    /// Base URL of the forge's API.
    pub forge: String,
}

/// The remains of one runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunRemains {
    /// Name of its folder: the runner's id.
    pub runner: String,
    /// Name of its machine and its registration; none if its journal cannot be read.
    pub name: Option<String>,
    /// True if its registration may exist.
    pub is_registered: bool,
    /// Owner of its registration, if its journal says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Base URL of the API of its forge, if its journal says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forge: Option<String>,
    /// Its job, as far as the process had seen.
    pub job: Option<String>,
    /// True if its machine lives, or may live.
    pub machine_lives: bool,
    /// The reason why its journal cannot be read.
    pub problem: Option<String>,
}

impl Remains {
    /// Returns the number of machines that live, or may live.
    pub fn machines(&self) -> usize {
        self.runs.iter().filter(|run| run.machine_lives).count()
    }
}

/// Returns the remains of all instances under `state` whose process has died.
///
/// # Errors
/// A folder cannot be read.
pub fn all(state: &Path) -> Result<Vec<Remains>, InstanceError> {
    instance::all(state)?.iter().filter(|seen| !seen.alive).map(of).collect()
}

/// Returns the remains of an instance whose process has died.
///
/// # Errors
/// A folder cannot be read.
pub fn of(seen: &InstanceInfo) -> Result<Remains, InstanceError> {
    let runs = instance::folders_in(&seen.folder.join("runs"))?;
    let journals = runs.iter().map(|run| run.join(journal::FILE_NAME));
    let records = [instance::RECORD, status::FILE_NAME].map(|name| seen.folder.join(name));
    Ok(Remains {
        since_ms: records.into_iter().chain(journals).map(|path| changed_ms(&path)).max().unwrap_or_default(),
        places: seen.serves.iter().map(Place::of).collect::<BTreeSet<_>>().into_iter().collect(),
        runs: runs.iter().map(|run| RunRemains::of(run)).collect(),
        spares: instance::folders_in(&seen.folder.join(SPARES))?.len(),
        folder: seen.folder.clone(),
    })
}

/// Returns the time of a file's last change; 0 if there is no such file.
fn changed_ms(path: &Path) -> u64 {
    let changed = fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let since = changed.and_then(|changed| changed.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Place {
    fn of(serves: &Serves) -> Self {
        let Serves { prefix, scope, forge, .. } = serves;
        Self { prefix: prefix.clone(), scope: scope.to_string(), forge: forge.clone() }
    }
}

impl RunRemains {
    fn of(run: &Path) -> Self {
        let (state, problem) = match journal::read(run) {
            Ok(records) => (RunnerState::of(&records), None),
            Err(error) => (RunnerState::default(), Some(error.to_string())),
        };
        Self {
            runner: run.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            is_registered: state.registration != RegistrationState::None,
            job: state.job.running().map(str::to_owned),
            name: state.runner.map(|runner| runner.name),
            scope: state.begun.as_ref().map(|begun| begun.scope.to_string()),
            forge: state.begun.map(|begun| begun.forge),
            // One that cannot be looked at may live.
            machine_lives: dayfly_vm::may_live(&machine_of(run)).unwrap_or(true),
            problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::Fact;
    use crate::recovery::tests::{RecordedMachine, abandoned_with, serves};

    #[test]
    fn the_remains_of_a_dead_process_are_counted_and_nothing_of_them_is_touched() {
        let state = tempfile::tempdir().expect("folder");
        let busy = [Fact::Registering, Fact::StartingVm, Fact::JobStarted { job: "build".to_owned() }];
        let folder = abandoned_with(state.path(), &busy);
        let mut machine = RecordedMachine::of(&folder.join("runs/0-aaaaaaa"));
        fs::create_dir_all(folder.join("runs/1-bbbbbbb")).expect("a run that has just begun");
        fs::create_dir_all(folder.join("spares/x")).expect("a spare");
        let living = instance::Instance::create(state.path(), vec![serves()]).expect("an instance");
        let remains = all(state.path()).expect("read");
        let [remains] = &remains[..] else { panic!("one of two has died: {remains:?}") };
        assert!(remains.folder == folder && remains.since_ms > 0);
        assert_eq!(remains.places, [Place::of(&serves())]);
        assert_eq!((remains.runs.len(), remains.machines(), remains.spares), (2, 1, 1));
        let run = &remains.runs[0];
        assert_eq!((run.runner.as_str(), run.name.as_deref()), ("0-aaaaaaa", Some("p-0-aaaaaaa")));
        assert!(run.is_registered && run.machine_lives && run.job.as_deref() == Some("build"));
        let place = Place::of(&serves());
        assert_eq!((run.scope.as_ref(), run.forge.as_ref()), (Some(&place.scope), Some(&place.forge)));
        machine.kill();
        let again = all(state.path()).expect("read");
        assert_eq!((again.len(), again[0].machines()), (1, 0));
        drop(living);
    }

    #[test]
    fn a_run_whose_journal_cannot_be_read_is_named_with_the_reason() {
        let state = tempfile::tempdir().expect("folder");
        let folder = abandoned_with(state.path(), &[]);
        let line = "{\"at_ms\":1,\"event\":\"begun\",\"version\":99}\n";
        fs::write(folder.join("runs/0-aaaaaaa").join(journal::FILE_NAME), line).expect("another version");
        let remains = all(state.path()).expect("read");
        let problem = remains[0].runs[0].problem.as_deref().expect("a reason");
        assert!(problem.contains("another version of dayfly"), "{problem}");
    }
}
