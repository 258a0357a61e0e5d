//! The wait for the end of a drain: reads the status that the orchestrator publishes, until no runner is left.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use dayfly_fleet::instance;
use dayfly_fleet::status::{LoopStatus, Phase, PoolState, PoolStatus, Status};
use dayfly_host::quantity::quantity;
use serde::Serialize;
use tokio::time::Instant;

use crate::exit::{Failure, Outcome, Result};
use crate::printer;
use crate::settings::Places;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Time within which the status shows that a pool drains. It is written some tenths of a second after the order.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(10);

/// Time after which a status without any runner is no older than the order. It was written before a runner of the pool began, if the
/// order came right after that.
const SETTLED: Duration = Duration::from_secs(3);

/// A drain whose end is awaited.
pub(super) struct Wait {
    /// Folder of the instance.
    pub(super) folder: PathBuf,
    /// The pools; none: all, and the process.
    pub(super) pools: Option<Vec<String>>,
    pub(super) json: bool,
}

/// The rest of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Left {
    /// Runners.
    runners: usize,
    /// Those of them that have a job.
    jobs: usize,
}

/// The finding of a look at the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Draining(Left),
    /// A pool has runners and does not drain: the status is old, or the pool was resumed.
    Running,
    Over,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    /// The drain goes on.
    Draining(Left),
    /// No runner is left.
    Drained,
    /// The wait has reached its limit.
    Timeout(Left),
}

