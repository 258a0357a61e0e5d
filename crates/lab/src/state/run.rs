//! Runs: created by a dispatch, changed by events, stored as the list of those events.

use std::sync::Arc;

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::repository::RepositoryName;
use super::{Hold, LabState};
use crate::event::LabEventKind;
use crate::journal::Record;
use crate::refusal::Refusal;
use crate::workflow::{
    self, Action, Conclusion, GithubContext, JobIndex, Run, RunEvent, RunRequest, Workflow,
};

const REF_LEN_MAX: usize = 255;
/// The user who does everything in the lab.
pub(super) const ACTOR: &str = "dayfly";

/// The parameters of a dispatch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dispatch {
    pub(crate) git_ref: String,
    pub(crate) inputs: IndexMap<String, String>,
    /// Use the workflow's first event if the workflow does not list `workflow_dispatch`.
    pub(crate) any_event: bool,
}

/// A run, as it is stored, with all data that is needed to create it again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    pub(crate) id: u64,
    pub(crate) repository: RepositoryName,
    pub(crate) repository_id: u64,
    pub(crate) file: String,
    pub(crate) workflow_id: u64,
    pub(crate) text: String,
    pub(crate) sha: String,
    pub(crate) number: u64,
    pub(crate) event: String,
    pub(crate) git_ref: String,
    pub(crate) inputs: IndexMap<String, String>,
    pub(crate) variables: IndexMap<String, String>,
    pub(crate) runner_url: String,
    pub(crate) plan_guid: String,
    pub(crate) created_ms: i64,
}

/// A run.
pub(crate) struct RunEntry {
    pub(crate) record: RunRecord,
    pub(crate) run: Run,
    pub(crate) events: Vec<(i64, StoredEvent)>,
    /// The ids of its jobs, by their index in the run.
    pub(crate) jobs: Vec<u64>,
}

/// A [`RunEvent`] as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StoredEvent {
    Started { job: usize },
    Finished { job: usize, conclusion: Conclusion, outputs: IndexMap<String, String> },
    Lost { job: usize, reason: String },
    Cancelled,
    TimePassed,
}

impl From<StoredEvent> for RunEvent {
    fn from(event: StoredEvent) -> Self {
        match event {
            StoredEvent::Started { job } => Self::JobStarted { job: JobIndex(job) },
            StoredEvent::Finished { job, conclusion, outputs } => {
                Self::JobFinished { job: JobIndex(job), conclusion, outputs }
            }
            StoredEvent::Lost { job, reason } => Self::RunnerLost { job: JobIndex(job), reason },
            StoredEvent::Cancelled => Self::CancelRequested,
            StoredEvent::TimePassed => Self::TimePassed,
        }
    }
}

impl RunRecord {
    /// Returns the path of the workflow file in its repository.
    pub(super) fn path(&self) -> String {
        format!(".github/workflows/{}", self.file)
    }

    /// Parses the workflow again and creates the run and its first actions.
    pub(super) fn start(&self) -> Result<(Run, Vec<Action>), String> {
        let workflow =
            workflow::parse(&self.path(), &self.text).map_err(|diagnostics| diagnostics.to_string())?;
        let trigger = workflow.trigger(&self.event).ok_or_else(|| format!("no event \"{}\"", self.event))?;
        let inputs = trigger.resolve_inputs(&self.inputs).map_err(|error| error.to_string())?;
        let request = RunRequest { github: self.github(&workflow), inputs, vars: self.variables.clone() };
        Ok(Run::start(Arc::new(workflow), request, timestamp(self.created_ms)))
    }

    /// Returns the repository as events show it.
    pub(super) fn show_repository(&self) -> serde_json::Value {
        let (id, name) = (self.repository_id, &self.repository);
        serde_json::json!({
            "id": id, "name": name.name, "full_name": name.full_name(), "private": true,
            "owner": {"login": name.owner, "id": id}, "default_branch": "main",
        })
    }

