//! Evaluates the keys that the lab itself needs to decide where and when a job runs: titles, matrices, names, `runs-on`,
//! timeouts.

use std::fmt::{self, Write as _};

use thiserror::Error;

use super::diagnostic::{Diagnostic, Position};
use super::matrix::{self, Combination, MatrixError};
use super::model::{Job, RunsOnTemplate, Workflow};
use super::run::RunsOn;
use super::token::{Token, TokenKind};
use crate::expression::{ExpressionError, Scope, Value};
use crate::visible::Visible;

/// Timeout of a job in minutes if the workflow does not set one; GitHub's default.
pub const TIMEOUT_MINUTES: f64 = 360.0;
/// Longest timeout of a job in minutes; longer ones are cut to it. It is 35 days, as long as GitHub lets a run wait.
const TIMEOUT_MINUTES_MAX: f64 = 50_400.0;
/// Longest name of a job, in characters; GitHub's limit.
const NAME_CHARACTERS_MAX: usize = 100;

/// The reason why a job cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct PlanError {
    /// The workflow's file.
    pub file: String,
    /// The position in the file.
    pub at: Position,
    /// The path of the key, such as `jobs.build.runs-on`.
    pub path: String,
    /// The kind of error.
    pub problem: Box<PlanProblem>,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, at, path, problem } = self;
        write!(Visible(f), "{file}:{at}: {path}: {problem}")
    }
}

/// The kind of a [`PlanError`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanProblem {
    /// An expression failed.
    #[error(transparent)]
    Expression(#[from] ExpressionError),
    /// The matrix is invalid.
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// A value has the wrong type or is out of range.
    #[error("must be {expected}, but evaluates to {found}")]
    Value {
        /// A description of the allowed values.
        expected: &'static str,
        /// The evaluated value.
        found: String,
    },
}

/// An evaluated `strategy:`.
#[derive(Debug, Clone, PartialEq)]
pub struct StrategyPlan {
    /// The combinations of the matrix; one `None` for a job without a matrix.
    pub combinations: Vec<Option<Combination>>,
    /// True if a failure stops the other jobs of the matrix.
    pub fail_fast: bool,
    /// Number of the matrix's jobs that may run at once.
    pub max_parallel: usize,
    /// Remarks about a matrix from an expression that probably does something else than it was meant to.
    pub notices: Vec<Diagnostic>,
}

/// A job that is evaluated for one combination of its matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct JobPlan {
    /// The displayed name.
    pub name: String,
    /// The runner group and labels that the job requires.
    pub runs_on: RunsOn,
    /// The timeout, in minutes.
    pub timeout_minutes: f64,
    /// True if a failure of the job does not fail the run.
    pub continue_on_error: bool,
}

/// Returns the title of a run: `run-name:`, or the workflow's name if `run-name` is absent, empty or cannot be evaluated.
pub fn run_name(workflow: &Workflow, scope: &Scope<'_>) -> String {
    let title = workflow.run_name.as_ref().and_then(|token| token.evaluate(scope).ok());
    let title = title.map(|value| value.to_text().trim().to_owned()).filter(|title| !title.is_empty());
    title.unwrap_or_else(|| workflow.display_name().to_owned())
}

/// Evaluates `strategy:` with the contexts `github`, `needs`, `vars` and `inputs`.
///
/// # Errors
/// Fails if an expression cannot be evaluated, or if the matrix is invalid or has no or too many jobs.
pub fn strategy(file: &str, job: &Job, scope: &Scope<'_>) -> Result<StrategyPlan, PlanError> {
    let place = PlannedJob { file, job };
    let strategy = job.strategy.as_ref();
    let mut notices = Vec::new();
    let combinations = match strategy.and_then(|strategy| strategy.matrix.as_ref()) {
        None => vec![None],
        Some(token) => {
            let matrix = place.evaluate(token, "strategy.matrix", scope)?;
            notices = place.notices(token, &matrix);
            let combinations =
                matrix::expand(&matrix).map_err(|error| place.error(token, "strategy.matrix", error))?;
            combinations.into_iter().map(Some).collect()
        }
    };
    let fail_fast = match strategy.and_then(|strategy| strategy.fail_fast.as_ref()) {
        None => true,
        Some(token) => place.boolean(token, "strategy.fail-fast", scope)?,
    };
    let max_parallel = match strategy.and_then(|strategy| strategy.max_parallel.as_ref()) {
        None => combinations.len(),
        Some(token) => {
            let number = place.positive(token, "strategy.max-parallel", scope)?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "positive; `as` saturates"
            )]
            let whole = number as usize;
            whole.max(1)
        }
    };
    Ok(StrategyPlan { combinations, fail_fast, max_parallel, notices })
}

