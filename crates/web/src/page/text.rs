//! Texts, times and sizes for people. Pure.

use std::borrow::Cow;

use maud::{Markup, html};

/// Longest foreign text in a cell, characters.
const FOREIGN_MAX: usize = 300;
const MS_PER_S: u64 = 1000;

/// Returns a text that a guest or a forge has chosen: isolated from the direction of its surroundings, with its control
/// characters and marks of direction made visible, and of bounded length.
pub(super) fn foreign(text: &str) -> Markup {
    let shown = visible(text);
    let mut chars = shown.char_indices();
    match chars.nth(FOREIGN_MAX) {
        Some((at, _)) => html! { bdi { (&shown[..at]) "…" } },
        None => html! { bdi { (shown) } },
    }
}

/// Returns a text whose control characters and marks of direction are visible.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\u{0}'..='\u{1f}' if is_hidden(c) => shown.extend(char::from_u32(0x2400 + c as u32)),
            '\u{7f}' => shown.push('\u{2421}'),
            c if is_hidden(c) => shown.push_str(&format!("‹U+{:04X}›", c as u32)),
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Returns true for characters that steer a terminal or the direction of a text, or that have no width.
fn is_hidden(c: char) -> bool {
    (c.is_control() && c != '\t')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{61c}' | '\u{feff}')
}

/// Returns a length of time in its two largest units.
pub(super) fn span(ms: u64) -> String {
    let s = ms / MS_PER_S;
    match s {
        0..10 => format!("{}.{} s", s, ms % MS_PER_S / 100),
        10..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// Returns the time since a moment. The script keeps it up to date.
pub(super) fn since(at_ms: u64, now_ms: u64) -> Markup {
    html! { time datetime=(iso(at_ms)) data-since=(at_ms) title=(iso(at_ms)) { (span(now_ms.saturating_sub(at_ms))) } }
}

/// Returns a moment as date and time, UTC.
pub(super) fn moment(at_ms: u64) -> Markup {
    html! { time datetime=(iso(at_ms)) { (at(at_ms, "%Y-%m-%d %H:%M:%S")) } }
}

/// Returns a moment as time of day, UTC.
pub(super) fn clock(at_ms: u64) -> String {
    at(at_ms, "%H:%M:%S")
}

/// Returns a moment as a date, UTC.
pub(super) fn date(at_ms: u64) -> String {
    at(at_ms, "%d %b %H:%M")
}

fn iso(at_ms: u64) -> String {
    at(at_ms, "%Y-%m-%dT%H:%M:%SZ")
}

fn at(at_ms: u64, format: &str) -> String {
    let at = i64::try_from(at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map(|at| at.strftime(format).to_string()).unwrap_or_default()
}

/// Returns a size in the unit that fits.
pub(super) fn size(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    match bytes {
        ..GIB => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / GIB as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_shown_as_text() {
        let hostile = "<script>alert(1)</script>\u{1b}[2J\u{202e}gnp.exe\u{0}\u{7f}\"'&";
        insta::assert_snapshot!(foreign(hostile).into_string());
    }

    #[test]
    fn a_foreign_text_has_a_length_and_is_cut_between_characters() {
        let text = foreign(&"é".repeat(10_000)).into_string();
        assert_eq!(text.chars().filter(|c| *c == 'é').count(), FOREIGN_MAX);
        assert!(text.ends_with("…</bdi>"));
    }

    #[test]
    fn times_and_sizes_have_their_largest_units() {
        let spans = [40, 9_940, 59_000, 61_000, 3_660_000, 90_000_000].map(span);
        assert_eq!(spans, ["0.0 s", "9.9 s", "59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
        assert_eq!((size(5 << 20), size(3 << 29)), ("5 MiB".to_owned(), "1.5 GiB".to_owned()));
        assert_eq!(
            moment(0).into_string(),
            "<time datetime=\"1970-01-01T00:00:00Z\">1970-01-01 00:00:00</time>"
        );
    }
}
