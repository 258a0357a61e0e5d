//! One job of a run: one instance of a matrix, or the only one.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::expression::Value;

/// How a job or a run ended, as GitHub's REST API spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Conclusion {
    /// Everything that had to went well.
    Success,
    /// Something failed.
    Failure,
    /// Stopped by someone, by fail-fast or by a timeout.
    Cancelled,
    /// Its `if` said no, or something it needs did not succeed.
    Skipped,
}

impl Conclusion {
    /// GitHub's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }

    /// Reads the word of a runner's `completejob` (`succeeded`, `failed`, `canceled`, `skipped`) or GitHub's own,
    /// whatever their case. `None` for any other.
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

/// Names a job within its run, counting from 0 in the order in which the jobs came into being.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobIndex(pub usize);

/// What a job asks of a runner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunsOn {
    /// The runner group, if one is asked for.
    pub group: Option<String>,
    /// The labels a runner must have, all of them.
    pub labels: Vec<String>,
}

/// Why a job is being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    /// Someone cancelled the run.
    Requested,
    /// Another instance of its matrix failed.
    FailFast,
    /// Its `timeout-minutes` are over.
    TimedOut,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Held back by `max-parallel`.
    Waiting,
    /// Ready for a runner.
    Queued {
        /// Since when.
        since: Timestamp,
    },
    /// A runner has it.
    Running {
        /// Since when.
        since: Timestamp,
        /// When its `timeout-minutes` are over.
        deadline: Timestamp,
    },
    /// A runner has it and was told to stop.
    Cancelling {
        /// When a runner acquired it.
        since: Timestamp,
        /// Until when the runner may take its time; after that the job is over without it.
        deadline: Timestamp,
        /// Why.
        reason: CancelReason,
    },
    /// Over.
    Completed {
        /// When a runner acquired it, if one did.
        started: Option<Timestamp>,
        /// Since when.
        at: Timestamp,
        /// How it ended.
        conclusion: Conclusion,
    },
}

/// A job of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRun {
    /// Its number in the run.
    pub index: JobIndex,
    /// Its key under `jobs:`.
    pub job_id: String,
    /// What people see, such as `build (1, linux)`.
    pub name: String,
    /// What it asks of a runner.
    pub runs_on: RunsOn,
    /// The `matrix` context: an object, or null.
    pub matrix: Value,
    /// The `strategy` context.
    pub strategy: Value,
    /// The `needs` context.
    pub needs: Value,
    /// `timeout-minutes`; 360 when the workflow does not say.
    pub timeout_minutes: f64,
    /// `continue-on-error`: a failure does not fail the run.
    pub continue_on_error: bool,
    /// Where it stands.
    pub state: JobState,
    /// What it put out.
    pub outputs: indexmap::IndexMap<String, String>,
    /// What went wrong outside of the runner, in words for people: an expression of the job, a lost runner, a timeout.
    pub remark: Option<String>,
}

impl JobRun {
    /// How it ended, once it did.
    pub fn conclusion(&self) -> Option<Conclusion> {
        match self.state {
            JobState::Completed { conclusion, .. } => Some(conclusion),
            _ => None,
        }
    }
}
