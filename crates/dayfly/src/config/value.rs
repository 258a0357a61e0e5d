//! Values with a unit: times and sizes of memory and disk.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::fmt::friendly::{SpanParser, SpanPrinter};
use jiff::{SignedDuration, SpanRelativeTo};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Longest time that can be written.
const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// A time: a number with its unit, or several, such as `30s`, `10m`, `1h 30m` or `5d`. A day has 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Time(pub(crate) Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no time: a number and s, m, h or d, such as 6h");
        let span = SpanParser::new().parse_span(text).map_err(|_| wrong())?;
        let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
        match Duration::try_from(length) {
            Ok(time) if time > Duration::ZERO && time <= TIME_MAX => Ok(Self(time)),
            _ => Err(format!("the time {text:?} is not between 1 ns and 366 days")),
        }
    }
}

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // At most 366 days.
        let length = SignedDuration::try_from(self.0).unwrap_or(SignedDuration::MAX);
        f.write_str(&SpanPrinter::new().duration_to_string(&length))
    }
}

impl From<Time> for String {
    fn from(time: Time) -> Self {
        time.to_string()
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["30s", "10m", "6h"] })
    }
}

/// The age at which something is built anew, such as `7d`; none: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct MaxAge(pub(crate) Option<Duration>);

/// The units in which an age is shown, the largest first, with their seconds.
const AGE_UNITS: [(&str, u64); 4] = [("d", 86400), ("h", 3600), ("m", 60), ("s", 1)];

impl FromStr for MaxAge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "never" | "0" => Ok(Self(None)),
            time => {
                time.parse().map(|Time(age)| Self(Some(age))).map_err(|error| format!("{error}; or never"))
            }
        }
    }
}

impl TryFrom<String> for MaxAge {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for MaxAge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(age) = self.0 else { return f.write_str("never") };
        let seconds = age.as_secs();
        let exact = AGE_UNITS.into_iter().find(|(_, unit_s)| seconds.is_multiple_of(*unit_s));
        let (unit, unit_s) = exact.unwrap_or(("s", 1));
        write!(f, "{}{unit}", seconds / unit_s)
    }
}

impl From<MaxAge> for String {
    fn from(age: MaxAge) -> Self {
        age.to_string()
    }
}

impl JsonSchema for MaxAge {
    fn schema_name() -> Cow<'static, str> {
        "MaxAge".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["7d", "never"] })
    }
}

/// The units of a size, largest first, with their bytes.
const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// A size in bytes: a whole number with its unit, such as `1024MiB`, `2GiB` or `1TiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Size(u64);

impl Size {
    /// Returns a size of so many MiB.
    pub(crate) const fn of_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// Returns a size of so many GiB.
    pub(crate) const fn of_gib(gib: u64) -> Self {
        Self(gib << 30)
    }

    /// Returns the size in MiB.
    ///
    /// # Errors
    /// It is no whole number of MiB, or not between 1 and `max`.
    pub(crate) fn in_mib(self, max: u64) -> Result<u64, String> {
        self.whole(1 << 20, "MiB", max)
    }

    /// Returns the size in GiB.
    ///
    /// # Errors
    /// It is no whole number of GiB, or not between 1 and `max`.
    pub(crate) fn in_gib(self, max: u64) -> Result<u64, String> {
        self.whole(1 << 30, "GiB", max)
    }

    fn whole(self, unit: u64, name: &str, max: u64) -> Result<u64, String> {
        match (self.0 / unit, self.0 % unit) {
            (count, 0) if (1..=max).contains(&count) => Ok(count),
            (_, 0) => Err(format!("{self} is not between 1 {name} and {max} {name}")),
            _ => Err(format!("{self} is no whole number of {name}")),
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no size: a whole number and MiB, GiB or TiB, such as 2GiB");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let (_, bytes) = UNITS.into_iter().find(|(name, _)| *name == unit.trim_start()).ok_or_else(wrong)?;
        number.checked_mul(bytes).map(Self).ok_or_else(wrong)
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let largest = UNITS.into_iter().find(|(_, bytes)| self.0 > 0 && self.0.is_multiple_of(*bytes));
        // Only whole numbers of KiB can be written.
        let (unit, bytes) = largest.unwrap_or(("KiB", 1 << 10));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]+ *(KiB|MiB|GiB|TiB)$",
            "examples": ["1024MiB", "2GiB", "1TiB"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_units_and_is_written_as_it_is_read() {
        let time = |text: &str| text.parse::<Time>();
        for (text, seconds) in [("30s", 30), ("10m", 600), ("6h", 21_600), ("1h 30m", 5400), ("5d", 432_000)]
        {
            let read = time(text).expect(text);
            assert_eq!(read.0, Duration::from_secs(seconds), "{text}");
            assert_eq!(time(&read.to_string()), Ok(read), "{text}");
        }
        for text in ["", "6", "6 apples", "h", "-1h", "0s", "1y", "400d", "1h ago", "99999999999999999999h"] {
            assert!(time(text).is_err(), "{text}");
        }
        assert_eq!(time("6x").expect_err("none"), "\"6x\" is no time: a number and s, m, h or d, such as 6h");
    }

    #[test]
    fn a_size_has_a_binary_unit_and_is_written_with_the_largest_that_fits() {
        let size = |text: &str| text.parse::<Size>();
        for (text, written) in [
            ("1024MiB", "1GiB"),
            ("1536MiB", "1536MiB"),
            ("2 GiB", "2GiB"),
            ("1TiB", "1TiB"),
            ("0GiB", "0KiB"),
        ] {
            assert_eq!(size(text).map(|size| size.to_string()).as_deref(), Ok(written), "{text}");
        }
        for text in
            ["", "2", "2GB", "2gib", "-2GiB", "1.5GiB", "GiB", "99999999999999TiB", "18446744073709551616KiB"]
        {
            assert!(size(text).is_err(), "{text}");
        }
        let gib = |text: &str| size(text).expect("a size").in_gib(4096);
        assert_eq!(gib("2048MiB"), Ok(2));
        assert_eq!(gib("1536MiB").expect_err("half"), "1536MiB is no whole number of GiB");
        assert_eq!(gib("5TiB").expect_err("large"), "5TiB is not between 1 GiB and 4096 GiB");
        assert!(gib("0GiB").is_err());
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
            assert!(error.ends_with("; or never"), "{error}");
        }
    }
}
