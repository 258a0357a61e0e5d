//! The sources of a pool's demand, and the task that each of them is.

use std::fmt;
use std::time::Duration;

use tokio::task::JoinSet;

use super::poll::PollSource;
use super::scale_set::ScaleSetSource;
use super::{DemandEvent, DemandSender, PoolDemandSender};
use crate::pool::Pool;
use crate::stop::{Stop, StopOrder};
use crate::stream::{FactSink, FactWriter};

/// Time between two looks at a schedule. The clock may be set meanwhile, so a schedule is never slept through.
const LOOK: Duration = Duration::from_secs(10);

/// A source of a pool's demand.
#[derive(Debug)]
pub enum Source {
    /// A scale set.
    ScaleSet(Box<ScaleSetSource>),
    /// The lists of a repository's jobs.
    Poll(Box<PollSource>),
    /// A schedule of the minimum of idle runners.
    Schedule(MinIdleSchedule),
}

/// Returns the minimum of idle runners for the current time.
pub type MinIdleNow = Box<dyn Fn() -> u32 + Send>;

/// A schedule of the minimum of idle runners, which a pool follows to the next ten seconds.
pub struct MinIdleSchedule {
    now: MinIdleNow,
}

impl fmt::Debug for MinIdleSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MinIdleSchedule").finish_non_exhaustive()
    }
}

impl MinIdleSchedule {
    /// Creates a schedule from the function that says which minimum holds now.
    pub fn new(now: MinIdleNow) -> Self {
        Self { now }
    }

    async fn run(self, demand: &PoolDemandSender, mut stop: Stop) {
        let mut last = None;
        loop {
            let min_idle = (self.now)();
            if last != Some(min_idle) {
                demand.send(DemandEvent::MinIdle(min_idle));
                last = Some(min_idle);
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = stop.above(StopOrder::None) => return,
            }
        }
    }
}

impl Source {
    async fn run(self, demand: PoolDemandSender, mut facts: FactWriter, stop: Stop) {
        match self {
            Self::ScaleSet(source) => source.run(&demand, &mut facts, stop).await,
            Self::Poll(source) => source.run(&demand, &mut facts, stop).await,
            Self::Schedule(schedule) => schedule.run(&demand, stop).await,
        }
    }
}

/// Starts the sources of a pool. Each ends after a stop order, with everything that it holds at the forge.
pub(crate) fn start(
    sources: Vec<Source>,
    (pool, first_slot): (&Pool, u32),
    demand: &DemandSender,
    (facts, stop): (&FactSink, &Stop),
    tasks: &mut JoinSet<()>,
) {
    for source in sources {
        // A pool's slots have the numbers from 1 on, so the first number stands for the pool itself.
        let facts = facts.of_pool(pool).of_loop(first_slot);
        tasks.spawn(source.run(demand.of(&pool.spec), facts, stop.clone()));
    }
}
