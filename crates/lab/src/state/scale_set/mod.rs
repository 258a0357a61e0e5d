//! Scale sets: groups of runners for single jobs, whose owner (a listener) is told which jobs wait for them.
//!
//! ```text
//!  job is offered --> available --acquire--> assigned --runner acquires--> running --> over
//!                         |                     |                             |          |
//!  messages:         JobAvailable          JobAssigned                   JobStarted  JobCompleted
//! ```
//!
//! A job that waits is available to every scale set whose labels, group and scope fit, and to every ordinary runner that
//! fits. The first scale set that acquires the job has it alone: only runners that were created by the set's JIT configs
//! get it. The jobs are those of [`super::job`]; a scale set holds only their ids.
//!
//! A scale set, its session, and the last message about each job that the listener has acknowledged are in the journal, so
//! that a listener goes on with its session and its token after the lab was killed. Messages are built again from the jobs.
//!
//! The service is GitHub's alone; its client is public (github.com/actions/scaleset 0.4.0, MIT). Texts and types of errors,
//! and the meaning of the statistics, were observed in logs of its users.

mod message;
mod queue;
mod session;
mod statistics;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::group::DEFAULT_GROUP;
use super::job::WantedRunner;
use super::registration::is_label;
use super::scope::Scope;
use super::{Hold, LabState};
use crate::journal::Record;
use crate::refusal::Refusal;

pub(crate) use message::{Notice, NoticeKind};
use queue::JobQueue;
pub(crate) use queue::{ListenerPoll, QueueMessage};
pub(crate) use session::ListenerSession;

const LABELS_MAX: usize = 100;
/// Longest text of `RunnerSetting`, which the lab stores and does not read.
const SETTING_BYTES_MAX: usize = 4096;

/// A scale set, as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ScaleSetRecord {
    pub(crate) id: u64,
    pub(crate) scope: Scope,
    pub(crate) name: String,
    pub(crate) group_id: u64,
    pub(crate) labels: Vec<ScaleSetLabel>,
    /// The object `RunnerSetting`, with all of its members.
    pub(crate) setting: Value,
    pub(crate) created_ms: i64,
    pub(crate) session: Option<ListenerSession>,
}

/// A label of a scale set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScaleSetLabel {
    pub(crate) name: String,
    /// `System` or `Customer`.
    #[serde(rename = "type", default = "system")]
    pub(crate) kind: String,
}

fn system() -> String {
    "System".to_owned()
}

/// The properties of a new scale set, or the changes of an old one. `None` keeps the old value or takes the default.
#[derive(Debug, Clone, Default)]
pub(crate) struct ScaleSetRequest {
    pub(crate) name: Option<String>,
    pub(crate) group_id: Option<u64>,
    pub(crate) labels: Option<Vec<ScaleSetLabel>>,
    pub(crate) setting: Option<Value>,
}

/// A scale set.
pub(crate) struct ScaleSet {
    pub(crate) record: ScaleSetRecord,
    queue: JobQueue,
    /// Time of the last call of its session.
    seen_ms: i64,
}

/// The part of a job that its scale set adds, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobOfScaleSet {
    pub(crate) scale_set: u64,
    pub(crate) acquired_ms: i64,
    /// The last message about the job that the listener has acknowledged.
    pub(crate) told: Option<NoticeKind>,
}

impl JobOfScaleSet {
    /// Notes that the listener has acknowledged a message about the job.
    pub(super) fn mark_told(&mut self, kind: NoticeKind) {
        self.told = self.told.max(Some(kind));
    }
}

impl ScaleSet {
    pub(super) fn new(record: ScaleSetRecord) -> Self {
        Self { record, queue: JobQueue::default(), seen_ms: 0 }
    }

    fn fits(&self, wanted: &WantedRunner) -> bool {
        let record = &self.record;
        let has = |label: &String| record.labels.iter().any(|own| own.name.eq_ignore_ascii_case(label));
        record.scope.serves(&wanted.repository)
            && wanted.group.is_none_or(|group| group == record.group_id)
            && wanted.labels.iter().all(has)
    }
}

impl LabState {
    /// Returns a scale set of that scope.
    pub(crate) fn scale_set(&self, scope: &Scope, id: u64) -> Result<&ScaleSet, Refusal> {
        let found = self.scale_sets.get(&id).filter(|set| set.record.scope.same(scope));
        found.ok_or_else(|| scale_set_not_found(id))
    }

    /// Creates a scale set and returns its id.
    pub(crate) fn make_scale_set(&mut self, scope: Scope, request: ScaleSetRequest) -> Result<u64, Refusal> {
        let sets_max = self.limits.scale_sets_max;
        if self.scale_sets.len() >= sets_max {
            return Err(Refusal::new(400, format!("The lab holds {sets_max} runner scale sets at most")));
        }
        if let Scope::Repository(name) = &scope {
            self.repository(name)?;
        }
        let new = ScaleSetRecord {
            id: 0,
            scope,
            name: String::new(),
            group_id: DEFAULT_GROUP,
            labels: Vec::new(),
            setting: Value::Object(serde_json::Map::new()),
            created_ms: self.now_ms(),
            session: None,
        };
        let checked = self.changed(new, request)?;
        let id = self.new_id();
        self.scale_sets.insert(id, ScaleSet::new(ScaleSetRecord { id, ..checked }));
        self.record_scale_set(id);
        self.offer_jobs_to_scale_set(id);
        Ok(id)
    }

