//! A loop: one runner after another, until it has made as many as it should or is stopped.

use dayfly_forge::Forge;
use dayfly_vm::VmHost;

use crate::fact::Fact;
use crate::runner::{RunnerEnd, RunnerError, run_one};
use crate::settings::LoopSettings;
use crate::stop::{Stop, StopOrder};
use crate::stream::FactSink;

/// How a loop ended.
#[derive(Debug)]
pub enum LoopEnd {
    /// It has made as many runners as it should, or the last one has lived as long as it may; how that one ended.
    Finished(RunnerEnd),
    /// It was stopped by whoever started it.
    Stopped,
    /// Somebody in the VM ended it by a `.brk` with the right secret.
    Broken,
    /// A runner could not be made, and trying again would not help.
    Failed(RunnerError),
}

/// Runs a loop to its end. Sends the facts of its runners to `facts`; `stop` ends it.
pub async fn run_loop(
    settings: LoopSettings,
    host: &VmHost,
    forge: &Forge,
    facts: &FactSink,
    mut stop: Stop,
) -> LoopEnd {
    let mut made = 0;
    let mut failures = 0;
    loop {
        match run_one(&settings, host, forge, facts, &stop).await {
            Ok(RunnerEnd::Stopped) => return LoopEnd::Stopped,
            Ok(RunnerEnd::Broken) => return LoopEnd::Broken,
            Ok(end @ RunnerEnd::LifetimeOver) => return LoopEnd::Finished(end),
            Ok(end) => {
                failures = 0;
                made += 1;
                if settings.repeat.is_some_and(|repeat| made >= repeat.get()) {
                    return LoopEnd::Finished(end);
                }
            }
            Err(error) if !error.is_worth_a_retry() || (settings.repeat.is_some() && !settings.patient) => {
                return LoopEnd::Failed(error);
            }
            Err(error) => {
                failures += 1;
                let Some(pause) = settings.limits.retry.pause_after(failures) else {
                    return LoopEnd::Failed(error);
                };
                let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                let fact = Fact::Retrying { why: error.to_string(), count: failures, pause_ms };
                facts.of_loop(settings.index).tell(fact).await;
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
