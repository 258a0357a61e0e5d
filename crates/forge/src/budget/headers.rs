//! Reads what an answer says about limits. The functions are pure: the caller passes in the time.

use std::time::Duration;

use reqwest::header::HeaderMap;

/// Longest name of a limit that is stored.
const RESOURCE_LEN_MAX: usize = 60;
/// Longest time that an answer may demand or report; longer ones are cut.
const TIME_MAX_S: i64 = 24 * 3600;
/// The wait after a secondary limit without `retry-after` (docs.github.com, "Rate limits for the REST API": at least one
/// minute).
const SECONDARY_WAIT: Duration = Duration::from_secs(60);

/// The limits that an answer states.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AnswerLimits {
    /// The primary limit that the call was counted for.
    pub(crate) primary: Option<PrimaryLimit>,
    /// The wait that the answer demands, if the forge has refused the call because of a limit.
    pub(crate) demanded: Option<DemandedWait>,
    /// The wait that the answer states, whether it refuses the call because of a limit or for another reason.
    pub(crate) retry_after: Option<Duration>,
}

/// The primary limit after a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PrimaryLimit {
    pub(crate) resource: String,
    pub(crate) limit: u64,
    pub(crate) remaining: u64,
    pub(crate) used: u64,
    /// The reset, in seconds since 1970 by the forge's clock. It identifies the hour.
    pub(crate) reset_s: i64,
    /// Time until the reset.
    pub(crate) resets_in: Duration,
}

/// A wait that a refused call demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DemandedWait {
    /// The hour's calls are used up; the wait ends at the reset.
    Primary(Duration),
    /// `retry-after`.
    Stated(Duration),
    /// A secondary limit that names no time.
    Unstated,
}

impl DemandedWait {
    pub(crate) fn time(self) -> Duration {
        match self {
            Self::Primary(wait) | Self::Stated(wait) => wait,
            Self::Unstated => SECONDARY_WAIT,
        }
    }
}

impl AnswerLimits {
    /// Reads the limits of an answer. `message` is the text of its body. `now_s` is the time by this host's clock, which
    /// counts only if the answer has no `date`.
    pub(crate) fn read(status: u16, headers: &HeaderMap, message: &str, now_s: i64) -> Self {
        let now_s = Self::date_s(headers).unwrap_or(now_s);
        let number = |name: &str| text(headers, name)?.trim().parse::<i64>().ok();
        let count = |name: &str| number(name).and_then(|value| u64::try_from(value).ok());
        let reset_s = number("x-ratelimit-reset");
        let primary = match (count("x-ratelimit-limit"), count("x-ratelimit-remaining"), reset_s) {
            (Some(limit), Some(remaining), Some(reset_s)) => Some(PrimaryLimit {
                resource: text(headers, "x-ratelimit-resource")
                    .unwrap_or("core")
                    .chars()
                    .take(RESOURCE_LEN_MAX)
                    .collect(),
                limit,
                remaining,
                used: count("x-ratelimit-used").unwrap_or(limit.saturating_sub(remaining)),
                reset_s,
                resets_in: seconds(reset_s.saturating_sub(now_s), 0),
            }),
            _ => None,
        };
        let is_empty = count("x-ratelimit-remaining") == Some(0);
        // Seconds, or a date (RFC 9110, section 10.2.3), which proxies write.
        let retry_after = number("retry-after")
            .or_else(|| Some(http_date_s(text(headers, "retry-after")?)?.saturating_sub(now_s)));
        // GitHub uses 403 for limits and for missing permissions.
        let is_limited = status == 429
            || (status == 403
                && (is_empty || retry_after.is_some() || message.contains("secondary rate limit")));
        let demanded = match (retry_after, reset_s.filter(|_| is_empty)) {
            (Some(wait), _) => DemandedWait::Stated(seconds(wait, 1)),
            (None, Some(reset_s)) => DemandedWait::Primary(seconds(reset_s.saturating_sub(now_s), 1)),
            (None, None) => DemandedWait::Unstated,
        };
        let retry_after = retry_after.map(|wait| seconds(wait, 1));
        Self { primary, demanded: is_limited.then_some(demanded), retry_after }
    }

