//! The stream of the lab's events, which many subscribers can read.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::fault::{Fault, Operation};
use crate::workflow::Conclusion;

/// An event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabEvent {
    /// The event's number. Counts from 1 in this process of the lab, without gaps.
    pub seq: u64,
    /// The time, in milliseconds since 1970, by the lab's clock.
    pub at_ms: i64,
    /// The repository, `owner/name`. Empty if the event is about no run.
    pub repository: String,
    /// The run's id. 0 if the event is about no run.
    pub run: u64,
    /// The kind of the event, with its details.
    #[serde(flatten)]
    pub kind: LabEventKind,
}

/// The kind of an event, with its details.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LabEventKind {
    /// A run was created.
    RunCreated {
        /// The workflow's name.
        workflow: String,
        /// The title that the forge shows.
        title: String,
        /// Its number within the workflow.
        number: u64,
    },
    /// A remark for the user who started the run, for example about a key that has no effect in the lab.
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
        /// The name that the forge shows.
        name: String,
        /// The labels that a runner must have.
        labels: Vec<String>,
        /// The runner group that the job requests.
        group: Option<String>,
        /// The id of that group, for `generate-jitconfig`; 1 is the default group, and 0 a group that does not exist.
        group_id: u64,
    },
    /// The job's message was sent to a runner.
    JobAssigned {
        /// The job's id.
        job: u64,
        /// The runner's id.
        runner: u64,
        /// The runner's name.
        runner_name: String,
    },
    /// The runner requested the job and got it (`acquirejob` was answered).
    JobAcquired {
        /// The job's id.
        job: u64,
        /// The runner's id.
        runner: u64,
        /// The runner's name.
        runner_name: String,
    },
    /// A step started.
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
    /// A line of a job's log. It is published live if the runner's feed delivered it, otherwise when the log is uploaded.
    LogLine {
        /// The job's id.
        job: u64,
        /// The step's number; `None` if the runner named no step.
        number: Option<u32>,
        /// The step's name; empty if the runner named no step.
        step: String,
        /// The time at which the runner wrote the line, in RFC 3339. A line of the live feed carries no time, so it has
        /// the time of its arrival.
        time: String,
        /// The line without its time.
        line: String,
    },
    /// A runner app reported an annotation at the job's end, in addition to its log.
    Annotation {
        /// The job's id.
        job: u64,
        /// `notice`, `warning` or `failure`.
        level: String,
        /// The text.
        message: String,
        /// Its title.
        title: Option<String>,
        /// The file that the annotation is about.
        path: Option<String>,
        /// The line in that file, from 1; if no file is named, the line in the step's log.
        line: Option<u64>,
        /// The number of its step. `None` if it is about the job as a whole.
        step: Option<u64>,
    },
    /// A step of a job has a summary, which it wrote to `GITHUB_STEP_SUMMARY`. It is published when the job ends.
    JobSummary {
        /// The job's id.
        job: u64,
        /// The step's number; `None` if the runner has not reported the step.
        number: Option<u32>,
        /// The step's name; empty if the runner has not reported the step.
        step: String,
        /// The text in Markdown, or its first 64 KiB.
        text: String,
        /// The length of the whole text, in bytes. `GET /lab/v1/jobs/{id}/summary` returns the whole text.
        bytes: u64,
    },
    /// A job ended.
    JobCompleted {
        /// The job's id.
        job: u64,
        /// The name that the forge shows.
        name: String,
        /// The outcome.
        conclusion: Conclusion,
        /// An error that occurred outside of the runner.
        remark: Option<String>,
    },
    /// A job was skipped.
    JobSkipped {
        /// The job's id.
        job: u64,
        /// The name that the forge shows.
        name: String,
    },
    /// The run ended. No more events follow for it.
    RunCompleted {
        /// The outcome.
        conclusion: Conclusion,
    },
    /// The fault desk has made a failure happen.
    FaultInjected {
        /// The fault.
        fault: Fault,
        /// The operation at which it happened.
        operation: Operation,
        /// The request, as method and path; for a fault inside of the lab, the runner, job, session or delivery.
        request: String,
        /// The number of the rule.
        rule: u64,
        /// How many times the rule has made it happen, with this one.
        count: u64,
    },
}

/// A subscriber's end of the stream.
#[derive(Debug)]
pub struct LabEvents {
    backlog: VecDeque<Arc<LabEvent>>,
    live: broadcast::Receiver<Arc<LabEvent>>,
}

/// The subscriber read too slowly, so it missed events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{missed} events were missed because they were read too slowly")]
pub struct Lagged {
    /// The number of events that this subscriber missed.
    pub missed: u64,
}

impl LabEvents {
    /// Waits for the next event and returns it. Returns `None` when the lab is gone.
    ///
    /// # Errors
    /// [`Lagged`] if events were lost; the next call continues with the oldest event that is still stored.
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

/// The publishing end of the stream. The owner of the state holds it.
pub(crate) struct EventBus {
    sender: broadcast::Sender<Arc<LabEvent>>,
    kept: VecDeque<Arc<LabEvent>>,
    kept_max: usize,
    kept_bytes: usize,
    seq: u64,
}

/// Most bytes of texts from runners that the stored events may contain together.
const KEPT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Returns the length of the text from a runner in an event. The other texts of events are short.
fn bytes(event: &LabEvent) -> usize {
    match &event.kind {
        LabEventKind::LogLine { line, .. } => line.len(),
        LabEventKind::JobSummary { text, .. } => text.len(),
        LabEventKind::Annotation { message, title, path, .. } => {
            message.len() + title.as_ref().map_or(0, String::len) + path.as_ref().map_or(0, String::len)
        }
        _ => 0,
    }
}

impl EventBus {
    /// Creates the publishing end. Up to `waiting_max` events wait for a subscriber that is behind, and up to `kept_max`
    /// events are stored for later subscribers.
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
        // `send` fails only if there is no subscriber.
        let _ = self.sender.send(event);
    }

    /// Returns a subscriber that gets the stored events with a number above `since`, then new events.
    pub(crate) fn subscribe_since(&self, since: u64) -> LabEvents {
        let backlog = self.kept.iter().filter(|event| event.seq > since).cloned().collect();
        LabEvents { backlog, live: self.sender.subscribe() }
    }
}

/// Returns a subscriber that gets the events from now on.
pub(crate) fn subscribe(sender: &broadcast::Sender<Arc<LabEvent>>) -> LabEvents {
    LabEvents { backlog: VecDeque::new(), live: sender.subscribe() }
}
