//! The published state of an instance's loops: `status.json` in the instance's folder, read by `dayfly ps`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use dayfly_host::file;
use serde::{Deserialize, Serialize};

use crate::cause::Cause;
use crate::fact::{Fact, FactRecord, Moment, SeenJob};
use crate::orchestrator::{SLOTS_MAX, Wait};
use crate::scratch::ScratchSummary;
pub use crate::state::Phase;
use crate::state::{JobState, RunnerState, VmState};

/// Most jobs of a pool that are listed.
const JOBS_MAX: usize = 1000;

/// Name of the file in an instance's folder.
pub const FILE_NAME: &str = "status.json";

/// The state of one loop and of its current runner. Its fields are published; the fold behind them is not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LoopStatus {
    /// Name of the pool; none for a pool of a command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Progress of the current runner or of the loop.
    pub phase: Phase,
    /// Start of the phase, milliseconds since 1970-01-01 UTC.
    pub since_ms: u64,
    /// Id of the current runner.
    pub runner: Option<String>,
    /// Name of that runner's VM and registration.
    pub name: Option<String>,
    /// Its id at the forge.
    pub registration: Option<u64>,
    /// Process of its VMM.
    pub vmm: Option<u32>,
    /// Its job, as the runner app names it.
    pub job: Option<String>,
    /// The same job, as the source of the pool's demand has told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<SeenJob>,
    /// Jobs that ended in this loop.
    pub jobs: u64,
    /// Number of times that the loop was replaced or could not bring a runner up.
    pub failures: u64,
    /// The last reason of a failure.
    pub trouble: Option<String>,
    /// The kind of its cause; none if the last runner came up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// State of the current runner. It is not published: a status that was read has none.
    #[serde(skip)]
    pub state: RunnerState,
}

/// The treatment of a pool's jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolState {
    /// It runs them.
    #[default]
    Running,
    /// It starts no runner until it is resumed.
    Paused,
    /// It starts no runner, and ends with its last one.
    Draining,
    /// It could not be started, and is not tried again until a reload.
    GivenUp,
}

/// The state of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its name. A pool that drains may have the name of another one.
    pub name: Option<String>,
    /// The treatment of its jobs.
    pub state: PoolState,
    /// Start of that state, milliseconds since 1970-01-01 UTC; of a pool that runs, the time from which on there is something to
    /// say about it.
    pub since_ms: u64,
    /// Jobs that wait for a runner.
    pub waiting: u32,
    /// The reason why they wait; none if none waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
    /// The reason why it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<String>,
    /// The sources of its demand that cannot use the forge.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forge: BTreeMap<String, ForgeTrouble>,
    /// Those of them that a source has told of, by their ids; the first ones, if there are too many.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub jobs: BTreeMap<u64, SeenJob>,
}

/// The trouble of a source of demand with its forge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgeTrouble {
    /// The kind of the source.
    pub source: String,
    /// Its begin, milliseconds since 1970-01-01 UTC.
    pub since_ms: u64,
    /// The kind of the last cause.
    pub cause: Cause,
    /// The last problem in words.
    pub message: String,
}

/// The state of all loops of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// The process.
    pub pid: u32,
    /// Start of the process, milliseconds since 1970-01-01 UTC.
    pub began_ms: u64,
    /// The loops by their number.
    pub loops: BTreeMap<u32, LoopStatus>,
    /// The pools that are paused, drain, or have jobs that wait, by the number before that of their first loop.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pools: BTreeMap<u32, PoolStatus>,
    /// The scratch space in use on this host, if the process has a limit of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<ScratchSummary>,
}

impl Status {
    /// Returns the status of this process before its first loop.
    pub fn begin() -> Self {
        Self { pid: std::process::id(), began_ms: Moment::now().ms(), ..Self::default() }
    }

    /// Takes in a fact. Returns true if the published status has changed.
    pub fn take(&mut self, record: &FactRecord) -> bool {
        if record.fact == Fact::PoolDrained {
            let count = self.loops.len() + self.pools.len();
            let first = record.loop_index;
            self.loops.retain(|&index, _| first_of(index) != first);
            self.pools.remove(&first);
            return self.loops.len() + self.pools.len() < count;
        }
        if let Fact::ScratchInUse { scratch } = record.fact {
            return std::mem::replace(&mut self.scratch, scratch) != scratch;
        }
        if record.is_of_pool() {
            return self.take_of_pool(record);
        }
        // The forge's report may be about a runner before the current one, and changes nothing that is published.
        if matches!(record.fact, Fact::Line { .. } | Fact::JobConcluded { .. }) {
            return false;
        }
        let had_waited = match &record.fact {
            Fact::JobTaken { job } => self.no_longer_waits(record, job.id),
            _ => false,
        };
        let status = self.loops.entry(record.loop_index).or_default();
        let before = status.clone();
        status.take(record);
        *status != before || had_waited
    }

