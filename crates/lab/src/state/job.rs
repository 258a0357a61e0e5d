//! Jobs, which are offered, assigned, acquired, renewed and completed.
//!
//! ```text
//! Idle -> Offered -> Assigned -> Acquired -> Over
//!            ^          |  not acquired in time, runner deleted
//!            +----------+
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use indexmap::IndexMap;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::LabState;
use super::annotation::{self, Annotation};
use super::group::{DEFAULT_GROUP, NO_GROUP};
use super::job_fault::JobFault;
use super::line::StepFeed;
use super::repository::RepositoryName;
use super::run::{StoredEvent, timestamp};
use super::runner::millis;
use super::scale_set::{JobOfScaleSet, NoticeKind};
use super::step::{StepRecord, StepUpdate};
use crate::event::LabEventKind;
use crate::journal::Record;
use crate::mask::{Mask, SecretSet};
use crate::refusal::Refusal;
use crate::signing::Grant;
use crate::workflow::message::{Service, job_message};
use crate::workflow::{Conclusion, JobIndex, JobRun};

/// Lifetime of a job's token. It outlives the longest job, which takes six hours and some more time to end.
const JOB_TOKEN_SECONDS: i64 = 48 * 3600;

/// The runner that has the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Hold {
    /// No runner; the job is not offered.
    Idle,
    /// No runner yet; the job is offered.
    Offered,
    /// The runner was sent the job's message and must acquire the job by `until_ms`.
    Assigned { runner: u64, until_ms: i64 },
    /// The runner has acquired the job and must renew it by `locked_until_ms`.
    Acquired { runner: u64, locked_until_ms: i64 },
    /// The job is over.
    Over,
}

/// A job, as it is stored. Its definition is in its run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct JobRecord {
    pub(crate) id: u64,
    pub(crate) run: u64,
    pub(crate) index: usize,
    pub(crate) guid: String,
    pub(crate) request_guid: String,
    pub(crate) timeline_guid: String,
    pub(crate) step_guids: Vec<String>,
    pub(crate) created_ms: i64,
    pub(crate) started_ms: Option<i64>,
    pub(crate) completed_ms: Option<i64>,
    pub(crate) runner: Option<RunnerOfJob>,
    pub(crate) hold: Hold,
    pub(crate) steps: Vec<StepRecord>,
    #[serde(default)]
    pub(crate) annotations: Vec<Annotation>,
    /// True if the runner app writes the lines of its own last step, "Complete job", into the log of the last step of the
    /// workflow, as github-act-runner does.
    #[serde(default)]
    pub(crate) completes_in_last_step: bool,
    /// The secrets that the job has added by `add-mask`, until it is over.
    #[serde(default, serialize_with = "exposed", skip_serializing_if = "Vec::is_empty")]
    pub(crate) masks: Vec<SecretString>,
    /// The scale set that has acquired the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scale_set: Option<JobOfScaleSet>,
}

impl JobRecord {
    /// Returns true if this scale set has acquired the job.
    pub(super) fn of_scale_set(&self, id: u64) -> bool {
        self.scale_set.is_some_and(|it| it.scale_set == id)
    }
}

/// The requirements of a job for its runner.
pub(super) struct WantedRunner {
    pub(super) repository: RepositoryName,
    pub(super) group: Option<u64>,
    pub(super) labels: Vec<String>,
    /// The scale set that has acquired the job, so that only its runners fit.
    pub(super) scale_set: Option<u64>,
}

/// Writes secrets into the journal, which is a private file.
fn exposed<S: Serializer>(secrets: &[SecretString], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(secrets.iter().map(ExposeSecret::expose_secret))
}

/// A runner app's report of a finished job.
pub(crate) struct Completion {
    pub(crate) conclusion: Conclusion,
    pub(crate) outputs: IndexMap<String, String>,
    pub(crate) steps: Vec<StepUpdate>,
    /// The annotations of the job itself come first.
    pub(crate) annotations: Vec<Annotation>,
}

/// The runner that has or had a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunnerOfJob {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) group_id: u64,
    pub(crate) group_name: String,
}

