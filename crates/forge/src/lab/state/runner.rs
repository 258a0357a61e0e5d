//! Runners: registrations and groups.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::repository::RepositoryName;
use super::run::StoredEvent;
use super::session::Message;
use super::{Hold, State};
use crate::lab::journal::Record;
use crate::lab::keys::PublicKey;
use crate::lab::refusal::Refusal;

const LABELS_MAX: usize = 100;
const LABEL_LEN_MAX: usize = 256;
const NAME_LEN_MAX: usize = 64;

/// Where a runner belongs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scope {
    Repository(RepositoryName),
    Organization(String),
}

impl Scope {
    fn key(&self) -> String {
        match self {
            Self::Repository(name) => name.key(),
            Self::Organization(name) => name.to_ascii_lowercase(),
        }
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        self.key() == other.key()
    }

    fn serves(&self, repository: &RepositoryName) -> bool {
        match self {
            Self::Repository(name) => name.key() == repository.key(),
            Self::Organization(name) => name.eq_ignore_ascii_case(&repository.owner),
        }
    }

    /// The path of its page.
    pub(crate) fn path(&self) -> String {
        match self {
            Self::Repository(name) => name.full_name(),
            Self::Organization(name) => name.clone(),
        }
    }
}

/// A runner group. Number 1 is `Default`; others come into being when a job asks for one or by a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) id: u64,
    pub(crate) name: String,
}

/// What `generate-jitconfig` asks for.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RegistrationRequest {
    pub(crate) name: String,
    pub(crate) runner_group_id: u64,
    pub(crate) labels: Vec<String>,
    #[serde(default)]
    pub(crate) work_folder: Option<String>,
}

/// A registration, as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Registration {
    pub(crate) id: u64,
    pub(crate) scope: Scope,
    pub(crate) name: String,
    pub(crate) group_id: u64,
    pub(crate) labels: Vec<String>,
    pub(crate) work_folder: String,
    pub(crate) client_id: String,
    pub(crate) public_key: PublicKey,
    pub(crate) created_ms: i64,
    /// `unknown` until the runner connects.
    pub(crate) os: String,
    pub(crate) version: Option<String>,
    /// Its session, so that a restart of the lab does not cut it off.
    pub(crate) session: Option<String>,
    /// It has had its job, which ended without it: it gets no other.
    pub(crate) used: bool,
}

/// A runner: its registration and what is known of it right now.
pub(crate) struct Runner {
    pub(crate) registration: Registration,
    pub(crate) job: Option<u64>,
    pub(super) seen_ms: i64,
    pub(super) poll: Option<Poll>,
}

pub(super) struct Poll {
    pub(super) busy: bool,
    pub(super) reply: oneshot::Sender<Message>,
}

impl Runner {
    pub(super) fn new(registration: Registration) -> Self {
        Self { registration, job: None, seen_ms: 0, poll: None }
    }

    fn polls(&self) -> bool {
        self.poll.as_ref().is_some_and(|poll| !poll.reply.is_closed())
    }

    pub(crate) fn online(&self, now_ms: i64, presence_ms: i64) -> bool {
        self.polls() || (self.seen_ms != 0 && now_ms - self.seen_ms < presence_ms)
    }

    pub(super) fn takes_jobs(&self) -> bool {
        self.job.is_none()
            && !self.registration.used
            && self.poll.as_ref().is_some_and(|poll| !poll.busy && !poll.reply.is_closed())
    }

    pub(super) fn fits(&self, repository: &RepositoryName, group: Option<u64>, labels: &[String]) -> bool {
        let registration = &self.registration;
        let has = |label: &String| registration.labels.iter().any(|own| own.eq_ignore_ascii_case(label));
        registration.scope.serves(repository)
            && group.is_none_or(|group| group == registration.group_id)
            && labels.iter().all(has)
    }

    /// Sends a message to the poll that is open. False when there is none.
    pub(super) fn tell(&mut self, message: Message) -> bool {
        self.poll.take().is_some_and(|poll| poll.reply.send(message).is_ok())
    }
}

impl State {
    /// Registers a runner. The caller has made its key, which takes time.
    pub(crate) fn register(
        &mut self,
        scope: Scope,
        request: RegistrationRequest,
        public_key: PublicKey,
    ) -> Result<&Runner, Refusal> {
        self.check_registration(&scope, &request)?;
        if let Scope::Repository(name) = &scope {
            self.repository(name)?;
        }
        let mut labels: Vec<String> = Vec::new();
        for label in request.labels {
            if !labels.iter().any(|known| known.eq_ignore_ascii_case(&label)) {
                labels.push(label);
            }
        }
        let registration = Registration {
            id: self.new_id(),
            scope,
            name: request.name,
            group_id: request.runner_group_id,
            labels,
            work_folder: request.work_folder.unwrap_or_else(|| "_work".to_owned()),
            client_id: uuid::Uuid::new_v4().to_string(),
            public_key,
            created_ms: self.now_ms(),
            os: "unknown".to_owned(),
            version: None,
            session: None,
            used: false,
        };
        self.record(&Record::Runner(registration.clone()));
        let id = registration.id;
        Ok(self.runners.entry(id).or_insert(Runner::new(registration)))
    }

