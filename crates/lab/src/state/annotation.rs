//! Annotations: messages about a job or a step that a runner app reports in addition to its log.

use serde::{Deserialize, Serialize};

use crate::mask::Mask;

/// Most annotations of a job that are stored; GitHub stores 50 of each step.
const ANNOTATIONS_MAX: usize = 100;
/// Longest text of an annotation, in characters.
const TEXT_LENGTH_MAX: usize = 4096;

/// An annotation, in the form in which `completejob` sends it (observed with actions/runner 2.336.0) and in which it is
/// stored.
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
    /// The number of the step that it belongs to. `None` if it belongs to the job.
    #[serde(default)]
    pub(crate) step_number: Option<u64>,
}

impl Annotation {
    /// Returns the annotation with its texts masked and cut to the limit, and with a known level.
    fn bounded(self, mask: &Mask) -> Self {
        let text = |text: String| cut(mask.apply(&text));
        let level = match self.level.as_str() {
            "failure" | "warning" => self.level,
            _ => "notice".to_owned(),
        };
        Self {
            level,
            message: text(self.message),
            title: self.title.map(text),
            path: self.path.map(text),
            ..self
        }
    }
}

/// Returns the annotations that are stored, masked, and bounded in number and length. The caller puts those of the job
/// itself first, because they say why a job has no step.
pub(super) fn kept(all: impl Iterator<Item = Annotation>, mask: &Mask) -> Vec<Annotation> {
    all.take(ANNOTATIONS_MAX).map(|annotation| annotation.bounded(mask)).collect()
}

fn cut(text: String) -> String {
    match text.char_indices().nth(TEXT_LENGTH_MAX) {
        Some((at, _)) => format!("{} (cut)", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mask::SecretSet;

    #[test]
    fn what_a_runner_app_writes_is_understood_masked_and_bounded() {
        // As recorded from a crashed worker, and from a step with `::warning file=..`.
        let text = r#"[{"level":"failure","message":"System.IO.FileNotFoundException: x"},
            {"level":"warning","message":"careful","title":"T","path":"a.c","startLine":3,"endLine":3,"startColumn":2,"endColumn":2,"stepNumber":2},
            {"level":"odd"}]"#;
        let parsed: Vec<Annotation> = serde_json::from_str(text).expect("understood");
        let mask = Mask::new(Arc::new(SecretSet::new(vec!["careful".into()])), Vec::new());
        let annotations = kept(parsed.into_iter(), &mask);
        assert_eq!(annotations[1].path.as_deref(), Some("a.c"));
        assert_eq!((annotations[1].start_line, annotations[1].step_number), (Some(3), Some(2)));
        assert_eq!(annotations[1].message, "***");
        assert_eq!(annotations[2].level, "notice");
        let long = Annotation { message: "ä".repeat(TEXT_LENGTH_MAX + 1), ..annotations[0].clone() };
        let kept = kept(std::iter::repeat_n(long, ANNOTATIONS_MAX + 1), &mask);
        assert_eq!(kept.len(), ANNOTATIONS_MAX);
        assert_eq!(kept[0].message.chars().count(), TEXT_LENGTH_MAX + " (cut)".len());
    }
}
