//! The faults: their names, what happens, and the numbers that they take.

use serde::{Deserialize, Serialize};

use super::operation::{Call, Operation, Side};
use super::spec::FaultError;
use crate::nearest::nearest;

/// Longest time of a fault, in seconds. It is the life of an ephemeral registration that is not used.
const SECONDS_MAX: u64 = 24 * 3600;
/// Longest delay of a reply, in seconds. It holds a connection.
const DELAY_SECONDS_MAX: u64 = 600;

/// A failure of a forge that the lab can play. Each is an observed failure of GitHub, of a proxy before it, or of its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The call is carried out, and its reply comes late.
    DelayReply,
    /// The call is carried out, and the connection ends without a reply, as when the reply with a JIT config is lost.
    DropReply,
    /// The call is carried out, and the connection ends in the middle of the reply's body, as when a proxy cuts a long poll.
    TruncateReply,
    /// The call is carried out, and the reply has its status and no body (actions-runner-controller #4285).
    EmptyReply,
    /// The reply's JSON begins with a byte order mark, as answers of the Actions Service do.
    ByteOrderMark,
    /// Each object of the reply has one more member, which no client knows.
    UnknownMembers,
    /// The ids in the reply are strings in place of numbers.
    TextIds,
    /// A runner is deleted, and the reply is the 404 of a second deletion, as when a proxy has repeated the call.
    NotFoundAfterDelete,
    /// A later page of a list lacks its first entries, because entries before them were removed between two pages.
    MovingPages,
    /// The REST API has a small budget of calls, states it in the headers of each reply, and refuses calls beyond it with 403.
    RateLimit,
    /// 403 for a secondary rate limit, with `retry-after`.
    SecondaryLimit,
    /// 403 for a secondary rate limit that names no time; only the message differs from a missing permission.
    SecondaryLimitWithoutWait,
    /// The call is refused by a server that fails.
    ServerError,
    /// 401: the token is refused, as after its key was rotated, or at a replica that does not know it yet.
    Unauthorized,
    /// A poll ends at once without a message: 202 for the listener of a scale set, 204 for a runner.
    EmptyPoll,
    /// The broker refuses the runner app, because its version is too old.
    VersionTooOld,
    /// 409 for a new runner, as if its name were taken (runs-on #30, ubicloud #692).
    NameConflict,
    /// The deletion of a runner is refused, as if it had a job: 422, or `JobStillRunningException` at the Actions Service.
    BusyDelete,
    /// 409 for a new session, as if another listener or runner process held it (actions-runner-controller #3209, #4285).
    SessionConflict,
    /// The token of a scale set's queue ends soon after the session that brings it was opened or refreshed.
    QueueTokenExpiry,
    /// The registration of a JIT config is removed if it has no job after a time, also while its runner polls.
    RegistrationExpiry,
    /// The token endpoint's clock is ahead, so it calls the runner's assertion too old.
    ClockSkew,
    /// A delivery about a job is never sent; it is in the hook's list as failed.
    WebhookLoss,
    /// A delivery about a job is sent twice, with the same GUID.
    WebhookDuplicate,
    /// A delivery about a job is sent after the next one of its hook, or after five seconds.
    WebhookReorder,
    /// A queued job goes to a runner with its labels that the lab makes up, and is over soon.
    JobTheft,
    /// The run of a queued job is cancelled before a runner gets the job.
    CancelBeforePickUp,
    /// The message that offers a job to a runner is lost, so the job is queued again after 60 seconds. Its scale set reads of a
    /// cancelled job without a runner.
    Requeue,
    /// New ids are above 2^53, which a JSON reader that uses floating point rounds.
    LargeIds,
}

/// The number that a fault takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultValue {
    /// The meaning of the number, with its unit.
    pub meaning: &'static str,
    /// The number if none is given.
    pub default: u64,
    /// The least number.
    pub min: u64,
    /// The greatest number.
    pub max: u64,
}

impl Fault {
    /// All faults, in the order of the documentation.
    pub const ALL: [Self; 29] = [
        Self::DelayReply,
        Self::DropReply,
        Self::TruncateReply,
        Self::EmptyReply,
        Self::ByteOrderMark,
        Self::UnknownMembers,
        Self::TextIds,
        Self::NotFoundAfterDelete,
        Self::MovingPages,
        Self::RateLimit,
        Self::SecondaryLimit,
        Self::SecondaryLimitWithoutWait,
        Self::ServerError,
        Self::Unauthorized,
        Self::EmptyPoll,
        Self::VersionTooOld,
        Self::NameConflict,
        Self::BusyDelete,
        Self::SessionConflict,
        Self::QueueTokenExpiry,
        Self::RegistrationExpiry,
        Self::ClockSkew,
        Self::WebhookLoss,
        Self::WebhookDuplicate,
        Self::WebhookReorder,
        Self::JobTheft,
        Self::CancelBeforePickUp,
        Self::Requeue,
        Self::LargeIds,
    ];

