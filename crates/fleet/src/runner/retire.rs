//! Ends a runner that has no job, because no job needs it any more, because its pool drains, or because it has waited too long.
//!
//! Only the forge knows if a runner has a job, and it can give it one at any moment. So the loop deletes the registration
//! first: the forge refuses that while the runner has a job. The runner then ends after its job, because no other one starts.

use dayfly_forge::ForgeError;
use dayfly_host::retry::Retry;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Run;
use crate::fact::{Fact, RegistrationEnd};
use crate::registration::{self, RegistrationOutcome, WhenBusy};

/// The answer of the forge to an attempt to retire a runner.
pub(super) type RetirementAnswer = Result<RegistrationOutcome, ForgeError>;

/// The attempts to retire a runner. Pure: time is passed in.
#[derive(Debug, Default)]
pub(super) struct Retirement {
    is_ordered: bool,
    attempts: u32,
    /// Time of the next attempt; none if no attempt is due.
    next: Option<Instant>,
    /// True if the runner app was up at the last attempt.
    was_up: bool,
}

/// The consequence of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RetirementStep {
    /// The registration is deleted, so the runner has no job and gets none.
    End,
    /// The registration is gone for another reason, so the loop looks closer.
    LookCloser,
    /// The runner has a job, or there is another attempt later.
    GoOn,
}

impl Retirement {
    /// Notes the order to retire.
    pub(super) fn order(&mut self, now: Instant) {
        self.is_ordered = true;
        self.next = Some(now);
    }

    /// Returns true if the order was given.
    pub(super) fn is_ordered(&self) -> bool {
        self.is_ordered
    }

    /// Returns the time of the next attempt.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Notes that the forge is being asked. `is_up` is false if the runner app is not up yet: it may register itself before the
    /// answer comes, or later.
    fn asked(&mut self, is_up: bool) {
        (self.next, self.was_up) = (None, is_up);
    }

    /// Takes in the forge's answer. `has_one_job` is false if the runner has one job after another: it is asked for again, because it may be idle between two.
    pub(super) fn take(
        &mut self,
        answer: &RetirementAnswer,
        has_one_job: bool,
        retry: Retry,
        now: Instant,
    ) -> RetirementStep {
        match answer.as_ref().map(|outcome| outcome.how) {
            Ok(RegistrationEnd::Deleted) => RetirementStep::End,
            Ok(RegistrationEnd::Busy) if has_one_job => RetirementStep::GoOn,
            Ok(RegistrationEnd::Gone) if self.was_up => RetirementStep::LookCloser,
            Ok(RegistrationEnd::Busy | RegistrationEnd::Gone) | Err(_) => {
                self.attempts += 1;
                self.next = retry.pause_after(self.attempts).map(|pause| now + pause);
                RetirementStep::GoOn
            }
        }
    }
}

impl Run<'_> {
    /// Begins an attempt to delete the registration, unless the forge says that the runner has a job.
    pub(super) fn try_to_retire(
        &mut self,
        retirement: &mut Retirement,
        attempts: &mut JoinSet<RetirementAnswer>,
    ) {
        retirement.asked(self.state.was_up());
        self.try_to_unregister(attempts);
    }

    /// Begins to delete the registration, unless the forge says that the runner has a job.
    pub(super) fn try_to_unregister(&mut self, attempts: &mut JoinSet<RetirementAnswer>) {
        // A full disk must not end a runner that may have a job. A later start deletes the registration without this fact too.
        let _ = self.record(Fact::DeletingRegistration);
        let (forge, scope) = (self.pool.forge.clone(), self.pool.spec.scope.clone());
        let (name, state) = (self.name.clone(), self.state.registration);
        attempts.spawn(async move { registration::end(&forge, &scope, &name, state, WhenBusy::Leave).await });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dayfly_host::retry::CLEANUP;

    use super::*;

    fn answered(how: RegistrationEnd) -> RetirementAnswer {
        Ok(RegistrationOutcome { how, unreported: None })
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_registration_that_was_deleted_ends_a_runner() {
        let now = Instant::now();
        let mut retirement = Retirement::default();
        retirement.asked(true);
        let mut take = |how| retirement.take(&answered(how), true, CLEANUP, now);
        assert_eq!(take(RegistrationEnd::Deleted), RetirementStep::End);
        assert_eq!(take(RegistrationEnd::Busy), RetirementStep::GoOn);
        assert_eq!(take(RegistrationEnd::Gone), RetirementStep::LookCloser);
        assert_eq!(retirement.next(), None, "no further attempt is due");
    }

    #[tokio::test(start_paused = true)]
    async fn a_runner_that_had_not_registered_itself_when_the_forge_was_asked_is_retired_later() {
        let now = Instant::now();
        let mut retirement = Retirement::default();
        retirement.order(now);
        assert_eq!((retirement.is_ordered(), retirement.next()), (true, Some(now)));
        for seconds in [15, 30, 60] {
            retirement.asked(false);
            assert_eq!(retirement.next(), None);
            retirement.take(&answered(RegistrationEnd::Gone), true, CLEANUP, now);
            assert_eq!(retirement.next(), Some(now + Duration::from_secs(seconds)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_runner_that_has_one_job_after_another_is_retired_between_two() {
        let now = Instant::now();
        let mut retirement = Retirement::default();
        retirement.asked(true);
        let busy = answered(RegistrationEnd::Busy);
        assert_eq!(retirement.take(&busy, false, CLEANUP, now), RetirementStep::GoOn);
        assert_eq!(retirement.next(), Some(now + Duration::from_secs(15)));
    }
}