    fn github(&self, workflow: &Workflow) -> GithubContext {
        let full_name = self.repository.full_name();
        let mut event = serde_json::json!({
            "ref": self.git_ref,
            "workflow": self.path(),
            "repository": self.show_repository(),
            "sender": {"login": ACTOR, "id": 1},
        });
        if let Some(trigger) =
            workflow.trigger(&self.event).filter(|trigger| trigger.event == "workflow_dispatch")
        {
            // As on GitHub, a workflow without inputs has null here.
            let inputs = (!trigger.inputs.is_empty()).then(|| trigger.event_inputs(&self.inputs));
            event["inputs"] = serde_json::json!(inputs);
        }
        GithubContext {
            repository: full_name,
            repository_id: self.repository_id,
            repository_owner_id: self.repository_id,
            run_id: self.id,
            run_number: self.number,
            run_attempt: 1,
            actor: ACTOR.to_owned(),
            actor_id: 1,
            event_name: self.event.clone(),
            event,
            git_ref: self.git_ref.clone(),
            sha: self.sha.clone(),
            workflow_path: self.path(),
            workflow: workflow.display_name().to_owned(),
            server_url: self.runner_url.clone(),
        }
    }
}

impl LabState {
    /// Creates a run of a workflow file and returns its id.
    pub(crate) fn dispatch(
        &mut self,
        name: &RepositoryName,
        file: &str,
        dispatch: Dispatch,
    ) -> Result<u64, Refusal> {
        let (file, entry) = self.workflow_file(name, file)?;
        let (file, text, sha, workflow_id) =
            (file.to_owned(), entry.text.clone(), entry.sha.clone(), entry.id);
        let parsed = workflow::parse(&file, &text)
            .map_err(|diagnostics| Refusal::invalid(diagnostics.remarks().iter().map(ToString::to_string)))?;
        let event =
            if dispatch.any_event { parsed.default_trigger().event.as_str() } else { "workflow_dispatch" };
        let Some(trigger) = parsed.trigger(event) else {
            return Err(Refusal::new(422, "Workflow does not have 'workflow_dispatch' trigger"));
        };
        trigger.resolve_inputs(&dispatch.inputs).map_err(|error| Refusal::invalid([error.to_string()]))?;
        let git_ref = full_ref(&dispatch.git_ref)?;
        self.make_room()?;
        let number = self.next_run_number(name, &file)?;
        let (repository_id, variables) = {
            let repository = self.repository(name)?;
            (repository.id, repository.variables.clone())
        };
        let record = RunRecord {
            id: self.new_id(),
            repository: self.repository(name)?.name.clone(),
            repository_id,
            file,
            workflow_id,
            text,
            sha,
            number,
            event: event.to_owned(),
            git_ref,
            inputs: dispatch.inputs,
            variables,
            runner_url: self.runner_url.clone(),
            plan_guid: uuid::Uuid::new_v4().to_string(),
            created_ms: self.now_ms(),
        };
        self.start_run(record)
    }

    fn start_run(&mut self, record: RunRecord) -> Result<u64, Refusal> {
        let (run, actions) = record.start().map_err(|error| Refusal::invalid([error]))?;
        let id = record.id;
        self.record(&Record::Run(record.clone()));
        let created = LabEventKind::RunCreated {
            workflow: run.workflow().display_name().to_owned(),
            title: run.display_title(),
            number: record.number,
        };
        let notices: Vec<String> = run.workflow().notices.iter().map(ToString::to_string).collect();
        self.runs.insert(id, RunEntry { record, run, events: Vec::new(), jobs: Vec::new() });
        self.publish(id, created);
        for text in notices {
            self.publish(id, LabEventKind::Notice { text });
        }
        self.apply(id, actions);
        Ok(id)
    }

    /// Removes the oldest finished runs while there are too many runs or jobs.
    fn make_room(&mut self) -> Result<(), Refusal> {
        while self.runs.len() >= self.limits.runs_max || self.jobs.len() >= self.limits.jobs_max {
            let finished = self.runs.values().find(|entry| entry.run.conclusion().is_some());
            let Some(id) = finished.map(|entry| entry.record.id) else {
                return Err(Refusal::new(
                    422,
                    format!("The lab holds {} runs at most, and all are under way", self.runs.len()),
                ));
            };
            self.forget_run(id);
        }
        Ok(())
    }

    /// Removes a run with its jobs and their logs.
    pub(super) fn forget_run(&mut self, id: u64) {
        if self.runs.remove(&id).is_none() {
            return;
        }
        let jobs: Vec<u64> =
            self.jobs.values().filter(|job| job.record.run == id).map(|job| job.record.id).collect();
        for job in jobs {
            self.jobs.remove(&job);
            self.take_off(job);
            self.logs.remove(job);
        }
        self.record(&Record::RunGone(id));
    }