    /// Returns the name in commands, in JSON and in the documentation.
    pub fn name(self) -> &'static str {
        match self {
            Self::DelayReply => "delay-reply",
            Self::DropReply => "drop-reply",
            Self::TruncateReply => "truncate-reply",
            Self::EmptyReply => "empty-reply",
            Self::ByteOrderMark => "byte-order-mark",
            Self::UnknownMembers => "unknown-members",
            Self::TextIds => "text-ids",
            Self::NotFoundAfterDelete => "not-found-after-delete",
            Self::MovingPages => "moving-pages",
            Self::RateLimit => "rate-limit",
            Self::SecondaryLimit => "secondary-limit",
            Self::SecondaryLimitWithoutWait => "secondary-limit-without-wait",
            Self::ServerError => "server-error",
            Self::Unauthorized => "unauthorized",
            Self::EmptyPoll => "empty-poll",
            Self::VersionTooOld => "version-too-old",
            Self::NameConflict => "name-conflict",
            Self::BusyDelete => "busy-delete",
            Self::SessionConflict => "session-conflict",
            Self::QueueTokenExpiry => "queue-token-expiry",
            Self::RegistrationExpiry => "registration-expiry",
            Self::ClockSkew => "clock-skew",
            Self::WebhookLoss => "webhook-loss",
            Self::WebhookDuplicate => "webhook-duplicate",
            Self::WebhookReorder => "webhook-reorder",
            Self::JobTheft => "job-theft",
            Self::CancelBeforePickUp => "cancel-before-pick-up",
            Self::Requeue => "requeue",
            Self::LargeIds => "large-ids",
        }
    }

    /// Returns the fault with this name.
    ///
    /// # Errors
    /// [`FaultError::UnknownFault`] with the nearest name.
    pub fn parse(name: &str) -> Result<Self, FaultError> {
        let found = Self::ALL.into_iter().find(|fault| fault.name() == name);
        found.ok_or_else(|| FaultError::UnknownFault {
            name: name.chars().take(60).collect(),
            nearest: nearest(name, Self::ALL.map(Self::name)),
        })
    }

    /// Returns what the fault's number means. `None` if it takes none.
    pub fn value(self) -> Option<FaultValue> {
        let seconds = |meaning, default| FaultValue { meaning, default, min: 0, max: SECONDS_MAX };
        Some(match self {
            Self::DelayReply => FaultValue { max: DELAY_SECONDS_MAX, ..seconds("seconds of delay", 5) },
            Self::RateLimit => FaultValue { meaning: "calls per window", default: 10, min: 0, max: 100_000 },
            Self::SecondaryLimit => FaultValue { min: 1, ..seconds("seconds in `retry-after`", 60) },
            Self::ServerError => FaultValue { meaning: "status", default: 503, min: 500, max: 599 },
            Self::QueueTokenExpiry => seconds("seconds of life", 5),
            Self::RegistrationExpiry => seconds("seconds of life", 60),
            Self::ClockSkew => FaultValue { min: 1, ..seconds("seconds ahead", 3600) },
            Self::JobTheft => seconds("seconds in the queue", 1),
            Self::CancelBeforePickUp => seconds("seconds in the queue", 1),
            Self::MovingPages => FaultValue { meaning: "missing entries", default: 1, min: 1, max: 100 },
            _ => return None,
        })
    }

    /// Returns true if the fault can happen to this call.
    pub(super) fn fits(self, call: Call) -> bool {
        use Operation as Op;
        let Call { operation, side } = call;
        match self {
            Self::DelayReply
            | Self::DropReply
            | Self::TruncateReply
            | Self::EmptyReply
            | Self::ByteOrderMark
            | Self::UnknownMembers
            | Self::TextIds
            | Self::ServerError
            | Self::Unauthorized => side != Side::Inside,
            Self::RateLimit | Self::SecondaryLimit | Self::SecondaryLimitWithoutWait => side == Side::Rest,
            Self::NotFoundAfterDelete | Self::BusyDelete => operation == Op::DeleteRunner,
            Self::MovingPages => matches!(operation, Op::ListRunners | Op::ListJobs) && side == Side::Rest,
            Self::EmptyPoll => matches!(operation, Op::Message | Op::RunnerMessage),
            Self::VersionTooOld => matches!(operation, Op::RunnerSession | Op::RunnerMessage),
            Self::NameConflict | Self::RegistrationExpiry => operation == Op::GenerateJitconfig,
            Self::SessionConflict => matches!(operation, Op::Session | Op::RunnerSession),
            Self::QueueTokenExpiry => matches!(operation, Op::Session | Op::RefreshSession),
            Self::ClockSkew => operation == Op::Oauth,
            Self::WebhookLoss | Self::WebhookDuplicate | Self::WebhookReorder => operation == Op::Webhook,
            Self::JobTheft | Self::CancelBeforePickUp | Self::Requeue => operation == Op::Job,
            Self::LargeIds => operation == Op::NewId,
        }
    }

    /// Returns the part of the lab that plays the fault.
    pub(super) fn stage(self) -> Stage {
        match self {
            Self::RateLimit
            | Self::SecondaryLimit
            | Self::SecondaryLimitWithoutWait
            | Self::ServerError
            | Self::Unauthorized
            | Self::EmptyPoll
            | Self::VersionTooOld => Stage::Before,
            Self::DelayReply
            | Self::DropReply
            | Self::TruncateReply
            | Self::EmptyReply
            | Self::ByteOrderMark
            | Self::UnknownMembers
            | Self::TextIds
            | Self::NotFoundAfterDelete
            | Self::MovingPages => Stage::After,
            _ => Stage::State,
        }
    }
}

/// The part of the lab that plays a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The layer, which refuses the call, so that nothing is carried out.
    Before,
    /// The layer, after the call was carried out and its changes are in the journal.
    After,
    /// The state itself.
    State,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_fault_has_one_name_in_json_and_in_commands() {
        for fault in Fault::ALL {
            assert_eq!(serde_json::to_value(fault).unwrap(), fault.name());
            assert_eq!(Fault::parse(fault.name()).unwrap(), fault);
        }
    }

    #[test]
    fn every_fault_can_happen_to_some_call() {
        for fault in Fault::ALL {
            assert!(Call::ALL.iter().any(|call| fault.fits(*call)), "{}", fault.name());
        }
    }
}
