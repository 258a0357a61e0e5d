//! Formats annotations for people.

use dayfly_fleet::job_end::{Annotation, AnnotationLevel};
use dayfly_host::quantity::quantity;

use crate::printer::{paint, style};

/// Most lines of an annotation that are shown. The stack trace of a worker that crashed has a dozen.
const LINES_MAX: usize = 20;

/// Returns an annotation as lines: its level, its place in a file and its text, which may have several lines.
pub(super) fn lines(annotation: &Annotation) -> Vec<String> {
    let Annotation { level, message, title, path, line } = annotation;
    let (style, word) = match level {
        AnnotationLevel::Failure => (style::BAD, "error"),
        AnnotationLevel::Warning => (style::WARN, "warning"),
        AnnotationLevel::Notice => (style::DIM, "notice"),
    };
    let place = path.as_ref().map(|path| match line {
        Some(line) => format!(" {path}:{line}"),
        None => format!(" {path}"),
    });
    let place = plain(&place.unwrap_or_default());
    let title = title.as_ref().map(|title| format!(" {}:", plain(title))).unwrap_or_default();
    let mut texts = message.lines();
    let first = plain(texts.next().unwrap_or_default());
    let mut lines = vec![format!("{}{place}:{title} {first}", paint(style, word))];
    lines.extend(texts.by_ref().take(LINES_MAX - 1).map(|text| format!("  {}", plain(text))));
    let left = texts.count();
    if left > 0 {
        lines.push(paint(style::DIM, format_args!("  ({})", quantity(left, "more line", "more lines"))));
    }
    lines
}

/// Replaces control characters, because the text of a guest must not steer a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(level: AnnotationLevel, title: Option<&str>, path: Option<&str>, message: &str) -> Annotation {
        let text = |text: Option<&str>| text.map(str::to_owned);
        // Without a path, the line is that of the step's log.
        Annotation { level, message: message.to_owned(), title: text(title), path: text(path), line: Some(3) }
    }

    #[test]
    fn an_annotation_says_what_where_and_how_bad_and_cannot_steer_a_terminal() {
        let crash = "System.IO.FileNotFoundException: Could not find file '/proc/x'.\nFile name: '/proc/x'\n   at A\n";
        let all = [
            note(AnnotationLevel::Warning, Some("T"), Some("a.c"), "careful"),
            note(AnnotationLevel::Failure, None, None, "no \u{1b}[2Jscreen"),
            note(AnnotationLevel::Notice, None, None, "so"),
            note(AnnotationLevel::Failure, None, None, &format!("{crash}{}", "   at B\n".repeat(30))),
        ];
        let lines: Vec<String> = all.iter().flat_map(lines).collect();
        insta::assert_snapshot!(anstream::adapter::strip_str(&lines.join("\n")).to_string());
    }
}
