//! The end of a job as its forge reports it.
//!
//! The runner app reports a job's end too, by a line that a hostile job can print. The forge's conclusion counts.

use dayfly_guest::runner_app::JobResult;
use serde::{Deserialize, Serialize};

use crate::fact::Fact;

/// Most annotations of a job in a fact. GitHub stores 50 of each step.
const ANNOTATIONS_MAX: usize = 50;
/// Most bytes of the texts of all annotations in a fact. One annotation always fits.
const ANNOTATION_BYTES_MAX: usize = 16 * 1024;
/// Longest message of an annotation in a fact, characters.
const MESSAGE_LENGTH_MAX: usize = 2000;
/// Longest name of a job, and longest title and path of an annotation in a fact, characters.
const NAME_LENGTH_MAX: usize = 500;

/// The end of a job that had a runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEnd {
    /// Id of the job at the forge.
    pub job: u64,
    /// Name of the job, as the forge shows it.
    pub name: String,
    /// Name of the runner that had it.
    pub runner: String,
    /// The outcome.
    pub conclusion: JobConclusion,
    /// Its annotations. If there are too many, the first ones are told.
    pub annotations: Vec<Annotation>,
}

/// The outcome of a job, in GitHub's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobConclusion {
    /// All of its steps succeeded, or were allowed to fail.
    Success,
    /// A step failed, or its runner was lost.
    Failure,
    /// A user, a timeout or the failure of another job stopped it.
    Cancelled,
    /// It was not to run.
    Skipped,
}

impl JobConclusion {
    /// Returns the word in written facts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }

    /// Returns true if the runner app's result means the same.
    pub fn agrees_with(self, result: JobResult) -> bool {
        self == match result {
            JobResult::Succeeded | JobResult::SucceededWithIssues => Self::Success,
            JobResult::Failed | JobResult::Abandoned => Self::Failure,
            JobResult::Canceled => Self::Cancelled,
            JobResult::Skipped => Self::Skipped,
        }
    }
}

/// A message about a job or one of its steps, which the forge shows beside the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    /// Its severity.
    pub level: AnnotationLevel,
    /// The text, which may have several lines.
    pub message: String,
    /// Its title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The file that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The line in that file, from 1; without a file, the line in the step's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
}

/// Severity of an annotation, in the words of GitHub's REST API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnnotationLevel {
    /// A remark.
    Notice,
    /// A warning.
    Warning,
    /// An error.
    Failure,
}

impl JobEnd {
    /// Returns the fact of the runner, with bounds on the number and the length of annotations.
    pub(crate) fn fact(&self) -> Fact {
        let mut bytes = 0;
        let has_room = |annotation: &Annotation| {
            bytes += annotation.text_bytes();
            bytes <= ANNOTATION_BYTES_MAX
        };
        let bounded = self.annotations.iter().take(ANNOTATIONS_MAX).map(Annotation::bounded);
        let annotations: Vec<Annotation> = bounded.take_while(has_room).collect();
        let annotations_left_out = (self.annotations.len() - annotations.len()) as u64;
        Fact::JobConcluded {
            job: cut(&self.name, NAME_LENGTH_MAX),
            conclusion: self.conclusion,
            annotations,
            annotations_left_out,
        }
    }
}

impl Annotation {
    fn bounded(&self) -> Self {
        let name = |text: &Option<String>| text.as_deref().map(|text| cut(text, NAME_LENGTH_MAX));
        let message = cut(&self.message, MESSAGE_LENGTH_MAX);
        Self { message, title: name(&self.title), path: name(&self.path), ..*self }
    }

    fn text_bytes(&self) -> usize {
        let names = [&self.title, &self.path].into_iter().flatten();
        self.message.len() + names.map(String::len).sum::<usize>()
    }
}

fn cut(text: &str, length_max: usize) -> String {
    match text.char_indices().nth(length_max) {
        Some((at, _)) => format!("{} (cut)", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns the end of a job that failed on a runner, with so many annotations.
    pub(crate) fn failed_on(runner: &str, annotations: usize) -> JobEnd {
        let annotation = Annotation {
            level: AnnotationLevel::Failure,
            message: "bad".to_owned(),
            title: None,
            path: None,
            line: None,
        };
        JobEnd {
            job: 7,
            name: "build".to_owned(),
            runner: runner.to_owned(),
            conclusion: JobConclusion::Failure,
            annotations: vec![annotation; annotations],
        }
    }

    #[test]
    fn a_fact_has_a_bounded_number_of_annotations_and_says_how_many_it_lacks() {
        let mut end = failed_on("r", ANNOTATIONS_MAX + 3);
        end.annotations[0].message = "ä".repeat(MESSAGE_LENGTH_MAX + 1);
        let Fact::JobConcluded { annotations, annotations_left_out, .. } = end.fact() else {
            panic!("another fact")
        };
        assert_eq!((annotations.len(), annotations_left_out), (ANNOTATIONS_MAX, 3));
        assert_eq!(annotations[0].message.chars().count(), MESSAGE_LENGTH_MAX + " (cut)".len());
        assert_eq!(annotations[1].message, "bad");
    }

    /// Returns the end of a job whose annotations are as long as they can be.
    pub(crate) fn longest(character: char) -> JobEnd {
        let text = character.to_string().repeat(MESSAGE_LENGTH_MAX * 2);
        let mut end = failed_on("r", ANNOTATIONS_MAX * 2);
        for annotation in &mut end.annotations {
            annotation.message.clone_from(&text);
            (annotation.title, annotation.path) = (Some(text.clone()), Some(text.clone()));
        }
        end
    }

    #[test]
    fn one_annotation_always_fits_and_all_together_have_a_bound() {
        for character in ['\u{1f600}', 'x', '\u{1}'] {
            let Fact::JobConcluded { annotations, .. } = longest(character).fact() else {
                panic!("another fact")
            };
            let bytes: usize = annotations.iter().map(Annotation::text_bytes).sum();
            assert!(!annotations.is_empty() && bytes <= ANNOTATION_BYTES_MAX, "{bytes}");
        }
    }

    #[test]
    fn the_words_of_a_conclusion_are_those_of_written_facts() {
        for (conclusion, result) in [
            (JobConclusion::Success, JobResult::SucceededWithIssues),
            (JobConclusion::Failure, JobResult::Abandoned),
            (JobConclusion::Cancelled, JobResult::Canceled),
            (JobConclusion::Skipped, JobResult::Skipped),
        ] {
            assert_eq!(serde_json::to_value(conclusion).expect("json"), conclusion.as_str());
            assert!(conclusion.agrees_with(result));
            assert_eq!(conclusion.agrees_with(JobResult::Succeeded), conclusion == JobConclusion::Success);
        }
    }
}
