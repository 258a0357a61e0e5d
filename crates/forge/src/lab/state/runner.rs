//! Runners: registrations, sessions, polls.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::repository::RepositoryName;
use super::run::StoredEvent;
use super::{Hold, State};
use crate::lab::journal::Record;
use crate::lab::keys::PublicKey;
use crate::lab::refusal::Refusal;

const LABELS_MAX: usize = 100;
const LABEL_LEN_MAX: usize = 256;
const NAME_LEN_MAX: usize = 64;
/// A cancellation is told again when the runner still polls this long after.
const CANCEL_AGAIN_MS: i64 = 15_000;

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
    seen_ms: i64,
    poll: Option<Poll>,
}

struct Poll {
    busy: bool,
    reply: oneshot::Sender<Message>,
}

/// What a poll says of its runner.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunnerPoll {
    pub(crate) session: String,
    /// `Busy`, as opposed to `Online`.
    pub(crate) busy: bool,
    pub(crate) version: Option<String>,
    pub(crate) os: Option<String>,
}

/// What a poll is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Job { message_id: u64, request_id: String },
    Cancel { message_id: u64, job_guid: String, grace_seconds: u64 },
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

    fn takes_jobs(&self) -> bool {
        self.job.is_none()
            && !self.registration.used
            && self.poll.as_ref().is_some_and(|poll| !poll.busy && !poll.reply.is_closed())
    }

    fn fits(&self, repository: &RepositoryName, group: Option<u64>, labels: &[String]) -> bool {
        let registration = &self.registration;
        let has = |label: &String| registration.labels.iter().any(|own| own.eq_ignore_ascii_case(label));
        registration.scope.serves(repository)
            && group.is_none_or(|group| group == registration.group_id)
            && labels.iter().all(has)
    }

    /// Sends a message to the poll that is open. False when there is none.
    fn tell(&mut self, message: Message) -> bool {
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

    /// Opens a session; there is one for a runner.
    pub(crate) fn open_session(
        &mut self,
        id: u64,
        version: Option<String>,
    ) -> Result<(String, Registration), Refusal> {
        let (now_ms, presence_ms) = (self.now_ms(), millis(self.limits.presence));
        let runner = self.runners.get_mut(&id).ok_or_else(runner_not_found)?;
        if runner.registration.session.is_some() && runner.online(now_ms, presence_ms) {
            let message = "A session for this runner already exists.";
            return Err(Refusal::broker(409, "RunnerSessionConflict", message));
        }
        let session = uuid::Uuid::new_v4().to_string();
        runner.registration.session = Some(session.clone());
        runner.registration.version = version.or(runner.registration.version.take());
        if runner.registration.os == "unknown" {
            // JIT runners of github-act-runner 0.13.0 never say; the lab's runners are Linux machines.
            runner.registration.os = "linux".to_owned();
        }
        runner.seen_ms = now_ms;
        let registration = runner.registration.clone();
        self.record_runner(id);
        Ok((session, registration))
    }

    /// Ends a runner's session. Nothing happens when there is none.
    pub(crate) fn close_session(&mut self, id: u64) {
        if let Some(runner) = self.runners.get_mut(&id) {
            runner.registration.session = None;
            runner.poll = None;
            runner.seen_ms = 0;
            self.record_runner(id);
        }
    }

    /// Opens a poll. The answer is a channel on which a message may come; the caller bounds the wait.
    pub(crate) fn poll(&mut self, id: u64, poll: RunnerPoll) -> Result<oneshot::Receiver<Message>, Refusal> {
        let now_ms = self.now_ms();
        let runner = self.runners.get_mut(&id).ok_or_else(runner_not_found)?;
        if runner.registration.session.as_deref() != Some(poll.session.as_str()) {
            // github-act-runner 0.13.0 makes a new session when it finds the old protocol's word for it.
            let message = "The session is not this runner's (TaskAgentSessionExpiredException)";
            return Err(Refusal::broker(404, "RunnerSessionInvalid", message));
        }
        let (reply, answer) = oneshot::channel();
        runner.seen_ms = now_ms;
        runner.poll = Some(Poll { busy: poll.busy, reply });
        let registration = &mut runner.registration;
        if let Some(os) = poll.os.map(|os| os.to_ascii_lowercase()).filter(|os| *os != registration.os) {
            registration.os = os.chars().take(40).collect();
        }
        if poll.version.is_some() {
            registration.version = poll.version.map(|version| version.chars().take(40).collect());
        }
        match runner.job {
            Some(job) => self.remind(id, job, poll.busy),
            None => self.offer_jobs_to(id),
        }
        Ok(answer)
    }

    /// Says again what the runner of a job may have missed.
    fn remind(&mut self, id: u64, job: u64, busy: bool) {
        let Some(entry) = self.jobs.get(&job) else { return };
        match entry.record.hold {
            Hold::Assigned { .. } if !busy => {
                let request_id = entry.record.request_guid.clone();
                self.tell_job(id, request_id);
            }
            Hold::Acquired { .. } => self.tell_cancel(job),
            _ => {}
        }
    }

    /// Tells the runner of a job to stop it, if that is to be told and a poll is open.
    pub(super) fn tell_cancel(&mut self, job: u64) {
        let now_ms = self.now_ms();
        let message_id = self.new_id();
        let Some(entry) = self.jobs.get_mut(&job) else { return };
        let Hold::Acquired { runner, .. } = entry.record.hold else { return };
        let Some(cancel) = &mut entry.cancel else { return };
        if cancel.told_ms.is_some_and(|told_ms| now_ms - told_ms < CANCEL_AGAIN_MS) {
            return;
        }
        let message = Message::Cancel {
            message_id,
            job_guid: entry.record.guid.clone(),
            grace_seconds: cancel.grace_seconds,
        };
        if self.runners.get_mut(&runner).is_some_and(|runner| runner.tell(message)) {
            cancel.told_ms = Some(now_ms);
        }
    }

    fn tell_job(&mut self, id: u64, request_id: String) -> bool {
        let message_id = self.new_id();
        self.runners.get_mut(&id).is_some_and(|runner| runner.tell(Message::Job { message_id, request_id }))
    }

    /// Gives a waiting job to a runner that polls, oldest job first.
    fn offer_jobs_to(&mut self, id: u64) {
        let waiting: Vec<u64> = self.offered.iter().copied().collect();
        for job in waiting {
            if self.give(job, id) {
                return;
            }
        }
    }

    /// Gives a waiting job to the first runner that polls and fits.
    pub(super) fn offer_to_runners(&mut self, job: u64) {
        let runners: Vec<u64> = self
            .runners
            .values()
            .filter(|runner| runner.takes_jobs())
            .map(|runner| runner.registration.id)
            .collect();
        for runner in runners {
            if self.give(job, runner) {
                return;
            }
        }
    }

    /// Gives one job to one runner, if they fit and the runner hears of it.
    fn give(&mut self, job: u64, id: u64) -> bool {
        let Some((repository, group, labels)) = self.wanted(job) else { return false };
        let Some(runner) = self.runners.get(&id) else { return false };
        if !runner.takes_jobs() || !runner.fits(&repository, group, &labels) {
            return false;
        }
        let request_id = self.jobs[&job].record.request_guid.clone();
        if !self.tell_job(id, request_id) {
            return false;
        }
        if let Some(runner) = self.runners.get_mut(&id) {
            runner.job = Some(job);
        }
        self.assign(job, id);
        true
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

/// The words for a runner that is not registered (any more). github-act-runner 0.13.0 does not read `errorKind`, but
/// asks for a new session, and so learns at once that it is gone, when it finds the old protocol's word.
pub(crate) fn runner_not_found() -> Refusal {
    let message = "The runner registration was deleted (TaskAgentSessionExpiredException)";
    Refusal::broker(404, "RunnerNotFound", message)
}

pub(super) fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
