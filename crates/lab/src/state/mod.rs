//! The lab's state and all operations that change it. One thread owns it (see [`super::hub`]), and nothing in this module
//! blocks.
//!
//! ```text
//! contents, dispatch --> runs --Action--> jobs --offer--> runners' polls
//!                         ^                 |
//!                         |                 |--offer--> scale sets' listeners --acquire--> their runners alone
//!                         +-- StoredEvent --+-- acquire, renew, complete, steps, lines
//!                                           |
//!                                           +-- queued, in progress, completed --> deliveries of webhooks
//! ```

mod annotation;
mod app;
mod fault;
mod group;
mod hook;
mod job;
mod job_fault;
mod job_view;
mod leaving;
mod line;
mod open;
mod registration;
mod repository;
mod run;
mod runner;
mod scale_set;
mod scope;
mod session;
mod step;
mod summary;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::{Notify, oneshot};

use super::event::{EventBus, LabEventKind};
use super::fault::{Call, Fault, FaultDesk};
use super::journal::{Journal, Record};
use super::log_file::LogFiles;
use super::mask::SecretSet;
use super::settings::{Clock, Limits};
use super::signing::Signer;

#[cfg(test)]
pub(crate) use group::GROUPS_MAX;
pub(crate) use group::{DEFAULT_GROUP, Group};
use leaving::Leaving;

pub(crate) use annotation::Annotation;
use app::WaitingManifests;
pub(crate) use app::{App, AppManifest};
pub(crate) use hook::{Answer, ContentType, Delivery, Hook, HookRecord, HookSend, NewHook};
pub(crate) use job::{Completion, Hold, Job, JobRecord};
pub(crate) use open::read_or_make;
pub(crate) use registration::{Registration, RegistrationRequest};
pub(crate) use repository::{Repository, RepositoryName};
pub(crate) use run::{Dispatch, RunEntry, RunRecord, StoredEvent, github_time, timestamp};
pub(crate) use runner::Runner;
pub(crate) use scale_set::{
    ListenerPoll, ListenerSession, Notice, NoticeKind, QueueMessage, ScaleSet, ScaleSetLabel, ScaleSetRecord,
    ScaleSetRequest, scale_set_not_found,
};
pub(crate) use scope::Scope;
pub(crate) use session::{Message, RunnerPoll, runner_not_found};
pub(crate) use step::{GUID_LEN_MAX, StepRecord, StepUpdate};
pub(crate) use summary::{SUMMARY_BYTES_MAX, step_summaries};

/// Growth of the journal, in bytes, after which it is rewritten with the current state only.
const JOURNAL_GROWTH_BYTES: u64 = 16 * 1024 * 1024;
/// Time between two attempts to write the whole state after the disk was full.
const JOURNAL_RETRY_MS: i64 = 5000;

/// The greatest whole number up to which floating point has all whole numbers (IEEE 754, binary64).
const LARGE_ID: u64 = 1 << 53;

/// The complete state of the lab.
pub(crate) struct LabState {
    pub(crate) clock: Clock,
    pub(crate) limits: Limits,
    pub(crate) signer: Signer,
    /// The address at which runners reach the lab, for addresses that are created before a runner calls. It has no slash
    /// at its end.
    pub(crate) runner_url: String,
    pub(crate) bus: EventBus,
    pub(crate) faults: FaultDesk,
    pub(crate) logs: LogFiles,
    journal: Journal,
    journal_base_bytes: u64,
    /// Time of the next attempt to write the whole state after the disk was full.
    journal_retry_ms: i64,
    last_id: u64,
    pub(crate) repositories: BTreeMap<String, Repository>,
    pub(crate) groups: Vec<Group>,
    pub(crate) apps: Vec<App>,
    /// Manifests of Apps whose code was not used. They do not outlive the process.
    manifests: WaitingManifests,
    pub(crate) runners: BTreeMap<u64, Runner>,
    leaving: BTreeMap<u64, Leaving>,
    pub(crate) scale_sets: BTreeMap<u64, ScaleSet>,
    /// Answers to polls of listeners, which leave after the journal is written.
    answers: Vec<(oneshot::Sender<QueueMessage>, QueueMessage)>,
    pub(crate) hooks: BTreeMap<u64, Hook>,
    /// Wakes the task that sends deliveries.
    pub(crate) hook_work: Arc<Notify>,
    pub(crate) runs: BTreeMap<u64, RunEntry>,
    pub(crate) jobs: BTreeMap<u64, Job>,
    /// The jobs that wait for a runner, oldest first.
    offered: BTreeSet<u64>,
    /// The compiled secrets of repositories with running jobs, by the repository's key.
    secret_sets: HashMap<String, Arc<SecretSet>>,
    /// The lock on the folder, held as long as the state lives, so that only one lab uses a folder.
    _lock: std::fs::File,
}

