//! What happens in the lab, as one stream with many readers.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::workflow::Conclusion;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabEvent {
    /// Counts from 1 in this process of the lab, without a gap.
    pub seq: u64,
    /// When, in milliseconds since 1970, by the lab's clock.
    pub at_ms: i64,
    /// The repository, `owner/name`.
    pub repository: String,
    /// The run's id.
    pub run: u64,
    /// What.
    #[serde(flatten)]
    pub kind: LabEventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LabEventKind {
    /// A run came into being.
    RunCreated {
        /// The workflow's name.
        workflow: String,
        /// What people see as the run's title.
        title: String,
        /// Its number within the workflow.
        number: u64,
    },
    /// A remark for whoever started the run, such as a key that has no effect here.
    Notice {
        /// The remark.
        text: String,
    },
    /// A job waits for a runner.
    JobQueued {
        /// The job's id.
        job: u64,
        /// Its key under `jobs:`.
        key: String,
        /// What people see as its name.
        name: String,
        /// The labels that a runner must have.
        labels: Vec<String>,
        /// The runner group it asks for.
        group: Option<String>,
        /// That group's id, to be used in `generate-jitconfig`; 1 is the default group.
        group_id: u64,
    },
    /// The job's message went to a runner.
    JobAssigned {
        /// The job's id.
        job: u64,
        /// The runner's id.
        runner: u64,
        /// The runner's name.
        runner_name: String,
    },
    /// The runner asked for the job and got it (`acquirejob` was answered).
    JobAcquired {
        /// The job's id.
        job: u64,
        /// The runner's id.
        runner: u64,
        /// The runner's name.
        runner_name: String,
    },
    /// A step began.
    StepStarted {
        /// The job's id.
        job: u64,
        /// Its number, from 1.
        number: u32,
        /// Its name.
        name: String,
    },
    /// A step ended.
    StepCompleted {
        /// The job's id.
        job: u64,
        /// Its number, from 1.
        number: u32,
        /// Its name.
        name: String,
        /// `success`, `failure`, `cancelled` or `skipped`.
        conclusion: String,
    },
    /// A line of a job's log: live where the runner's feed delivered it, else when its log was uploaded.
    LogLine {
        /// The job's id.
        job: u64,
        /// The step's number; `None` where the runner named no step.
        number: Option<u32>,
        /// The step's name; empty where the runner named no step.
        step: String,
        /// When the runner wrote it, in RFC 3339; the time of arrival for lines of the live feed, which carries none.
        time: String,
        /// The line without its time.
        line: String,
    },
    /// A runner app said something about a job beside its log, at the job's end.
    Annotation {
        /// The job's id.
        job: u64,
        /// `notice`, `warning` or `failure`.
        level: String,
        /// The text.
        message: String,
        /// Its title.
        title: Option<String>,
        /// The file that it is about.
        path: Option<String>,
        /// The line in it, from 1; of the step's log if no file is named.
        line: Option<u64>,
        /// The number of its step; none: it is about the job as a whole.
        step: Option<u64>,
    },
    /// A job ended.
    JobCompleted {
        /// The job's id.
        job: u64,
        /// What people see as its name.
        name: String,
        /// How.
        conclusion: Conclusion,
        /// What went wrong outside of the runner.
        remark: Option<String>,
    },
    /// A job was not run.
    JobSkipped {
        /// The job's id.
        job: u64,
        /// What people see as its name.
        name: String,
    },
    /// The run ended; nothing more comes for it.
    RunCompleted {
        /// How.
        conclusion: Conclusion,
    },
}

/// A subscriber's end of the stream.
#[derive(Debug)]
pub struct LabEvents {
    backlog: VecDeque<Arc<LabEvent>>,
    live: broadcast::Receiver<Arc<LabEvent>>,
}

/// The subscriber was too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{missed} events were missed because they were read too slowly")]
pub struct Lagged {
    /// How many events are lost to this subscriber.
    pub missed: u64,
}

impl LabEvents {
    /// The next event; waits for it. `None` when the lab is gone.
    ///
    /// # Errors
    /// [`Lagged`] when events were lost in between; the next call goes on with the oldest one kept.
    pub async fn next(&mut self) -> Option<Result<Arc<LabEvent>, Lagged>> {
        if let Some(event) = self.backlog.pop_front() {
            return Some(Ok(event));
        }
        match self.live.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Err(Lagged { missed })),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// The publishing end, kept by the owner of the state.
pub(crate) struct EventBus {
    sender: broadcast::Sender<Arc<LabEvent>>,
    kept: VecDeque<Arc<LabEvent>>,
    kept_max: usize,
    kept_bytes: usize,
    seq: u64,
}

/// What the kept events may hold of log lines together.
const KEPT_BYTES_MAX: usize = 32 * 1024 * 1024;

fn bytes(event: &LabEvent) -> usize {
    if let LabEventKind::LogLine { line, .. } = &event.kind { line.len() } else { 0 }
}

impl EventBus {
    /// `waiting_max` events wait for a subscriber that is behind, `kept_max` for one that comes later.
    pub(crate) fn new(waiting_max: usize, kept_max: usize) -> Self {
        let sender = broadcast::Sender::new(waiting_max.max(1));
        Self { sender, kept: VecDeque::new(), kept_max, kept_bytes: 0, seq: 0 }
    }

    pub(crate) fn sender(&self) -> broadcast::Sender<Arc<LabEvent>> {
        self.sender.clone()
    }

    pub(crate) fn publish(&mut self, at_ms: i64, repository: &str, run: u64, kind: LabEventKind) {
        self.seq += 1;
        let event = Arc::new(LabEvent { seq: self.seq, at_ms, repository: repository.to_owned(), run, kind });
        self.kept_bytes += bytes(&event);
        while self.kept.len() >= self.kept_max.max(1) || self.kept_bytes > KEPT_BYTES_MAX {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.kept_bytes -= bytes(&oldest);
        }
        self.kept.push_back(event.clone());
        // Without a subscriber there is nobody to tell.
        let _ = self.sender.send(event);
    }

    /// Everything kept with a number above `since`, then what comes.
    pub(crate) fn subscribe_since(&self, since: u64) -> LabEvents {
        let backlog = self.kept.iter().filter(|event| event.seq > since).cloned().collect();
        LabEvents { backlog, live: self.sender.subscribe() }
    }
}

/// A subscriber that gets what comes from now on.
pub(crate) fn subscribe(sender: &broadcast::Sender<Arc<LabEvent>>) -> LabEvents {
    LabEvents { backlog: VecDeque::new(), live: sender.subscribe() }
}
