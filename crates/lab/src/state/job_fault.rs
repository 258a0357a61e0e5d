//! The faults of jobs. Each is chosen when the job is queued, so that it depends on the order of jobs and not on the times of
//! polls.

use indexmap::IndexMap;

use super::group::DEFAULT_GROUP;
use super::job::{Completion, Job};
use super::registration::RegistrationRequest;
use super::scale_set::NoticeKind;
use super::scope::Scope;
use super::{Hold, LabState};
use crate::fault::{Call, Fault};
use crate::keys::PublicKey;
use crate::workflow::{Conclusion, JobIndex};

/// How long a stolen job runs.
const STOLEN_RUN_MS: i64 = 5000;

/// The fault that a job has been chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobFault {
    /// A runner that the lab makes up takes the job at this time.
    Stolen { at_ms: i64 },
    /// That runner has the job until this time.
    RunsElsewhere { until_ms: i64 },
    /// The job's run is cancelled at this time.
    Cancelled { at_ms: i64 },
    /// The next message that offers the job to a runner is lost.
    LosesMessage,
}

impl Job {
    /// Returns true if no runner that polls gets the job.
    pub(super) fn is_kept_back(&self) -> bool {
        matches!(self.fault, Some(JobFault::Stolen { .. } | JobFault::Cancelled { .. }))
    }

    /// Returns true if the message about the job does not reach its runner.
    pub(super) fn loses_message(&self) -> bool {
        self.fault == Some(JobFault::LosesMessage)
    }
}

impl LabState {
    /// Chooses the fault of a job that is queued.
    pub(super) fn choose_job_fault(&mut self, job: u64) {
        let now_ms = self.now_ms();
        let mut ask = |fault| self.fault(fault, Call::JOB, || format!("job {job}"));
        let at = |seconds: u64| now_ms + i64::try_from(seconds * 1000).unwrap_or(i64::MAX / 4);
        let chosen = if let Some(seconds) = ask(Fault::JobTheft) {
            Some(JobFault::Stolen { at_ms: at(seconds) })
        } else if let Some(seconds) = ask(Fault::CancelBeforePickUp) {
            Some(JobFault::Cancelled { at_ms: at(seconds) })
        } else {
            ask(Fault::Requeue).map(|_| JobFault::LosesMessage)
        };
        if let Some(entry) = self.jobs.get_mut(&job) {
            entry.fault = chosen;
        }
    }

    /// Queues a job again whose message was lost: its scale set loses it, and the next message arrives.
    pub(super) fn end_lost_message(&mut self, job: u64) {
        if self.jobs.get(&job).is_none_or(|entry| !entry.loses_message()) {
            return;
        }
        self.note(job, NoticeKind::Requeued);
        if let Some(entry) = self.jobs.get_mut(&job) {
            entry.fault = None;
            entry.record.scale_set = None;
        }
    }

    /// Plays the faults of jobs that are due.
    pub(super) fn tick_job_faults(&mut self) {
        let now_ms = self.now_ms();
        let due = |job: &&Job| match job.fault {
            Some(JobFault::Stolen { at_ms } | JobFault::Cancelled { at_ms }) => at_ms <= now_ms,
            Some(JobFault::RunsElsewhere { until_ms }) => until_ms <= now_ms,
            Some(JobFault::LosesMessage) | None => false,
        };
        let due: Vec<u64> = self.jobs.values().filter(due).map(|job| job.record.id).collect();
        due.into_iter().for_each(|job| self.play_job_fault(job));
    }

    fn play_job_fault(&mut self, job: u64) {
        let Some(entry) = self.jobs.get_mut(&job) else { return };
        let (fault, record) = (entry.fault.take(), &entry.record);
        let (run, hold, guid) = (record.run, record.hold, record.guid.clone());
        match fault {
            Some(JobFault::Stolen { .. }) if hold == Hold::Offered => self.steal(job),
            Some(JobFault::Cancelled { .. }) if hold == Hold::Offered => {
                let Some(name) = self.runs.get(&run).map(|run| run.record.repository.clone()) else { return };
                // A run that is over needs no cancellation.
                let _ = self.cancel_run(&name, run);
            }
            Some(JobFault::RunsElsewhere { .. }) if matches!(hold, Hold::Acquired { .. }) => {
                let (outputs, conclusion) = (IndexMap::new(), Conclusion::Success);
                let completion =
                    Completion { conclusion, outputs, steps: Vec::new(), annotations: Vec::new() };
                // The job exists, so its completion is not refused.
                let _ = self.complete(job, &guid, completion);
            }
            // The job is over or was withdrawn.
            _ => {}
        }
    }

    /// Gives a job to a runner that exists only in the lab and has the labels of the job.
    fn steal(&mut self, job: u64) {
        let Some(wanted) = self.wanted(job) else { return };
        let entry = &self.jobs[&job];
        let (request_guid, index, run) =
            (entry.record.request_guid.clone(), JobIndex(entry.record.index), entry.record.run);
        let Some((job_run, _)) = self.job_run(run, index) else { return };
        let mut labels = job_run.runs_on.labels.clone();
        labels.push("self-hosted".to_owned());
        let request = RegistrationRequest {
            scope: Scope::Repository(wanted.repository),
            name: format!("stranger-{job}"),
            group_id: wanted.group.unwrap_or(DEFAULT_GROUP),
            labels,
            work_folder: None,
            ephemeral: true,
            version: None,
            scale_set: wanted.scale_set,
        };
        // No private key belongs to this key, so no caller can act as the runner.
        let no_key = PublicKey { modulus: String::new(), exponent: String::new() };
        let Ok(runner) = self.register(request, no_key).map(|runner| runner.registration.id) else { return };
        if let Some(runner) = self.runners.get_mut(&runner) {
            runner.job = Some(job);
        }
        self.assign(job, runner);
        let url = self.runner_url.clone();
        let is_taken = self.acquire(runner, &request_guid, &url, false).is_ok();
        let until_ms = self.now_ms() + STOLEN_RUN_MS;
        if let Some(entry) = self.jobs.get_mut(&job).filter(|_| is_taken) {
            entry.fault = Some(JobFault::RunsElsewhere { until_ms });
        }
    }
}
