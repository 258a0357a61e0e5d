//! Options that are times: a number and its unit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The units of a time, the largest first, with their seconds.
const UNITS: [(&str, u64); 4] = [("d", 86400), ("h", 3600), ("m", 60), ("s", 1)];

/// Parses a number with its unit: s, m, h or d.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: a number and s, m, h or d, such as 6h");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let (_, seconds) = UNITS.into_iter().find(|(known, _)| *known == unit).ok_or_else(wrong)?;
    let number: u64 = number.parse().ok().filter(|&number| number > 0).ok_or_else(wrong)?;
    Ok(Duration::from_secs(number.checked_mul(seconds).ok_or_else(wrong)?))
}

/// The age at which something is built anew; none: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MaxAge(pub(crate) Option<Duration>);

impl FromStr for MaxAge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "never" | "0" => Ok(Self(None)),
            time => parse_time(time).map(|age| Self(Some(age))).map_err(|error| format!("{error}; or never")),
        }
    }
}

impl fmt::Display for MaxAge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(age) = self.0 else { return f.write_str("never") };
        let seconds = age.as_secs();
        let exact = UNITS.into_iter().find(|(_, unit_s)| seconds.is_multiple_of(*unit_s));
        let (unit, unit_s) = exact.unwrap_or(("s", 1));
        write!(f, "{}{unit}", seconds / unit_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_and_is_not_zero() {
        assert_eq!(parse_time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_time("2d"), Ok(Duration::from_secs(2 * 86400)));
        for wrong in ["", "s", "0s", "6", "-1h", "1w", "99999999999999999999d", "9999999999999999999d", "1é"]
        {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_age_is_a_time_or_never_and_is_shown_as_it_is_given() {
        for (text, shown) in
            [("7d", "7d"), ("36h", "36h"), ("48h", "2d"), ("61s", "61s"), ("never", "never"), ("0", "never")]
        {
            assert_eq!(text.parse::<MaxAge>().map(|age| age.to_string()), Ok(shown.to_owned()));
        }
        for wrong in ["", "7", "0d", "Never", "-1d"] {
            let error = wrong.parse::<MaxAge>().expect_err(wrong);
            assert!(error.ends_with("such as 6h; or never"), "{error}");
        }
    }
}