/// A job.
pub(crate) struct Job {
    pub(crate) record: JobRecord,
    pub(super) cancel: Option<Cancel>,
    /// The lines of each step's log that were received so far, by the step's GUID.
    pub(super) feeds: HashMap<String, StepFeed>,
    pub(super) meter: super::line::Meter,
    /// The secrets that the job's texts must not have; compiled for its first text.
    pub(super) mask: Option<Mask>,
    /// True if the job has added more secrets than can be masked, so that no more of its lines are taken.
    pub(super) is_unmaskable: bool,
    /// The step into whose log the runner app writes the lines of its own last step, after it has begun.
    pub(super) completing: Option<String>,
    /// The fault that the job has been chosen for.
    pub(super) fault: Option<JobFault>,
}

/// A request to the runner to stop the job.
pub(super) struct Cancel {
    pub(super) grace_seconds: u64,
    pub(super) told_ms: Option<i64>,
}

impl Job {
    pub(super) fn new(record: JobRecord) -> Self {
        Self {
            record,
            cancel: None,
            feeds: HashMap::new(),
            meter: super::line::Meter::default(),
            mask: None,
            is_unmaskable: false,
            completing: None,
            fault: None,
        }
    }
}

impl LabState {
    /// Returns the id of a run's job. Creates the job with a new id if it does not exist yet.
    pub(super) fn job_of(&mut self, run: u64, index: JobIndex) -> u64 {
        let known = self.runs.get(&run).and_then(|entry| entry.jobs.get(index.0)).copied();
        if let Some(id) = known.filter(|id| *id != 0) {
            return id;
        }
        let id = self.new_id();
        let guid = || uuid::Uuid::new_v4().to_string();
        let steps = self.job_run(run, index).map_or(0, |(_, steps)| steps);
        let record = JobRecord {
            id,
            run,
            index: index.0,
            guid: guid(),
            request_guid: guid(),
            timeline_guid: guid(),
            step_guids: (0..steps).map(|_| guid()).collect(),
            created_ms: self.now_ms(),
            started_ms: None,
            completed_ms: None,
            runner: None,
            hold: Hold::Idle,
            steps: Vec::new(),
            annotations: Vec::new(),
            completes_in_last_step: false,
            masks: Vec::new(),
            scale_set: None,
        };
        self.record(&Record::Job(record.clone()));
        self.adopt_job(record);
        id
    }

    /// Adds a job to the state and to its run. In the run's list, zero marks the indexes that have no job id yet.
    pub(super) fn adopt_job(&mut self, record: JobRecord) {
        if let Some(entry) = self.runs.get_mut(&record.run) {
            if entry.jobs.len() <= record.index {
                entry.jobs.resize(record.index + 1, 0);
            }
            entry.jobs[record.index] = record.id;
        }
        self.jobs.insert(record.id, Job::new(record));
    }

    /// Returns the run's data of a job, and the number of its steps.
    pub(crate) fn job_run(&self, run: u64, index: JobIndex) -> Option<(&JobRun, usize)> {
        let run = &self.runs.get(&run)?.run;
        let job = run.job(index)?;
        let steps = run.workflow().jobs.get(&job.job_id).map_or(0, |job| job.steps.len());
        Some((job, steps))
    }

    fn name_of(&self, job: u64) -> String {
        let known =
            self.jobs.get(&job).and_then(|job| self.job_run(job.record.run, JobIndex(job.record.index)));
        known.map(|(job, _)| job.name.clone()).unwrap_or_default()
    }

    pub(super) fn record_job(&mut self, job: u64) {
        if let Some(entry) = self.jobs.get(&job) {
            let record = Record::Job(entry.record.clone());
            self.record(&record);
        }
    }

    /// Returns what a job requires of a runner. Returns `None` if the job is not offered.
    pub(super) fn wanted(&self, job: u64) -> Option<WantedRunner> {
        let record = &self.jobs.get(&job)?.record;
        let entry = self.runs.get(&record.run)?;
        let runs_on = &entry.run.job(JobIndex(record.index))?.runs_on;
        let group_id = |name: &String| self.group_named(name).map_or(NO_GROUP, |group| group.id);
        (record.hold == Hold::Offered).then(|| WantedRunner {
            repository: entry.record.repository.clone(),
            group: runs_on.group.as_ref().map(group_id),
            labels: runs_on.labels.clone(),
            scale_set: record.scale_set.map(|it| it.scale_set),
        })
    }

