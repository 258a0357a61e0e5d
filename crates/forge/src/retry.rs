//! When a call is made again. Pure: time and chance are passed in.

use std::time::Duration;

use super::error::ForgeError;

/// Calls of one request, the first included.
const CALLS_MAX: u32 = 4;
const DELAY_FIRST: Duration = Duration::from_millis(250);
/// A forge that wants more patience than this gets an error instead.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// How long to wait before the next call, or `None` to give up. `calls` were made so far; `chance` is between 0 and 1 and
/// spreads callers that failed together.
pub(super) fn wait_before_next(calls: u32, error: &ForgeError, chance: f64) -> Option<Duration> {
    if calls >= CALLS_MAX {
        return None;
    }
    match error {
        ForgeError::RateLimited { wait, .. } => {
            (*wait <= WAIT_MAX).then(|| *wait + DELAY_FIRST.mul_f64(chance))
        }
        error if error.is_temporary() => Some((DELAY_FIRST * 2_u32.pow(calls - 1)).mul_f64(0.5 + chance)),
        _ => None,
    }
}

/// What a forge that limits calls says about when to come again: `retry-after`, else the reset of an empty budget, else
/// a minute. `None` when the answer is no rate limit. GitHub uses 403 for limits and for missing rights alike.
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
