//! Answers of forges, with the members that dayfly uses. Unknown members are ignored.

use serde::Deserialize;

/// A registered runner.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GithubRunner {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// `online` or `offline`; lags by up to a minute.
    pub status: String,
    /// True if it has a job.
    pub busy: bool,
    /// Its labels.
    #[serde(default)]
    pub labels: Vec<RunnerLabel>,
}

/// A label of a runner.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RunnerLabel {
    /// The label.
    pub name: String,
}

/// A workflow run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GithubRun {
    /// Its id.
    pub id: u64,
    /// The workflow's name.
    #[serde(default)]
    pub name: Option<String>,
    /// The title that the forge shows.
    #[serde(default)]
    pub display_title: String,
    /// `queued`, `in_progress`, `completed`, ...
    pub status: String,
    /// `success`, `failure`, `cancelled`, ...; `None` until the run is completed.
    pub conclusion: Option<String>,
}

/// A job of a run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GithubJob {
    /// Its id.
    pub id: u64,
    /// Its run.
    pub run_id: u64,
    /// Its name, with the matrix in brackets.
    pub name: String,
    /// `queued`, `in_progress`, `completed`, ...
    pub status: String,
    /// `success`, `failure`, `cancelled`, `skipped`, ...; `None` until the job is completed.
    pub conclusion: Option<String>,
    /// The labels that a runner must have.
    #[serde(default)]
    pub labels: Vec<String>,
    /// The id of the runner that has or had the job.
    #[serde(default)]
    pub runner_id: Option<u64>,
    /// That runner's name.
    #[serde(default)]
    pub runner_name: Option<String>,
    /// Name of its workflow.
    #[serde(default)]
    pub workflow_name: Option<String>,
    /// The time at which it was queued.
    #[serde(default)]
    pub created_at: Option<String>,
    /// Its steps, as far as the runner has reported them.
    #[serde(default)]
    pub steps: Vec<GithubStep>,
    /// A member that only the lab sends: an error that occurred outside of the runner.
    #[serde(default)]
    pub remark: Option<String>,
}

impl GithubJob {
    /// Returns the time at which it was queued, milliseconds since 1970-01-01 UTC; none if the forge does not say it in a form that is
    /// known.
    pub fn queued_ms(&self) -> Option<u64> {
        self.created_at.as_deref().and_then(milliseconds)
    }
}

/// Returns the milliseconds since 1970-01-01 UTC of a time as GitHub writes it.
pub(crate) fn milliseconds(text: &str) -> Option<u64> {
    u64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_millisecond()).ok()
}

/// A step of a job.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GithubStep {
    /// Its number, from 1.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// `queued`, `in_progress` or `completed`.
    pub status: String,
    /// `success`, `failure`, `cancelled` or `skipped`; `None` until the step is completed.
    pub conclusion: Option<String>,
}