impl Wait {
    /// Waits until no runner is left, and shows the progress.
    ///
    /// # Errors
    /// The status cannot be read, or a pool was resumed meanwhile.
    pub(super) async fn for_the_end(&self, places: &Places, limit: Option<Duration>) -> Result<Outcome> {
        let began = Instant::now();
        let mut last = None;
        loop {
            let is_late = limit.is_some_and(|limit| began.elapsed() >= limit);
            match self.look(places)? {
                Look::Over if is_late || is_settled(last.is_some(), began.elapsed()) => {
                    self.tell(&Event::Drained, "no runner is left");
                    return Ok(Outcome::Success);
                }
                Look::Over => {}
                Look::Draining(left) if last != Some(left) => {
                    self.tell(&Event::Draining(left), left);
                    last = Some(left);
                }
                Look::Draining(_) => {}
                Look::Running if began.elapsed() < PUBLISHED_WITHIN => {}
                Look::Running => {
                    return Err(Failure::cannot("a pool runs that was drained; it was resumed meanwhile"));
                }
            }
            if let Some(limit) = limit.filter(|_| is_late) {
                let left = last.unwrap_or(Left { runners: 0, jobs: 0 });
                let limit = limit.as_secs();
                self.tell(&Event::Timeout(left), format_args!("after {limit} s {left}; the drain goes on"));
                return Ok(Outcome::NotSucceeded);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn tell(&self, event: &Event, text: impl fmt::Display) {
        if self.json { printer::json(event) } else { printer::note(text) }
    }

    fn look(&self, places: &Places) -> Result<Look> {
        let all = instance::all(&places.state).map_err(Failure::cannot)?;
        if !all.iter().any(|one| one.alive && one.folder == self.folder) {
            return Ok(Look::Over);
        }
        let status = Status::read(&self.folder).map_err(|error| {
            Failure::cannot(format!("cannot read the status in {}: {error}", self.folder.display()))
        })?;
        Ok(look(&status.unwrap_or_default(), self.pools.as_deref()))
    }
}

/// Returns true if a status without a runner means the end of a drain: the drain was seen before, or the status cannot be older
/// than the order.
fn is_settled(was_draining: bool, since: Duration) -> bool {
    was_draining || since >= SETTLED
}

/// Returns what a status shows of a drain of these pools. Without pools, the process itself has to end too.
fn look(status: &Status, pools: Option<&[String]>) -> Look {
    let Some(pools) = pools else { return Look::Draining(Left::of(status.loops.values())) };
    let is_named = |name: Option<&String>| name.is_some_and(|name| pools.contains(name));
    let drains = |pool: &PoolStatus| pool.state == PoolState::Draining && is_named(pool.name.as_ref());
    if status.pools.values().any(drains) {
        let loops = status.loops.iter().filter(|(index, _)| status.pool_of(**index).is_some_and(drains));
        let loops = loops.map(|(_, one)| one);
        return Look::Draining(Left::of(loops));
    }
    let runs = status.loops.values().any(|one| is_named(one.pool.as_ref()) && has_runner(one));
    if runs { Look::Running } else { Look::Over }
}

fn has_runner(status: &LoopStatus) -> bool {
    status.runner.is_some() && !matches!(status.phase, Phase::Ended | Phase::Pausing)
}

impl Left {
    fn of<'a>(loops: impl Iterator<Item = &'a LoopStatus>) -> Self {
        let alive: Vec<_> = loops.filter(|one| has_runner(one)).collect();
        Self { runners: alive.len(), jobs: alive.iter().filter(|one| one.job.is_some()).count() }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.jobs, self.runners) {
            (_, 0) => f.write_str("no runner is left"),
            (0, runners) => {
                f.write_str(&quantity(runners, "runner without a job ends", "runners without a job end"))
            }
            (jobs, runners) if jobs == runners => {
                f.write_str(&quantity(jobs, "job still runs", "jobs still run"))
            }
            (1, runners) => write!(f, "1 of {runners} runners still has a job"),
            (jobs, runners) => write!(f, "{jobs} of {runners} runners still have a job"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_loop(pool: &str, phase: Phase, job: Option<&str>) -> LoopStatus {
        let (pool, runner) = (Some(pool.to_owned()), Some("1-aaaaaaa".to_owned()));
        LoopStatus { pool, phase, runner, job: job.map(str::to_owned), ..LoopStatus::default() }
    }

    fn pool(name: &str, state: PoolState) -> PoolStatus {
        PoolStatus { name: Some(name.to_owned()), state, since_ms: 1, ..PoolStatus::default() }
    }

    #[test]
    fn a_status_that_may_be_older_than_the_order_is_not_the_end_of_a_drain() {
        assert!(!is_settled(false, Duration::ZERO));
        assert!(is_settled(true, Duration::ZERO));
        assert!(is_settled(false, SETTLED));
    }

    #[test]
    fn a_drain_is_over_if_no_runner_of_its_pools_is_left() {
        let names = ["a".to_owned()];
        let look = |status: &Status| look(status, Some(&names));
        let mut status = Status::default();
        assert_eq!(look(&status), Look::Over);
        status.loops.insert(1, a_loop("a", Phase::Busy, Some("x")));
        status.loops.insert(2, a_loop("a", Phase::Ended, None));
        status.loops.insert(1001, a_loop("b", Phase::Idle, None));
        assert_eq!(look(&status), Look::Running, "the status does not show the order yet");
        status.pools.insert(0, pool("a", PoolState::Draining));
        assert_eq!(look(&status), Look::Draining(Left { runners: 1, jobs: 1 }));
        // A pool of the same name that was begun meanwhile is another one.
        status.loops.insert(2001, a_loop("a", Phase::Idle, None));
        assert_eq!(look(&status), Look::Draining(Left { runners: 1, jobs: 1 }));
        status.loops.retain(|index, _| *index > 1000);
        status.pools.clear();
        assert_eq!(look(&status), Look::Running);
        status.loops.remove(&2001);
        assert_eq!(look(&status), Look::Over);
    }

    #[test]
    fn a_drain_of_all_pools_counts_all_runners_and_ends_with_the_process() {
        let mut status = Status::default();
        assert_eq!(look(&status, None), Look::Draining(Left { runners: 0, jobs: 0 }));
        status.loops.insert(1, a_loop("a", Phase::Ending, None));
        status.loops.insert(1001, a_loop("b", Phase::Busy, Some("x")));
        assert_eq!(look(&status, None), Look::Draining(Left { runners: 2, jobs: 1 }));
    }

    #[test]
    fn the_progress_says_how_many_jobs_run() {
        let text = |jobs, runners| Left { runners, jobs }.to_string();
        assert_eq!(text(1, 1), "1 job still runs");
        assert_eq!(text(3, 3), "3 jobs still run");
        assert_eq!(text(1, 3), "1 of 3 runners still has a job");
        assert_eq!(text(0, 2), "2 runners without a job end");
        assert_eq!(text(0, 0), "no runner is left");
    }
}
