//! Removes, while the process runs, what a runner has left because its forge did not answer. A start of a later process does
//! the same ([`crate::recovery`]), but an orchestrator may run for months; it tries again what it could not remove at its own
//! start, too.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dayfly_forge::Forge;
use dayfly_host::retry::Retry;
use tokio::sync::Notify;

use crate::fact::Fact;
use crate::history::History;
use crate::recovery::{self, Home, RunSweepError};
use crate::stream::FactSink;

/// Most runs that are remembered. Further ones wait for the next start of a process.
const RUNS_MAX: usize = 1000;
/// Longest time that the end of a process waits for its last attempt to remove runs. The next start may come late, or never.
pub(crate) const LAST_ATTEMPT: Duration = Duration::from_secs(5);

/// The folder of a run that is over, but whose registration or machine may still exist.
#[derive(Debug, Clone)]
pub struct Leftover {
    pub(crate) run: PathBuf,
    /// The instance that the run is in, if that is another one than the pool's.
    pub(crate) home: Option<Arc<Home>>,
}

impl Leftover {
    /// Returns true if it is in this folder.
    pub fn is_of(&self, run: &Path) -> bool {
        self.run == run
    }
}

impl From<PathBuf> for Leftover {
    /// Returns a run of the pool's instance.
    fn from(run: PathBuf) -> Self {
        Self { run, home: None }
    }
}

/// The runs of a pool that are left. Clones share the list.
#[derive(Debug, Clone, Default)]
pub struct Leftovers {
    runs: Arc<Mutex<Vec<Leftover>>>,
    added: Arc<Notify>,
    removed: Arc<Notify>,
}

impl Leftovers {
    /// Adds a run whose runner has ended.
    pub fn add(&self, left: impl Into<Leftover>) {
        let left = left.into();
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if runs.len() < RUNS_MAX && !runs.iter().any(|other| other.run == left.run) {
            runs.push(left);
            self.added.notify_one();
        }
    }

    /// Returns true if the folder of a run is in the list.
    pub(crate) fn contains(&self, run: &Path) -> bool {
        self.all().iter().any(|other| other == run)
    }

    fn all(&self) -> Vec<PathBuf> {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.iter().map(|left| left.run.clone()).collect()
    }

    fn remove(&self, run: &PathBuf) {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| other.run != *run);
        self.removed.notify_one();
    }

    /// Waits until the list is empty.
    async fn emptied(&self) {
        while !self.all().is_empty() {
            self.removed.notified().await;
        }
    }
}

/// Tries again and again to remove the runs in the list, with the pauses of `retry`. Never returns; drop it to stop.
pub(crate) async fn reap(
    leftovers: &Leftovers,
    forge: &Forge,
    retry: Retry,
    readers: (&FactSink, &History),
) -> Infallible {
    let mut failures = 0;
    loop {
        if leftovers.all().is_empty() {
            failures = 0;
            leftovers.added.notified().await;
            continue;
        }
        failures += 1;
        match retry.pause_after(failures) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => std::future::pending().await,
        }
        if reap_once(leftovers, forge, readers).await {
            failures = 0;
        }
    }
}

/// Does the same as [`reap`] until the pool of the runs is over and the list is empty.
pub(crate) async fn reap_until(
    over: impl Future<Output = ()>,
    leftovers: &Leftovers,
    forge: &Forge,
    retry: Retry,
    readers: (&FactSink, &History),
) {
    let done = async {
        over.await;
        leftovers.emptied().await;
    };
    tokio::select! {
        () = done => {}
        never = reap(leftovers, forge, retry, readers) => match never {},
    }
}

/// Tries to remove each run once, up to the first error of the forge: it is one call that fails, not one for each run.
/// Returns true if a run was removed.
pub(crate) async fn reap_once(
    leftovers: &Leftovers,
    forge: &Forge,
    (facts, history): (&FactSink, &History),
) -> bool {
    let mut has_removed = false;
    for run in leftovers.all() {
        let name = run.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match recovery::sweep_run(&run, forge, history).await {
            Ok(_) => {
                leftovers.remove(&run);
                has_removed = true;
                let index = name.split('-').next().and_then(|index| index.parse().ok()).unwrap_or_default();
                let message = format!("what the runner {name} had left is removed now");
                facts.of_loop(index).tell(Fact::Warning { message }).await;
            }
            Err(RunSweepError::Forge { .. }) => break,
            // A registration that is busy, or a process that does not end: the others need not wait for it.
            Err(_) => {}
        }
    }
    has_removed
}

