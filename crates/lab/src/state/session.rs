//! Sessions of runners: their polls, and the messages that the lab sends on them.

use tokio::sync::oneshot;

use super::registration::Registration;
use super::runner::{Poll, millis};
use super::{Hold, LabState};
use crate::fault::{Call, Fault};
use crate::refusal::Refusal;

/// Time after which a cancellation is sent again if the runner still polls.
const CANCEL_AGAIN_MS: i64 = 15_000;

/// The information about the runner in a poll.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunnerPoll {
    pub(crate) session: String,
    /// True for the status `Busy`, false for `Online`.
    pub(crate) busy: bool,
    pub(crate) version: Option<String>,
    pub(crate) os: Option<String>,
}

/// A message that answers a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Job { message_id: u64, request_id: String },
    Cancel { message_id: u64, job_guid: String, grace_seconds: u64 },
}

impl LabState {
    /// Opens a session. Returns an error if the runner already has one and is online.
    pub(crate) fn open_session(
        &mut self,
        id: u64,
        version: Option<String>,
    ) -> Result<(String, Registration), Refusal> {
        let (now_ms, presence_ms) = (self.now_ms(), millis(self.limits.presence));
        let runner = self.runners.get(&id).ok_or_else(runner_not_found)?;
        let is_taken = runner.registration.session.is_some() && runner.online(now_ms, presence_ms);
        let subject = || format!("runner {id}");
        if is_taken || self.fault(Fault::SessionConflict, Call::RUNNER_SESSION, subject).is_some() {
            let message = "A session for this runner already exists.";
            return Err(Refusal::named(409, "RunnerSessionConflict", message));
        }
        let session = uuid::Uuid::new_v4().to_string();
        let runner = self.runners.get_mut(&id).ok_or_else(runner_not_found)?;
        runner.registration.session = Some(session.clone());
        runner.registration.version = version.or(runner.registration.version.take());
        if runner.registration.os == "unknown" {
            // JIT runners of github-act-runner 0.13.0 never report it; the lab's runners are Linux machines.
            runner.registration.os = "linux".to_owned();
        }
        runner.seen_ms = now_ms;
        let registration = runner.registration.clone();
        self.record_runner(id);
        Ok((session, registration))
    }

    /// Ends a runner's session. Does nothing if there is none.
    pub(crate) fn close_session(&mut self, id: u64) {
        self.leaving.remove(&id);
        if let Some(runner) = self.runners.get_mut(&id) {
            runner.registration.session = None;
            runner.poll = None;
            runner.seen_ms = 0;
            self.record_runner(id);
        }
    }

    /// Opens a poll. Returns a channel on which a message may come; the caller limits the wait.
    pub(crate) fn poll(&mut self, id: u64, poll: RunnerPoll) -> Result<oneshot::Receiver<Message>, Refusal> {
        if let Some(answer) = self.poll_of_leaving(id, &poll) {
            return Ok(answer);
        }
        let now_ms = self.now_ms();
        let runner = self.runners.get_mut(&id).ok_or_else(runner_not_found)?;
        if runner.registration.session.as_deref() != Some(poll.session.as_str()) {
            // github-act-runner 0.13.0 opens a new session when the text contains this exception of the old protocol.
            let message = "The session is not this runner's (TaskAgentSessionExpiredException)";
            return Err(Refusal::named(404, "RunnerSessionInvalid", message));
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

    /// Sends a message again that the runner of a job may have missed.
    fn remind(&mut self, id: u64, job: u64, busy: bool) {
        let Some(entry) = self.jobs.get(&job) else { return };
        match entry.record.hold {
            Hold::Assigned { .. } if !busy && !entry.loses_message() => {
                let request_id = entry.record.request_guid.clone();
                self.tell_job(id, request_id);
            }
            Hold::Acquired { .. } => self.tell_cancel(job),
            _ => {}
        }
    }

    /// Tells the runner of a job to stop it, if the job was cancelled, the runner was not told recently, and a poll is
    /// open.
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

    /// Gives a waiting job to a runner that polls. The oldest job that fits goes first.
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

    /// Gives a job to a runner. Returns false if the job does not fit or the message could not be sent.
    fn give(&mut self, job: u64, id: u64) -> bool {
        let Some(wanted) = self.wanted(job) else { return false };
        let Some(runner) = self.runners.get(&id) else { return false };
        let entry = &self.jobs[&job];
        if !runner.takes_jobs() || !runner.fits(&wanted) || entry.is_kept_back() {
            return false;
        }
        let (request_id, is_lost) = (entry.record.request_guid.clone(), entry.loses_message());
        if !is_lost && !self.tell_job(id, request_id) {
            return false;
        }
        if let Some(runner) = self.runners.get_mut(&id) {
            runner.job = Some(job);
        }
        self.assign(job, id);
        true
    }
}

/// Returns the error for a runner that is not registered (any more). github-act-runner 0.13.0 does not read `errorKind`.
/// It opens a new session when the text contains this exception of the old protocol, and so learns at once that its
/// registration is gone.
pub(crate) fn runner_not_found() -> Refusal {
    let message = "The runner registration was deleted (TaskAgentSessionExpiredException)";
    Refusal::named(404, "RunnerNotFound", message)
}
