//! The sources of a pool's demand, and the task that each of them is.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use dayfly_host::retry::RUNNER;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::poll::{POLL, PollSource};
use super::scale_set::{SCALE_SET, ScaleSetSource};
use super::webhook::{WEBHOOK, WebhookSource};
use super::{DemandEvent, PoolDemandSender};
use crate::fact::Fact;
use crate::pool::Pool;
use crate::stop::{Stop, StopOrder, StopSender};
use crate::stream::{FactSink, FactWriter};

/// Time between two looks at a schedule. The clock may be set meanwhile, so a schedule is never slept through.
const LOOK: Duration = Duration::from_secs(10);
/// Longest wait of a source for those that it follows. The end of a session at the forge has limits of its own.
const PREDECESSORS_LIMIT: Duration = Duration::from_secs(120);
/// Time after which a source counts as healthy, so that its earlier panics no longer count.
const HEALTHY: Duration = Duration::from_secs(600);

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

    async fn run(&mut self, demand: &PoolDemandSender, mut stop: Stop) {
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
    async fn run(&mut self, demand: &PoolDemandSender, facts: &mut FactWriter, stop: Stop) {
        match self {
            Self::ScaleSet(source) => source.run(demand, facts, stop).await,
            Self::Poll(source) => source.run(demand, facts, stop).await,
            Self::Webhook(source) => source.run(demand, facts, stop).await,
            Self::Schedule(schedule) => schedule.run(demand, stop).await,
        }
    }

    /// Runs to its end after a stop order. A panic becomes a fact, and the source runs again after a pause, because a pool
    /// without a source looks like a pool without jobs. It goes on with what it holds, such as its session at the forge.
    async fn run_to_the_end(mut self, demand: PoolDemandSender, mut facts: FactWriter, mut stop: Stop) {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let Err(panic) = or_panic(self.run(&demand, &mut facts, stop.clone())).await else { return };
            failures = if began.elapsed() >= HEALTHY { 1 } else { failures + 1 };
            let pause = RUNNER.pause_after(failures).unwrap_or(RUNNER.limit);
            let message = format!(
                "it failed because of a bug in dayfly: {panic}; it starts again in {} s",
                pause.as_secs()
            );
            facts.tell(Fact::SourceTrouble { source: self.word().to_owned(), message }).await;
            if stop.order() != StopOrder::None {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // It runs once more, to end what it holds at the forge.
                _ = stop.above(StopOrder::None) => {}
            }
        }
    }

    /// Returns the word for the source in facts.
    fn word(&self) -> &'static str {
        match self {
            Self::ScaleSet(_) => SCALE_SET,
            Self::Poll(_) => POLL,
            Self::Webhook(_) => WEBHOOK,
            Self::Schedule(_) => "schedule",
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
            source.run_to_the_end(demand, facts, stop).await;
        });
    }
}

/// Waits for a future. A panic in it becomes an error, which holds the message of the panic.
async fn or_panic<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(move |context| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        match polled {
            Ok(polled) => polled.map(Ok),
            // The future is not polled again.
            Err(panic) => Poll::Ready(Err(message_of(&*panic))),
        }
    })
    .await
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Returns a schedule that panics when it is looked at for the first times, and says 1 afterwards.
    fn panicking(times: u32) -> Source {
        let looks = AtomicU32::new(0);
        let (schedule, _) = MinIdleSchedule::new(Box::new(move || {
            let look = looks.fetch_add(1, Ordering::Relaxed);
            assert!(look >= times, "look {look}");
            1
        }));
        Source::Schedule(schedule)
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_panics_says_so_and_starts_again_after_pauses_that_double() {
        let (senders, mut demand) = crate::demand::channel();
        let (sink, mut facts) = crate::stream::channel();
        let (stop_sender, stop) = crate::stop::channel();
        let began = Instant::now();
        let running = tokio::spawn(panicking(2).run_to_the_end(senders.of(0), sink.of_loop(0), stop));
        for (look, pause) in [(0, 1), (1, 2)] {
            let message =
                format!("it failed because of a bug in dayfly: look {look}; it starts again in {pause} s");
            let source = "schedule".to_owned();
            let record = facts.recv().await.expect("a fact");
            assert_eq!(record.fact, Fact::SourceTrouble { source, message });
        }
        assert_eq!(demand.recv().await.expect("a demand").event, DemandEvent::MinIdle(1));
        assert_eq!(began.elapsed().as_secs(), 3);
        stop_sender.order(StopOrder::Gently);
        running.await.expect("it ends, and no panic leaves it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_always_panics_ends_after_a_stop_order() {
        let (senders, _demand) = crate::demand::channel();
        let (sink, mut facts) = crate::stream::channel();
        let (stop_sender, stop) = crate::stop::channel();
        let running = tokio::spawn(panicking(u32::MAX).run_to_the_end(senders.of(0), sink.of_loop(0), stop));
        facts.recv().await.expect("the first panic");
        stop_sender.order(StopOrder::Gently);
        running.await.expect("it ends");
        facts.recv().await.expect("the last run, which could have ended a session");
        assert!(facts.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_schedule_counts_at_once() {
        let (senders, mut demand) = crate::demand::channel();
        let (mut schedule, setter) = MinIdleSchedule::new(Box::new(|| 1));
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
