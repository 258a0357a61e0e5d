//! Finds the runs of processes that died whose machine lives, and moves them into this process's instance. The runners go on
//! there ([`crate::runner::run_inherited`]).

use std::path::{Path, PathBuf};

use super::{RunSweepError, Serving, is_registered_at};
use crate::fact::RunnerRef;
use crate::instance::{Instance, SESSIONS, machine_of};
use crate::journal;
use crate::state::RunnerState;

/// The instance that takes runs over.
#[derive(Debug)]
pub struct Heir {
    runs: PathBuf,
    /// If set, only one run is taken over, of the loop with this number.
    only: Option<u32>,
}

/// A run that was moved into this instance.
#[derive(Debug)]
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
}

impl Heir {
    /// Returns the heir of all runs of the places that an instance serves.
    pub fn of_all(instance: &Instance) -> Self {
        Self { runs: instance.runs(), only: None }
    }

    /// Returns the heir of one run, of the loop with this number.
    pub fn of_loop(instance: &Instance, index: u32) -> Self {
        Self { only: Some(index), ..Self::of_all(instance) }
    }

    /// Moves the notes of the sessions of scale sets into the heir's instance, so that its sources end these sessions before they
    /// open their own. What cannot be moved ends by itself after some minutes.
    pub(super) fn inherit_sessions(&self, instance: &Path) {
        if self.only.is_some() {
            return;
        }
        let own = self.runs.with_file_name(SESSIONS);
        for note in std::fs::read_dir(instance.join(SESSIONS)).into_iter().flatten().flatten() {
            let _ = std::fs::rename(note.path(), own.join(note.file_name()));
        }
    }

    /// Moves a run into the heir's instance if its machine lives, and if this start serves its place. Returns it with the number
    /// of that place in `serving`: the pool of the same name, or else the first one that registers runners there.
    /// `before` is the number of runs that were taken over before.
    pub(super) fn inherit(
        &self,
        run: &Path,
        serving: &[Serving],
        before: usize,
    ) -> Result<Option<(usize, Inherited)>, RunSweepError> {
        let records = journal::read(run)?;
        let state = RunnerState::of(&records);
        let (Some(first), Some(runner)) = (records.first(), state.runner.clone()) else { return Ok(None) };
        let index = first.loop_index;
        let is_wanted = self.only.is_none_or(|only| only == index && before == 0);
        if !is_wanted || !state.can_be_taken_over() || !dayfly_vm::is_alive(&machine_of(run))? {
            return Ok(None);
        }
        let is_there = |own: &Serving| is_registered_at(&state, &own.serves);
        let same = serving.iter().position(|own| is_there(own) && own.serves.pool == first.pool);
        let Some(place) = same.or_else(|| serving.iter().position(is_there)) else { return Ok(None) };
        let folder = self.runs.join(runner.id.as_str());
        // In one step, so that a crash leaves the run to the one instance or to the other.
        std::fs::rename(run, &folder).map_err(RunSweepError::Folder)?;
        let (was_up, has_job) = (state.was_up(), state.job.running().is_some());
        Ok(Some((place, Inherited { folder, runner, index, was_up, has_job })))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::tests::{abandoned_with, forge, serves};
    use super::super::{Serving, sweep};
    use super::*;
    use crate::fact::Fact;

    /// Writes the record of a machine whose process is this one.
    fn record_of(machine: &Path, pid: u32) {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        let after_name = stat.rsplit_once(") ").expect("a name").1;
        let start: u64 = after_name.split(' ').nth(19).and_then(|ticks| ticks.parse().ok()).expect("ticks");
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot");
        let record =
            serde_json::json!({ "name": "m", "pid": pid, "start_ticks": start, "boot_id": boot.trim() });
        std::fs::write(machine.join("vmm.json"), record.to_string()).expect("a record");
    }

    const ANSWERED: [Fact; 3] = [Fact::Registering, Fact::StartingVm, Fact::AgentHello];

    async fn swept(
        facts: &[Fact],
        serves_too: &[super::super::Serves],
        heir: impl Fn(&Instance) -> Heir,
    ) -> (usize, Vec<(usize, Inherited)>) {
        let state = tempfile::tempdir().expect("folder");
        let folder = abandoned_with(state.path(), facts);
        let mut machine = Command::new("sleep").arg("60").spawn().expect("spawn");
        record_of(&folder.join("runs/0-aaaaaaa/vm"), machine.id());
        let serving: Vec<_> = serves_too.iter().chain([&serves()]).cloned().collect();
        let serving: Vec<_> = serving.into_iter().map(|serves| Serving { forge: forge(), serves }).collect();
        let own = Instance::create(state.path(), vec![serves()]).expect("an instance");
        let sweep = sweep(state.path(), &serving, Some(&heir(&own))).await.expect("swept");
        for (_, inherited) in &sweep.inherited {
            assert!(
                inherited.folder.starts_with(own.runs()) && inherited.folder.join("journal.jsonl").exists()
            );
            assert!(!folder.exists(), "the instance of the process that died is gone");
        }
        machine.kill().expect("killed");
        machine.wait().expect("reaped");
        (sweep.left.len(), sweep.inherited)
    }

    #[tokio::test]
    async fn a_run_whose_machine_has_answered_and_lives_is_moved_into_the_heirs_instance() {
        let busy = [&ANSWERED[..], &[Fact::RunnerUp, Fact::JobStarted { job: "j".to_owned() }]].concat();
        let (left, inherited) = swept(&busy, &[], Heir::of_all).await;
        let [(0, inherited)] = &inherited[..] else { panic!("{inherited:?}") };
        assert_eq!((left, inherited.index, inherited.runner.name.as_str()), (0, 0, "p-0-aaaaaaa"));
        assert!(inherited.was_up && inherited.has_job);
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
