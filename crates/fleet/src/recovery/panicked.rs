//! Finds what a loop of this process has left whose task has panicked: a runner with a machine that lives goes on, everything else
//! is removed.

use std::path::{Path, PathBuf};

use super::{Inherited, RunSweepError, sweep_run};
use crate::history::History;
use crate::instance;
use crate::journal;
use crate::pool::Pool;

/// Most panics after which the same runner is taken over again. The cause may be something that the runner repeats.
const PANICS_MAX: u32 = 3;

/// The remains of a loop whose task has panicked.
#[derive(Debug, Default)]
pub(crate) struct LoopRemains {
    /// The runner that goes on.
    pub(crate) inherited: Option<Inherited>,
    /// Runs that could not be removed, with the reason.
    pub(crate) left: Vec<(PathBuf, String)>,
}

/// Finds and removes the remains of a loop, except the runner that goes on. `taken_over` is the runner that the loop had taken
/// over, if that may not have ended; its run may be in the folder of another process.
pub(crate) async fn after_panic(
    (pool, history): (&Pool, &History),
    index: u32,
    taken_over: Option<Inherited>,
) -> LoopRemains {
    let mut remains = LoopRemains::default();
    let runs = match runs_of(&pool.runs, index) {
        Ok(runs) => runs,
        Err(error) => {
            remains.left.push((pool.runs.clone(), error.to_string()));
            Vec::new()
        }
    };
    let elsewhere = taken_over.iter().map(|taken| taken.folder.clone());
    let elsewhere: Vec<_> = elsewhere.filter(|run| !runs.contains(run) && run.is_dir()).collect();
    for run in elsewhere.into_iter().chain(runs) {
        // The reaper tries what an earlier runner of the loop has left already.
        if pool.leftovers.contains(&run) {
            continue;
        }
        let earlier = taken_over.as_ref().filter(|taken| taken.folder == run);
        match goes_on(&run, earlier) {
            Ok(Some(inherited)) if remains.inherited.is_none() => remains.inherited = Some(inherited),
            Ok(_) => {
                if let Err(error) = sweep_run(&run, &pool.forge, history).await {
                    remains.left.push((run, error.to_string()));
                }
            }
            Err(error) => remains.left.push((run, error.to_string())),
        }
    }
    remains
}

fn runs_of(runs: &Path, index: u32) -> Result<Vec<PathBuf>, instance::InstanceError> {
    let begins = format!("{index}-");
    let is_of_loop =
        |run: &PathBuf| run.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&begins));
    Ok(instance::folders_in(runs)?.into_iter().filter(is_of_loop).collect())
}

/// Returns the runner of a run if it can go on. `earlier` is the same runner if the loop had taken it over before.
fn goes_on(run: &Path, earlier: Option<&Inherited>) -> Result<Option<Inherited>, RunSweepError> {
    let panics = earlier.map_or(0, |earlier| earlier.panics) + 1;
    let inherited = Inherited::of(run, &journal::read(run)?)?.filter(|_| panics <= PANICS_MAX);
    let home = earlier.and_then(|earlier| earlier.home.clone());
    Ok(inherited.map(|inherited| Inherited { panics, home, ..inherited }))
}

#[cfg(test)]
mod tests {
    use super::super::inherit::tests::{ANSWERED, RecordedMachine};
    use super::*;
    use crate::fact::Fact;
    use crate::fact::tests::record;
    use crate::instance::machine_of;
    use crate::journal::Journal;
    use crate::orchestrator::tests::pool_of_processes;
    use crate::registration::tests::ScriptedForge;

    /// A pool, and a run of its loop 0 with these facts, whose machine is a process.
    struct Stage {
        _folder: tempfile::TempDir,
        forge: ScriptedForge,
        pool: Pool,
        history: History,
        run: PathBuf,
        machine: RecordedMachine,
    }

    impl Stage {
        fn new(facts: &[Fact], deletion: u16) -> Self {
            let folder = tempfile::tempdir().expect("folder");
            let forge = ScriptedForge::start(&[deletion], true);
            let runs = folder.path().join("runs");
            let run = runs.join("0-aaaaaaa");
            std::fs::create_dir_all(machine_of(&run)).expect("folder");
            let pool = pool_of_processes(forge.forge.clone(), ("/x".into(), "/x".into()), runs);
            let begun = journal::begun("/nonexistent".into(), forge.address.clone(), pool.spec.scope.clone());
            let mut journal = Journal::open(&run).expect("journal");
            for fact in std::iter::once(&begun).chain(facts) {
                journal.write(&record(fact.clone())).expect("written");
            }
            let machine = RecordedMachine::of(&run);
            let history = History::of(folder.path());
            Self { _folder: folder, forge, pool, history, run, machine }
        }
    }

    #[tokio::test]
    async fn a_runner_without_a_machine_that_answers_is_removed_and_its_registration_comes_first() {
        let registered = [Fact::Registering, Fact::Registered { registration: 7 }, Fact::StartingVm];
        for (deletion, stays) in [(204, false), (422, true), (401, true)] {
            let mut stage = Stage::new(&registered, deletion);
            let remains = after_panic((&stage.pool, &stage.history), 0, None).await;
            assert!(remains.inherited.is_none());
            assert_eq!((remains.left.len(), stage.run.exists()), (usize::from(stays), stays));
            assert_eq!(stage.machine.is_alive(), stays, "{deletion}");
            assert_eq!(stage.forge.calls(), [format!("DELETE {deletion}")]);
        }
    }

    #[tokio::test]
    async fn a_runner_goes_on_after_some_panics_and_is_then_left_to_the_forge() {
        let mut stage = Stage::new(&ANSWERED, 422);
        let mut inherited = None;
        for panics in 1..=PANICS_MAX {
            let remains = after_panic((&stage.pool, &stage.history), 0, inherited).await;
            inherited = remains.inherited;
            assert_eq!(inherited.as_ref().map(|inherited| inherited.panics), Some(panics));
        }
        assert_eq!(stage.forge.calls(), [""; 0], "it is not touched");
        let remains = after_panic((&stage.pool, &stage.history), 0, inherited).await;
        assert!(remains.inherited.is_none() && stage.machine.is_alive(), "it may have a job");
        assert_eq!(remains.left, [(stage.run.clone(), RunSweepError::Busy.to_string())]);
    }

    #[tokio::test]
    async fn the_run_of_another_instance_that_the_loop_had_taken_over_is_found_and_other_loops_are_not_touched()
     {
        let stage = Stage::new(&ANSWERED, 204);
        let inherited = after_panic((&stage.pool, &stage.history), 0, None).await.inherited;
        let here = stage.pool.runs.with_file_name("elsewhere");
        let pool = Pool { runs: here, ..stage.pool.clone() };
        for index in [0, 7] {
            let again = after_panic((&pool, &stage.history), index, inherited.clone())
                .await
                .inherited
                .expect("it goes on");
            assert_eq!((again.folder, again.panics), (stage.run.clone(), 2));
        }
        let other = after_panic((&stage.pool, &stage.history), 1, None).await;
        assert!(other.inherited.is_none() && other.left.is_empty() && stage.run.exists());
    }

    #[tokio::test]
    async fn what_an_earlier_runner_of_the_loop_has_left_stays_with_the_reaper() {
        let stage = Stage::new(&ANSWERED, 204);
        stage.pool.leftovers.add(stage.run.clone());
        let remains = after_panic((&stage.pool, &stage.history), 0, None).await;
        assert!(remains.inherited.is_none() && remains.left.is_empty() && stage.run.exists());
    }
}
