//! Annotations: what a runner app says about a job or a step beside its log.

use serde::{Deserialize, Serialize};

/// Annotations that are kept of a job; GitHub keeps 50 of each step.
const ANNOTATIONS_MAX: usize = 100;
/// Longest text of one, characters.
const TEXT_LENGTH_MAX: usize = 4096;

/// An annotation, as `completejob` has it (actions/runner 2.336.0, seen) and as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Annotation {
    /// `notice`, `warning` or `failure`.
    #[serde(default)]
    pub(crate) level: String,
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) title: Option<String>,
    #[serde(default)]
    pub(crate) path: Option<String>,
    #[serde(default)]
    pub(crate) start_line: Option<u64>,
    #[serde(default)]
    pub(crate) end_line: Option<u64>,
    #[serde(default)]
    pub(crate) start_column: Option<u64>,
    #[serde(default)]
    pub(crate) end_column: Option<u64>,
    /// The step that it belongs to; none: the job.
    #[serde(default)]
    pub(crate) step_number: Option<u64>,
}

impl Annotation {
    /// Within bounds, and of a level that there is.
    fn bounded(self) -> Self {
        let level = match self.level.as_str() {
            "failure" | "warning" => self.level,
            _ => "notice".to_owned(),
        };
        Self {
            level,
            message: cut(self.message),
            title: self.title.map(cut),
            path: self.path.map(cut),
            ..self
        }
    }
}

/// The annotations of a job, those of the job itself first: they say why it has no step.
pub(crate) fn kept(all: impl Iterator<Item = Annotation>) -> Vec<Annotation> {
    all.take(ANNOTATIONS_MAX).map(Annotation::bounded).collect()
}

fn cut(text: String) -> String {
    match text.char_indices().nth(TEXT_LENGTH_MAX) {
        Some((at, _)) => format!("{} (cut)", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_runner_app_writes_is_understood_and_bounded() {
        // As in the recording of a crashed worker, and of a step with `::warning file=..`.
        let text = r#"[{"level":"failure","message":"System.IO.FileNotFoundException: x"},
            {"level":"warning","message":"careful","title":"T","path":"a.c","startLine":3,"endLine":3,"startColumn":2,"endColumn":2,"stepNumber":2},
            {"level":"odd"}]"#;
        let parsed: Vec<Annotation> = serde_json::from_str(text).expect("understood");
        let annotations = kept(parsed.into_iter());
        assert_eq!(annotations[1].path.as_deref(), Some("a.c"));
        assert_eq!((annotations[1].start_line, annotations[1].step_number), (Some(3), Some(2)));
        assert_eq!(annotations[2].level, "notice");
        let long = Annotation { message: "ä".repeat(TEXT_LENGTH_MAX + 1), ..annotations[0].clone() };
        let kept = kept(std::iter::repeat_n(long, ANNOTATIONS_MAX + 1));
        assert_eq!(kept.len(), ANNOTATIONS_MAX);
        assert_eq!(kept[0].message.chars().count(), TEXT_LENGTH_MAX + " (cut)".len());
    }
}