    pub(super) fn queue_job(&mut self, job: u64) {
        let Some(entry) = self.jobs.get(&job) else { return };
        let (run, index) = (entry.record.run, JobIndex(entry.record.index));
        let Some((job_run, _)) = self.job_run(run, index) else { return };
        let (key, name, runs_on) = (job_run.job_id.clone(), job_run.name.clone(), job_run.runs_on.clone());
        let (labels, group) = (runs_on.labels, runs_on.group);
        let group_id = match group.as_ref().map(|group| self.requested_group(group)) {
            None => DEFAULT_GROUP,
            Some(Ok(id)) => id,
            // As on GitHub, the job waits for a runner of a group that does not exist.
            Some(Err(refusal)) => {
                let group = group.as_deref().unwrap_or_default();
                let text = format!(
                    "no runner gets the job {name:?}, because there is no group {group:?}: {}",
                    refusal.message
                );
                self.publish(run, LabEventKind::Notice { text });
                NO_GROUP
            }
        };
        self.publish(run, LabEventKind::JobQueued { job, key, name, labels, group, group_id });
        self.tell_hooks(job, "queued");
        self.choose_job_fault(job);
        self.offer(job);
    }

    /// Puts a job (back) into the queue of jobs that wait for a runner.
    pub(super) fn offer(&mut self, job: u64) {
        let Some(entry) = self.jobs.get_mut(&job) else { return };
        entry.record.hold = Hold::Offered;
        entry.record.runner = None;
        self.offered.insert(job);
        self.record_job(job);
        self.offer_to_scale_sets(job);
        self.offer_to_runners(job);
    }

    /// Takes a job out of the queue of jobs that wait for a runner.
    pub(super) fn take_off(&mut self, job: u64) {
        if self.offered.remove(&job) {
            self.withdraw_from_scale_sets(job);
        }
    }

    /// Records that a runner was sent the job.
    pub(super) fn assign(&mut self, job: u64, runner: u64) {
        let until_ms = self.now_ms() + millis(self.limits.assignment);
        let Some(of_job) = self.runner_of_job(runner) else { return };
        let Some(entry) = self.jobs.get_mut(&job) else { return };
        let (run, runner_name) = (entry.record.run, of_job.name.clone());
        entry.record.hold = Hold::Assigned { runner, until_ms };
        entry.record.runner = Some(of_job);
        self.take_off(job);
        self.record_job(job);
        self.publish(run, LabEventKind::JobAssigned { job, runner, runner_name });
    }

    fn runner_of_job(&self, runner: u64) -> Option<RunnerOfJob> {
        let registration = &self.runners.get(&runner)?.registration;
        let group = self.group(registration.group_id);
        Some(RunnerOfJob {
            id: runner,
            name: registration.name.clone(),
            group_id: registration.group_id,
            group_name: group.map(|group| group.name.clone()).unwrap_or_default(),
        })
    }

    pub(super) fn withdraw_job(&mut self, job: u64) {
        self.take_off(job);
        let Some(entry) = self.jobs.get_mut(&job) else { return };
        let hold = std::mem::replace(&mut entry.record.hold, Hold::Idle);
        if let Hold::Assigned { runner, .. } = hold {
            entry.record.runner = None;
            self.release_runner(runner);
        }
        self.record_job(job);
    }

    pub(super) fn cancel_job(&mut self, job: u64, grace: Duration) {
        if let Some(entry) = self.jobs.get_mut(&job) {
            entry.cancel = Some(Cancel { grace_seconds: grace.as_secs(), told_ms: None });
            self.tell_cancel(job);
        }
    }