    /// Takes a job that has a runner now off the list of its pool. Returns true if it was there.
    fn no_longer_waits(&mut self, taken: &FactRecord, job: u64) -> bool {
        let left = FactRecord {
            loop_index: first_of(taken.loop_index),
            runner: None,
            fact: Fact::JobLeft { id: job },
            ..taken.clone()
        };
        self.take_of_pool(&left)
    }

    /// Takes in a fact of a pool as a whole.
    fn take_of_pool(&mut self, record: &FactRecord) -> bool {
        let before = self.pools.remove(&record.loop_index);
        let new = || PoolStatus { since_ms: record.at.ms(), ..PoolStatus::default() };
        let mut pool = before.clone().unwrap_or_else(new);
        let state = match record.fact {
            Fact::PoolPaused => PoolState::Paused,
            Fact::PoolDraining => PoolState::Draining,
            Fact::PoolAdded | Fact::PoolResumed => PoolState::Running,
            Fact::PoolGivenUp { .. } => PoolState::GivenUp,
            _ => pool.state,
        };
        if state != pool.state {
            (pool.state, pool.since_ms) = (state, record.at.ms());
        }
        match &record.fact {
            Fact::PoolGivenUp { why } => {
                pool.given_up = Some(why.clone());
                pool.forge.clear();
            }
            Fact::JobsWaiting { count } => pool.waiting = *count,
            Fact::PoolWaits { why } => pool.wait = *why,
            Fact::ForgeLost { source, cause, message } => {
                let since_ms = pool.forge.get(source).map_or(record.at.ms(), |known| known.since_ms);
                let (source, message) = (source.clone(), message.clone());
                pool.forge.insert(source.clone(), ForgeTrouble { source, since_ms, cause: *cause, message });
            }
            Fact::ForgeBack { source } => {
                pool.forge.remove(source);
            }
            Fact::JobSeen { job } if pool.jobs.len() < JOBS_MAX => {
                pool.jobs.insert(job.id, SeenJob::clone(job));
            }
            Fact::JobLeft { id } => {
                pool.jobs.remove(id);
            }
            _ => {}
        }
        let is_ordinary = pool.state == PoolState::Running && pool.waiting == 0 && pool.wait.is_none();
        if !is_ordinary || !pool.jobs.is_empty() || !pool.forge.is_empty() {
            pool.name.clone_from(&record.pool);
            self.pools.insert(record.loop_index, pool);
        }
        self.pools.get(&record.loop_index) != before.as_ref()
    }

    /// Returns the state of the pool that a loop belongs to; none if it runs and no job waits.
    pub fn pool_of(&self, loop_index: u32) -> Option<&PoolStatus> {
        self.pools.get(&first_of(loop_index))
    }