    /// Returns the time of an answer by the forge's clock, in seconds since 1970.
    pub(crate) fn date_s(headers: &HeaderMap) -> Option<i64> {
        http_date_s(text(headers, "date")?)
    }
}

/// Returns the time of an HTTP date in seconds since 1970.
fn http_date_s(text: &str) -> Option<i64> {
    let parser = jiff::fmt::rfc2822::DateTimeParser::new();
    parser.parse_timestamp(text).ok().map(jiff::Timestamp::as_second)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn seconds(value: i64, min: i64) -> Duration {
    Duration::from_secs(value.clamp(min, TIME_MAX_S).unsigned_abs())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn read(status: u16, headers: &[(&'static str, &str)], message: &str, now_s: i64) -> AnswerLimits {
        let pairs = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        AnswerLimits::read(status, &pairs.collect(), message, now_s)
    }

    fn demanded(status: u16, headers: &[(&'static str, &str)], message: &str) -> Option<u64> {
        read(status, headers, message, 100).demanded.map(|wait| wait.time().as_secs())
    }

    #[test]
    fn limits_are_told_from_missing_rights() {
        assert_eq!(demanded(403, &[], "Must have admin rights to Repository."), None);
        assert_eq!(demanded(404, &[("x-ratelimit-remaining", "0")], ""), None);
        assert_eq!(demanded(429, &[("retry-after", "7")], ""), Some(7));
        let empty = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "130")];
        assert_eq!(demanded(403, &empty, ""), Some(30));
        let secondary = "You have exceeded a secondary rate limit";
        assert_eq!(demanded(403, &[("x-ratelimit-remaining", "9")], secondary), Some(60));
        assert_eq!(demanded(429, &[("retry-after", "soon")], ""), Some(60));
        let (now, later) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:47 GMT");
        assert_eq!(demanded(429, &[("retry-after", later), ("date", now)], ""), Some(10));
        assert_eq!(demanded(403, &[("retry-after", "-5")], ""), Some(1));
    }

    #[test]
    fn the_reset_is_measured_by_the_forges_own_clock() {
        let headers = [
            ("x-ratelimit-limit", "5000"),
            ("x-ratelimit-remaining", "4987"),
            ("x-ratelimit-used", "13"),
            ("x-ratelimit-reset", "784111877"),
            ("x-ratelimit-resource", "actions_runner_registration"),
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"), // 784111777
        ];
        for now_s in [0, 784_111_777, 2_000_000_000] {
            let primary = read(200, &headers, "", now_s).primary.unwrap();
            assert_eq!(primary.resets_in, Duration::from_secs(100), "{now_s}");
            assert_eq!((primary.limit, primary.remaining, primary.used), (5000, 4987, 13));
            assert_eq!(primary.resource, "actions_runner_registration");
        }
    }

    proptest! {
        #[test]
        fn any_headers_are_read_and_no_wait_is_longer_than_a_day(
            status in 200..600_u16,
            values in proptest::collection::vec("-?[0-9]{0,20}|[ -~]{0,30}", 6),
            now_s in any::<i64>(),
        ) {
            let names = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-used", "x-ratelimit-reset", "retry-after", "date"];
            let headers: Vec<_> = names.into_iter().zip(values.iter().map(String::as_str)).collect();
            let limits = read(status, &headers, "", now_s);
            let day = Duration::from_secs(24 * 3600);
            prop_assert!(limits.demanded.is_none_or(|wait| wait.time() <= day && !wait.time().is_zero()));
            prop_assert!(limits.primary.is_none_or(|primary| primary.resets_in <= day));
        }
    }
}