/// Evaluates a job with the contexts `github`, `needs`, `vars`, `inputs`, `strategy` and `matrix`.
///
/// # Errors
/// Returns the first key that cannot be evaluated.
pub fn job(
    file: &str,
    job: &Job,
    matrix: Option<&Combination>,
    scope: &Scope<'_>,
) -> Result<JobPlan, PlanError> {
    let place = PlannedJob { file, job };
    let timeout_minutes = match &job.timeout_minutes {
        None => TIMEOUT_MINUTES,
        Some(token) => place.positive(token, "timeout-minutes", scope)?.min(TIMEOUT_MINUTES_MAX),
    };
    let continue_on_error = match &job.continue_on_error {
        None => false,
        Some(token) => place.boolean(token, "continue-on-error", scope)?,
    };
    let runs_on = place.runs_on(scope)?;
    Ok(JobPlan { name: place.name(matrix, scope)?, runs_on, timeout_minutes, continue_on_error })
}

/// Returns the name of a job that is over before its matrix and its name could be evaluated.
pub fn plain_name(job: &Job) -> String {
    match job.name.as_ref().map(|token| &token.kind) {
        Some(TokenKind::String(name)) if !name.trim().is_empty() => shortened(name.trim()),
        _ => job.id.clone(),
    }
}

struct PlannedJob<'a> {
    file: &'a str,
    job: &'a Job,
}