    /// Records that a job is over, regardless of the cause.
    pub(super) fn end_job(&mut self, job: u64, conclusion: Conclusion) {
        self.take_off(job);
        let now_ms = self.now_ms();
        let name = self.name_of(job);
        let Some(entry) = self.jobs.get_mut(&job) else { return };
        if entry.record.hold == Hold::Over {
            return;
        }
        let hold = std::mem::replace(&mut entry.record.hold, Hold::Over);
        entry.record.completed_ms = Some(now_ms);
        let (run, index) = (entry.record.run, JobIndex(entry.record.index));
        match hold {
            Hold::Acquired { runner, .. } => self.spend_runner(runner),
            Hold::Assigned { runner, .. } => self.release_runner(runner),
            Hold::Idle | Hold::Offered | Hold::Over => {}
        }
        self.finish_log(job);
        self.end_completion(job, conclusion);
        self.tell_annotations(job);
        self.tell_summaries(job);
        if let Some(entry) = self.jobs.get_mut(&job) {
            entry.mask = None;
            entry.record.masks.clear();
        }
        self.note(job, NoticeKind::Completed);
        self.record_job(job);
        let remark = self.job_run(run, index).and_then(|(job, _)| job.remark.clone());
        self.publish(
            run,
            match conclusion {
                Conclusion::Skipped => LabEventKind::JobSkipped { job, name },
                _ => LabEventKind::JobCompleted { job, name, conclusion, remark },
            },
        );
        self.tell_hooks(job, "completed");
    }

    /// Gives a job to the runner that was sent it, and returns the job's message, only once. `url` is the address at
    /// which the runner reaches the lab. `is_act_runner` is true for github-act-runner.
    pub(crate) fn acquire(
        &mut self,
        runner: u64,
        request_guid: &str,
        url: &str,
        is_act_runner: bool,
    ) -> Result<Value, Refusal> {
        let found = self.jobs.values().find(|job| job.record.request_guid.eq_ignore_ascii_case(request_guid));
        let entry = found.ok_or_else(|| Refusal::new(404, "job not found"))?;
        let (job, run, index) = (entry.record.id, entry.record.run, entry.record.index);
        match entry.record.hold {
            Hold::Assigned { runner: assigned, .. } if assigned == runner => {}
            Hold::Acquired { .. } => return Err(Refusal::new(409, "job was already acquired")),
            _ => return Err(Refusal::new(404, "job assignment is invalid")),
        }
        let now_ms = self.now_ms();
        let locked_until_ms = now_ms + millis(self.limits.job_lock);
        let service = self.service(job, now_ms, locked_until_ms, url);
        let run_entry = &self.runs[&run];
        let message = job_message(run_entry.run.workflow(), &run_entry.run, JobIndex(index), &service);
        let entry = self.jobs.get_mut(&job).expect("it was found above");
        entry.record.hold = Hold::Acquired { runner, locked_until_ms };
        entry.record.started_ms = Some(now_ms);
        entry.record.completes_in_last_step = is_act_runner;
        // It has no token of the job yet.
        entry.mask = None;
        let runner_name = entry.record.runner.as_ref().map(|runner| runner.name.clone()).unwrap_or_default();
        self.note(job, NoticeKind::Started);
        self.record_job(job);
        self.publish(run, LabEventKind::JobAcquired { job, runner, runner_name });
        self.advance(run, StoredEvent::Started { job: index });
        self.tell_hooks(job, "in_progress");
        Ok(message)
    }

    fn service(&self, job: u64, started_ms: i64, locked_until_ms: i64, url: &str) -> Service {
        let record = &self.jobs[&job].record;
        let run = &self.runs[&record.run].record;
        let secrets =
            self.repositories.get(&run.repository.key()).map(|repository| repository.secrets.clone());
        Service {
            server_url: url.to_owned(),
            run_service_url: format!("{url}/runner/run/"),
            results_url: format!("{url}/runner/results/"),
            feed_stream_url: format!("{}/runner/feed", url.replacen("http", "ws", 1)),
            job_token: self.job_token(job, started_ms),
            github_token: github_token(record),
            plan_id: run.plan_guid.clone(),
            timeline_id: record.timeline_guid.clone(),
            job_id: record.guid.clone(),
            request_id: job,
            locked_until: timestamp(locked_until_ms),
            step_ids: record.step_guids.clone(),
            secrets: secrets.unwrap_or_default(),
            billing_owner_id: String::new(),
        }
    }

