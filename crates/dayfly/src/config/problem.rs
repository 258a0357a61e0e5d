//! The problems of a file: each has a place, and is shown with its line. Secrets in such a line are hidden.

use std::fmt;
use std::ops::Range;

use dayfly_host::quantity::quantity;
use serde::Serialize;

use super::secret;

/// Most problems that are reported; more of them have the same few causes.
const PROBLEMS_MAX: usize = 50;
/// Most characters of a line that are shown.
const EXCERPT_WIDTH_MAX: usize = 120;
/// Characters that are shown before the place of a problem in a longer line.
const EXCERPT_BEFORE: usize = 40;

/// The gravity of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// The file is refused.
    Error,
    /// The file is good, but may not do what its author expects.
    Warning,
}

/// A problem as the reader and the checks find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) severity: Severity,
    /// The key, with the tables before it; empty if there is none.
    pub(crate) key: String,
    /// Bytes of the file that the problem is about.
    pub(crate) span: Range<usize>,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Problem {
    /// Creates an error.
    pub(crate) fn error(key: &str, span: Range<usize>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, key: key.to_owned(), span, message: message.into(), hint: None }
    }

    /// Creates a warning.
    pub(crate) fn warning(key: &str, span: Range<usize>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(key, span, message) }
    }

    /// Returns true if the file is refused for it.
    pub(crate) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Adds what to do.
    pub(crate) fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

/// A problem with its place in the file, for people and for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    /// Name of the file.
    pub(crate) file: String,
    /// Line, from 1.
    pub(crate) line: usize,
    /// Column in characters, from 1.
    pub(crate) column: usize,
    /// The key, with the tables before it; empty if there is none.
    pub(crate) key: String,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
    /// The line, a line of carets below it, and a margin.
    #[serde(skip)]
    pub(crate) excerpt: String,
}

/// Writes the place, the key, the message and the line, without the word for the severity.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        write!(f, "{}:{}:{}: {key}{}", self.file, self.line, self.column, self.message)?;
        write!(f, "\n{}", self.excerpt)
    }
}

/// Gives problems their places, in the order of the file. If there are too many, the last one counts the rest.
pub(crate) fn findings(file: &str, text: &str, mut problems: Vec<Problem>) -> Vec<Finding> {
    problems.sort_by_key(|problem| problem.span.start);
    let rest = problems.len().saturating_sub(PROBLEMS_MAX);
    let rest_has_error =
        problems.iter().skip(PROBLEMS_MAX).any(|problem| problem.severity == Severity::Error);
    problems.truncate(PROBLEMS_MAX);
    if let Some(last) = problems.last_mut().filter(|_| rest > 0) {
        let rest = quantity(rest, "more problem", "more problems");
        last.message = format!("{} (and {rest} in this file)", last.message);
        if rest_has_error {
            last.severity = Severity::Error;
        }
    }
    problems.into_iter().map(|problem| finding(file, text, problem)).collect()
}

fn finding(file: &str, text: &str, problem: Problem) -> Finding {
    let start = boundary(text, problem.span.start);
    let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[line_start..].split('\n').next().unwrap_or_default().trim_end_matches('\r');
    let number = 1 + text[..line_start].matches('\n').count();
    // The place can be behind the last character of a line, but not in its line end.
    let before = &line[..(start - line_start).min(line.len())];
    let end = boundary(text, problem.span.end.max(start)).min(line_start + line.len());
    let width = text.get(start..end).map_or(0, |marked| marked.chars().count());
    let column = before.chars().count();
    let line = match secret::is_in_key(&text[..line_start]) {
        true => "***".to_owned(),
        false => secret::hidden_in_line(line),
    };
    let shown = |text: &str| printable(&secret::hidden_in_words(text));
    Finding {
        severity: problem.severity,
        file: printable(file),
        line: number,
        column: column + 1,
        key: shown(&problem.key),
        message: shown(&problem.message),
        hint: problem.hint.as_deref().map(shown),
        excerpt: excerpt(number, &line, column, width),
    }
}

/// Returns the line with its number, and carets below the characters from `column` on.
fn excerpt(number: usize, line: &str, column: usize, width: usize) -> String {
    let length = line.chars().count();
    let column = column.min(length);
    let skipped = if length > EXCERPT_WIDTH_MAX { column.saturating_sub(EXCERPT_BEFORE) } else { 0 };
    let shown: String = line.chars().skip(skipped).take(EXCERPT_WIDTH_MAX).collect();
    let (number, column) = (number.to_string(), column - skipped);
    let width = width.min(shown.chars().count().saturating_sub(column)).max(1);
    let (margin, carets) = (" ".repeat(number.len()), "^".repeat(width));
    let shown = printable(&shown);
    format!("{margin} |\n{number} | {shown}\n{margin} | {:column$}{carets}", "").trim_end().to_owned()
}

/// Returns text in which control characters, with which a file could move a terminal's cursor, are blanks.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Returns the start of the character at or before a byte.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, span: Range<usize>) -> String {
        let found = findings("f.toml", text, vec![Problem::error("k", span, "is wrong")]);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_place_is_shown_with_its_line_and_carets_below_it() {
        insta::assert_snapshot!(shown("a = 1\r\nbä = \"ü\" # x\r\n", 13..17), @r#"
        f.toml:2:6: k: is wrong
          |
        2 | bä = "ü" # x
          |      ^^^
        "#);
    }

    #[test]
    fn places_at_the_ends_of_a_file_or_a_line_are_shown() {
        let first = |text: &str, span: Range<usize>| shown(text, span).lines().next().map(str::to_owned);
        assert_eq!(first("", 0..0).as_deref(), Some("f.toml:1:1: k: is wrong"));
        assert_eq!(first("a", 9..99).as_deref(), Some("f.toml:1:2: k: is wrong"));
        assert_eq!(first("a\nb", 1..2).as_deref(), Some("f.toml:1:2: k: is wrong"));
        assert_eq!(first("a\n", 2..2).as_deref(), Some("f.toml:2:1: k: is wrong"));
        assert_eq!(first("ü", 1..2).as_deref(), Some("f.toml:1:1: k: is wrong"));
    }

    #[test]
    fn of_a_long_line_the_part_around_the_place_is_shown() {
        let text = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let text = shown(&text, 500..501);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2].len(), "1 | ".len() + EXCERPT_WIDTH_MAX);
        assert_eq!(lines[2].find('X'), lines[3].find('^'));
    }

    #[test]
    fn a_file_cannot_write_to_the_terminal() {
        assert!(!shown("a\u{1b}[2J = 1", 0..1).contains('\u{1b}'));
    }

    #[test]
    fn there_is_a_limit_and_the_rest_is_counted() {
        let mut many = vec![Problem::warning("", 0..0, "odd"); PROBLEMS_MAX];
        many.extend(vec![Problem::error("", 1..1, "wrong"); 2]);
        let found = findings("f", "ab", many);
        assert_eq!(found.len(), PROBLEMS_MAX);
        let last = found.last().expect("one");
        assert_eq!(last.message, "odd (and 2 more problems in this file)");
        assert_eq!(last.severity, Severity::Error, "an error is never lost");
    }
}
