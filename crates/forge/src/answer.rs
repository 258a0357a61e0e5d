//! What forges answer, as far as dayfly looks at it. Members that are not known are passed over.

use serde::Deserialize;

/// A registered runner.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GithubRunner {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// `online` or `offline`; lags by up to a minute.
    pub status: String,
    /// It has a job.
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
    /// Its number.
    pub id: u64,
    /// The workflow's name.
    #[serde(default)]
    pub name: Option<String>,
    /// What people see as its title.
    #[serde(default)]
    pub display_title: String,
    /// `queued`, `in_progress`, `completed`, ...
    pub status: String,
    /// `success`, `failure`, `cancelled`, ... once it is completed.
    pub conclusion: Option<String>,
}

/// A job of a run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GithubJob {
    /// Its number.
    pub id: u64,
    /// Its run.
    pub run_id: u64,
    /// Its name, with the matrix in brackets.
    pub name: String,
    /// `queued`, `in_progress`, `completed`, ...
    pub status: String,
    /// `success`, `failure`, `cancelled`, `skipped`, ... once it is completed.
    pub conclusion: Option<String>,
    /// The labels that it asks for.
    #[serde(default)]
    pub labels: Vec<String>,
    /// The runner that has or had it.
    #[serde(default)]
    pub runner_id: Option<u64>,
    /// That runner's name.
    #[serde(default)]
    pub runner_name: Option<String>,
    /// Its steps, as far as the runner told.
    #[serde(default)]
    pub steps: Vec<GithubStep>,
    /// The lab's own: what went wrong outside of the runner.
    #[serde(default)]
    pub remark: Option<String>,
}

/// A step of a job.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GithubStep {
    /// From 1.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// `queued`, `in_progress` or `completed`.
    pub status: String,
    /// `success`, `failure`, `cancelled` or `skipped`, once it is completed.
    pub conclusion: Option<String>,
}