#[cfg(test)]
mod tests {
    use dayfly_forge::RunnerScope;

    use super::*;
    use crate::fact::tests::record;
    use crate::journal::{self, Journal};
    use crate::registration::tests::ScriptedForge;

    fn run_of(folder: &Path, id: &str, forge: &str) -> PathBuf {
        let run = folder.join(id);
        std::fs::create_dir(&run).expect("folder");
        let scope = RunnerScope::Organization("o".to_owned());
        let begun = journal::begun("/nonexistent".into(), forge.to_owned(), scope);
        let mut journal = Journal::open(&run).expect("journal");
        for fact in [begun, Fact::Registering, Fact::Registered { registration: 7 }] {
            journal.write(&record(fact)).expect("written");
        }
        run
    }

    #[tokio::test]
    async fn a_deletion_that_has_failed_is_tried_again_while_the_process_runs() {
        let folder = tempfile::tempdir().expect("folder");
        let ScriptedForge { forge, address, .. } = ScriptedForge::start(&[401, 401, 401, 204], true);
        let (leftovers, history) = (Leftovers::default(), History::of(folder.path()));
        let runs = ["0-aaaaaaa", "1-bbbbbbb"].map(|id| run_of(folder.path(), id, &address));
        let (facts, mut stream) = crate::stream::channel();
        let short = Duration::from_millis(10);
        let retry = Retry { first: short, factor: 1, limit: short, attempts: None };
        let told = async {
            tokio::time::sleep(short).await;
            runs.iter().for_each(|run| leftovers.add(run.clone()));
            [stream.recv().await.expect("a fact"), stream.recv().await.expect("a fact")]
        };
        let told = tokio::select! {
            told = tokio::time::timeout(Duration::from_secs(30), told) => told.expect("both are removed"),
            never = reap(&leftovers, &forge, retry, (&facts, &history)) => match never {},
        };
        assert_eq!(told.map(|record| record.loop_index), [0, 1]);
        assert!(runs.iter().all(|run| !run.exists()));
        assert!(leftovers.all().is_empty());
    }

    /// Returns true if one attempt has removed the run of a runner, and the calls that it made.
    async fn is_reaped(deletion: u16, is_listed: bool) -> (bool, Vec<String>) {
        let folder = tempfile::tempdir().expect("folder");
        let forge = ScriptedForge::start(&[deletion], is_listed);
        let leftovers = Leftovers::default();
        let run = run_of(folder.path(), "0-aaaaaaa", &forge.address);
        leftovers.add(run.clone());
        let (facts, _stream) = crate::stream::channel();
        let history = History::of(folder.path());
        let has_removed = reap_once(&leftovers, &forge.forge, (&facts, &history)).await;
        assert_eq!((has_removed, leftovers.all().is_empty()), (!run.exists(), !run.exists()));
        (has_removed, forge.calls())
    }

    #[tokio::test]
    async fn what_is_left_goes_if_its_registration_is_deleted_or_gone_and_stays_if_it_may_have_a_job() {
        for (deletion, is_listed, goes) in [
            (204, true, true),
            (404, false, true),
            (404, true, false),
            (422, true, false),
            (401, true, false),
        ] {
            let (is_reaped, calls) = is_reaped(deletion, is_listed).await;
            assert_eq!(is_reaped, goes, "{deletion}: {calls:?}");
        }
    }

    #[tokio::test]
    async fn a_run_that_is_busy_does_not_hold_up_the_next_one() {
        let folder = tempfile::tempdir().expect("folder");
        let forge = ScriptedForge::start(&[422, 204], true);
        let leftovers = Leftovers::default();
        let runs = ["0-aaaaaaa", "1-bbbbbbb"].map(|id| run_of(folder.path(), id, &forge.address));
        runs.iter().for_each(|run| leftovers.add(run.clone()));
        let (facts, _stream) = crate::stream::channel();
        let history = History::of(folder.path());
        assert!(reap_once(&leftovers, &forge.forge, (&facts, &history)).await);
        assert_eq!(leftovers.all(), [runs[0].clone()]);
    }

    #[test]
    fn the_list_has_a_bound() {
        let leftovers = Leftovers::default();
        (0..2000).for_each(|number| leftovers.add(PathBuf::from(format!("/runs/{number}"))));
        leftovers.add(PathBuf::from("/runs/1"));
        assert_eq!(leftovers.all().len(), RUNS_MAX);
    }
}