    /// Returns the job's access token for the lab's services. A token is a function of the job and of its start, so that
    /// the lab can mask it in logs without storing it.
    fn job_token(&self, job: u64, started_ms: i64) -> SecretString {
        self.signer.issue(Grant::Job { job }, started_ms, JOB_TOKEN_SECONDS).into()
    }

    /// Compiles the mask of a job, if it has none yet: the secrets of its repository, every token of its message, and the
    /// secrets that it has added before a restart.
    pub(super) fn prepare_mask(&mut self, job: u64) {
        let Some(entry) = self.jobs.get(&job).filter(|entry| entry.mask.is_none()) else { return };
        let mut tokens = vec![github_token(&entry.record), basic_credentials(&entry.record)];
        tokens.extend(entry.record.started_ms.map(|started_ms| self.job_token(job, started_ms)));
        let (run, added) = (entry.record.run, entry.record.masks.clone());
        let repository = self.runs.get(&run).map(|run| run.record.repository.key());
        let mut mask = Mask::new(self.secret_set(&repository.unwrap_or_default()), tokens);
        for secret in added {
            // They fitted when they were added.
            let _ = mask.add(secret);
        }
        if let Some(entry) = self.jobs.get_mut(&job) {
            entry.mask = Some(mask);
        }
    }

    /// Returns the compiled secrets of a repository, which its jobs share.
    fn secret_set(&mut self, repository: &str) -> Arc<SecretSet> {
        let secrets = || {
            let found = self.repositories.get(repository);
            found.map(|it| it.secrets.values().cloned().collect()).unwrap_or_default()
        };
        let compile = || Arc::new(SecretSet::new(secrets()));
        Arc::clone(self.secret_sets.entry(repository.to_owned()).or_insert_with(compile))
    }

    /// Compiles the secrets of a repository again after one of them has changed. Its running jobs keep their old masks, because
    /// they have the old secret, and add the new one.
    pub(super) fn secret_changed(&mut self, repository: &str, secret: &SecretString) {
        self.secret_sets.remove(repository);
        let runs = &self.runs;
        let is_here = |run: u64| runs.get(&run).is_some_and(|run| run.record.repository.key() == repository);
        for entry in self.jobs.values_mut().filter(|entry| is_here(entry.record.run)) {
            // A mask that is full takes the new secrets in the place of the old ones.
            if entry.mask.as_mut().is_some_and(|mask| mask.add(secret.clone()).is_err()) {
                entry.mask = None;
            }
        }
    }

    /// Extends a job's lock. Returns its new end.
    pub(crate) fn renew(&mut self, job: u64, guid: &str) -> Result<i64, Refusal> {
        let until_ms = self.now_ms() + millis(self.limits.job_lock);
        let entry = self.jobs.get_mut(&job).filter(|entry| entry.record.guid.eq_ignore_ascii_case(guid));
        match entry.map(|entry| &mut entry.record.hold) {
            Some(Hold::Acquired { locked_until_ms, .. }) => {
                *locked_until_ms = until_ms;
                Ok(until_ms)
            }
            _ => Err(Refusal::new(404, "job not found")),
        }
    }

    /// Handles a runner's report that its job is done. An ephemeral registration is removed with the job. A repeated
    /// report does nothing.
    pub(crate) fn complete(&mut self, job: u64, guid: &str, completion: Completion) -> Result<(), Refusal> {
        let Completion { conclusion, outputs, steps, annotations } = completion;
        let entry = self.jobs.get(&job).filter(|entry| entry.record.guid.eq_ignore_ascii_case(guid));
        let entry = entry.ok_or_else(|| Refusal::new(404, "job not found"))?;
        let (run, index, hold) = (entry.record.run, entry.record.index, entry.record.hold);
        let Hold::Acquired { runner, .. } = hold else {
            return Ok(());
        };
        let outputs = self.without_secrets(job, outputs);
        self.update_steps(job, steps);
        self.annotate(job, annotations);
        self.retire_runner(runner);
        self.advance(run, StoredEvent::Finished { job: index, conclusion, outputs });
        Ok(())
    }

