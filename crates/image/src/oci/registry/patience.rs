//! The decision about a request that a registry did not answer with success: give up, authenticate, or send it again.

use std::time::Duration;

use dayfly_host::retry::REGISTRY_REQUEST;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// Longest time in total that a request waits for a registry that asks to retry later.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// Wait if the registry does not say how long, and the shortest wait.
const WAIT_DEFAULT: Duration = Duration::from_secs(5);
const WAIT_MIN: Duration = Duration::from_secs(1);

/// The cause of an attempt's failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The registry requires authentication, or a valid one.
    Unauthorized,
    /// The registry refuses access.
    Forbidden,
    /// The registry does not have the requested thing.
    NotFound,
    /// The registry asks to retry later; `wait` is the time that it names.
    Busy {
        /// Time from now.
        wait: Option<Duration>,
    },
    /// The connection or the registry failed, which may be temporary.
    Temporary,
    /// The registry refuses the request for another reason.
    Permanent,
}

impl Failure {
    /// Returns the meaning of an answer other than success.
    pub(super) fn of_answer(status: StatusCode, headers: &HeaderMap) -> Self {
        let retry_after = headers.get(RETRY_AFTER);
        let wait = || retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized,
            StatusCode::FORBIDDEN => Self::Forbidden,
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::TOO_MANY_REQUESTS => Self::Busy { wait: wait().map(Duration::from_secs) },
            StatusCode::SERVICE_UNAVAILABLE if retry_after.is_some() => {
                Self::Busy { wait: wait().map(Duration::from_secs) }
            }
            StatusCode::NOT_IMPLEMENTED => Self::Permanent,
            status if status.is_server_error() => Self::Temporary,
            _ => Self::Permanent,
        }
    }
}

/// The step after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Fail.
    GiveUp,
    /// Authenticate, and send the request again at once.
    Authenticate,
    /// Send the request again after this pause.
    Retry(Duration),
}

/// The failed attempts of one request.
#[derive(Debug, Default)]
pub(super) struct Patience {
    failures: u32,
    waited: Duration,
    has_authenticated: bool,
}

impl Patience {
    /// Counts a failed attempt and decides about the next one. A request authenticates once. Waits that the registry
    /// demands do not count as failures, but have a limit of their own.
    pub(super) fn after(&mut self, failure: Failure) -> Next {
        match failure {
            Failure::Unauthorized if !self.has_authenticated => {
                self.has_authenticated = true;
                Next::Authenticate
            }
            Failure::Unauthorized | Failure::Forbidden | Failure::NotFound | Failure::Permanent => {
                Next::GiveUp
            }
            Failure::Busy { wait } => self.wait(wait.unwrap_or(WAIT_DEFAULT).max(WAIT_MIN)),
            Failure::Temporary => {
                self.failures += 1;
                REGISTRY_REQUEST.pause_after(self.failures).map_or(Next::GiveUp, Next::Retry)
            }
        }
    }

    fn wait(&mut self, wait: Duration) -> Next {
        // A registry may name any number of seconds.
        let waited = self.waited.saturating_add(wait);
        if waited > WAIT_MAX {
            return Next::GiveUp;
        }
        self.waited = waited;
        Next::Retry(wait)
    }

    /// Returns the time that the request has waited because the registry asked for it.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(seconds: u64) -> Failure {
        Failure::Busy { wait: Some(Duration::from_secs(seconds)) }
    }

    fn retry(milliseconds: u64) -> Next {
        Next::Retry(Duration::from_millis(milliseconds))
    }

    fn decisions(failures: &[Failure]) -> Vec<Next> {
        let mut patience = Patience::default();
        failures.iter().map(|failure| patience.after(*failure)).collect()
    }

    fn answer(status: u16, retry_after: Option<&str>) -> Failure {
        let headers = retry_after.map(|value| (RETRY_AFTER, value.parse().expect("a header")));
        Failure::of_answer(StatusCode::from_u16(status).expect("a status"), &headers.into_iter().collect())
    }

    #[test]
    fn a_registry_that_fails_is_asked_four_times_with_growing_pauses() {
        let failures = [Failure::Temporary; 4];
        assert_eq!(decisions(&failures), [retry(500), retry(1000), retry(2000), Next::GiveUp]);
    }

    #[test]
    fn a_request_authenticates_once() {
        let failures = [Failure::Unauthorized, Failure::Unauthorized];
        assert_eq!(decisions(&failures), [Next::Authenticate, Next::GiveUp]);
    }

    #[test]
    fn permanent_refusals_end_the_request_at_once() {
        for failure in [Failure::Forbidden, Failure::NotFound, Failure::Permanent] {
            assert_eq!(decisions(&[failure]), [Next::GiveUp], "{failure:?}");
        }
    }

    #[test]
    fn demanded_waits_and_authentication_are_not_failures() {
        let failures = [Failure::Temporary, busy(2), Failure::Unauthorized, Failure::Temporary, busy(3)];
        let expected = [retry(500), retry(2000), Next::Authenticate, retry(1000), retry(3000)];
        assert_eq!(decisions(&failures), expected);
    }

    #[test]
    fn demanded_waits_have_a_limit_in_total() {
        assert_eq!(decisions(&[busy(301)]), [Next::GiveUp]);
        assert_eq!(
            decisions(&[busy(200), busy(100), busy(1)]),
            [retry(200_000), retry(100_000), Next::GiveUp]
        );
        assert_eq!(decisions(&[busy(1), busy(u64::MAX)]), [retry(1000), Next::GiveUp]);
    }

    #[test]
    fn a_wait_without_a_usable_length_is_a_short_one() {
        assert_eq!(decisions(&[busy(0), Failure::Busy { wait: None }]), [retry(1000), retry(5000)]);
    }

    #[test]
    fn answers_have_the_meaning_that_the_protocol_gives_them() {
        for (status, retry_after, expected) in [
            (401, None, Failure::Unauthorized),
            (403, None, Failure::Forbidden),
            (404, None, Failure::NotFound),
            (400, Some("5"), Failure::Permanent),
            (416, None, Failure::Permanent),
            (429, Some(" 7 "), busy(7)),
            (429, Some("Wed, 21 Oct 2026 07:28:00 GMT"), Failure::Busy { wait: None }),
            (429, None, Failure::Busy { wait: None }),
            (503, Some("7"), busy(7)),
            (503, None, Failure::Temporary),
            (500, Some("7"), Failure::Temporary),
        ] {
            assert_eq!(answer(status, retry_after), expected, "{status} {retry_after:?}");
        }
    }
}
