//! Runs a slot: creates one runner after another, until it has created its number of runners or is stopped.

use std::fmt;
use std::time::Duration;

use dayfly_vm::VmHost;

use crate::fact::Fact;
use crate::history::History;
use crate::pool::Pool;
use crate::reaper::{LAST_ATTEMPT, reap, reap_once};
use crate::recovery::Inherited;
use crate::runner::{EndedRunner, RunnerEnd, RunnerError, run_inherited, run_one};
use crate::slot::Slot;
use crate::stop::{Stop, StopOrder};
use crate::stream::FactSink;

/// The end of a loop.
#[derive(Debug)]
pub enum LoopEnd {
    /// It has created its number of runners (those that ended without a job soon after they were up do not count, if it tries
    /// again), or the last one has reached its lifetime. Holds the end of the last runner.
    Finished(RunnerEnd),
    /// Its caller stopped it.
    Stopped,
    /// A program in the VM ended it by a `.brk` with the right secret.
    Broken,
    /// A runner could not be created, and another attempt would not help.
    Failed(RunnerError),
}

/// Runs a loop that no orchestrator runs to its end. Its first runner is the inherited one, if there is one. Sends the facts of
/// its runners to `facts`; `stop` ends it.
pub async fn run_loop(
    (pool, slot, host): (&Pool, &Slot, &VmHost),
    inherited: Option<Inherited>,
    facts: &FactSink,
    stop: Stop,
) -> LoopEnd {
    let history = History::of(&host.state);
    let end = tokio::select! {
        end = run_slot((pool, slot, host), inherited, facts, stop.clone()) => end,
        never = reap(&pool.leftovers, &pool.forge, pool.limits.cleanup, (facts, &history)) => match never {},
    };
    if stop.order() != StopOrder::HandOver {
        let last = reap_once(&pool.leftovers, &pool.forge, (facts, &history));
        let _ = tokio::time::timeout(LAST_ATTEMPT, last).await;
    }
    end
}

/// Runs a slot to its end.
pub(crate) async fn run_slot(
    (pool, slot, host): (&Pool, &Slot, &VmHost),
    mut inherited: Option<Inherited>,
    facts: &FactSink,
    mut stop: Stop,
) -> LoopEnd {
    let (mut made, mut failures, mut taken_names) = (0, 0, 0);
    // A limited number of runners is tried once each, unless the slot is patient.
    let tries_again = slot.repeat.is_none() || slot.is_patient;
    loop {
        let EndedRunner { result, up_for } = match inherited.take() {
            // Its instance goes with it.
            Some(inherited) => Box::pin(run_inherited(&inherited, (pool, slot, host), facts, &stop)).await,
            None => run_one(pool, slot, host, facts, &stop).await,
        };
        let failed = match result {
            Ok(RunnerEnd::Stopped) => return LoopEnd::Stopped,
            Ok(RunnerEnd::Broken) => return LoopEnd::Broken,
            Ok(end @ RunnerEnd::LifetimeOver) => return LoopEnd::Finished(end),
            Ok(end) if tries_again && is_wasted(&end, up_for, pool.limits.settled) => {
                FailedRunner::Wasted(end)
            }
            Ok(end) => {
                (failures, taken_names) = (0, 0);
                made += 1;
                if slot.repeat.is_some_and(|repeat| made >= repeat.get()) {
                    return LoopEnd::Finished(end);
                }
                if stop.order() != StopOrder::None {
                    return LoopEnd::Stopped;
                }
                continue;
            }
            // Also if only one runner is wanted, because that one does not exist.
            Err(error) if error.is_taken_name() => FailedRunner::Name(error),
            Err(error) if !error.is_worth_a_retry() || !tries_again => return LoopEnd::Failed(error),
            Err(error) => FailedRunner::Error(error),
        };
        failures += 1;
        let pause = match failed {
            FailedRunner::Name(_) => {
                taken_names += 1;
                pool.limits.taken_name.pause_after(taken_names)
            }
            FailedRunner::Wasted(_) | FailedRunner::Error(_) => {
                taken_names = 0;
                pool.limits.retry.pause_after(failures)
            }
        };
        let Some(pause) = pause else { return failed.end() };
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        let fact = Fact::Retrying { why: failed.to_string(), count: failures, pause_ms };
        facts.of_loop(slot.index).tell(fact).await;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.above(StopOrder::None) => return LoopEnd::Stopped,
        }
    }
}

/// A runner that counts as a failure: the next one comes after a pause, and it does not count as one of the loop's number.
enum FailedRunner {
    /// It ended without a job soon after its app was up.
    Wasted(RunnerEnd),
    /// Its name, which is random, is taken.
    Name(RunnerError),
    Error(RunnerError),
}

impl FailedRunner {
    fn end(self) -> LoopEnd {
        match self {
            Self::Wasted(end) => LoopEnd::Finished(end),
            Self::Name(error) | Self::Error(error) => LoopEnd::Failed(error),
        }
    }
}

