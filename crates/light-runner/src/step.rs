//! The steps of a job as they are reported.

use dayfly_lab::workflow::Conclusion;
use serde_json::{Value as Json, json};

use crate::client::now;
use crate::command::Command;

/// Most annotations of one step that are reported, as at GitHub.
const ANNOTATIONS_MAX: usize = 50;

/// Where a step is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    Pending,
    Running { since: String },
    Done { since: String, until: String, conclusion: Conclusion },
}

/// A step.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) id: String,
    pub(crate) number: usize,
    pub(crate) name: String,
    /// `setup_job`, `complete_job`, or the kind of a script (`sh`), as actions/runner 2.336.0 names them.
    pub(crate) action: &'static str,
    pub(crate) progress: Progress,
    annotations: Vec<Json>,
}

impl Step {
    pub(crate) fn new(id: String, number: usize, name: String, action: &'static str) -> Self {
        Self { id, number, name, action, progress: Progress::Pending, annotations: Vec::new() }
    }

    pub(crate) fn begin(&mut self) {
        self.progress = Progress::Running { since: now() };
    }

    pub(crate) fn end(&mut self, conclusion: Conclusion) {
        let until = now();
        let since = match &self.progress {
            Progress::Running { since } | Progress::Done { since, .. } => since.clone(),
            Progress::Pending => until.clone(),
        };
        self.progress = Progress::Done { since, until, conclusion };
    }

    /// Adds an annotation at a line of the step's log.
    pub(crate) fn annotate(&mut self, level: &str, message: &str, line: u64) {
        self.push(json!({
            "level": level, "message": message, "startLine": line, "endLine": line, "stepNumber": self.number,
        }));
    }

    /// Adds the annotation of a workflow command. A command that names a line of a file refers to it, others to the log.
    pub(crate) fn annotate_by(&mut self, command: &Command, level: &str, message: &str, line: u64) {
        let number = |name: &str| command.properties.get(name).and_then(|text| text.parse::<u64>().ok());
        let text = |name: &str| command.properties.get(name).cloned();
        let mut annotation = json!({"level": level, "message": message});
        let start = number("line").unwrap_or(line);
        annotation["startLine"] = start.into();
        annotation["endLine"] = number("endLine").unwrap_or(start).into();
        for (member, value) in [("title", text("title")), ("path", text("file"))] {
            if let Some(value) = value {
                annotation[member] = value.into();
            }
        }
        if let Some(column) = number("col") {
            annotation["startColumn"] = column.into();
            annotation["endColumn"] = number("endColumn").unwrap_or(column).into();
        }
        annotation["stepNumber"] = self.number.into();
        self.push(annotation);
    }

    fn push(&mut self, annotation: Json) {
        if self.annotations.len() < ANNOTATIONS_MAX {
            self.annotations.push(annotation);
        }
    }

    /// Returns the step as `WorkflowStepsUpdate` reports it.
    pub(crate) fn update(&self) -> Json {
        let (status, since, until, conclusion) = match &self.progress {
            Progress::Pending => (5, None, None, 0),
            Progress::Running { since } => (3, Some(since), None, 0),
            Progress::Done { since, until, conclusion } => (6, Some(since), Some(until), number(*conclusion)),
        };
        json!({
            "external_id": self.id, "number": self.number, "name": self.name, "status": status,
            "started_at": since, "completed_at": until, "conclusion": conclusion,
        })
    }

    /// Returns the step as `completejob` reports it.
    pub(crate) fn result(&self) -> Json {
        let mut result = json!({"external_id": self.id, "number": self.number, "name": self.name});
        let Progress::Done { since, until, conclusion } = &self.progress else {
            result["status"] = "pending".into();
            return result;
        };
        if *conclusion != Conclusion::Skipped {
            result["action_name"] = self.action.into();
            result["type"] = if self.action == "sh" { "run" } else { "runner" }.into();
        }
        result["status"] = "completed".into();
        result["conclusion"] = word(*conclusion).into();
        result["started_at"] = since.as_str().into();
        result["completed_at"] = until.as_str().into();
        result["annotations"] = self.annotations.clone().into();
        result
    }
}

/// Returns a conclusion's number in `WorkflowStepsUpdate`.
fn number(conclusion: Conclusion) -> u64 {
    match conclusion {
        Conclusion::Success => 2,
        Conclusion::Failure => 3,
        Conclusion::Cancelled => 4,
        Conclusion::Skipped => 7,
    }
}

/// Returns a conclusion's word in `completejob`.
pub(crate) fn word(conclusion: Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Success => "succeeded",
        Conclusion::Failure => "failed",
        Conclusion::Cancelled => "canceled",
        Conclusion::Skipped => "skipped",
    }
}