    /// Writes the status into an instance's folder, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written, e.g. because there is no space or no permission.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        file::replace(&folder.join(FILE_NAME), &serde_json::to_vec(self)?)
    }

    /// Reads the status of an instance; none if it has not written any yet.
    ///
    /// # Errors
    /// The file exists but cannot be read or parsed.
    pub fn read(folder: &Path) -> io::Result<Option<Self>> {
        match fs::read(folder.join(FILE_NAME)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Returns the number before that of the first loop of the pool that a loop belongs to.
fn first_of(loop_index: u32) -> u32 {
    loop_index - loop_index % SLOTS_MAX
}

impl LoopStatus {
    fn take(&mut self, record: &FactRecord) {
        self.pool.clone_from(&record.pool);
        let is_of_next = record.runner.is_some() && record.runner != self.state.runner;
        if is_of_next {
            self.state = RunnerState::default();
            self.taken = None;
        }
        self.state.take(record);
        match &record.fact {
            Fact::Over { kind, .. } => self.cause = *kind,
            Fact::RunnerUp => self.cause = None,
            Fact::JobTaken { job } => self.taken = Some(SeenJob::clone(job)),
            Fact::JobFinished { .. } => self.jobs += 1,
            Fact::LoopReplaced { why, .. } | Fact::Retrying { why, .. } | Fact::GaveUp { why } => {
                self.failures += 1;
                self.trouble = Some(why.clone());
            }
            _ => {}
        }
        if is_of_next || self.phase != self.state.phase {
            self.since_ms = record.at.ms();
        }
        self.publish();
    }

    /// Copies the published fields from the state of the runner.
    fn publish(&mut self) {
        let state = &self.state;
        self.phase = state.phase;
        self.runner = state.runner.as_ref().map(|runner| runner.id.to_string());
        self.name = state.runner.as_ref().map(|runner| runner.name.clone());
        self.registration = state.registration.id();
        self.vmm = match state.vm {
            VmState::Runs { pid } => Some(pid),
            VmState::None | VmState::MayRun => None,
        };
        self.job = match &state.job {
            JobState::Runs { name } => Some(name.clone()),
            JobState::None | JobState::Ended { .. } => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use dayfly_guest::runner_app::JobResult;

    use super::*;
    use crate::RunnerId;
    use crate::fact::{RunnerRef, StartKind};
    use crate::job_end::tests::failed_on;

    fn record(runner: Option<&RunnerId>, fact: Fact) -> FactRecord {
        let runner = runner.map(|id| RunnerRef { id: id.clone(), name: format!("p-{id}") });
        FactRecord { at: Moment::of_ms(7), pool: None, loop_index: 1, runner, fact }
    }

    #[test]
    fn a_loop_is_followed_from_runner_to_runner() {
        let (first, second) = (RunnerId::random(1), RunnerId::random(1));
        let mut status = Status::default();
        for fact in [
            Fact::Registering,
            Fact::Registered { registration: 9 },
            Fact::VmmStarted { pid: 4, from: StartKind::Boot, template: None },
            Fact::RunnerUp,
            Fact::Listening,
            Fact::JobStarted { job: "build".into() },
        ] {
            assert!(status.take(&record(Some(&first), fact)));
        }
        let busy = &status.loops[&1];
        assert_eq!((busy.phase, busy.registration, busy.vmm), (Phase::Busy, Some(9), Some(4)));
        assert_eq!(busy.job.as_deref(), Some("build"));
        status.take(&record(Some(&first), Fact::JobFinished { result: JobResult::Succeeded }));
        status.take(&record(Some(&second), Fact::Registering));
        let next = &status.loops[&1];
        assert_eq!((next.phase, next.jobs, next.vmm, &next.job), (Phase::Preparing, 1, None, &None));
        assert_eq!(next.runner.as_deref(), Some(second.as_str()));
        assert!(!status.take(&record(Some(&second), Fact::Pulled)), "it is preparing already");
        assert!(!status.take(&record(Some(&first), failed_on("p", 0).fact())), "a late report");
        assert_eq!(status.loops[&1].runner.as_deref(), Some(second.as_str()));
    }

    #[test]
    fn a_loop_that_pauses_keeps_its_last_runner_and_says_why() {
        let runner = RunnerId::random(1);
        let mut status = Status::default();
        status.take(&record(Some(&runner), Fact::Registering));
        status.take(&record(None, Fact::Retrying { why: "no forge".into(), count: 1, pause_ms: 1000 }));
        let paused = &status.loops[&1];
        assert_eq!((paused.phase, paused.failures), (Phase::Pausing, 1));
        assert_eq!(paused.trouble.as_deref(), Some("no forge"));
        assert_eq!(paused.runner.as_deref(), Some(runner.as_str()));
    }

    #[test]
    fn the_loops_of_a_pool_that_has_drained_are_forgotten() {
        let mut status = Status::default();
        for loop_index in [1, 1000, 1001, 1999, 2000] {
            let started = record(None, Fact::LoopStarted { for_job: None });
            status.take(&FactRecord { loop_index, ..started });
        }
        let drained = FactRecord { loop_index: 1000, ..record(None, Fact::PoolDrained) };
        assert!(status.take(&drained));
        assert_eq!(status.loops.keys().copied().collect::<Vec<_>>(), [1, 2000]);
        assert!(!status.take(&drained));
    }

    #[test]
    fn a_pool_is_listed_while_it_is_paused_or_drains_or_has_jobs_that_wait() {
        let mut status = Status::default();
        let mut take = |loop_index, fact| {
            let pool = Some("a".to_owned());
            let is_changed = status.take(&FactRecord { loop_index, pool, ..record(None, fact) });
            let found = status.pool_of(loop_index + 7).map(|pool| (pool.state, pool.waiting));
            assert!(status.loops.is_empty(), "no loop has the number of a pool");
            (is_changed, found)
        };
        let waiting = |count| Fact::JobsWaiting { count };
        assert_eq!(take(1000, Fact::PoolAdjusted), (false, None));
        assert_eq!(take(1000, waiting(2)), (true, Some((PoolState::Running, 2))));
        assert_eq!(take(1000, Fact::PoolPaused), (true, Some((PoolState::Paused, 2))));
        assert_eq!(take(1000, Fact::PoolPaused), (false, Some((PoolState::Paused, 2))));
        assert_eq!(take(1000, waiting(0)), (true, Some((PoolState::Paused, 0))));
        assert_eq!(take(1000, Fact::PoolResumed), (true, None));
        assert_eq!(take(1000, Fact::PoolDraining), (true, Some((PoolState::Draining, 0))));
        assert_eq!(take(2000, Fact::PoolPaused), (true, Some((PoolState::Paused, 0))));
        assert_eq!(take(1000, Fact::PoolDrained), (true, None));
        assert_eq!(status.pools[&2000].name.as_deref(), Some("a"));
    }

    #[test]
    fn a_job_is_listed_with_its_pool_while_it_waits_and_with_its_runner_afterwards() {
        let runner = RunnerId::random(1001);
        let mut status = Status::default();
        let mut take = |loop_index, runner: Option<&RunnerId>, fact| {
            let is_changed = status.take(&FactRecord { loop_index, ..record(runner, fact) });
            let waiting = status.pools.get(&1000).map(|pool| pool.jobs.keys().copied().collect::<Vec<_>>());
            (is_changed, waiting.unwrap_or_default())
        };
        let job = |id| Box::new(SeenJob { id, name: Some("build".to_owned()), ..SeenJob::default() });
        assert_eq!(take(1000, None, Fact::JobSeen { job: job(7) }), (true, vec![7]));
        assert_eq!(take(1000, None, Fact::JobSeen { job: job(8) }), (true, vec![7, 8]));
        assert_eq!(take(1001, Some(&runner), Fact::Registering), (true, vec![7, 8]));
        assert_eq!(take(1001, Some(&runner), Fact::JobTaken { job: job(7) }), (true, vec![8]));
        assert_eq!(take(1000, None, Fact::JobLeft { id: 8 }), (true, vec![]));
        assert_eq!(take(1000, None, Fact::JobLeft { id: 8 }), (false, vec![]));
        assert_eq!(status.loops[&1001].taken.as_ref().map(|job| job.id), Some(7));
        status.take(&FactRecord {
            loop_index: 1001,
            ..record(Some(&RunnerId::random(1001)), Fact::Registering)
        });
        assert_eq!(status.loops[&1001].taken, None, "the next runner");
    }

    #[test]
    fn a_pool_tells_why_its_jobs_wait_and_since_when_the_forge_is_lost() {
        let mut status = Status::default();
        let mut take = |at_ms, fact| {
            status.take(&FactRecord { loop_index: 1000, at: Moment::of_ms(at_ms), ..record(None, fact) });
            status.pools.get(&1000).cloned()
        };
        let lost = || Fact::ForgeLost {
            source: "poll".to_owned(),
            cause: Cause::Unreachable,
            message: "x".to_owned(),
        };
        take(5, lost());
        let pool = take(9, lost()).expect("listed");
        assert_eq!(pool.forge["poll"].since_ms, 5);
        let why = Some(Wait::Full { max: 2 });
        assert_eq!(take(9, Fact::PoolWaits { why }).expect("listed").wait, why);
        assert!(take(9, Fact::ForgeBack { source: "poll".to_owned() }).expect("listed").forge.is_empty());
        assert_eq!(take(9, Fact::PoolWaits { why: None }), None);
        assert!(status.loops.is_empty());
    }

    #[test]
    fn the_scratch_space_in_use_is_published_until_its_limit_is_removed() {
        let mut status = Status::default();
        let scratch = Some(ScratchSummary { used_mib: 5, limit_mib: Some(9), is_whole: true });
        assert!(status.take(&record(None, Fact::ScratchInUse { scratch })));
        assert!(!status.take(&record(None, Fact::ScratchInUse { scratch })));
        assert_eq!(status.scratch, scratch);
        assert!(status.take(&record(None, Fact::ScratchInUse { scratch: None })));
        assert_eq!(status, Status::default());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().expect("folder");
        assert_eq!(Status::read(folder.path()).expect("none"), None);
        let mut status = Status::begin();
        status.take(&record(None, Fact::LoopStarted { for_job: None }));
        status.write(folder.path()).expect("write");
        assert_eq!(Status::read(folder.path()).expect("read"), Some(status));
    }
}