    /// Leaves out the outputs that hold a secret, as actions/runner does (`JobExtension.FinalizeJob`), and says so.
    fn without_secrets(&mut self, job: u64, outputs: IndexMap<String, String>) -> IndexMap<String, String> {
        self.prepare_mask(job);
        let Some(entry) = self.jobs.get(&job) else { return outputs };
        let Some(mask) = &entry.mask else { return outputs };
        let run = entry.record.run;
        let is_open = |key: &str, value: &str| mask.apply(key) == key && mask.apply(value) == value;
        let mut skipped = Vec::new();
        let mut kept = IndexMap::new();
        for (key, value) in outputs {
            if is_open(&key, &value) {
                kept.insert(key, value);
            } else {
                skipped.push(mask.apply(&key));
            }
        }
        for key in skipped {
            let text = format!("the output {key:?} of the job is left out, because it may contain a secret");
            self.publish(run, LabEventKind::Notice { text });
        }
        kept
    }

    /// Stores the annotations of a job. They are in the journal with the record of the job's end.
    fn annotate(&mut self, job: u64, annotations: Vec<Annotation>) {
        self.prepare_mask(job);
        let Some(entry) = self.jobs.get_mut(&job) else { return };
        let Some(mask) = &entry.mask else { return };
        entry.record.annotations = annotation::kept(annotations.into_iter(), mask);
    }

    /// Publishes the annotations of a job that ends. They come after its last log line, so that readers know which of them
    /// the log has shown.
    fn tell_annotations(&mut self, job: u64) {
        let Some(record) = self.jobs.get(&job).map(|entry| &entry.record) else { return };
        let (run, annotations) = (record.run, record.annotations.clone());
        for Annotation { level, message, title, path, start_line, step_number, .. } in annotations {
            self.publish(
                run,
                LabEventKind::Annotation {
                    job,
                    level,
                    message,
                    title,
                    path,
                    line: start_line,
                    step: step_number,
                },
            );
        }
    }

    /// Handles a runner's report that it has lost the job with that GUID. Does nothing if the job does not belong to the
    /// runner.
    pub(crate) fn fail_job_of(&mut self, runner: u64, guid: &str) {
        let job = self.runners.get(&runner).and_then(|runner| runner.job);
        let Some(record) = job.and_then(|job| self.jobs.get(&job)).map(|job| &job.record) else { return };
        let acquired = matches!(record.hold, Hold::Acquired { .. });
        if acquired && record.guid.eq_ignore_ascii_case(guid) {
            let (run, job) = (record.run, record.index);
            self.retire_runner(runner);
            let reason = "The runner exited in the middle of the job and started again.".to_owned();
            self.advance(run, StoredEvent::Lost { job, reason });
        }
    }

    /// Handles jobs whose runner did not acquire them in time or does not renew them any more.
    pub(super) fn tick_jobs(&mut self) {
        let now_ms = self.now_ms();
        let mut late = Vec::new();
        for job in self.jobs.values() {
            match job.record.hold {
                Hold::Assigned { until_ms, .. } if until_ms <= now_ms => late.push(job.record.id),
                Hold::Acquired { locked_until_ms, .. } if locked_until_ms <= now_ms => {
                    late.push(job.record.id)
                }
                _ => {}
            }
        }
        for job in late {
            let record = &self.jobs[&job].record;
            let (run, index) = (record.run, record.index);
            match record.hold {
                Hold::Assigned { runner, .. } => {
                    self.release_runner(runner);
                    self.end_lost_message(job);
                    self.offer(job);
                }
                _ => {
                    let name = record.runner.as_ref().map(|runner| runner.name.clone()).unwrap_or_default();
                    let reason =
                        format!("The self-hosted runner: {name} lost communication with the server.");
                    self.advance(run, StoredEvent::Lost { job: index, reason });
                }
            }
        }
    }
}

/// Returns the value of a job's `github.token`. It is valid nowhere, because no forge behind the lab would accept it. It
/// exists so that jobs find a token in the usual place.
fn github_token(job: &JobRecord) -> SecretString {
    format!("lab-{}", job.guid).into()
}

/// Returns the credentials that actions/runner makes of the token for git, in base64 (`ExecutionContext.InitializeJob`).
fn basic_credentials(job: &JobRecord) -> SecretString {
    let credentials = format!("x-access-token:{}", github_token(job).expose_secret());
    base64::engine::general_purpose::STANDARD.encode(credentials).into()
}
