//! The faults that a soak can play: at which calls, with which number, how often. Pure.
//!
//! The soak is a client of its lab too: it dispatches jobs. So a fault is always for a named operation, never for a
//! group of them, and none is for the calls of the soak. A fault that makes forge and runner app lose a job between
//! themselves, whatever dayfly does, is not played there: a reply to `acquire-job` is never lost, and no poll of a busy
//! runner app ends the app.

use dayfly_lab::fault::{Fault, FaultSpec, Operation, Trigger};

use super::dice::Dice;

/// How long a fault waits for its occasion, in seconds. The desk holds a limited number of them.
const OCCASION_S: u64 = 120;

/// The calls of dayfly itself, which the orchestrator or a loop makes.
const OF_DAYFLY: &[Operation] = &[
    Operation::GenerateJitconfig,
    Operation::RegistrationToken,
    Operation::DeleteRunner,
    Operation::GetRunner,
    Operation::ListRunners,
    Operation::ListJobs,
    Operation::ServiceToken,
    Operation::ScaleSet,
    Operation::Session,
    Operation::RefreshSession,
    Operation::CloseSession,
    Operation::Message,
    Operation::DeleteMessage,
    Operation::Acquire,
];
/// The calls of a runner app whose failure it survives, because it repeats them.
const OF_RUNNER: &[Operation] = &[
    Operation::Oauth,
    Operation::RunnerSession,
    Operation::RunnerMessage,
    Operation::AcquireJob,
    Operation::RenewJob,
    Operation::CompleteJob,
];
/// The calls of the REST API among those of dayfly.
const OF_REST: &[Operation] = &[
    Operation::RegistrationToken,
    Operation::ListRunners,
    Operation::GetRunner,
    Operation::ListJobs,
    Operation::DeleteRunner,
    Operation::GenerateJitconfig,
];

/// Returns the operations at which a soak plays a fault. It is empty for the faults of webhooks, which no pool of a
/// soak has.
pub(super) fn places(fault: Fault) -> Vec<Operation> {
    match fault {
        Fault::DelayReply | Fault::UnknownMembers => both(&[]),
        Fault::ServerError => both(&[]),
        // A second acquisition of the same job is refused, so the job would be lost between forge and runner app.
        Fault::DropReply | Fault::TruncateReply | Fault::EmptyReply => both(&[Operation::AcquireJob]),
        Fault::ByteOrderMark | Fault::TextIds => OF_DAYFLY.to_vec(),
        Fault::Unauthorized => vec![
            Operation::ServiceToken,
            Operation::GenerateJitconfig,
            Operation::Session,
            Operation::RefreshSession,
            Operation::Message,
            Operation::Acquire,
            Operation::RunnerMessage,
        ],
        Fault::RateLimit | Fault::SecondaryLimit | Fault::SecondaryLimitWithoutWait => OF_REST.to_vec(),
        Fault::NotFoundAfterDelete | Fault::BusyDelete => vec![Operation::DeleteRunner],
        Fault::MovingPages => vec![Operation::ListRunners, Operation::ListJobs],
        Fault::EmptyPoll => vec![Operation::Message, Operation::RunnerMessage],
        // At a poll it would end a runner app that has a job.
        Fault::VersionTooOld => vec![Operation::RunnerSession],
        Fault::NameConflict | Fault::RegistrationExpiry => vec![Operation::GenerateJitconfig],
        Fault::SessionConflict => vec![Operation::RunnerSession, Operation::Session],
        Fault::QueueTokenExpiry => vec![Operation::Session, Operation::RefreshSession],
        Fault::ClockSkew => vec![Operation::Oauth],
        Fault::JobTheft | Fault::CancelBeforePickUp | Fault::Requeue => vec![Operation::Job],
        Fault::LargeIds => vec![Operation::NewId],
        Fault::WebhookLoss | Fault::WebhookDuplicate | Fault::WebhookReorder => Vec::new(),
    }
}

fn both(without: &[Operation]) -> Vec<Operation> {
    OF_DAYFLY.iter().chain(OF_RUNNER).copied().filter(|one| !without.contains(one)).collect()
}

/// Draws an order for a fault. Returns none if no pool of a soak can have it.
pub(super) fn draw(fault: Fault, dice: &mut Dice) -> Option<FaultSpec> {
    let on = dice.one_of(&places(fault))?;
    let (mut value, mut for_s) = (None, Some(OCCASION_S));
    let mut trigger = Trigger::Count(u32::try_from(dice.between(1, 3)).unwrap_or(1));
    match fault {
        Fault::DelayReply => value = Some(dice.between(1, 5)),
        Fault::ServerError => value = dice.one_of(&[500, 502, 503]),
        Fault::RateLimit => {
            (value, for_s) = (Some(dice.between(2, 10)), Some(dice.between(5, 15)));
            trigger = Trigger::Always;
        }
        // Each of these holds back all calls of a client for a time, so one at a time is enough.
        Fault::SecondaryLimit => (value, trigger) = (Some(dice.between(1, 10)), Trigger::Count(1)),
        Fault::SecondaryLimitWithoutWait => trigger = Trigger::Count(1),
        Fault::QueueTokenExpiry => value = Some(dice.between(2, 10)),
        Fault::RegistrationExpiry => value = Some(dice.between(5, 20)),
        Fault::ClockSkew => value = Some(dice.between(600, 7200)),
        // Each of these costs a job, or a minute of it.
        Fault::JobTheft | Fault::CancelBeforePickUp | Fault::Requeue => trigger = Trigger::Count(1),
        _ => {}
    }
    Some(FaultSpec { fault, on: Some(on), trigger, for_s, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_but_those_of_webhooks_can_be_played_and_is_an_order_that_the_desk_takes() {
        let mut dice = Dice::new(1, 1);
        for fault in Fault::ALL {
            let name = fault.name();
            assert_eq!(places(fault).is_empty(), name.starts_with("webhook-"), "{name}");
            for _ in 0..100 {
                if let Some(spec) = draw(fault, &mut dice) {
                    assert_eq!(spec.check(), Ok(()), "{spec}");
                }
            }
        }
        for fault in Fault::ALL {
            for on in places(fault) {
                let spec = FaultSpec { on: Some(on), ..FaultSpec::new(fault) };
                assert_eq!(spec.check(), Ok(()), "{spec}");
            }
        }
    }

    #[test]
    fn no_fault_is_for_the_calls_of_the_soak_or_loses_a_job_between_forge_and_runner_app() {
        for fault in Fault::ALL {
            let groups = [Operation::Rest, Operation::Service, Operation::Runner];
            assert!(places(fault).iter().all(|on| !groups.contains(on)), "{}", fault.name());
        }
        for fault in [Fault::DropReply, Fault::TruncateReply, Fault::EmptyReply, Fault::TextIds] {
            assert!(!places(fault).contains(&Operation::AcquireJob), "{}", fault.name());
        }
    }
}
