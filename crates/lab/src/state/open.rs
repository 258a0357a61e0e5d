//! Reads the state back from the lab's folder.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, DirBuilder};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use super::run::timestamp;
use super::runner::millis;
use super::{Group, Hold, Hook, JobRecord, LabState, Notice, RunEntry, Runner, ScaleSet};
use crate::error::LabError;
use crate::event::EventBus;
use crate::fault::FaultDesk;
use crate::journal::{Journal, Record, private_file};
use crate::log_file::LogFiles;
use crate::settings::LabSettings;
use crate::signing::Signer;
use dayfly_host::digest::hexadecimal;
use dayfly_host::file;
use serde_json::Value;

#[derive(Default)]
struct Stored {
    last_id: u64,
    jobs: BTreeMap<u64, JobRecord>,
}

impl LabState {
    /// Opens the folder of a lab. Creates the folder if it does not exist.
    pub(crate) fn open(settings: &LabSettings) -> Result<Self, LabError> {
        let data = &settings.data;
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| LabError::Data { path, source }
        };
        let logs = data.join("logs");
        DirBuilder::new().recursive(true).mode(0o700).create(&logs).map_err(at(&logs))?;
        let lock = lock(data)?;
        let key_path = data.join("signing-key");
        let key =
            read_or_make(&key_path, || hexadecimal(&rand::random::<[u8; 32]>())).map_err(at(&key_path))?;
        let journal_path = data.join("journal.jsonl");
        let mut records = Vec::new();
        let journal =
            Journal::open(&journal_path, |record| records.push(record)).map_err(at(&journal_path))?;
        let mut state = Self {
            clock: settings.clock.clone(),
            limits: settings.limits.clone(),
            signer: Signer::new(key_bytes(&key)),
            runner_url: settings.runner_url.as_deref().unwrap_or_default().trim_end_matches('/').to_owned(),
            bus: EventBus::new(settings.limits.events_waiting_max, settings.limits.events_kept_max),
            faults: FaultDesk::new(settings.fault_seed.unwrap_or_else(rand::random)),
            logs: LogFiles::new(logs),
            journal,
            journal_base_bytes: 0,
            journal_retry_ms: 0,
            last_id: 0,
            repositories: BTreeMap::new(),
            groups: Vec::new(),
            apps: Vec::new(),
            manifests: Default::default(),
            runners: BTreeMap::new(),
            leaving: BTreeMap::new(),
            scale_sets: BTreeMap::new(),
            hooks: BTreeMap::new(),
            hook_work: Arc::default(),
            answers: Vec::new(),
            runs: BTreeMap::new(),
            jobs: BTreeMap::new(),
            offered: BTreeSet::new(),
            secret_sets: HashMap::new(),
            _lock: lock,
        };
        state.recall(records);
        for spec in &settings.faults {
            state.add_fault(spec.clone()).map_err(|refusal| LabError::Fault {
                spec: spec.to_string(),
                why: refusal.errors.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; "),
            })?;
        }
        Ok(state)
    }

    fn recall(&mut self, records: Vec<Record>) {
        let mut stored = Stored::default();
        records.into_iter().for_each(|record| self.recall_one(record, &mut stored));
        self.last_id = stored
            .last_id
            .max(self.highest_id())
            .max(stored.jobs.keys().copied().max().unwrap_or(0))
            .max(100);
        if self.groups.is_empty() {
            self.groups.push(Group::default_group());
        }
        stored.jobs.into_values().for_each(|job| self.adopt_job(job));
        self.jobs.retain(|_, job| self.runs.contains_key(&job.record.run));
        let jobs: Vec<u64> = self.jobs.keys().copied().collect();
        jobs.into_iter().for_each(|job| self.resume_job(job));
        self.resume_scale_sets();
        self.compact();
    }

    fn recall_one(&mut self, record: Record, stored: &mut Stored) {
        match record {
            Record::Repository(repository) => {
                self.repositories.insert(repository.name.key(), repository);
            }
            Record::Group(group) => {
                self.groups.retain(|known| known.id != group.id);
                self.groups.push(group);
            }
            Record::App(app) => {
                self.apps.retain(|known| known.id != app.id);
                self.apps.push(app);
            }
            Record::Runner(registration) => {
                self.runners.insert(registration.id, Runner::new(registration));
            }
            Record::RunnerGone(id) => {
                stored.last_id = stored.last_id.max(id);
                self.runners.remove(&id);
            }
            Record::Run(record) => match record.start() {
                Ok((run, _)) => {
                    self.runs
                        .insert(record.id, RunEntry { record, run, events: Vec::new(), jobs: Vec::new() });
                }
                Err(error) => {
                    tracing::warn!(run = record.id, %error, "a stored run cannot be read and is forgotten")
                }
            },
            Record::RunEvent { run, at_ms, event } => {
                if let Some(entry) = self.runs.get_mut(&run) {
                    entry.run.handle(event.clone().into(), timestamp(at_ms));
                    entry.events.push((at_ms, event));
                }
            }
            Record::RunGone(id) => {
                self.runs.remove(&id);
                stored.jobs.retain(|_, job| job.run != id);
                stored.last_id = stored.last_id.max(id);
            }
            Record::Job(job) => {
                stored.jobs.insert(job.id, job);
            }
            Record::ScaleSet(record) => {
                self.scale_sets.insert(record.id, ScaleSet::new(record));
            }
            Record::ScaleSetGone(id) => {
                stored.last_id = stored.last_id.max(id);
                self.scale_sets.remove(&id);
            }
            Record::Hook(record) => {
                self.hooks.insert(record.id, Hook::new(record));
            }
            Record::HookGone(id) => {
                stored.last_id = stored.last_id.max(id);
                self.hooks.remove(&id);
            }
            Record::Told(notices) => {
                for Notice { job, kind } in notices {
                    let of_set = stored.jobs.get_mut(&job).and_then(|job| job.scale_set.as_mut());
                    if let Some(of_set) = of_set {
                        of_set.mark_told(kind);
                    }
                }
            }
            Record::LastId(id) => stored.last_id = stored.last_id.max(id),
        }
    }

    fn highest_id(&self) -> u64 {
        let ids = [
            self.repositories.values().map(|repository| repository.id).max(),
            self.repositories.values().flat_map(|it| it.workflows.values()).map(|file| file.id).max(),
            self.groups.iter().map(|group| group.id).max(),
            self.apps.iter().map(|app| app.id).max(),
            self.runners.keys().copied().max(),
            self.scale_sets.keys().copied().max(),
            self.hooks.keys().copied().max(),
            self.runs.keys().copied().max(),
        ];
        ids.into_iter().flatten().max().unwrap_or(0)
    }

    /// Resumes a job in the state in which the last process left it.
    fn resume_job(&mut self, job: u64) {
        let fresh_lock_ms = self.now_ms() + millis(self.limits.job_lock);
        let Some(entry) = self.jobs.get_mut(&job) else { return };
        match &mut entry.record.hold {
            // The runner may have missed the message, so the job is offered again and the runner is free again.
            Hold::Assigned { .. } | Hold::Offered => {
                entry.record.hold = Hold::Offered;
                entry.record.runner = None;
                self.offered.insert(job);
            }
            // The runner could not renew while the lab was not running.
            Hold::Acquired { runner, locked_until_ms } => {
                *locked_until_ms = fresh_lock_ms;
                let runner = *runner;
                if let Some(runner) = self.runners.get_mut(&runner) {
                    runner.job = Some(job);
                }
                self.recall_log(job);
            }
            Hold::Idle | Hold::Over => {}
        }
    }
}

/// Reads a small private file. If it does not exist, creates it with the text that `make` returns.
pub(crate) fn read_or_make(path: &Path, make: impl FnOnce() -> String) -> io::Result<String> {
    match fs::File::open(path) {
        Ok(file) => {
            let mut text = String::new();
            file.take(4096).read_to_string(&mut text)?;
            Ok(text.trim().to_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = make();
            file::replace_durably(path, format!("{text}\n").as_bytes())?;
            Ok(text)
        }
        Err(error) => Err(error),
    }
}

fn lock(data: &Path) -> Result<fs::File, LabError> {
    let path = data.join(dayfly_forge::proof::LOCK_FILE);
    let file = private_file().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|source| LabError::Data { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(LabError::InUse { path: data.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(LabError::Data { path, source }),
    }
}

/// Derives the signing key from the text of its file. Any text results in 32 bytes.
fn key_bytes(text: &str) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(text.as_bytes()).into()
}
