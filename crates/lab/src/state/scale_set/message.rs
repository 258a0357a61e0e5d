//! The messages about jobs, in the form in which the service writes them.

use serde::{Deserialize, Serialize};

use crate::state::{LabState, timestamp};
use crate::workflow::{Conclusion, JobIndex};

/// How the service writes a time that is not set: the least time of .NET.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// A message about a job that waits for the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notice {
    pub(crate) job: u64,
    pub(crate) kind: NoticeKind,
}

/// The kind of a message about a job, in the order of a job's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NoticeKind {
    /// The scale set can acquire the job.
    Available,
    /// No runner has taken the job in time, so the scale set has lost it. GitHub says so in the words of a cancelled job.
    Requeued,
    /// The scale set has the job, which waits for a runner.
    Assigned,
    /// A runner has acquired the job.
    Started,
    /// The job is over.
    Completed,
}

impl NoticeKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Available => "JobAvailable",
            Self::Assigned => "JobAssigned",
            Self::Started => "JobStarted",
            Self::Requeued | Self::Completed => "JobCompleted",
        }
    }
}

/// A job as a message shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobMessage {
    message_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    acquire_job_url: Option<String>,
    runner_request_id: u64,
    repository_name: String,
    owner_name: String,
    job_id: String,
    job_workflow_ref: String,
    job_display_name: String,
    workflow_run_id: u64,
    event_name: String,
    request_labels: Vec<String>,
    queue_time: String,
    scale_set_assign_time: String,
    runner_assign_time: String,
    finish_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runner_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runner_name: Option<String>,
}

fn time(ms: Option<i64>) -> String {
    ms.map_or_else(|| NO_TIME.to_owned(), |ms| timestamp(ms).to_string())
}

impl LabState {
    /// Returns the message about a job. `acquire_url` is the address at which the job can be acquired. Returns `None` if the
    /// job's run was removed.
    pub(crate) fn job_message_of(&self, notice: Notice, acquire_url: &str) -> Option<JobMessage> {
        let Notice { job, kind } = notice;
        let record = &self.jobs.get(&job)?.record;
        let run = &self.runs.get(&record.run)?.record;
        let (job_run, _) = self.job_run(record.run, JobIndex(record.index))?;
        let name = run.repository.full_name();
        let (ended, requeued) = (kind == NoticeKind::Completed, kind == NoticeKind::Requeued);
        let started = kind >= NoticeKind::Started;
        let runner = record.runner.as_ref().filter(|_| started);
        let result = job_run.conclusion().filter(|_| ended).map(|conclusion| conclusion.as_runner_word());
        let finished_ms = if requeued { Some(self.now_ms()) } else { record.completed_ms.filter(|_| ended) };
        Some(JobMessage {
            message_type: kind.as_str(),
            acquire_job_url: (kind == NoticeKind::Available).then(|| acquire_url.to_owned()),
            runner_request_id: job,
            repository_name: run.repository.name.clone(),
            owner_name: run.repository.owner.clone(),
            job_id: record.guid.clone(),
            job_workflow_ref: format!("{name}/{}@{}", run.path(), run.git_ref),
            job_display_name: job_run.name.clone(),
            workflow_run_id: run.id,
            event_name: run.event.clone(),
            request_labels: job_run.runs_on.labels.clone(),
            queue_time: time(Some(record.created_ms)),
            scale_set_assign_time: time(record.scale_set.map(|it| it.acquired_ms)),
            runner_assign_time: time(record.started_ms.filter(|_| started)),
            finish_time: time(finished_ms),
            result: if requeued { Some(Conclusion::Cancelled.as_runner_word()) } else { result },
            // A job that ended before a runner took it names none.
            runner_id: (started || requeued).then(|| runner.map_or(0, |runner| runner.id)),
            runner_name: (started || requeued)
                .then(|| runner.map(|runner| runner.name.clone()).unwrap_or_default()),
        })
    }
}
