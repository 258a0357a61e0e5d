//! The slots of a pool and the jobs that wait: the state that [`super::decide`] decides about. Pure: time is passed in.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use dayfly_host::retry::Retry;
use tokio::time::Instant;

use crate::demand::{DemandEvent, JobDemand};
use crate::job_end::JobEnd;
use crate::recovery::Inherited;

/// Lifetime after which a slot counts as healthy, so that its earlier failures no longer count.
pub(super) const HEALTHY: Duration = Duration::from_secs(600);
/// Most jobs of a pool that are remembered. A job beyond them gets its runner once a source reports it again.
const WAITING_MAX: usize = 10_000;
/// Time within which each source reports that a job has ended. The slowest looks every quarter of a minute.
const REPORT_LIMIT: Duration = Duration::from_secs(60);

/// The jobs that the runners of a slot are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Any job, for one runner after another: the demand is static.
    Place,
    /// Any job, for one runner: the pool is scaled.
    Any,
    /// This job, for one runner.
    Job(JobDemand),
}

impl Purpose {
    /// Returns the job that the slot is for.
    pub(super) fn job(&self) -> Option<&JobDemand> {
        match self {
            Self::Job(job) => Some(job),
            Self::Place | Self::Any => None,
        }
    }
}

/// A place for one runner at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) purpose: Purpose,
    pub(super) stage: Stage,
    /// Time of its first start.
    pub(super) first_start: Instant,
    /// Time of its last start.
    pub(super) start: Instant,
    /// Time from which its runner could take a job; none before.
    pub(super) up: Option<Instant>,
    /// Name of its runner.
    pub(super) runner: Option<String>,
    /// Number of failures in a row.
    pub(super) failures: u32,
}

/// Stage of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It was started, and other slots wait for its runner.
    Awaited,
    /// It runs. It may wait for a job.
    Runs,
    /// Its runner has a job.
    Taken,
    /// It was ordered to end unless its runner has a job.
    Retiring,
    /// It was ordered to stop.
    Stopping,
    /// It starts again at this time.
    Paused(Instant),
    /// It has ended and does not start again.
    Finished,
}

impl Stage {
    /// Returns true if the slot has a loop.
    pub(super) fn is_alive(self) -> bool {
        matches!(self, Self::Awaited | Self::Runs | Self::Taken | Self::Retiring | Self::Stopping)
    }

    /// Returns true if the slot has a runner that waits for a job, or will have one.
    pub(super) fn is_free(self) -> bool {
        matches!(self, Self::Awaited | Self::Runs)
    }
}

/// A job that waits for a runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) demand: JobDemand,
    /// No slot starts for the job before this time.
    pub(super) not_before: Option<Instant>,
}

/// The rule for slots that fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureRule {
    /// Pauses, and the number of attempts for one job.
    pub retry: Retry,
    /// True if an error of a runner for a job ends the attempts for the job at once. A person who watches wants to see the
    /// first error.
    pub is_strict: bool,
}

/// The end of a loop, as the slot sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LoopResult {
    /// The slot is not replaced; the reason.
    Finished(String),
    /// The slot is not replaced, and its last runner ended without a job; the reason.
    NoJob(String),
    /// The loop has failed; the reason.
    Failed(String),
}

/// The fate of a slot whose loop has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// The slot does not start again; the reason.
    Finished(String),
    /// The slot, or for a scaled pool another one in its place, starts again.
    Replaced {
        /// The reason.
        why: String,
        /// Number of failures in a row.
        count: u32,
        /// Time until the next start.
        pause: Duration,
    },
    /// Its job gets no further runner; the reason.
    GaveUp(String),
}

