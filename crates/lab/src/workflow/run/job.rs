//! One job of a run: one instance of a matrix, or the only instance.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::expression::Value;

/// The conclusion of a job or a run, as GitHub's REST API spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Conclusion {
    /// Everything that was required succeeded.
    Success,
    /// Something failed.
    Failure,
    /// Stopped by a user, by fail-fast or by a timeout.
    Cancelled,
    /// Skipped because its `if` was false, for example because a job that it needs did not succeed.
    Skipped,
}

impl Conclusion {
    /// Returns GitHub's word for the conclusion.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }

    /// Returns the word that runners and the service for scale sets use.
    pub fn as_runner_word(self) -> &'static str {
        match self {
            Self::Success => "succeeded",
            Self::Failure => "failed",
            Self::Cancelled => "canceled",
            Self::Skipped => "skipped",
        }
    }

    /// Parses the word of a runner's `completejob` (`succeeded`, `failed`, `canceled`, `skipped`) or GitHub's own word,
    /// ignoring case. Returns `None` for any other word.
    pub fn from_runner(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "succeeded" | "success" | "succeededwithissues" => Some(Self::Success),
            "failed" | "failure" => Some(Self::Failure),
            "canceled" | "cancelled" => Some(Self::Cancelled),
            "skipped" => Some(Self::Skipped),
            _ => None,
        }
    }
}

impl fmt::Display for Conclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The index of a job within its run, counting from 0 in the order in which the jobs were created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobIndex(pub usize);

/// Longest name of a runner group, in characters.
pub const GROUP_CHARACTERS_MAX: usize = 100;

/// The runner group and labels that a job requires.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunsOn {
    /// The runner group, if the job names one.
    pub group: Option<String>,
    /// The labels, all of which a runner must have.
    pub labels: Vec<String>,
}

impl RunsOn {
    /// Returns true if this text can be the name of a runner group: 1 to [`GROUP_CHARACTERS_MAX`] characters, not all of
    /// them spaces, and no control characters.
    pub fn is_group_name(text: &str) -> bool {
        !text.trim().is_empty()
            && text.chars().count() <= GROUP_CHARACTERS_MAX
            && !text.chars().any(char::is_control)
    }
}

/// The reason why a job is being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    /// A user cancelled the run.
    Requested,
    /// Another instance of its matrix failed.
    FailFast,
    /// The job exceeded its `timeout-minutes`.
    TimedOut,
}

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// The job waits because of `max-parallel`.
    Waiting,
    /// The job is ready for a runner.
    Queued {
        /// The time since which the job is queued.
        since: Timestamp,
    },
    /// A runner runs the job.
    Running {
        /// The time at which the runner acquired the job.
        since: Timestamp,
        /// The time at which the job exceeds its `timeout-minutes`.
        deadline: Timestamp,
    },
    /// A runner has the job and was told to stop it.
    Cancelling {
        /// The time at which the runner acquired the job.
        since: Timestamp,
        /// The time until which the runner may take to stop the job; after that the job is over without the runner.
        deadline: Timestamp,
        /// The reason.
        reason: CancelReason,
    },
    /// The job is over.
    Completed {
        /// The time at which a runner acquired the job, if one did.
        started: Option<Timestamp>,
        /// The time at which the job completed.
        at: Timestamp,
        /// The conclusion.
        conclusion: Conclusion,
    },
}

/// A job of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRun {
    /// The job's index in the run.
    pub index: JobIndex,
    /// The job's key under `jobs:`.
    pub job_id: String,
    /// The displayed name, such as `build (1, linux)`.
    pub name: String,
    /// The runner group and labels that the job requires.
    pub runs_on: RunsOn,
    /// The `matrix` context: an object, or null.
    pub matrix: Value,
    /// The `strategy` context.
    pub strategy: Value,
    /// The `needs` context.
    pub needs: Value,
    /// `timeout-minutes`; 360 if the workflow does not set it.
    pub timeout_minutes: f64,
    /// `continue-on-error`: a failure does not fail the run.
    pub continue_on_error: bool,
    /// The job's state.
    pub state: JobState,
    /// The job's outputs.
    pub outputs: indexmap::IndexMap<String, String>,
    /// A message about a problem outside of the runner: an expression of the job, a lost runner, a timeout.
    pub remark: Option<String>,
}

impl JobRun {
    /// Returns the conclusion if the job is over.
    pub fn conclusion(&self) -> Option<Conclusion> {
        match self.state {
            JobState::Completed { conclusion, .. } => Some(conclusion),
            _ => None,
        }
    }
}
