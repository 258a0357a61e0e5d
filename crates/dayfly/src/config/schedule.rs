//! The schedule of a pool's minimum: at which times another number of idle runners is kept. Time is passed in.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Time as Clock, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan as _};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

use crate::defaults;

/// An entry of a schedule: from a time of some days until another time, another min_idle holds.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table with the keys of a schedule's entry")]
#[schemars(extend("required" = ["from", "to", "min_idle"]))]
pub(crate) struct ScheduleEntry {
    /// Days on which the entry begins (default: every day).
    pub(crate) days: Vec<Day>,
    /// Time at which the entry begins.
    pub(crate) from: ClockTime,
    /// Time at which the entry ends. If it is not later than from, the entry ends on the next day.
    pub(crate) to: ClockTime,
    /// Runners without a job that are kept ready meanwhile.
    #[schemars(range(min = 0, max = defaults::RUNNERS_MAX))]
    pub(crate) min_idle: u32,
    /// Time zone of both times, as in the tz database, e.g. Europe/Berlin.
    pub(crate) time_zone: String,
}

impl Default for ScheduleEntry {
    fn default() -> Self {
        let midnight = ClockTime(Clock::midnight());
        Self { days: Vec::new(), from: midnight, to: midnight, min_idle: 0, time_zone: "UTC".to_owned() }
    }
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    fn is(self, weekday: Weekday) -> bool {
        self as i8 + 1 == weekday.to_monday_one_offset()
    }
}

/// A time of day in hours and minutes: `HH:MM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ClockTime(Clock);

impl FromStr for ClockTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<i8>().ok().filter(|_| is_number)
        };
        let parts = text.split_once(':').and_then(|(hour, minute)| Some((number(hour)?, number(minute)?)));
        let clock = parts.and_then(|(hour, minute)| Clock::new(hour, minute, 0, 0).ok());
        clock
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no time of day: HH:MM from 00:00 to 23:59, such as 08:00"))
    }
}

impl TryFrom<String> for ClockTime {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0.hour(), self.0.minute())
    }
}

impl From<ClockTime> for String {
    fn from(time: ClockTime) -> Self {
        time.to_string()
    }
}

impl JsonSchema for ClockTime {
    fn schema_name() -> Cow<'static, str> {
        "ClockTime".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$", "examples": ["08:00"] })
    }
}

/// A schedule that was checked: its time zones are known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Schedule {
    /// The entries, in the order of the file.
    pub(crate) entries: Vec<Period>,
}

/// A checked entry of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Period {
    days: Vec<Day>,
    from: ClockTime,
    to: ClockTime,
    /// Runners without a job that are kept ready meanwhile.
    pub(crate) min_idle: u32,
    #[serde(serialize_with = "zone_name")]
    time_zone: TimeZone,
}

impl Period {
    /// Checks an entry: looks up its time zone.
    ///
    /// # Errors
    /// This host knows no such time zone.
    pub(crate) fn new(entry: &ScheduleEntry) -> Result<Self, String> {
        let time_zone = TimeZone::get(&entry.time_zone).map_err(|_| {
            format!("{:?} is no time zone that this host knows (package tzdata)", entry.time_zone)
        })?;
        let ScheduleEntry { days, from, to, min_idle, .. } = entry.clone();
        Ok(Self { days, from, to, min_idle, time_zone })
    }

    /// Returns true if the entry holds at `now`. An entry that began today or yesterday can hold, because none is longer than
    /// a day.
    fn holds(&self, now: Timestamp) -> bool {
        let today = self.time_zone.to_datetime(now).date();
        [Some(today), today.checked_sub(1.day()).ok()]
            .into_iter()
            .flatten()
            .any(|day| self.holds_from(day, now))
    }

    /// Returns true if the entry begins on a day, and holds at `now`.
    ///
    /// Both ends are moments, not times of the clock, so that an entry begins and ends once even on a day on which the clock
    /// shows a time twice or not at all. Of a time that the clock shows twice, the first counts. A time that the clock skips
    /// is as much later as the clock is put forward.
    fn holds_from(&self, day: Date, now: Timestamp) -> bool {
        if !self.days.is_empty() && !self.days.iter().any(|allowed| allowed.is(day.weekday())) {
            return false;
        }
        let ends_after: Span = if self.to.0 > self.from.0 { 0.days() } else { 1.day() };
        let moment = |day: Date, time: ClockTime| self.time_zone.to_timestamp(day.to_datetime(time.0));
        let Some(last_day) = day.checked_add(ends_after).ok() else { return false };
        match (moment(day, self.from), moment(last_day, self.to)) {
            (Ok(from), Ok(to)) => (from..to).contains(&now),
            // The first and the last day of the calendar.
            _ => false,
        }
    }
}

impl Schedule {
    /// Returns the number of idle runners to keep at `now`: the largest of the entries that hold, or `otherwise` if none
    /// holds.
    pub(crate) fn min_idle_at(&self, now: Timestamp, otherwise: u32) -> u32 {
        let holding = self.entries.iter().filter(|period| period.holds(now));
        holding.map(|period| period.min_idle).max().unwrap_or(otherwise)
    }
}

