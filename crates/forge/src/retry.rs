//! Rules for repeating a call. The functions are pure: the caller passes in time and randomness.

use std::time::Duration;

use dayfly_host::retry::FORGE_CALL;

use super::error::ForgeError;

/// Longest wait that a forge may demand; a longer one becomes an error.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Returns how long to wait before the next attempt, or `None` to give up. `calls` attempts were made so far. `chance` is
/// between 0 and 1 and spreads callers that failed at the same time.
pub(super) fn wait_before_next(calls: u32, error: &ForgeError, chance: f64) -> Option<Duration> {
    let pause = FORGE_CALL.pause_after(calls)?;
    match error {
        ForgeError::RateLimited { wait, .. } => {
            (*wait <= WAIT_MAX).then(|| *wait + FORGE_CALL.first.mul_f64(chance))
        }
        error if error.is_temporary() => Some(pause.mul_f64(0.5 + chance)),
        _ => None,
    }
}

/// Returns the wait that a rate-limited answer demands: `retry-after`, otherwise the time until the reset of an empty
/// budget, otherwise one minute. Returns `None` if the answer is not a rate limit. GitHub uses 403 both for rate limits
/// and for missing permissions.
pub(super) fn rate_limit(
    status: u16,
    headers: &[(&str, &str)],
    message: &str,
    now_seconds: i64,
) -> Option<Duration> {
    let header = |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    let number = |name: &str| header(name).and_then(|value| value.parse::<i64>().ok());
    let empty = number("x-ratelimit-remaining") == Some(0);
    let retry_after = number("retry-after");
    let limited = status == 429
        || (status == 403 && (empty || retry_after.is_some() || message.contains("secondary rate limit")));
    let seconds = |seconds: i64| Duration::from_secs(seconds.clamp(1, 24 * 3600).unsigned_abs());
    let reset = number("x-ratelimit-reset").filter(|_| empty).map(|reset| reset - now_seconds);
    limited.then(|| seconds(retry_after.or(reset).unwrap_or(60)))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn server_error() -> ForgeError {
        ForgeError::Server { what: "x".into(), status: 502, message: String::new() }
    }

    #[test]
    fn waits_grow_and_end() {
        let waits: Vec<_> = (1..=4).map(|calls| wait_before_next(calls, &server_error(), 0.5)).collect();
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(waits, [ms(250), ms(500), ms(1000), None]);
    }

    #[test]
    fn what_cannot_get_better_is_not_tried_again() {
        let error = ForgeError::Conflict { what: "x".into(), message: String::new() };
        assert_eq!(wait_before_next(1, &error, 0.0), None);
        let wait = Duration::from_secs(3600);
        let error = ForgeError::RateLimited { what: "x".into(), message: String::new(), wait };
        assert_eq!(wait_before_next(1, &error, 0.0), None);
    }

    #[test]
    fn limits_are_told_from_missing_rights() {
        assert_eq!(rate_limit(403, &[], "Must have admin rights to Repository.", 0), None);
        assert_eq!(rate_limit(404, &[("x-ratelimit-remaining", "0")], "", 0), None);
        assert_eq!(rate_limit(429, &[("retry-after", "7")], "", 0).unwrap(), Duration::from_secs(7));
        let headers = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "130")];
        assert_eq!(rate_limit(403, &headers, "", 100).unwrap(), Duration::from_secs(30));
        let secondary = "You have exceeded a secondary rate limit";
        assert_eq!(
            rate_limit(403, &[("x-ratelimit-remaining", "9")], secondary, 0).unwrap(),
            Duration::from_secs(60)
        );
    }
}
