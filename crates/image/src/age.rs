//! The age of packages. Everything here is pure: the time is passed in.

use std::time::Duration;

/// The age at which [`crate::keep_fresh`] builds anew if the user names no other.
pub const MAX_AGE_DEFAULT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The age of something, by this host's wall clock, which may have been set since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// It was made this long ago.
    Past(Duration),
    /// The clock will show its time only in this long. It counts as new, because its age is unknown.
    Future(Duration),
}

impl Age {
    /// Returns the age at `now_s` of something that was made at `made_s`, both in seconds since 1970-01-01 UTC.
    #[must_use]
    pub fn at(now_s: i64, made_s: i64) -> Self {
        let seconds = Duration::from_secs(now_s.abs_diff(made_s));
        if made_s > now_s { Self::Future(seconds) } else { Self::Past(seconds) }
    }

    /// Returns true if it is at least `limit` old.
    #[must_use]
    pub fn reaches(self, limit: Duration) -> bool {
        matches!(self, Self::Past(age) if age >= limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_age_in_the_future_counts_as_new() {
        assert_eq!(Age::at(100, 160), Age::Future(Duration::from_secs(60)));
        assert!(!Age::at(100, 160).reaches(Duration::ZERO));
        assert!(!Age::at(i64::MIN, i64::MAX).reaches(Duration::ZERO));
        assert!(Age::at(i64::MAX, i64::MIN).reaches(MAX_AGE_DEFAULT));
    }

    proptest! {
        #[test]
        fn something_reaches_a_limit_exactly_when_that_time_has_passed(
            made_s in 0..4_000_000_000_i64,
            limit_s in 1..4_000_000_i64,
        ) {
            let limit = Duration::from_secs(limit_s.unsigned_abs());
            prop_assert!(Age::at(made_s + limit_s, made_s).reaches(limit));
            prop_assert!(!Age::at(made_s + limit_s - 1, made_s).reaches(limit));
        }
    }
}