fn zone_name<S: Serializer>(zone: &TimeZone, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(zone.iana_name().unwrap_or("UTC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Central Europe since 1996, written out, so that the test needs no time zone database.
    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    fn clock(text: &str) -> ClockTime {
        text.parse().expect("a time of day")
    }

    fn schedule(days: &[Day], from: &str, to: &str) -> Schedule {
        let time_zone = TimeZone::posix(BERLIN).expect("a zone");
        let period = Period { days: days.to_vec(), from: clock(from), to: clock(to), min_idle: 5, time_zone };
        Schedule { entries: vec![period] }
    }

    /// Returns the hours and minutes of UTC on `day` at which the minimum changes, with the new minimum.
    fn changes(schedule: &Schedule, day: &str) -> Vec<(String, u32)> {
        let midnight: Timestamp = format!("{day}T00:00Z").parse().expect("a day");
        let at = |minute: i64| midnight + minute.minutes();
        let minimum = |minute: i64| schedule.min_idle_at(at(minute), 1);
        let turns = (0..24 * 60).filter(|&minute| minimum(minute) != minimum(minute - 1));
        turns.map(|minute| (at(minute).strftime("%H:%M").to_string(), minimum(minute))).collect()
    }

    fn expect(schedule: &Schedule, day: &str, expected: &[(&str, u32)]) {
        let found = changes(schedule, day);
        let found: Vec<(&str, u32)> = found.iter().map(|(time, minimum)| (time.as_str(), *minimum)).collect();
        assert_eq!(found, expected, "{day}");
    }

    #[test]
    fn an_entry_holds_on_its_days_only() {
        let work = schedule(&[Day::Mon, Day::Fri], "08:00", "18:00");
        // 2026-01-05 is a Monday, and Berlin is an hour ahead.
        expect(&work, "2026-01-05", &[("07:00", 5), ("17:00", 1)]);
        expect(&work, "2026-01-06", &[]);
        expect(&work, "2026-01-09", &[("07:00", 5), ("17:00", 1)]);
        // In summer two hours.
        expect(&work, "2026-07-06", &[("06:00", 5), ("16:00", 1)]);
    }

    #[test]
    fn an_entry_that_ends_before_it_begins_ends_on_the_next_day() {
        let night = schedule(&[Day::Fri], "22:00", "06:00");
        expect(&night, "2026-01-09", &[("21:00", 5)]);
        expect(&night, "2026-01-10", &[("05:00", 1)]);
        expect(&night, "2026-01-11", &[]);
        expect(&night, "2026-01-08", &[]);
    }

    #[test]
    fn an_entry_whose_ends_are_the_same_time_holds_for_a_day() {
        let whole = schedule(&[Day::Sat], "00:00", "00:00");
        expect(&whole, "2026-01-09", &[("23:00", 5)]);
        expect(&whole, "2026-01-10", &[("23:00", 1)]);
        let always = schedule(&[], "09:30", "09:30");
        expect(&always, "2026-01-10", &[]);
        assert_eq!(always.min_idle_at("2026-01-10T00:00Z".parse().expect("a time"), 1), 5);
    }

    #[test]
    fn times_that_the_clock_skips_are_as_much_later() {
        // On 2026-03-29 the clock goes from 02:00 (01:00 UTC) to 03:00.
        expect(&schedule(&[], "02:30", "04:00"), "2026-03-29", &[("01:30", 5), ("02:00", 1)]);
        expect(&schedule(&[], "01:00", "02:30"), "2026-03-29", &[("00:00", 5), ("01:30", 1), ("23:00", 5)]);
        // Such a day has no time between the two.
        expect(&schedule(&[], "02:30", "03:10"), "2026-03-29", &[]);
        // A night over it is an hour shorter.
        let night = schedule(&[], "22:00", "06:00");
        expect(&night, "2026-03-29", &[("04:00", 1), ("20:00", 5)]);
    }

    #[test]
    fn of_times_that_the_clock_shows_twice_the_first_counts() {
        // On 2026-10-25 the clock goes from 03:00 (01:00 UTC) back to 02:00.
        expect(&schedule(&[], "02:30", "04:00"), "2026-10-25", &[("00:30", 5), ("03:00", 1)]);
        expect(&schedule(&[], "01:00", "02:30"), "2026-10-25", &[("00:30", 1)]);
        expect(&schedule(&[], "22:00", "06:00"), "2026-10-25", &[("05:00", 1), ("21:00", 5)]);
    }

    #[test]
    fn the_largest_of_the_entries_that_hold_counts_and_may_be_less_than_the_pools_own() {
        let mut both = schedule(&[], "08:00", "18:00");
        both.entries.push(Period { min_idle: 0, ..schedule(&[], "12:00", "20:00").entries.remove(0) });
        let at = |time: &str| both.min_idle_at(format!("2026-01-05T{time}Z").parse().expect("a time"), 3);
        assert_eq!([at("06:00"), at("07:00"), at("12:00"), at("17:30"), at("19:00")], [3, 5, 5, 0, 3]);
    }

    #[test]
    fn the_ends_of_the_calendar_are_no_reason_to_panic() {
        let always = schedule(&[], "22:00", "06:00");
        for now in [Timestamp::MIN, Timestamp::MAX] {
            assert!([1, 5].contains(&always.min_idle_at(now, 1)));
        }
    }

    #[test]
    fn a_time_of_day_has_hours_and_minutes() {
        assert_eq!(clock("08:05").to_string(), "08:05");
        for text in ["", "8:00", "24:00", "08:60", "08", "08:00:00", "+8:00", "08:0x"] {
            assert!(text.parse::<ClockTime>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_unknown_time_zone_is_refused() {
        let entry = ScheduleEntry { time_zone: "Europe/Atlantis".to_owned(), ..ScheduleEntry::default() };
        let refusal = Period::new(&entry).expect_err("unknown");
        assert_eq!(refusal, "\"Europe/Atlantis\" is no time zone that this host knows (package tzdata)");
        assert!(Period::new(&ScheduleEntry::default()).is_ok(), "UTC needs no database");
    }
}