    /// Passes an event to a run and performs the actions that it returns.
    pub(super) fn advance(&mut self, id: u64, event: StoredEvent) {
        let now_ms = self.now_ms();
        let Some(entry) = self.runs.get_mut(&id) else { return };
        entry.events.push((now_ms, event.clone()));
        let actions = entry.run.handle(event.clone().into(), timestamp(now_ms));
        self.record(&Record::RunEvent { run: id, at_ms: now_ms, event });
        self.apply(id, actions);
    }

    fn apply(&mut self, id: u64, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::QueueJob { job } => {
                    let job = self.job_of(id, job);
                    self.queue_job(job);
                }
                Action::WithdrawJob { job } => {
                    let job = self.job_of(id, job);
                    self.withdraw_job(job);
                }
                Action::CancelJob { job, grace, .. } => {
                    let job = self.job_of(id, job);
                    self.cancel_job(job, grace);
                }
                Action::Notice { text } => self.publish(id, LabEventKind::Notice { text }),
                Action::JobCompleted { job, conclusion } => {
                    let job = self.job_of(id, job);
                    self.end_job(job, conclusion);
                }
                Action::RunCompleted { conclusion } => {
                    self.publish(id, LabEventKind::RunCompleted { conclusion })
                }
            }
        }
    }

    /// Cancels a run and asks its runners to stop.
    pub(crate) fn cancel_run(&mut self, name: &RepositoryName, id: u64) -> Result<(), Refusal> {
        if self.run(name, id)?.run.conclusion().is_some() {
            return Err(Refusal::new(409, "Cannot cancel a workflow run that is completed."));
        }
        self.advance(id, StoredEvent::Cancelled);
        Ok(())
    }

    /// Cancels a run without waiting for its runners.
    pub(crate) fn force_cancel_run(&mut self, name: &RepositoryName, id: u64) -> Result<(), Refusal> {
        self.cancel_run(name, id)?;
        let jobs = self
            .jobs
            .values()
            .filter(|job| job.record.run == id && matches!(job.record.hold, Hold::Acquired { .. }));
        let indexes: Vec<usize> = jobs.map(|job| job.record.index).collect();
        for job in indexes {
            let finished =
                StoredEvent::Finished { job, conclusion: Conclusion::Cancelled, outputs: IndexMap::new() };
            self.advance(id, finished);
        }
        Ok(())
    }

    /// Returns a run of that repository.
    pub(crate) fn run(&self, name: &RepositoryName, id: u64) -> Result<&RunEntry, Refusal> {
        let entry = self.runs.get(&id).filter(|entry| entry.record.repository.key() == name.key());
        entry.ok_or_else(Refusal::not_found)
    }

    pub(super) fn tick_runs(&mut self) {
        let now = timestamp(self.now_ms());
        let due = |entry: &&RunEntry| {
            entry.run.conclusion().is_none()
                && entry.run.next_deadline().is_some_and(|deadline| deadline <= now)
        };
        let runs: Vec<u64> = self.runs.values().filter(due).map(|entry| entry.record.id).collect();
        runs.into_iter().for_each(|id| self.advance(id, StoredEvent::TimePassed));
    }
}

/// Returns `refs/heads/main` for `main`. A ref that is already full is returned unchanged.
fn full_ref(git_ref: &str) -> Result<String, Refusal> {
    let git_ref = if git_ref.is_empty() { "main" } else { git_ref };
    if git_ref.len() > REF_LEN_MAX
        || git_ref.contains("..")
        || git_ref.chars().any(|c| c.is_control() || c == ' ')
    {
        return Err(Refusal::new(
            422,
            format!("No ref found for: {}", git_ref.chars().take(60).collect::<String>()),
        ));
    }
    Ok(if git_ref.starts_with("refs/") { git_ref.to_owned() } else { format!("refs/heads/{git_ref}") })
}

/// Converts a time of the lab's clock for the pure parts of the code.
pub(crate) fn timestamp(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

/// Formats milliseconds since 1970 as GitHub writes times.
pub(crate) fn github_time(ms: i64) -> String {
    timestamp(ms / 1000 * 1000).to_string()
}