/// All slots of a pool, and its waiting jobs in the order in which they came.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots {
    pub(super) slots: BTreeMap<u32, Slot>,
    pub(super) waiting: Vec<Waiting>,
    /// Number of the next slot for a job. Numbers are not used twice.
    pub(super) next: u32,
    /// Number of runners that ended without a job, for each job that has not settled.
    failures: HashMap<u64, u32>,
    /// Number of jobs that are assigned to a scaled pool, if a source tells it.
    pub(super) assigned: u32,
    /// The minimum of idle runners, if a source has changed it.
    pub(super) min_idle: Option<u32>,
    /// Runners of a scaled pool that had a job which no source has reported yet: such a job still seems to wait. Each is
    /// forgotten at its time.
    unreported: VecDeque<Instant>,
    /// Number of runners of a scaled pool that failed, in a row.
    failed_in_a_row: u32,
    /// No slot of a scaled pool starts before this time.
    pub(super) not_before: Option<Instant>,
    /// Number of the assigned jobs that runners of a draining pool have, which had the same sources before.
    pub(super) busy_elsewhere: u32,
    /// Number of idle runners of a scaled pool that go at once, because another size of the pool needs their places for jobs.
    pub(super) yielded: u32,
    /// True if nothing more is started.
    pub(super) closed: bool,
    /// True if runners without a job end too. The pool is closed then.
    pub(super) is_draining: bool,
    /// True if an administrator has paused the pool: nothing is started, and runners without a job end. Jobs are counted.
    pub(super) is_paused: bool,
    /// True if no more jobs will come.
    pub(super) complete: bool,
}

impl Slots {
    /// Notes that a slot was started.
    pub(super) fn started(&mut self, index: u32, purpose: Purpose, is_awaited: bool, now: Instant) {
        let stage = if is_awaited { Stage::Awaited } else { Stage::Runs };
        let (first_start, failures) =
            self.slots.get(&index).map_or((now, 0), |slot| (slot.first_start, slot.failures));
        let slot = Slot { purpose, stage, first_start, start: now, up: None, runner: None, failures };
        self.slots.insert(index, slot);
        self.next = self.next.max(index + 1);
    }

    /// Notes that a slot has taken a runner over.
    pub(super) fn inherited(&mut self, index: u32, purpose: Purpose, inherited: &Inherited, now: Instant) {
        self.started(index, purpose, false, now);
        self.goes_on(index, inherited, now);
    }

    /// Notes that a slot goes on with a runner that it has not started. A runner that has a job counts as taken, because no
    /// source may tell that again.
    pub(super) fn goes_on(&mut self, index: u32, inherited: &Inherited, now: Instant) {
        self.named(index, &inherited.runner.name);
        if inherited.was_up {
            self.is_up(index, now);
        }
        let has_job = |slot: &&mut Slot| inherited.has_job && slot.stage.is_free();
        if let Some(slot) = self.slots.get_mut(&index).filter(has_job) {
            slot.stage = Stage::Taken;
        }
    }

    /// Notes the name of a slot's next runner, which has no job yet.
    pub(super) fn named(&mut self, index: u32, runner: &str) {
        if let Some(slot) = self.slots.get_mut(&index) {
            slot.runner = Some(runner.to_owned());
            slot.up = None;
            if slot.stage == Stage::Taken {
                slot.stage = Stage::Runs;
            }
        }
    }

    /// Notes that a slot's runner is up.
    pub(super) fn is_up(&mut self, index: u32, now: Instant) {
        if let Some(slot) = self.slots.get_mut(&index) {
            slot.up = Some(now);
        }
        self.not_awaited(index);
    }

    /// Notes that other slots no longer wait for this one, because its runner is up or the wait was too long.
    pub(super) fn not_awaited(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(&index).filter(|slot| slot.stage == Stage::Awaited) {
            slot.stage = Stage::Runs;
        }
    }

    /// Notes that a slot was ordered to end unless its runner has a job.
    pub(super) fn retiring(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(&index) {
            slot.stage = Stage::Retiring;
        }
    }

    /// Notes that a slot was ordered to stop.
    pub(super) fn stopping(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(&index) {
            slot.stage = Stage::Stopping;
        }
    }

    /// Notes that a slot's runner is for another job from now on.
    pub(super) fn reassigned(&mut self, index: u32, job: JobDemand) {
        if let Some(slot) = self.slots.get_mut(&index) {
            slot.purpose = Purpose::Job(job);
        }
    }

