//! The notes of a job, which its runner app reports in addition to the log. Pure.

use dayfly_fleet::job_end::{Annotation, AnnotationLevel};
use dayfly_lab::LabEventKind;

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
