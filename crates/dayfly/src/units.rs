//! Formats sizes, ages and ids for people.

use std::time::Duration;

use dayfly_image::Age;

/// Characters of an id in tables and messages.
const ID_LENGTH: usize = 12;

/// Returns a size in MiB, rounded down.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes / (1 << 20))
}

/// Returns the age of something that was created at `created_s`, seconds since the epoch.
pub(crate) fn age(created_s: i64) -> String {
    let seconds = dayfly_host::clock::now_s().saturating_sub(created_s).max(0);
    span(Duration::from_secs(seconds.unsigned_abs()))
}

/// Returns the age at `now_s` of something whose time may be in the future, as after the clock was set back.
pub(crate) fn age_at(now_s: i64, created_s: i64) -> String {
    match Age::at(now_s, created_s) {
        Age::Past(age) => span(age),
        Age::Future(ahead) => format!("in {}", span(ahead)),
    }
}

/// Returns a time in its largest unit that fits.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86400),
    }
}

/// Returns a time in its largest unit that fits, as tables show it.
pub(crate) fn short_span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Removes control characters, because the output of a guest must not steer a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\t').collect()
}

/// Returns the beginning of an id.
pub(crate) fn short_id(id: &str) -> &str {
    id.get(..ID_LENGTH).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_already_short_is_shown_whole() {
        assert_eq!(short_id("0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("0123"), "0123");
    }

    #[test]
    fn an_age_has_the_largest_unit_that_fits_and_is_never_negative() {
        let now_s = dayfly_host::clock::now_s();
        assert_eq!(age(now_s + 60), "0 s");
        assert_eq!(age(now_s - 5 * 60), "5 min");
        assert_eq!(age(now_s - 50 * 3600), "2 days");
        assert_eq!((age_at(100, 40), age_at(100, 160)), ("1 min".to_owned(), "in 1 min".to_owned()));
    }
}
