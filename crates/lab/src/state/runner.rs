//! Runners: which jobs they fit, and how they are removed.

use tokio::sync::oneshot;

use super::job::WantedRunner;
use super::registration::Registration;
use super::run::StoredEvent;
use super::scope::Scope;
use super::session::Message;
use super::{Hold, LabState};
use crate::fault::{Call, Fault};
use crate::journal::Record;
use crate::refusal::Refusal;

/// A runner: its registration and its current state.
pub(crate) struct Runner {
    pub(crate) registration: Registration,
    pub(crate) job: Option<u64>,
    pub(super) seen_ms: i64,
    pub(super) poll: Option<Poll>,
    /// Time at which the registration is removed if the runner has no job then.
    pub(super) expires_ms: Option<i64>,
}

pub(super) struct Poll {
    pub(super) busy: bool,
    pub(super) reply: oneshot::Sender<Message>,
}

impl Runner {
    pub(crate) fn new(registration: Registration) -> Self {
        Self { registration, job: None, seen_ms: 0, poll: None, expires_ms: None }
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

    pub(super) fn fits(&self, wanted: &WantedRunner) -> bool {
        let registration = &self.registration;
        if wanted.scale_set.is_some() || registration.scale_set.is_some() {
            return wanted.scale_set == registration.scale_set;
        }
        let has = |label: &String| registration.labels.iter().any(|own| own.eq_ignore_ascii_case(label));
        registration.scope.serves(&wanted.repository)
            && wanted.group.is_none_or(|group| group == registration.group_id)
            && wanted.labels.iter().all(has)
    }

    /// Sends a message on the open poll. Returns false if no poll is open.
    pub(super) fn tell(&mut self, message: Message) -> bool {
        self.poll.take().is_some_and(|poll| poll.reply.send(message).is_ok())
    }
}

impl LabState {
    /// Returns a runner of that scope.
    pub(crate) fn runner(&self, scope: &Scope, id: u64) -> Result<&Runner, Refusal> {
        let runner = self.runners.get(&id).filter(|runner| runner.registration.scope.same(scope));
        runner.ok_or_else(Refusal::not_found)
    }

    /// Deletes a registration for a caller. Returns an error if the runner has acquired a job, or if the fault desk says so.
    pub(crate) fn delete_runner_by(&mut self, call: Call, scope: &Scope, id: u64) -> Result<(), Refusal> {
        let name = self.runner(scope, id)?.registration.name.clone();
        if self.fault(Fault::BusyDelete, call, || format!("runner {name}")).is_some() {
            return Err(still_running(&name));
        }
        self.delete_runner(scope, id)
    }

    /// Deletes a registration. Returns an error if the runner has acquired a job.
    pub(super) fn delete_runner(&mut self, scope: &Scope, id: u64) -> Result<(), Refusal> {
        let runner = self.runner(scope, id)?;
        if let Some(job) = runner.job.and_then(|job| self.jobs.get(&job)) {
            // A job that was sent but not acquired yet goes back into the queue.
            if let Hold::Assigned { .. } = job.record.hold {
                let job = job.record.id;
                self.remove_runner(id);
                self.offer(job);
                return Ok(());
            }
            return Err(still_running(&runner.registration.name));
        }
        self.remove_runner(id);
        Ok(())
    }

    /// Handles the loss of a runner's machine: a job that the runner has acquired fails at once, and the runner is
    /// removed.
    pub(crate) fn lose_runner(&mut self, id: u64) -> Result<(), Refusal> {
        let runner = self.runners.get(&id).ok_or_else(Refusal::not_found)?;
        let name = runner.registration.name.clone();
        let held = runner.job.and_then(|job| self.jobs.get(&job)).map(|job| job.record.clone());
        self.remove_runner(id);
        match held {
            Some(job) if matches!(job.hold, Hold::Assigned { .. }) => self.offer(job.id),
            Some(job) if matches!(job.hold, Hold::Acquired { .. }) => {
                let reason = format!(
                    "The machine of the self-hosted runner {name} has stopped in the middle of the job."
                );
                self.advance(job.run, StoredEvent::Lost { job: job.index, reason });
            }
            _ => {}
        }
        Ok(())
    }

    /// Removes a runner. An open poll of it ends, and its client id becomes unknown.
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

    /// Removes registrations that have been unused for too long.
    pub(super) fn tick_runners(&mut self) {
        let now_ms = self.now_ms();
        let ephemeral_ms = millis(self.limits.registration_idle);
        let persistent_ms = millis(self.limits.persistent_registration_idle);
        let idle = |runner: &&Runner| {
            let idle_ms = if runner.registration.ephemeral { ephemeral_ms } else { persistent_ms };
            let is_expired = runner.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms);
            let is_unused =
                !runner.polls() && now_ms - runner.seen_ms.max(runner.registration.created_ms) > idle_ms;
            runner.job.is_none() && (is_expired || is_unused)
        };
        let old: Vec<u64> = self.runners.values().filter(idle).map(|runner| runner.registration.id).collect();
        old.into_iter().for_each(|id| self.remove_runner(id));
    }

    /// Handles a runner that has reported the end of its job. A runner for a single job is removed.
    pub(super) fn retire_runner(&mut self, id: u64) {
        match self.runners.get_mut(&id) {
            Some(runner) if !runner.registration.ephemeral => runner.job = None,
            _ => self.let_leave(id),
        }
    }

    /// Handles a runner whose job ended without its report. The runner may be deleted from now on, and an ephemeral one
    /// gets no other job.
    pub(super) fn spend_runner(&mut self, id: u64) {
        if let Some(runner) = self.runners.get_mut(&id) {
            runner.job = None;
            if !runner.registration.ephemeral {
                return;
            }
            runner.registration.used = true;
            runner.seen_ms = if runner.polls() { runner.seen_ms } else { 0 };
            self.record_runner(id);
        }
    }

    /// Frees a runner that did not take the job it was sent.
    pub(super) fn release_runner(&mut self, id: u64) {
        if let Some(runner) = self.runners.get_mut(&id) {
            runner.job = None;
        }
    }
}

fn still_running(name: &str) -> Refusal {
    Refusal::new(422, format!("Bad request - Runner \"{name}\" is still running a job\""))
}

pub(super) fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
