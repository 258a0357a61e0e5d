//! Finds the runs of processes that died whose machine lives. The runners go on where they are
//! ([`crate::runner::run_inherited`]), because a job without a machine has its files there; this process holds the lock of
//! their instance meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dayfly_vm::LeftoverError;

use super::{Serving, is_registered_at};
use crate::fact::{FactRecord, RunnerRef};
use crate::instance::{Abandoned, Instance, SESSIONS, machine_of};
use crate::state::RunnerState;

/// The instance that takes runs over.
#[derive(Debug)]
pub struct Heir {
    sessions: PathBuf,
    /// If set, only one run is taken over, of the loop with this number.
    only: Option<u32>,
}

/// A run that this process takes over.
#[derive(Debug, Clone)]
pub struct Inherited {
    /// Its folder.
    pub folder: PathBuf,
    /// The runner.
    pub runner: RunnerRef,
    /// Number of the loop that had it.
    pub index: u32,
    /// True if its runner app was about to start, or has started.
    pub was_up: bool,
    /// True if it had a job.
    pub has_job: bool,
    /// Number of the last line that this process has told of the runner; 0 if none.
    pub(crate) lines_told: u64,
    /// Number of tasks of this process that have panicked with the runner.
    pub(super) panics: u32,
    /// The instance that the run is in, if that is another one than the pool's.
    pub(crate) home: Option<Arc<Home>>,
}

impl Inherited {
    /// Returns the runner of a run with this journal, if its machine lives and the runner can go on.
    pub(super) fn of(run: &Path, records: &[FactRecord]) -> Result<Option<Self>, LeftoverError> {
        let Some(inherited) = Self::if_alive(run, records) else { return Ok(None) };
        Ok(dayfly_vm::is_alive(&machine_of(run))?.then_some(inherited))
    }

    /// Returns the runner of a run with this journal, unless it could not go on even if its machine lives.
    pub(crate) fn if_alive(run: &Path, records: &[FactRecord]) -> Option<Self> {
        let state = RunnerState::of(records);
        let (index, can_go_on) = (records.first()?.loop_index, state.can_be_taken_over());
        let (was_up, has_job) = (state.was_up(), state.job.running().is_some());
        Some(Self {
            folder: run.to_owned(),
            runner: state.runner.filter(|_| can_go_on)?,
            index,
            was_up,
            has_job,
            lines_told: 0,
            panics: 0,
            home: None,
        })
    }
}

/// The instance of a process that died, as long as this process has runs in it. Dropping it frees its lock, and removes its
/// folder unless something is left in it for a later start.
#[derive(Debug)]
pub(crate) struct Home(Option<Abandoned>);

impl Home {
    /// Hides the instance from commands, because its runs are those of another process from now on.
    pub(super) fn of(abandoned: Abandoned) -> Arc<Self> {
        abandoned.hide();
        Arc::new(Self(Some(abandoned)))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(abandoned) = self.0.take() {
            // A later start removes the folder if this fails.
            let _ = abandoned.remove();
        }
    }
}

impl Heir {
    /// Returns the heir of all runs of the places that an instance serves.
    pub fn of_all(instance: &Instance) -> Self {
        Self { sessions: instance.sessions(), only: None }
    }

    /// Returns the heir of one run, of the loop with this number.
    pub fn of_loop(instance: &Instance, index: u32) -> Self {
        Self { only: Some(index), ..Self::of_all(instance) }
    }

    /// Returns true if it takes over runs of the loop with this number.
    pub(super) fn takes(&self, index: u32) -> bool {
        self.only.is_none_or(|only| only == index)
    }

    /// Moves the notes of the sessions of scale sets into the heir's instance, so that its sources end these sessions before they
    /// open their own. A session whose note is not moved ends by itself after some minutes.
    pub(super) fn inherit_sessions(&self, instance: &Path) {
        if self.only.is_some() {
            return;
        }
        for note in std::fs::read_dir(instance.join(SESSIONS)).into_iter().flatten().flatten() {
            let _ = std::fs::rename(note.path(), self.sessions.join(note.file_name()));
        }
    }