    /// Changes a scale set. Jobs that it has acquired stay with it, also if its labels do not fit them any more.
    pub(crate) fn update_scale_set(
        &mut self,
        scope: &Scope,
        id: u64,
        request: ScaleSetRequest,
    ) -> Result<(), Refusal> {
        let record = self.scale_set(scope, id)?.record.clone();
        let changed = self.changed(record, request)?;
        if let Some(set) = self.scale_sets.get_mut(&id) {
            set.record = changed;
        }
        self.record_scale_set(id);
        self.offer_jobs_to_scale_set(id);
        Ok(())
    }

    /// Returns a record with the changes of a request, if the result is valid.
    fn changed(&self, old: ScaleSetRecord, request: ScaleSetRequest) -> Result<ScaleSetRecord, Refusal> {
        let mut record = ScaleSetRecord {
            name: request.name.unwrap_or(old.name),
            group_id: request.group_id.unwrap_or(old.group_id),
            labels: request.labels.unwrap_or(old.labels),
            setting: request.setting.unwrap_or(old.setting),
            ..old
        };
        if record.labels.is_empty() {
            record.labels.push(ScaleSetLabel { name: record.name.clone(), kind: system() });
        }
        self.check_scale_set(&record)?;
        Ok(record)
    }

    fn check_scale_set(&self, record: &ScaleSetRecord) -> Result<(), Refusal> {
        let ScaleSetRecord { id, scope, name, group_id, labels, setting, .. } = record;
        if !is_label(name) {
            return Err(Refusal::new(
                400,
                "The runner scale set's name must be a label of 1 to 256 characters",
            ));
        }
        if labels.len() > LABELS_MAX {
            return Err(Refusal::new(400, format!("A runner scale set has {LABELS_MAX} labels at most")));
        }
        if let Some(label) = labels.iter().find(|label| !is_label(&label.name) || label.kind.len() > 40) {
            let label: String = label.name.chars().take(40).collect();
            return Err(Refusal::new(400, format!("\"{label}\" is no label")));
        }
        if setting.to_string().len() > SETTING_BYTES_MAX {
            return Err(Refusal::new(400, format!("RunnerSetting has {SETTING_BYTES_MAX} bytes at most")));
        }
        let Some(group) = self.groups_of(scope).into_iter().find(|group| group.id == *group_id) else {
            let message = format!("No runner group found with identifier {group_id}.");
            return Err(Refusal::named(404, "RunnerGroupNotFoundException", message));
        };
        let is_same = |other: &ScaleSetRecord| {
            other.id != *id
                && other.scope.same(scope)
                && other.group_id == *group_id
                && other.name.eq_ignore_ascii_case(name)
        };
        if self.scale_sets.values().any(|set| is_same(&set.record)) {
            let message =
                format!("The runner scale set {name} already exists in the runner group {}.", group.name);
            return Err(Refusal::named(409, "RunnerScaleSetExistsException", message));
        }
        Ok(())
    }

    /// Deletes a scale set. The jobs that it has acquired and that no runner runs wait again for any runner. Its runners
    /// without a running job are removed, because they would get none.
    pub(crate) fn delete_scale_set(&mut self, scope: &Scope, id: u64) -> Result<(), Refusal> {
        self.scale_set(scope, id)?;
        self.scale_sets.remove(&id);
        let runs = |job: u64| {
            let hold = self.jobs.get(&job).map(|job| job.record.hold);
            matches!(hold, Some(Hold::Acquired { .. }))
        };
        let mut idle = Vec::new();
        let mut waiting = Vec::new();
        for runner in self.runners.values().filter(|it| it.registration.scale_set == Some(id)) {
            if !runner.job.is_some_and(runs) {
                idle.push(runner.registration.id);
            }
        }
        for job in self.jobs.values().filter(|job| job.record.of_scale_set(id)) {
            if matches!(job.record.hold, Hold::Offered | Hold::Assigned { .. }) {
                waiting.push(job.record.id);
            }
        }
        idle.into_iter().for_each(|runner| self.remove_runner(runner));
        for job in waiting {
            if let Some(job) = self.jobs.get_mut(&job) {
                job.record.scale_set = None;
            }
            self.offer(job);
        }
        // It comes last, because a half of these records must not leave a job with a scale set that is gone.
        self.record(&Record::ScaleSetGone(id));
        Ok(())
    }

    pub(super) fn record_scale_set(&mut self, id: u64) {
        if let Some(set) = self.scale_sets.get(&id) {
            let record = Record::ScaleSet(set.record.clone());
            self.record(&record);
        }
    }
}

/// Returns the error for an unknown scale set. Clients look it up by its name then, and create it again.
pub(crate) fn scale_set_not_found(id: u64) -> Refusal {
    let message = format!("No runner scale set found with identifier {id}.");
    Refusal::named(404, "RunnerScaleSetNotFoundException", message)
}
