//! Runners that have reported the end of their only job: their registration is removed, but they still poll.
//!
//! At GitHub such a runner gets no message on its open poll and on the next ones, until it closes its session itself.
//! When a lab answered 404 at that moment, actions/runner 2.336.0 cancelled the worker that was just exiting. It reported
//! "The runner no longer exists on the server", and `Canceled` for jobs that had succeeded (8 of 10, observed).

use tokio::sync::oneshot;

use super::LabState;
use super::runner::Poll;
use super::session::{Message, RunnerPoll};

/// How long a runner may take to close its session.
const FAREWELL_MS: i64 = 30_000;

/// A runner whose registration is removed and which still polls.
pub(super) struct Leaving {
    session: Option<String>,
    /// A poll that is held open. No message is sent on it any more.
    poll: Option<Poll>,
    until_ms: i64,
}

impl LabState {
    /// Removes a registration, but answers its polls for a while as if there were no message.
    pub(super) fn let_leave(&mut self, id: u64) {
        let until_ms = self.now_ms() + FAREWELL_MS;
        if let Some(runner) = self.runners.get_mut(&id) {
            let (session, poll) = (runner.registration.session.clone(), runner.poll.take());
            self.leaving.insert(id, Leaving { session, poll, until_ms });
        }
        self.remove_runner(id);
    }

    /// Opens a poll of a leaving runner. Returns `None` if there is no such runner, or if the session is not its own.
    pub(super) fn poll_of_leaving(
        &mut self,
        id: u64,
        poll: &RunnerPoll,
    ) -> Option<oneshot::Receiver<Message>> {
        let leaving = self.leaving.get_mut(&id)?;
        if leaving.session.as_deref() != Some(poll.session.as_str()) {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        leaving.poll = Some(Poll { busy: poll.busy, reply });
        Some(answer)
    }

    /// Returns true if the runner is registered or leaving, so that it may poll.
    pub(crate) fn may_poll(&self, id: u64) -> bool {
        self.runners.contains_key(&id) || self.leaving.contains_key(&id)
    }

    /// Forgets leaving runners that took too long to close their session.
    pub(super) fn tick_leaving(&mut self) {
        let now_ms = self.now_ms();
        self.leaving.retain(|_, leaving| leaving.until_ms > now_ms);
    }
}