    /// Returns a run with this journal if its machine lives, and if this start serves its place, with the number of that place in
    /// `serving`: the pool of the same name, or else the first one that registers runners there. `before` is the number of
    /// runs that were taken over before.
    pub(super) fn inherit(
        &self,
        run: &Path,
        records: &[FactRecord],
        serving: &[Serving],
        before: usize,
    ) -> Result<Option<(usize, Inherited)>, LeftoverError> {
        let is_wanted =
            |inherited: &Inherited| self.only.is_none_or(|only| only == inherited.index && before == 0);
        let Some(inherited) = Inherited::of(run, records)?.filter(is_wanted) else { return Ok(None) };
        let state = RunnerState::of(records);
        let pool = records.first().and_then(|first| first.pool.as_ref());
        let is_there = |own: &Serving| is_registered_at(&state, &own.serves);
        let same = serving.iter().position(|own| is_there(own) && own.serves.pool.as_ref() == pool);
        let place = same.or_else(|| serving.iter().position(is_there));
        Ok(place.map(|place| (place, inherited)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::process::{Child, Command};

    use super::super::tests::{abandoned_with, forge, serves};
    use super::super::{Serving, sweep};
    use super::*;
    use crate::fact::Fact;

    /// A process that is recorded as the machine of a run. It ends with this.
    pub(crate) struct RecordedMachine(Child);

    impl RecordedMachine {
        pub(crate) fn of(run: &Path) -> Self {
            let process = Command::new("sleep").arg("60").spawn().expect("spawn");
            let pid = process.id();
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
            let after_name = stat.rsplit_once(") ").expect("a name").1;
            let ticks = after_name.split(' ').nth(19).and_then(|ticks| ticks.parse().ok());
            let start: u64 = ticks.expect("ticks");
            let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot");
            let record =
                serde_json::json!({ "name": "m", "pid": pid, "start_ticks": start, "boot_id": boot.trim() });
            std::fs::write(machine_of(run).join("vmm.json"), record.to_string()).expect("a record");
            Self(process)
        }

        pub(crate) fn is_alive(&mut self) -> bool {
            self.0.try_wait().expect("wait").is_none()
        }

        pub(crate) fn kill(&mut self) {
            self.0.kill().expect("killed");
            self.0.wait().expect("reaped");
        }
    }

    impl Drop for RecordedMachine {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    pub(crate) const ANSWERED: [Fact; 3] = [Fact::Registering, Fact::StartingVm, Fact::AgentHello];

    async fn swept(
        facts: &[Fact],
        serves_too: &[super::super::Serves],
        heir: impl Fn(&Instance) -> Heir,
    ) -> (usize, Vec<(usize, Inherited)>) {
        let state = tempfile::tempdir().expect("folder");
        let folder = abandoned_with(state.path(), facts);
        let _machine = RecordedMachine::of(&folder.join("runs/0-aaaaaaa"));
        let serving: Vec<_> = serves_too.iter().chain([&serves()]).cloned().collect();
        let serving: Vec<_> = serving.into_iter().map(|serves| Serving { forge: forge(), serves }).collect();
        let own = Instance::create(state.path(), vec![serves()]).expect("an instance");
        let sweep = sweep(state.path(), &serving, Some(&heir(&own))).await.expect("swept");
        for (_, inherited) in &sweep.inherited {
            assert!(inherited.folder.starts_with(&folder), "it stays where its files are");
            let seen = crate::instance::all(state.path()).expect("read");
            let seen: Vec<_> = seen.iter().map(|instance| instance.folder.clone()).collect();
            assert_eq!(seen, [own.folder()], "commands see only the instance of this process");
            assert!(crate::instance::abandoned(state.path()).expect("read").is_empty(), "its lock is held");
        }
        (sweep.left.len(), sweep.inherited)
    }

    #[tokio::test]
    async fn a_run_whose_machine_has_answered_and_lives_is_taken_over_in_its_place() {
        let busy = [&ANSWERED[..], &[Fact::RunnerUp, Fact::JobStarted { job: "j".to_owned() }]].concat();
        let (left, inherited) = swept(&busy, &[], Heir::of_all).await;
        let [(0, inherited)] = &inherited[..] else { panic!("{inherited:?}") };
        assert_eq!((left, inherited.index, inherited.runner.name.as_str()), (0, 0, "p-0-aaaaaaa"));
        assert!(inherited.was_up && inherited.has_job);
    }

    #[tokio::test]
    async fn the_instance_of_a_process_that_died_goes_with_its_last_run() {
        let state = tempfile::tempdir().expect("folder");
        let folder = abandoned_with(state.path(), &ANSWERED);
        let _machine = RecordedMachine::of(&folder.join("runs/0-aaaaaaa"));
        let own = Instance::create(state.path(), vec![serves()]).expect("an instance");
        let serving = [Serving { forge: forge(), serves: serves() }];
        let sweep = sweep(state.path(), &serving, Some(&Heir::of_all(&own))).await.expect("swept");
        assert!(sweep.inherited.len() == 1 && folder.exists());
        std::fs::remove_dir_all(&sweep.inherited[0].1.folder).expect("its runner has ended");
        drop(sweep);
        assert!(!folder.exists());
    }

    #[tokio::test]
    async fn a_run_goes_to_the_first_pool_of_its_place() {
        let elsewhere = super::super::Serves { prefix: "another".to_owned(), ..serves() };
        let (_, inherited) = swept(&ANSWERED, &[elsewhere], Heir::of_all).await;
        assert_eq!(inherited.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [1]);
        assert!(!inherited[0].1.was_up && !inherited[0].1.has_job);
    }

    #[tokio::test]
    async fn a_run_is_not_inherited_if_its_machine_never_answered_or_its_runner_is_gone_or_its_loop_is_another()
     {
        let gone = Fact::RegistrationEnded { how: crate::fact::RegistrationEnd::Deleted };
        let silent = ANSWERED[..2].to_vec();
        let over = [&ANSWERED[..], &[gone]].concat();
        for facts in [silent, over] {
            let (_, inherited) = swept(&facts, &[], Heir::of_all).await;
            assert!(inherited.is_empty(), "{facts:?}: {inherited:?}");
        }
        let (_, inherited) = swept(&ANSWERED, &[], |own| Heir::of_loop(own, 1)).await;
        assert!(inherited.is_empty(), "{inherited:?}");
        let (_, inherited) = swept(&ANSWERED, &[], |own| Heir::of_loop(own, 0)).await;
        assert_eq!(inherited.len(), 1);
    }
}