impl PlannedJob<'_> {
    fn error(&self, token: &Token, key: &str, problem: impl Into<PlanProblem>) -> PlanError {
        let path = format!("jobs.{}.{key}", self.job.id);
        PlanError { file: self.file.to_owned(), at: token.at, path, problem: Box::new(problem.into()) }
    }

    fn evaluate(&self, token: &Token, key: &str, scope: &Scope<'_>) -> Result<Value, PlanError> {
        token.evaluate(scope).map_err(|error| self.error(token, key, error))
    }

    fn boolean(&self, token: &Token, key: &str, scope: &Scope<'_>) -> Result<bool, PlanError> {
        match self.evaluate(token, key, scope)? {
            Value::Bool(flag) => Ok(flag),
            other => Err(self.error(token, key, unexpected("true or false", &other))),
        }
    }

    fn positive(&self, token: &Token, key: &str, scope: &Scope<'_>) -> Result<f64, PlanError> {
        let value = self.evaluate(token, key, scope)?;
        // Inputs and variables are text, and GitHub accepts a number in text.
        let number = if value.is_primitive() { value.to_number() } else { f64::NAN };
        if number > 0.0 {
            Ok(number)
        } else {
            Err(self.error(token, key, unexpected("a number above 0", &value)))
        }
    }

    /// Returns the notices about a matrix that is an expression. Any other matrix was noticed when the file was parsed.
    fn notices(&self, token: &Token, matrix: &Value) -> Vec<Diagnostic> {
        let (TokenKind::Expression(_), Value::Object(matrix)) = (&token.kind, matrix) else {
            return Vec::new();
        };
        let messages = matrix.iter().filter_map(|(key, _)| matrix::misspelt_filter(key));
        let diagnostic = |message| Diagnostic {
            file: self.file.to_owned(),
            position: Some(token.at),
            path: format!("jobs.{}.strategy.matrix", self.job.id),
            message,
        };
        messages.map(diagnostic).collect()
    }

    /// Returns the job's name. As on GitHub, a name without expressions is followed by the values of the matrix that
    /// `include` has not added.
    fn name(&self, matrix: Option<&Combination>, scope: &Scope<'_>) -> Result<String, PlanError> {
        if let Some(token) = &self.job.name
            && matches!(token.kind, TokenKind::Expression(_))
        {
            let name = self.evaluate(token, "name", scope)?.to_text();
            let name = name.trim();
            return Ok(shortened(if name.is_empty() { &self.job.id } else { name }));
        }
        let mut values = Vec::new();
        for (_, value) in matrix.into_iter().flat_map(|matrix| matrix.values.iter().take(matrix.named)) {
            collect_leaves(value, &mut values);
        }
        let plain = plain_name(self.job);
        Ok(if values.is_empty() { plain } else { shortened(&format!("{plain} ({})", values.join(", "))) })
    }

    fn runs_on(&self, scope: &Scope<'_>) -> Result<RunsOn, PlanError> {
        match &self.job.runs_on {
            RunsOnTemplate::Labels(token) => {
                let value = self.evaluate(token, "runs-on", scope)?;
                match &value {
                    // An expression may also evaluate to `{group: ..., labels: ...}`.
                    Value::Object(object) => {
                        let group = object
                            .get("group")
                            .map(|group| self.group(token, "runs-on", group))
                            .transpose()?;
                        let labels =
                            object.get("labels").map(|labels| self.labels(token, labels)).transpose()?;
                        Ok(RunsOn { group: group.flatten(), labels: labels.unwrap_or_default() })
                    }
                    labels => Ok(RunsOn { group: None, labels: self.labels(token, labels)? }),
                }
            }
            RunsOnTemplate::Group { group, labels } => {
                let group = match group {
                    Some(token) => {
                        let key = "runs-on.group";
                        self.group(token, key, &self.evaluate(token, key, scope)?)?
                    }
                    None => None,
                };
                let labels = match labels {
                    Some(token) => self.labels(token, &self.evaluate(token, "runs-on.labels", scope)?)?,
                    None => Vec::new(),
                };
                Ok(RunsOn { group, labels })
            }
        }
    }

    /// Returns the name of a runner group, or `None` if it is empty.
    fn group(&self, token: &Token, key: &str, value: &Value) -> Result<Option<String>, PlanError> {
        let name = value.to_text();
        if name.is_empty() {
            return Ok(None);
        }
        if RunsOn::is_group_name(&name) {
            return Ok(Some(name));
        }
        let found = Value::String(shortened(&name));
        Err(self.error(token, key, unexpected("a runner group's name of 1 to 100 characters", &found)))
    }

    fn labels(&self, token: &Token, value: &Value) -> Result<Vec<String>, PlanError> {
        let bad = || self.error(token, "runs-on", unexpected("a label or a list of labels", value));
        let labels: Vec<String> = match value {
            // A list within the list comes from an expression, and GitHub flattens it.
            Value::Array(items) => {
                items.iter().flat_map(flatten).map(|item| item.to_text().trim().to_owned()).collect()
            }
            Value::Object(_) => return Err(bad()),
            single => vec![single.to_text().trim().to_owned()],
        };
        if labels.is_empty() || labels.iter().any(String::is_empty) { Err(bad()) } else { Ok(labels) }
    }
}

fn flatten(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        single => vec![single],
    }
}

fn unexpected(expected: &'static str, found: &Value) -> PlanProblem {
    let found = match found {
        Value::Null => "nothing".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
        other => format!("{:?}", other.to_text()),
    };
    PlanProblem::Value { expected, found }
}

fn collect_leaves(value: &Value, leaves: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_leaves(item, leaves)),
        Value::Object(object) => object.iter().for_each(|(_, item)| collect_leaves(item, leaves)),
        leaf => {
            let text = leaf.to_text();
            if !text.is_empty() {
                leaves.push(text);
            }
        }
    }
}

fn shortened(name: &str) -> String {
    let name = name.replace(['\r', '\n'], " ");
    if name.chars().count() <= NAME_CHARACTERS_MAX {
        return name;
    }
    name.chars().take(NAME_CHARACTERS_MAX - 3).chain("...".chars()).collect()
}
