//! Decides what a listener does after a failure, and when. Pure: the caller passes in randomness.

use std::time::Duration;

use dayfly_host::retry::{SCALE_SET, TAKEN_SCALE_SET};

use super::client::is_gone;
use super::fault::ServiceFault;
use crate::ForgeError;

/// Longest wait that a forge may demand. GitHub's budgets of calls are renewed every hour.
const DEMANDED_MAX: Duration = Duration::from_secs(3600);

/// A step of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Find or create the scale set.
    Find,
    /// Open a session.
    Open,
    /// Refresh the session.
    Refresh,
    /// Ask which jobs are offered, and acquire them.
    Acquire,
    /// Delete the last message.
    Confirm,
    /// Wait for a message.
    Poll,
}

/// The answer to a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Take the same step again.
    Again,
    /// Refresh the session at once: its token has ended, as every token does.
    RenewToken,
    /// Refresh the session, which also shows whether it still exists.
    Refresh,
    /// Open another session. The old one may still exist.
    NewSession,
    /// Find or create the scale set again.
    NewScaleSet,
    /// Leave the step out.
    GoOn,
}

/// Returns the remedy for a failed step. `token_is_new` is true if the queue has refused a token that it had just got.
pub(super) fn remedy(step: Step, error: &ForgeError, token_is_new: bool) -> Remedy {
    let is_refused = matches!(error, ForgeError::ServiceToken { .. });
    match step {
        Step::Find => Remedy::Again,
        Step::Open if is_gone(error) => Remedy::NewScaleSet,
        Step::Open => Remedy::Again,
        Step::Refresh if is_of_session(error) => Remedy::NewSession,
        Step::Refresh => Remedy::Again,
        Step::Poll | Step::Acquire | Step::Confirm if is_refused && !token_is_new => Remedy::RenewToken,
        Step::Poll if is_refused || is_gone(error) => Remedy::NewSession,
        Step::Poll => Remedy::Refresh,
        // If it is the session's fault, the poll that follows finds out.
        Step::Acquire | Step::Confirm => Remedy::GoOn,
    }
}

/// Returns true if a refresh failed because of the session: it does not exist any more, or it cannot be refreshed.
fn is_of_session(error: &ForgeError) -> bool {
    matches!(
        error,
        ForgeError::ServiceToken { .. }
            | ForgeError::NotFound { .. }
            | ForgeError::Conflict { .. }
            | ForgeError::Invalid { .. }
            | ForgeError::Service { .. }
    )
}

/// Returns the pause after this many failures in a row. `chance` is between 0 and 1 and spreads the scale sets that failed
/// at the same time.
pub(super) fn pause(error: &ForgeError, failures: u32, chance: f64) -> Duration {
    let own = |rule: dayfly_host::retry::Retry| rule.pause_after(failures).unwrap_or(rule.limit);
    match error.cause() {
        ForgeError::Service { fault: ServiceFault::SessionTaken, .. } => {
            own(TAKEN_SCALE_SET).mul_f64(0.9 + chance / 5.0)
        }
        ForgeError::RateLimited { wait, .. } | ForgeError::Server { wait: Some(wait), .. } => {
            (*wait).min(DEMANDED_MAX).max(own(SCALE_SET)) + SCALE_SET.first.mul_f64(chance)
        }
        _ => own(SCALE_SET).mul_f64(0.5 + chance),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16) -> ForgeError {
        let (what, message, needs) = (String::new(), String::new(), None);
        match status {
            401 => ForgeError::ServiceToken { what, message },
            404 => ForgeError::NotFound { what, message, needs },
            409 => ForgeError::Service { what, message, fault: ServiceFault::SessionTaken },
            429 => ForgeError::RateLimited { what, message, wait: Duration::from_secs(7200) },
            status => ForgeError::Server { what, status, message, wait: None },
        }
    }

    #[test]
    fn every_failure_of_every_step_has_a_remedy() {
        use Remedy::{Again, GoOn, NewScaleSet, NewSession, Refresh, RenewToken};
        let cases = [
            (Step::Find, [Again, Again, Again]),
            (Step::Open, [Again, NewScaleSet, Again]),
            (Step::Refresh, [NewSession, NewSession, Again]),
            (Step::Acquire, [RenewToken, GoOn, GoOn]),
            (Step::Confirm, [RenewToken, GoOn, GoOn]),
            (Step::Poll, [RenewToken, NewSession, Refresh]),
        ];
        for (step, expected) in cases {
            let found = [401, 404, 503].map(|status| remedy(step, &error(status), false));
            assert_eq!(found, expected, "{step:?}");
        }
        assert_eq!(remedy(Step::Poll, &error(401), true), NewSession, "a token that was just renewed");
    }

    #[test]
    fn a_failed_exchange_of_tokens_says_nothing_about_scale_set_and_session() {
        let shared = |status| ForgeError::Shared(std::sync::Arc::new(error(status)));
        assert_eq!(remedy(Step::Open, &shared(404), false), Remedy::Again);
        assert_eq!(remedy(Step::Refresh, &shared(401), false), Remedy::Again);
    }

    #[test]
    fn pauses_grow_to_a_minute_and_vary() {
        let seconds = |failures, chance| pause(&error(503), failures, chance).as_secs_f64();
        assert_eq!([1, 2, 3, 9, 1000].map(|failures| seconds(failures, 0.5)), [1.0, 2.0, 4.0, 60.0, 60.0]);
        assert_eq!((seconds(9, 0.0), seconds(9, 1.0)), (30.0, 90.0));
    }

    #[test]
    fn a_demanded_wait_has_a_bound_and_another_session_its_own_pace() {
        assert_eq!(pause(&error(429), 1, 0.0), Duration::from_secs(3600));
        assert_eq!([1, 20].map(|failures| pause(&error(409), failures, 0.5).as_secs()), [30, 30]);
    }
}
