//! The contexts and functions that each place of a workflow allows.
//!
//! Sources: GitHub's documentation, "Contexts reference", "Context availability", and its published schema
//! (actions/languageservices, `workflow-v1.0.json`).

/// The contexts and functions that an expression may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Availability {
    pub(super) contexts: &'static [&'static str],
    pub(super) functions: &'static [&'static str],
    /// False if GitHub takes the text literally.
    pub(super) expressions: bool,
}

const STATUS: &[&str] = &["success", "failure", "cancelled", "always"];
const STATUS_AND_HASH: &[&str] = &["success", "failure", "cancelled", "always", "hashFiles"];
const HASH: &[&str] = &["hashFiles"];

const fn place(contexts: &'static [&'static str], functions: &'static [&'static str]) -> Availability {
    Availability { contexts, functions, expressions: true }
}

/// A place that allows no expressions at all.
pub(super) const LITERAL: Availability = Availability { contexts: &[], functions: &[], expressions: false };
pub(super) const RUN_NAME: Availability = place(&["github", "inputs", "vars"], &[]);
pub(super) const WORKFLOW_ENV: Availability = place(&["github", "secrets", "inputs", "vars"], &[]);
pub(super) const JOB_IF: Availability = place(&["github", "needs", "vars", "inputs"], STATUS);
pub(super) const STRATEGY: Availability = place(&["github", "needs", "vars", "inputs"], &[]);
/// `name`, `runs-on`, `timeout-minutes`, `continue-on-error` and `environment` of a job.
pub(super) const JOB: Availability = place(&["github", "needs", "strategy", "matrix", "vars", "inputs"], &[]);
pub(super) const JOB_ENV: Availability =
    place(&["github", "needs", "strategy", "matrix", "vars", "secrets", "inputs"], &[]);
pub(super) const JOB_DEFAULTS: Availability =
    place(&["github", "needs", "strategy", "matrix", "env", "vars", "inputs"], &[]);
pub(super) const JOB_OUTPUTS: Availability = place(STEP_CONTEXTS, &[]);
pub(super) const STEP: Availability = place(STEP_CONTEXTS, HASH);
pub(super) const STEP_IF: Availability = place(
    &["github", "needs", "strategy", "matrix", "job", "runner", "env", "vars", "steps", "inputs"],
    STATUS_AND_HASH,
);

const STEP_CONTEXTS: &[&str] =
    &["github", "needs", "strategy", "matrix", "job", "runner", "env", "vars", "secrets", "steps", "inputs"];
