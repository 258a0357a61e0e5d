//! Runs a slot: creates one runner after another, until it has created its number of runners or is stopped.

use dayfly_vm::VmHost;

use crate::fact::Fact;
use crate::pool::Pool;
use crate::runner::{RunnerEnd, RunnerError, run_one};
use crate::slot::Slot;
use crate::stop::{Stop, StopOrder};
use crate::stream::FactSink;

/// The end of a loop.
#[derive(Debug)]
pub enum LoopEnd {
    /// It has created its number of runners, or the last one has reached its lifetime. Holds the end of the last runner.
    Finished(RunnerEnd),
    /// Its caller stopped it.
    Stopped,
    /// A program in the VM ended it by a `.brk` with the right secret.
    Broken,
    /// A runner could not be created, and another attempt would not help.
    Failed(RunnerError),
}

/// Runs a loop to its end. Sends the facts of its runners to `facts`; `stop` ends it.
pub async fn run_loop(pool: &Pool, slot: &Slot, host: &VmHost, facts: &FactSink, mut stop: Stop) -> LoopEnd {
    let mut made = 0;
    let mut failures = 0;
    loop {
        match run_one(pool, slot, host, facts, &stop).await {
            Ok(RunnerEnd::Stopped) => return LoopEnd::Stopped,
            Ok(RunnerEnd::Broken) => return LoopEnd::Broken,
            Ok(end @ RunnerEnd::LifetimeOver) => return LoopEnd::Finished(end),
            Ok(end) => {
                failures = 0;
                made += 1;
                if slot.repeat.is_some_and(|repeat| made >= repeat.get()) {
                    return LoopEnd::Finished(end);
                }
            }
            Err(error) if !error.is_worth_a_retry() || (slot.repeat.is_some() && !slot.is_patient) => {
                return LoopEnd::Failed(error);
            }
            Err(error) => {
                failures += 1;
                let Some(pause) = pool.limits.retry.pause_after(failures) else {
                    return LoopEnd::Failed(error);
                };
                let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                let fact = Fact::Retrying { why: error.to_string(), count: failures, pause_ms };
                facts.of_loop(slot.index).tell(fact).await;
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stop.above(StopOrder::None) => return LoopEnd::Stopped,
                }
            }
        }
        if stop.order() != StopOrder::None {
            return LoopEnd::Stopped;
        }
    }
}