impl LabState {
    /// Returns the milliseconds since 1970, by the lab's clock.
    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    fn new_id(&mut self) -> u64 {
        let is_small = self.last_id < LARGE_ID;
        if is_small && self.fault(Fault::LargeIds, Call::NEW_ID, || "the next id".to_owned()).is_some() {
            self.last_id = LARGE_ID;
        }
        self.last_id += 1;
        self.last_id
    }

    fn record(&mut self, record: &Record) {
        self.journal.append(record);
    }

    fn publish(&mut self, run: u64, kind: LabEventKind) {
        let now_ms = self.now_ms();
        let repository =
            self.runs.get(&run).map(|entry| entry.record.repository.full_name()).unwrap_or_default();
        self.bus.publish(now_ms, &repository, run, kind);
    }

    /// Writes the changes to the journal. Called after each piece of work, before its answer is sent.
    pub(crate) fn save(&mut self) {
        if let Err(error) = self.journal.flush() {
            tracing::error!(%error, "the lab's journal cannot be written: unwritten changes are lost when this process exits");
        }
        if self.journal.is_behind() && self.now_ms() >= self.journal_retry_ms {
            // It writes the whole state, so it is not tried after each piece of work.
            self.journal_retry_ms = self.now_ms() + JOURNAL_RETRY_MS;
            self.compact();
        } else if self.journal.written_bytes() > self.journal_base_bytes + JOURNAL_GROWTH_BYTES {
            self.compact();
        }
    }

    /// Rewrites the journal with the current state only.
    fn compact(&mut self) {
        let mut records = vec![Record::LastId(self.last_id)];
        records.extend(self.groups.iter().cloned().map(Record::Group));
        records.extend(self.apps.iter().cloned().map(Record::App));
        records.extend(self.repositories.values().cloned().map(Record::Repository));
        records.extend(self.scale_sets.values().map(|set| Record::ScaleSet(set.record.clone())));
        records.extend(self.hooks.values().map(|hook| Record::Hook(hook.record.clone())));
        records.extend(self.runners.values().map(|runner| Record::Runner(runner.registration.clone())));
        for entry in self.runs.values() {
            records.push(Record::Run(entry.record.clone()));
            let event = |(at_ms, event): &(i64, StoredEvent)| Record::RunEvent {
                run: entry.record.id,
                at_ms: *at_ms,
                event: event.clone(),
            };
            records.extend(entry.events.iter().map(event));
        }
        records.extend(self.jobs.values().map(|job| Record::Job(job.record.clone())));
        if let Err(error) = self.journal.replace(records.into_iter()) {
            tracing::error!(%error, "the lab's journal cannot be rewritten");
        }
        self.journal_base_bytes = self.journal.written_bytes();
    }

    /// Handles what is due by now: deadlines of runs, expired locks, registrations that were not used.
    pub(crate) fn tick(&mut self) {
        self.tick_runs();
        self.tick_jobs();
        self.tick_job_faults();
        self.tick_hooks();
        self.tick_runners();
        self.tick_leaving();
        self.tick_listeners();
    }
}
