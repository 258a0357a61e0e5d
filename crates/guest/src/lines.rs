//! Reads lines of untrusted output, and cuts them to a bounded length.

use std::io::{ErrorKind, Read};

/// Longest line in bytes; the rest of a longer one is dropped.
pub(crate) const LINE_MAX: usize = 8 * 1024;

/// Calls `each` for every line until the stream ends or fails. Line ends are removed, lines are cut after [`LINE_MAX`]
/// bytes, and invalid UTF-8 is replaced.
pub(crate) fn for_each(mut stream: impl Read, mut each: impl FnMut(&str)) {
    let (mut chunk, mut line) = ([0; 4096], Vec::new());
    loop {
        let count = match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let mut pieces = chunk[..count].split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            line.extend_from_slice(&piece[..piece.len().min(LINE_MAX.saturating_sub(line.len()))]);
            if pieces.peek().is_some() {
                each(&text(&line));
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        each(&text(&line));
    }
}

/// Returns the beginning of a text, at most `length_max` bytes, without a part of a character.
pub(crate) fn cut(text: &str, length_max: usize) -> &str {
    let end = (0..=length_max.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}

fn text(line: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for_each(bytes, |line| lines.push(line.to_owned()));
        lines
    }

    proptest! {
        #[test]
        fn lines_come_out_as_they_were_written(texts in proptest::collection::vec("[^\r\n]{0,3000}", 0..6)) {
            let stream: String = texts.iter().map(|text| format!("{text}\r\n")).collect();
            prop_assert_eq!(lines(stream.as_bytes()), texts);
        }
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let euro = "\u{20ac}";
        assert_eq!((cut("abc", 2), cut("abc", 9), cut("", 3)), ("ab", "abc", ""));
        assert_eq!((cut(euro, 2), cut(euro, 3)), ("", euro));
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_the_next_one_is_whole() {
        let stream = format!("{}\nnext\nlast", "x".repeat(3 * LINE_MAX));
        assert_eq!(lines(stream.as_bytes()), ["x".repeat(LINE_MAX).as_str(), "next", "last"]);
        assert_eq!(lines(b"\xff\n\n"), ["\u{fffd}", ""]);
    }
}
