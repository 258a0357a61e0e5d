//! The notes of a job, which its runner app reports in addition to the log: annotations and summaries. Pure.
//!
//! An annotation is shown at the end of its job unless the log has shown all of it. A reader who looks at a job's end sees
//! the reason of a failure, and the place in a file, which the log does not name.

use std::collections::{HashMap, HashSet};

use dayfly_fleet::job_end::{Annotation, AnnotationLevel};
use dayfly_lab::LabEventKind;

use crate::commands::annotation::plain;
use crate::printer::{paint, style};

/// Most marked lines of a job's log that are remembered. actions/runner reports at most 10 errors, 10 warnings and 10
/// notices of a step.
const MARKS_MAX: usize = 1000;
/// Longest text of a marked line that is remembered, bytes. The lab cuts annotations to 4096 characters.
const MARK_BYTES_MAX: usize = 4096;

/// The levels of annotations, each with the mark that actions/runner 2.336.0 writes before its text into the log.
const MARKS: [(AnnotationLevel, &str); 3] = [
    (AnnotationLevel::Failure, "##[error]"),
    (AnnotationLevel::Warning, "##[warning]"),
    (AnnotationLevel::Notice, "##[notice]"),
];

/// The errors, warnings and notices that the logs of running jobs have shown: level and text.
#[derive(Debug, Default)]
pub(super) struct ShownMarks(HashMap<u64, HashSet<(AnnotationLevel, String)>>);

impl ShownMarks {
    /// Remembers a marked line of a log. Forgets the lines of a job that is over.
    pub(super) fn take(&mut self, event: &LabEventKind) {
        match event {
            LabEventKind::LogLine { job, line, .. } => {
                let marked = MARKS.iter().find_map(|(level, mark)| Some((*level, line.strip_prefix(mark)?)));
                let Some((level, text)) = marked else { return };
                let shown = self.0.entry(*job).or_default();
                if shown.len() < MARKS_MAX && text.len() <= MARK_BYTES_MAX {
                    shown.insert((level, text.to_owned()));
                }
            }
            LabEventKind::JobCompleted { job, .. } => drop(self.0.remove(job)),
            _ => {}
        }
    }

    /// Returns true if the log of a job has shown all that an annotation says. The log shows neither titles nor places.
    pub(super) fn contains(&self, job: u64, annotation: &Annotation) -> bool {
        let first = annotation.message.lines().next().unwrap_or_default().to_owned();
        let has_more = annotation.title.is_some() || annotation.path.is_some();
        !has_more && self.0.get(&job).is_some_and(|shown| shown.contains(&(annotation.level, first)))
    }
}

/// Returns the annotation in an event of the lab, and the id of its job.
pub(super) fn annotation_of(event: &LabEventKind) -> Option<(u64, Annotation)> {
    let LabEventKind::Annotation { job, level, message, title, path, line, .. } = event else { return None };
    let level = match level.as_str() {
        "failure" => AnnotationLevel::Failure,
        "warning" => AnnotationLevel::Warning,
        _ => AnnotationLevel::Notice,
    };
    let (message, title, path) = (message.clone(), title.clone(), path.clone());
    Some((*job, Annotation { level, message, title, path, line: *line }))
}

/// Formats the summary of a step: a heading, and its text, which is Markdown that people can read as it is.
pub(super) fn summary(event: &LabEventKind) -> Vec<String> {
    let LabEventKind::JobSummary { step, text, bytes, .. } = event else { return Vec::new() };
    let heading = if step.is_empty() { "summary".to_owned() } else { format!("summary of {}", plain(step)) };
    let bar = paint(style::DIM, "|");
    let mut lines = vec![paint(style::HEAD, heading)];
    lines.extend(text.lines().map(|text| format!("{bar} {}", plain(text))));
    if *bytes > text.len() as u64 {
        lines.push(paint(style::DIM, format_args!("(cut after {} of {bytes} bytes)", text.len())));
    }
    lines
}

#[cfg(test)]
mod tests {
    use dayfly_lab::workflow::Conclusion;

    use super::*;

    fn note(level: &str, title: Option<&str>, path: Option<&str>, message: &str) -> Annotation {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let event = LabEventKind::Annotation {
            job: 1,
            level: level.to_owned(),
            message: message.to_owned(),
            title: text(title),
            path: text(path),
            // Without a path, the line is that of the step's log.
            line: Some(3),
            step: None,
        };
        annotation_of(&event).expect("an annotation").1
    }

    fn log_line(line: &str) -> LabEventKind {
        let line = line.to_owned();
        LabEventKind::LogLine { job: 1, number: None, step: String::new(), time: String::new(), line }
    }

    fn plain_text(lines: &[String]) -> String {
        anstream::adapter::strip_str(&lines.join("\n")).to_string()
    }

    #[test]
    fn a_summary_is_shown_as_it_was_written_and_says_if_it_was_cut() {
        let text = "# Tests\n\n| a | b |\n| --- | --- |\n| 1 | \u{1b}[2J |\n".to_owned();
        let of = |step: &str, bytes: u64| {
            let step = step.to_owned();
            summary(&LabEventKind::JobSummary { job: 1, number: None, step, text: text.clone(), bytes })
        };
        let lines = [of("Run tests", text.len() as u64), of("", 99_999)].concat();
        insta::assert_snapshot!(plain_text(&lines));
    }

    #[test]
    fn an_annotation_that_the_log_has_shown_is_not_repeated_unless_it_says_more() {
        let mut marks = ShownMarks::default();
        for line in ["##[error]bad", "##[warning]careful", "plain text", "##[error]first line"] {
            marks.take(&log_line(line));
        }
        assert!(marks.contains(1, &note("failure", None, None, "bad")));
        assert!(marks.contains(1, &note("failure", None, None, "first line\nsecond line")));
        assert!(!marks.contains(1, &note("warning", None, None, "bad")), "another level");
        assert!(!marks.contains(1, &note("notice", None, None, "plain text")), "no mark");
        assert!(!marks.contains(1, &note("warning", None, Some("a.c"), "careful")), "the place is new");
        assert!(!marks.contains(1, &note("warning", Some("T"), None, "careful")), "the title is new");
        let (name, conclusion) = ("a".to_owned(), Conclusion::Success);
        marks.take(&LabEventKind::JobCompleted { job: 1, name, conclusion, remark: None });
        assert!(!marks.contains(1, &note("failure", None, None, "bad")), "the job is over");
    }

    #[test]
    fn a_log_of_marks_alone_is_remembered_up_to_a_bound() {
        let mut marks = ShownMarks::default();
        marks.take(&log_line(&format!("##[error]{}", "x".repeat(MARK_BYTES_MAX + 1))));
        assert!(marks.0[&1].is_empty());
        (0..MARKS_MAX * 2).for_each(|number| marks.take(&log_line(&format!("##[error]{number}"))));
        assert_eq!(marks.0[&1].len(), MARKS_MAX);
    }
}