    /// Says why a registration cannot be; also called before a key is spent on it.
    pub(crate) fn check_registration(
        &self,
        scope: &Scope,
        request: &RegistrationRequest,
    ) -> Result<(), Refusal> {
        let name = &request.name;
        if name.is_empty() || name.len() > NAME_LEN_MAX || name.chars().any(char::is_control) {
            return Err(Refusal::invalid([format!(
                "the runner's name must have 1 to {NAME_LEN_MAX} characters"
            )]));
        }
        if request.labels.is_empty() || request.labels.len() > LABELS_MAX {
            return Err(Refusal::invalid([format!("labels: 1 to {LABELS_MAX} are needed")]));
        }
        let bad = |label: &&String| {
            label.trim().is_empty()
                || label.len() > LABEL_LEN_MAX
                || label.contains(',')
                || label.chars().any(char::is_control)
        };
        if let Some(label) = request.labels.iter().find(bad) {
            return Err(Refusal::invalid([format!(
                "\"{}\" is no label",
                label.chars().take(40).collect::<String>()
            )]));
        }
        if !self.groups.iter().any(|group| group.id == request.runner_group_id) {
            return Err(Refusal::not_found());
        }
        if request.work_folder.as_ref().is_some_and(|folder| folder.is_empty() || folder.len() > 255) {
            return Err(Refusal::invalid(["work_folder must have 1 to 255 characters"]));
        }
        let taken =
            |runner: &Runner| runner.registration.scope.same(scope) && runner.registration.name == *name;
        if self.runners.values().any(taken) {
            return Err(Refusal::new(
                409,
                format!("Already exists - A runner with the name {name} already exists."),
            ));
        }
        if self.runners.len() >= self.limits.runners_max {
            return Err(Refusal::new(
                422,
                format!("The lab holds {} runners at most", self.limits.runners_max),
            ));
        }
        Ok(())
    }

    /// A runner of that scope.
    pub(crate) fn runner(&self, scope: &Scope, id: u64) -> Result<&Runner, Refusal> {
        let runner = self.runners.get(&id).filter(|runner| runner.registration.scope.same(scope));
        runner.ok_or_else(Refusal::not_found)
    }

    /// Deletes a registration that has no job.
    pub(crate) fn delete_runner(&mut self, scope: &Scope, id: u64) -> Result<(), Refusal> {
        let runner = self.runner(scope, id)?;
        if let Some(job) = runner.job.and_then(|job| self.jobs.get(&job)) {
            // A job that was sent and not asked for yet goes back to the queue.
            if let Hold::Assigned { .. } = job.record.hold {
                let job = job.record.id;
                self.remove_runner(id);
                self.offer(job);
                return Ok(());
            }
            let name = &runner.registration.name;
            return Err(Refusal::new(
                422,
                format!("Bad request - Runner \"{name}\" is still running a job\""),
            ));
        }
        self.remove_runner(id);
        Ok(())
    }

    /// The machine of a runner is gone: its job fails now, and it is forgotten.
    pub(crate) fn lose_runner(&mut self, id: u64) -> Result<(), Refusal> {
        let runner = self.runners.get(&id).ok_or_else(Refusal::not_found)?;
        let name = runner.registration.name.clone();
        let held = runner.job.and_then(|job| self.jobs.get(&job)).map(|job| job.record.clone());
        self.remove_runner(id);
        match held {
            Some(job) if matches!(job.hold, Hold::Assigned { .. }) => self.offer(job.id),
            Some(job) if matches!(job.hold, Hold::Acquired { .. }) => {
                let reason = format!(
                    "The machine of the self-hosted runner {name} has ended in the middle of the job."
                );
                self.advance(job.run, StoredEvent::Lost { job: job.index, reason });
            }
            _ => {}
        }
        Ok(())
    }

    /// Forgets a runner; its poll, if one is open, ends, and its client id is no longer known.
    pub(super) fn remove_runner(&mut self, id: u64) {
        if self.runners.remove(&id).is_some() {
            self.record(&Record::RunnerGone(id));
        }
    }

    pub(super) fn record_runner(&mut self, id: u64) {
        if let Some(runner) = self.runners.get(&id) {
            let record = Record::Runner(runner.registration.clone());
            self.record(&record);
        }
    }

    /// The number of a runner group, made if no job asked for it before.
    pub(crate) fn group_id(&mut self, name: &str) -> u64 {
        if let Some(group) = self.groups.iter().find(|group| group.name.eq_ignore_ascii_case(name)) {
            return group.id;
        }
        let group = Group { id: self.new_id(), name: name.to_owned() };
        self.record(&Record::Group(group.clone()));
        self.groups.push(group);
        self.last_id
    }

    /// Whose key an assertion of this client must be signed with.
    pub(crate) fn client_key(&self, client_id: &str) -> Option<(u64, PublicKey)> {
        let mut runners = self.runners.values().map(|runner| &runner.registration);
        let registration =
            runners.find(|registration| registration.client_id.eq_ignore_ascii_case(client_id))?;
        Some((registration.id, registration.public_key.clone()))
    }

    /// Removes registrations that nobody used for long.
    pub(super) fn tick_runners(&mut self) {
        let (now_ms, idle_ms) = (self.now_ms(), millis(self.limits.registration_idle));
        let idle = |runner: &&Runner| {
            runner.job.is_none()
                && !runner.polls()
                && now_ms - runner.seen_ms.max(runner.registration.created_ms) > idle_ms
        };
        let old: Vec<u64> = self.runners.values().filter(idle).map(|runner| runner.registration.id).collect();
        old.into_iter().for_each(|id| self.remove_runner(id));
    }

    /// A runner whose job ended without its help: it is free to be deleted, and gets no other job.
    pub(super) fn spend_runner(&mut self, id: u64) {
        if let Some(runner) = self.runners.get_mut(&id) {
            runner.job = None;
            runner.registration.used = true;
            runner.seen_ms = if runner.polls() { runner.seen_ms } else { 0 };
            self.record_runner(id);
        }
    }

    /// A runner that did not take the job it was sent.
    pub(super) fn release_runner(&mut self, id: u64) {
        if let Some(runner) = self.runners.get_mut(&id) {
            runner.job = None;
        }
    }
}

pub(super) fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
