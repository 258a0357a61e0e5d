//! Texts and numbers that fit into cells. Pure.

use ratatui::text::Span;

/// Longest foreign text that is shown, characters.
const FOREIGN_MAX: usize = 300;
/// Longest line of a log that is shown, characters.
pub(super) const LINE_MAX: usize = 4000;
/// The unit of sizes and the letters of its powers.
const UNIT: u64 = 1024;
const LETTERS: [char; 4] = ['K', 'M', 'G', 'T'];
/// Shown if a number is not known.
pub(super) const NOTHING: &str = "-";

/// Returns a text that a guest or a forge has chosen: of bounded length, in one line, with its control characters and
/// marks of direction visible.
pub(super) fn foreign(text: &str) -> String {
    shown(text, FOREIGN_MAX)
}

/// Returns a line of a log, as [`foreign`] does for names.
pub(super) fn foreign_line(text: &str) -> String {
    shown(text, LINE_MAX)
}

fn shown(text: &str, most: usize) -> String {
    let short: String = text.chars().take(most).map(|c| if c == '\t' { ' ' } else { c }).collect();
    dayfly_web::visible(&short).into_owned()
}

/// Returns the beginning of a text that fits into so many columns, with a mark if it was cut.
pub(super) fn fit(text: &str, columns: u16) -> String {
    let columns = usize::from(columns);
    if width(text) <= columns {
        return text.to_owned();
    }
    // The mark takes one column.
    let mut left = columns.saturating_sub(1);
    let mut cut = String::new();
    for c in text.chars() {
        let width = width(c.encode_utf8(&mut [0; 4]));
        if width > left {
            break;
        }
        left -= width;
        cut.push(c);
    }
    if columns > 0 {
        cut.push('…');
    }
    cut
}

/// Returns the columns that a text takes on a terminal.
fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// Returns a size in at most five characters.
pub(super) fn size(bytes: u64) -> String {
    let mut unit = 1;
    let mut letter = None;
    for next in LETTERS {
        // 1000 K would take a character more than 0.9 M.
        if bytes / unit < 1000 {
            break;
        }
        unit *= UNIT;
        letter = Some(next);
    }
    let Some(letter) = letter else { return bytes.to_string() };
    let tenths = u128::from(bytes) * 10 / u128::from(unit);
    match tenths {
        ..100 => format!("{}.{}{letter}", tenths / 10, tenths % 10),
        _ => format!("{}{letter}", tenths / 10),
    }
}

/// Returns a value that may be unknown.
pub(super) fn known<T>(value: Option<T>, words: impl Fn(T) -> String) -> String {
    value.map_or_else(|| NOTHING.to_owned(), words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_text_cannot_steer_the_terminal_and_has_a_length() {
        assert_eq!(foreign("a\u{1b}[2J\tb\u{202e}c\n"), "a␛[2J b‹U+202E›c␊");
        assert_eq!(foreign(&"é".repeat(10_000)).chars().count(), FOREIGN_MAX);
    }

    #[test]
    fn a_text_is_cut_at_the_columns_that_it_takes_and_not_at_its_characters() {
        assert_eq!(fit("build", 5), "build");
        assert_eq!(fit("build", 4), "bui…");
        assert_eq!(fit("構築する", 8), "構築する");
        assert_eq!(fit("構築する", 6), "構築…");
        assert_eq!((fit("build", 1), fit("build", 0)), ("…".to_owned(), String::new()));
    }

    #[test]
    fn a_size_takes_at_most_five_characters() {
        let sizes = [0, 999, 1000, 1024, 10 << 10, 999 << 10, 1000 << 10, 3 << 29, u64::MAX];
        let shown = sizes.map(size);
        assert_eq!(shown, ["0", "999", "0.9K", "1.0K", "10K", "999K", "0.9M", "1.5G", "16777215T"]);
        let all = (0..50).map(|power| size((1 << power) - 1));
        assert!(all.into_iter().all(|shown| shown.len() <= 5));
    }
}