    /// Takes in a change of the demand.
    pub(super) fn take(&mut self, event: DemandEvent) {
        match event {
            DemandEvent::Queued(demand) => {
                let is_known = self.waiting.iter().any(|waiting| waiting.demand.job == demand.job);
                if !self.closed && !is_known && self.waiting.len() < WAITING_MAX {
                    self.waiting.push(Waiting { demand, not_before: None });
                }
            }
            DemandEvent::Taken { job, runner } => {
                let is_known = self.slots.values().any(|slot| slot.runner.as_deref() == Some(&runner));
                let count = self.waiting.len();
                self.waiting.retain(|waiting| waiting.demand.job != job);
                if !is_known && self.waiting.len() < count {
                    self.unreported.pop_front();
                }
                let by_name = |slot: &&mut Slot| slot.runner.as_deref() == Some(&runner);
                if let Some(slot) = self.slots.values_mut().find(by_name)
                    && (slot.stage.is_free() || slot.stage == Stage::Retiring)
                {
                    slot.stage = Stage::Taken;
                }
            }
            DemandEvent::Ended(JobEnd { job, .. }) | DemandEvent::Settled { job } => self.settle(job),
            DemandEvent::Assigned { jobs } => {
                self.assigned = jobs;
                // The number is newer than the end of the job, unless lists report the jobs too.
                if self.waiting.is_empty() {
                    self.unreported.clear();
                }
            }
            DemandEvent::Described(_) => {}
            DemandEvent::MinIdle(count) => self.min_idle = Some(count),
            DemandEvent::Closed => self.complete = true,
        }
    }

    /// Returns the number of jobs that seem to wait although a runner has had them, and the time at which one is forgotten.
    pub(super) fn unreported(&self, now: Instant) -> (usize, Option<Instant>) {
        let left = || self.unreported.iter().filter(|at| **at > now);
        (left().count(), left().min().copied())
    }

    /// Returns the number of jobs that no runner has, as far as the sources have told. `unreported` jobs have had theirs.
    pub(super) fn jobs_without_runner(&self, unreported: usize) -> usize {
        // Two sources may report the same jobs, one by their ids and one by their number, so the larger number counts.
        let assigned = self.assigned.saturating_sub(self.busy() + self.busy_elsewhere);
        self.waiting.len().max(assigned as usize).saturating_sub(unreported)
    }

    /// Returns the number of jobs that wait for a runner of the pool.
    pub(super) fn jobs_waiting(&self, now: Instant) -> u32 {
        let jobs = if self.closed { 0 } else { self.jobs_without_runner(self.unreported(now).0) };
        u32::try_from(jobs).unwrap_or(u32::MAX)
    }

    fn settle(&mut self, job: u64) {
        let count = self.waiting.len();
        self.waiting.retain(|waiting| waiting.demand.job != job);
        if self.waiting.len() < count {
            self.unreported.pop_front();
        }
        self.failures.remove(&job);
    }

    /// Takes in the end of a slot's loop. Returns the fate of the slot.
    pub(super) fn ended(&mut self, index: u32, ended: LoopResult, rule: FailureRule, now: Instant) -> Fate {
        let Some(slot) = self.slots.get_mut(&index) else {
            return Fate::Finished("it is not known".to_owned());
        };
        let stage = std::mem::replace(&mut slot.stage, Stage::Finished);
        match slot.purpose.clone() {
            // The pool has got smaller, and may get larger again.
            Purpose::Place if stage == Stage::Retiring => {
                self.slots.remove(&index);
                let (LoopResult::Finished(how) | LoopResult::NoJob(how) | LoopResult::Failed(how)) = ended;
                return Fate::Finished(how);
            }
            Purpose::Place => {}
            Purpose::Any => {
                self.slots.remove(&index);
                return self.ended_for_any(stage, ended, rule, now);
            }
            Purpose::Job(job) => {
                self.slots.remove(&index);
                return self.ended_for_job(&job, stage, ended, rule, now);
            }
        }
        let why = match ended {
            LoopResult::Finished(how) | LoopResult::NoJob(how) => return Fate::Finished(how),
            LoopResult::Failed(why) if self.closed => return Fate::Finished(why),
            LoopResult::Failed(why) => why,
        };
        slot.failures =
            if now.saturating_duration_since(slot.start) >= HEALTHY { 1 } else { slot.failures + 1 };
        let count = slot.failures;
        match rule.retry.pause_after(count) {
            Some(pause) => {
                slot.stage = Stage::Paused(now + pause);
                Fate::Replaced { why, count, pause }
            }
            None => Fate::GaveUp(why),
        }
    }