impl fmt::Display for FailedRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wasted(RunnerEnd::MachineLost { exit }) => {
                write!(f, "its machine has ended in the middle of its work: {exit}")
            }
            Self::Wasted(_) => f.write_str("its runner app ended at once, without a job"),
            Self::Name(error) => write!(f, "{error}; the next one has another name"),
            Self::Error(error) => error.fmt(f),
        }
    }
}

/// Returns true if a runner ended without a job so soon that the next one would probably do the same. Without a pause, such
/// an image or job makes the loop register, boot and delete as fast as it can, and uses up the calls of the token.
fn is_wasted(end: &RunnerEnd, up_for: Option<Duration>, settled: Duration) -> bool {
    matches!(end, RunnerEnd::NoJob | RunnerEnd::MachineLost { .. })
        && up_for.is_none_or(|time| time < settled)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dayfly_host::retry::Retry;
    use dayfly_vm::Launcher;

    use super::*;
    use crate::fact::FactRecord;
    use crate::orchestrator::tests::{lab, pool_of_processes};

    /// Runs the loop of one runner at a lab with this fault, and returns its end and its facts. No machine can start.
    async fn ended_with(fault: &str) -> (LoopEnd, Vec<FactRecord>) {
        let folder = tempfile::tempdir().expect("a folder");
        let (forge, _lab) = lab(&folder.path().join("lab")).await;
        let fault: dayfly_lab::fault::FaultSpec = fault.parse().expect("a fault");
        forge.add_lab_fault(serde_json::json!(fault)).await.expect("ordered");
        let mut pool = pool_of_processes(forge, ("/x".into(), "/x".into()), folder.path().join("runs"));
        let rule = &mut pool.limits.taken_name;
        *rule = Retry { first: Duration::ZERO, limit: Duration::ZERO, ..*rule };
        let launcher = Launcher { program: "/nonexistent".into(), args: Vec::new() };
        let host = VmHost::new(folder.path().to_owned(), launcher);
        let slot = Slot::new(&pool, 1, folder.path().join("environment"));
        let (sink, mut facts) = crate::stream::channel();
        let (_sender, stop) = crate::stop::channel();
        let end = run_slot((&pool, &slot, &host), None, &sink, stop).await;
        let mut all = Vec::new();
        while let Ok(fact) = facts.try_recv() {
            all.push(fact);
        }
        (end, all)
    }

    /// Returns the names under which runners were registered, or were to be.
    fn names(facts: &[FactRecord]) -> BTreeSet<String> {
        let named = facts.iter().filter(|record| record.fact == Fact::Registering);
        named.map(|record| record.name().to_owned()).collect()
    }

    /// Returns the reasons for further attempts, without the names.
    fn said(facts: &[FactRecord]) -> Vec<String> {
        let names = names(facts);
        let without_names =
            |why: &String| names.iter().fold(why.clone(), |text, name| text.replace(name, "NAME"));
        let reasons = facts.iter().filter_map(|record| match &record.fact {
            Fact::Retrying { why, .. } => Some(why),
            _ => None,
        });
        reasons.map(without_names).collect()
    }

    #[tokio::test]
    async fn a_runner_whose_name_is_taken_is_followed_by_one_with_another_name() {
        let (end, facts) = ended_with("name-conflict,count=2").await;
        assert_eq!(names(&facts).len(), 3, "{facts:#?}");
        let is_registered = |record: &FactRecord| matches!(record.fact, Fact::Registered { .. });
        assert_eq!(facts.iter().filter(|record| is_registered(record)).count(), 1);
        assert!(
            matches!(&end, LoopEnd::Failed(error) if !error.is_taken_name()),
            "no machine starts: {end:?}"
        );
        insta::assert_snapshot!(said(&facts).first().expect("a retry"));
    }

    #[tokio::test]
    async fn a_forge_that_calls_every_name_taken_ends_the_loop_after_five_of_them() {
        let (end, facts) = ended_with("name-conflict").await;
        assert_eq!((names(&facts).len(), said(&facts).len()), (5, 4), "{facts:#?}");
        let LoopEnd::Failed(error) = end else { panic!("{end:?}") };
        assert!(error.is_taken_name(), "{error}");
    }

    #[test]
    fn a_runner_without_a_job_is_wasted_unless_it_waited_for_one() {
        let (settled, lost) = (Duration::from_secs(60), RunnerEnd::MachineLost { exit: "x".to_owned() });
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (end, up_for, expected) in [
            (RunnerEnd::NoJob, seconds(2), true),
            (RunnerEnd::NoJob, seconds(60), false),
            (RunnerEnd::NoJob, None, true),
            (lost.clone(), seconds(2), true),
            (lost, seconds(600), false),
            (RunnerEnd::JobDone { result: None }, seconds(2), false),
            (RunnerEnd::LifetimeOver, None, false),
        ] {
            assert_eq!(is_wasted(&end, up_for, settled), expected, "{end:?} {up_for:?}");
        }
    }
}
