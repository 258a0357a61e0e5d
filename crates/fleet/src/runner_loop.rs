//! A loop: one runner after another, until it has made as many as it should or is stopped.

use std::time::Duration;

use dayfly_forge::client::Forge;
use dayfly_vm::VmHost;

use crate::event::EventSink;
use crate::runner::{RunnerEnd, RunnerError, run_one};
use crate::settings::{Limits, LoopSettings};
use crate::stop::{Stop, StopOrder};

/// How a loop ended.
#[derive(Debug)]
pub enum LoopEnd {
    /// It has made as many runners as it should; how the last one ended.
    Finished(RunnerEnd),
    /// It was stopped by whoever started it.
    Stopped,
    /// A runner could not be made, and trying again would not help.
    Failed(RunnerError),
}

/// Runs a loop to its end. Its runners' events go to `events`; `stop` ends it.
pub async fn run_loop(
    settings: LoopSettings,
    host: &VmHost,
    forge: &Forge,
    events: &EventSink,
    mut stop: Stop,
) -> LoopEnd {
    let mut made = 0;
    let mut failures = 0;
    loop {
        match run_one(&settings, host, forge, events, &stop).await {
            Ok(RunnerEnd::Stopped) => return LoopEnd::Stopped,
            Ok(end @ RunnerEnd::Broken) => return LoopEnd::Finished(end),
            Ok(end) => {
                failures = 0;
                made += 1;
                if settings.repeat.is_some_and(|repeat| made >= repeat.get()) {
                    return LoopEnd::Finished(end);
                }
            }
            Err(error) if !error.is_worth_a_retry() || settings.repeat.is_some() => {
                return LoopEnd::Failed(error);
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(loop_index = settings.index, failures, "{error}");
                let pause = pause_after(failures, &settings.limits);
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

/// The pause before the next try after this many failures in a row.
fn pause_after(failures: u32, limits: &Limits) -> Duration {
    limits.retry_first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(limits.retry_most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let limits = Limits::default();
        let seconds: Vec<u64> = [1, 2, 3, 6, 7, 1000].map(|n| pause_after(n, &limits).as_secs()).to_vec();
        assert_eq!(seconds, [1, 2, 4, 32, 60, 60]);
    }
}
