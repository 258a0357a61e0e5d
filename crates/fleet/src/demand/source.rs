//! The sources of a pool's demand, and the task that each of them is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::poll::PollSource;
use super::scale_set::ScaleSetSource;
use super::webhook::WebhookSource;
use super::{DemandEvent, PoolDemandSender};
use crate::pool::Pool;
use crate::stop::{Stop, StopOrder, StopSender};
use crate::stream::{FactSink, FactWriter};

/// Time between two looks at a schedule. The clock may be set meanwhile, so a schedule is never slept through.
const LOOK: Duration = Duration::from_secs(10);
/// Longest wait of a source for those that it follows. The end of a session at the forge has limits of its own.
const PREDECESSORS_LIMIT: Duration = Duration::from_secs(120);

/// The sources that must have ended before another one starts, because a scale set serves one session at a time.
pub(crate) type Predecessors = Vec<Arc<StopSender>>;

/// A source of a pool's demand.
#[derive(Debug)]
pub enum Source {
    /// A scale set.
    ScaleSet(Box<ScaleSetSource>),
    /// The lists of a repository's jobs.
    Poll(Box<PollSource>),
    /// The deliveries of a webhook.
    Webhook(Box<WebhookSource>),
    /// A schedule of the minimum of idle runners.
    Schedule(MinIdleSchedule),
}

/// Returns the minimum of idle runners for the current time.
pub type MinIdleNow = Box<dyn Fn() -> u32 + Send + Sync>;

/// A schedule of the minimum of idle runners, which a pool follows to the next ten seconds. A new schedule counts at once.
pub struct MinIdleSchedule {
    now: watch::Receiver<MinIdleNow>,
}

impl fmt::Debug for MinIdleSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MinIdleSchedule").finish_non_exhaustive()
    }
}

impl MinIdleSchedule {
    /// Creates a schedule from the function that says which minimum holds now. The sender replaces it.
    pub fn new(now: MinIdleNow) -> (Self, watch::Sender<MinIdleNow>) {
        let (sender, now) = watch::channel(now);
        (Self { now }, sender)
    }

    async fn run(mut self, demand: &PoolDemandSender, mut stop: Stop) {
        let mut last = None;
        loop {
            let min_idle = (self.now.borrow_and_update())();
            if last != Some(min_idle) {
                demand.send(DemandEvent::MinIdle(min_idle));
                last = Some(min_idle);
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                // Without a sender, the schedule is the last one.
                Ok(()) = self.now.changed() => {}
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
            Self::Webhook(source) => source.run(&demand, &mut facts, stop).await,
            Self::Schedule(schedule) => schedule.run(&demand, stop).await,
        }
    }
}

/// Starts the sources of a pool, once those of `before` have ended. Each ends after a stop order, with everything that it
/// holds at the forge.
pub(crate) fn start(
    sources: Vec<Source>,
    (pool, first_slot): (&Pool, u32),
    (demand, before): (&PoolDemandSender, &Predecessors),
    (facts, stop): (&FactSink, &Stop),
    tasks: &mut JoinSet<()>,
) {
    for source in sources {
        // A pool's slots have the numbers from 1 on, so the first number stands for the pool itself.
        let facts = facts.of_pool(pool).of_loop(first_slot);
        let (demand, stop, before) = (demand.clone(), stop.clone(), before.clone());
        tasks.spawn(async move {
            let ended = async {
                for one in &before {
                    one.ended().await;
                }
            };
            // A scale set that is still taken after this time is tried again by its listener.
            let _ = tokio::time::timeout(PREDECESSORS_LIMIT, ended).await;
            source.run(demand, facts, stop).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_new_schedule_counts_at_once() {
        let (senders, mut demand) = crate::demand::channel();
        let (schedule, setter) = MinIdleSchedule::new(Box::new(|| 1));
        let (_stop_sender, stop) = crate::stop::channel();
        let mut last = async || demand.recv().await.expect("a demand").event;
        let sender = senders.of(0);
        let running = tokio::spawn(async move { schedule.run(&sender, stop).await });
        assert_eq!(last().await, DemandEvent::MinIdle(1));
        let before = tokio::time::Instant::now();
        assert!(setter.send(Box::new(|| 2)).is_ok());
        assert_eq!((last().await, before.elapsed()), (DemandEvent::MinIdle(2), Duration::ZERO));
        running.abort();
    }
}