    /// Takes in the end of a slot of a scaled pool. A runner that ended without a job although it was not ordered to is a
    /// failure, and the pool starts the next one after a pause. It goes on with the pauses until a runner had a job.
    fn ended_for_any(&mut self, stage: Stage, ended: LoopResult, rule: FailureRule, now: Instant) -> Fate {
        let was_ordered = self.closed || matches!(stage, Stage::Retiring | Stage::Stopping);
        let why = match ended {
            LoopResult::Finished(how) => {
                self.failed_in_a_row = 0;
                self.not_before = None;
                self.unreported.retain(|at| *at > now);
                if stage != Stage::Taken {
                    self.unreported.push_back(now + REPORT_LIMIT);
                }
                return Fate::Finished(how);
            }
            LoopResult::NoJob(how) | LoopResult::Failed(how) if was_ordered => return Fate::Finished(how),
            LoopResult::NoJob(why) | LoopResult::Failed(why) => why,
        };
        self.failed_in_a_row += 1;
        let count = self.failed_in_a_row;
        match rule.retry.pause_after(count) {
            Some(pause) => {
                self.not_before = Some(now + pause);
                Fate::Replaced { why, count, pause }
            }
            None => Fate::GaveUp(why),
        }
    }

    /// Takes in the end of a slot that was created for a job. If its runner had no job, the end counts as a failure for that
    /// job.
    fn ended_for_job(
        &mut self,
        job: &JobDemand,
        stage: Stage,
        ended: LoopResult,
        rule: FailureRule,
        now: Instant,
    ) -> Fate {
        if let (LoopResult::Failed(why), true) = (&ended, rule.is_strict) {
            self.settle(job.job);
            return Fate::GaveUp(why.clone());
        }
        let how = match &ended {
            LoopResult::Finished(how) | LoopResult::NoJob(how) | LoopResult::Failed(how) => how.clone(),
        };
        let waits = self.waiting.iter_mut().find(|waiting| waiting.demand.job == job.job);
        let Some(waiting) = waits.filter(|_| stage.is_free()) else { return Fate::Finished(how) };
        let count = self.failures.entry(job.job).or_default();
        *count += 1;
        match rule.retry.pause_after(*count) {
            Some(pause) => {
                waiting.not_before = Some(now + pause);
                Fate::Finished(how)
            }
            None => {
                let count = *count;
                self.settle(job.job);
                Fate::GaveUp(match ended {
                    LoopResult::Failed(why) => why,
                    LoopResult::Finished(_) | LoopResult::NoJob(_) => {
                        format!("{count} machines were started for a job, and none of them took it")
                    }
                })
            }
        }
    }

    /// Drains the pool: it is closed, and its runners without a job end.
    pub(super) fn drain(&mut self) {
        self.close();
        self.is_draining = true;
    }

    /// Returns the number of runners that have a job, as far as the sources have told.
    pub(super) fn busy(&self) -> u32 {
        self.count(|stage| stage == Stage::Taken)
    }

    /// Returns the number of runners that wait for a job, or will.
    pub(super) fn free(&self) -> u32 {
        self.count(Stage::is_free)
    }

    /// Returns the number of all runners.
    pub(super) fn alive(&self) -> u32 {
        self.count(Stage::is_alive)
    }

    fn count(&self, test: fn(Stage) -> bool) -> u32 {
        let count = self.slots.values().filter(|slot| test(slot.stage)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Closes the pool: no slot starts any more, and slots that pause have ended.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.waiting.clear();
        self.failures.clear();
        for slot in self.slots.values_mut().filter(|slot| !slot.stage.is_alive()) {
            slot.stage = Stage::Finished;
        }
    }
}
