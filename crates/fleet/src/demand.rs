//! The demand for runners: a fixed number, or as many runners as there are jobs.
//!
//! A source of jobs sends [`DemandEvent`]s for a pool to an orchestrator: the events of a lab, the messages of a scale set,
//! the deliveries of a webhook, the answers of a poll. Another source is another sender of the same events. Several sources
//! may feed one pool, because the same job has the same id in each of them, and a number of jobs is not added to them.

mod labels;
mod poll;
mod scale_set;
mod source;
mod webhook;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::job_end::JobEnd;

pub use labels::PoolLabels;
pub use poll::PollSource;
pub use scale_set::{
    RegisterError, ScaleSetFamily, ScaleSetRegistrar, ScaleSetSource, SessionNote, scale_set,
};
pub use source::{MinIdleNow, MinIdleSchedule, Source};
pub(crate) use source::{Predecessors, start};
pub use webhook::{WEBHOOK, WebhookSource};

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
    /// A runner for each job that waits, with the labels of that job.
    Jobs {
        /// Most runners at once.
        max: u32,
    },
    /// As many runners as there are jobs, all alike, and some that wait for a job.
    Scaled(Scale),
}

/// The rule for the number of alike runners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    /// Runners that wait for a job beside those that the known jobs need. [`DemandEvent::MinIdle`] replaces the number.
    pub min_idle: u32,
    /// Most runners at once.
    pub max: u32,
    /// Time after which a runner above the number that is needed goes, if it got no job.
    pub idle_timeout: Duration,
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

/// The details of a job that its source knows, beside those that its runner needs. It changes no demand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobDetails {
    /// Id of the job at the forge.
    pub job: u64,
    /// Its name.
    pub name: Option<String>,
    /// Its repository, as owner/name.
    pub repository: Option<String>,
    /// Its workflow.
    pub workflow: Option<String>,
    /// The labels that its runner needs.
    pub labels: Vec<String>,
    /// Time at which the forge queued it, milliseconds since 1970-01-01 UTC.
    pub queued_ms: Option<u64>,
    /// True if the job waits for a runner of the pool, and no [`DemandEvent::Queued`] says so, because the source only counts jobs.
    pub waits: bool,
}

/// A change of the demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DemandEvent {
    /// The details of a job, before the event that is about it.
    Described(JobDetails),
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
    /// So many jobs are assigned to the pool, whether they have a runner yet or not. Jobs that other events report are
    /// among them.
    Assigned {
        /// The number of jobs.
        jobs: u32,
    },
    /// A scaled pool has this minimum of idle runners from now on.
    MinIdle(u32),
    /// No more jobs will come.
    Closed,
}

/// A change of the demand of one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolDemand {
    /// Number of the pool, from 0 in the order in which the orchestrator got them. Two pools may have the same name while one of
    /// them drains.
    pub pool: u32,
    /// The change.
    pub event: DemandEvent,
}

/// The sending end, for the sources of all pools.
#[derive(Debug, Clone)]
pub struct DemandSender {
    sender: mpsc::UnboundedSender<PoolDemand>,
}

/// The sending end, for the sources of one pool.
#[derive(Debug, Clone)]
pub struct PoolDemandSender {
    pool: u32,
    sender: mpsc::UnboundedSender<PoolDemand>,
}

/// The receiving end, for an orchestrator.
pub type DemandReceiver = mpsc::UnboundedReceiver<PoolDemand>;

/// Creates the queue between sources of jobs and an orchestrator. It needs no bound, because the orchestrator never stops
/// reading, and itself bounds the jobs that it remembers.
pub fn channel() -> (DemandSender, DemandReceiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (DemandSender { sender }, receiver)
}

impl DemandSender {
    /// Returns the sending end for one pool; see [`PoolDemand::pool`].
    pub fn of(&self, pool: u32) -> PoolDemandSender {
        PoolDemandSender { pool, sender: self.sender.clone() }
    }
}

impl PoolDemandSender {
    /// Sends a change. A source that sends after the orchestrator's end is ignored.
    pub fn send(&self, event: DemandEvent) {
        let _ = self.sender.send(PoolDemand { pool: self.pool, event });
    }
}
