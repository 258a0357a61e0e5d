//! The demand for runners: a fixed number, or one runner for each job that waits.
//!
//! A source of jobs (the lab's events today) sends [`DemandEvent`]s to an orchestrator. Another source is another sender of
//! the same events.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::job_end::JobEnd;

/// The demand of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Demand {
    /// A fixed number of runners at any time, whether there are jobs or not.
    Static {
        /// The number of runners. Their slots have the numbers from 1 on.
        runners: u32,
        /// The order in which the slots start.
        start: StartOrder,
    },
    /// A runner for each job that waits.
    Jobs {
        /// Most runners at once.
        max: u32,
    },
}

/// The order in which the slots of a static demand start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartOrder {
    /// The next slot starts when the runner of an earlier slot is up.
    Isolated {
        /// Most slots that start at once.
        parallel: u32,
        /// Longest wait for a runner.
        limit: Duration,
    },
    /// The next slot starts after this pause, whatever the state of the earlier slots.
    Paused(Duration),
}

/// A job that needs a runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDemand {
    /// Id of the job at the forge.
    pub job: u64,
    /// Labels that its runner needs.
    pub labels: Vec<String>,
    /// Id of the runner group that it is queued for.
    pub group: u64,
}

impl JobDemand {
    /// Returns the labels of a runner for the job. A job may request a group alone, but every runner has a label.
    pub fn runner_labels(&self) -> Vec<String> {
        if self.labels.is_empty() { vec!["self-hosted".to_owned()] } else { self.labels.clone() }
    }

    /// Returns true if a runner that was created for this job could run `other`.
    pub(crate) fn fits(&self, other: &Self) -> bool {
        let has = |label: &String| self.labels.iter().any(|own| own.eq_ignore_ascii_case(label));
        self.group == other.group && other.labels.iter().all(has)
    }
}

/// A change of the demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DemandEvent {
    /// A job waits for a runner.
    Queued(JobDemand),
    /// A runner got a job.
    Taken {
        /// The job.
        job: u64,
        /// Name of the runner.
        runner: String,
    },
    /// A job that had a runner has ended. It becomes a fact of that runner, so a source sends it once for a job.
    Ended(JobEnd),
    /// A job needs no runner any more, and had none: it was cancelled or skipped.
    Settled {
        /// The job.
        job: u64,
    },
    /// No more jobs will come.
    Closed,
}

/// The sending end, for a source of jobs.
pub type DemandSender = mpsc::UnboundedSender<DemandEvent>;
/// The receiving end, for an orchestrator.
pub type DemandReceiver = mpsc::UnboundedReceiver<DemandEvent>;

/// Creates the queue between a source of jobs and an orchestrator. It needs no bound: a job has a few events, the forge
/// bounds the number of jobs, and the orchestrator never stops reading.
pub fn channel() -> (DemandSender, DemandReceiver) {
    mpsc::unbounded_channel()
}
