//! State machine of a stop: first the app's stop signal, after a grace period SIGKILL. It is pure: the time is passed in.

use dayfly_guest::runner_app::Ending;
use std::time::{Duration, Instant};

/// Longest time that the app gets to cancel its job and sign off. actions/runner signs off in at most 30 s.
const GRACE: Duration = Duration::from_secs(30);

/// An order to stop, by its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The loop: `.trm` with the right secret.
    Loop,
    /// A termination signal.
    Signal,
}

/// Progress of the stop.
#[derive(Debug, Default)]
enum StopStage {
    #[default]
    Running,
    Asked {
        reason: Ending,
        kill_at: Instant,
    },
    Killed {
        reason: Ending,
    },
}

/// The next action of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Wait,
    /// Send the app's stop signal to its process group.
    Ask,
    /// Send SIGKILL to the group.
    Kill,
}

/// The state machine.
#[derive(Debug, Default)]
pub(super) struct Stop {
    state: StopStage,
    signalled: bool,
}

impl Stop {
    /// Returns the time at which [`Stop::handle`] must be called even without an event.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            StopStage::Asked { kill_at, .. } => Some(kill_at),
            StopStage::Running | StopStage::Killed { .. } => None,
        }
    }

    /// Returns true if no signal has arrived yet.
    pub(super) fn is_first_signal(&self) -> bool {
        !self.signalled
    }

    /// Returns the ending of the first order; `None` if no stop was ordered.
    pub(super) fn reason(&self) -> Option<Ending> {
        match self.state {
            StopStage::Running => None,
            StopStage::Asked { reason, .. } | StopStage::Killed { reason } => Some(reason),
        }
    }

    /// Returns true once SIGKILL is due, after which nothing gets a grace period.
    pub(super) fn is_killing(&self) -> bool {
        matches!(self.state, StopStage::Killed { .. })
    }

    /// Handles an order, or `None` for the deadline, and returns the next action.
    pub(super) fn handle(&mut self, order: Option<Order>, now: Instant) -> Action {
        let second_signal = order == Some(Order::Signal) && std::mem::replace(&mut self.signalled, true);
        match (&self.state, order) {
            (StopStage::Running, Some(order)) => {
                let reason = match order {
                    Order::Loop => Ending::StoppedByLoop,
                    Order::Signal => Ending::StoppedBySignal,
                };
                self.state = StopStage::Asked { reason, kill_at: now + GRACE };
                Action::Ask
            }
            (StopStage::Asked { reason, kill_at }, _) if second_signal || now >= *kill_at => {
                self.state = StopStage::Killed { reason: *reason };
                Action::Kill
            }
            _ => Action::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_order_there_is_no_reason_and_no_deadline() {
        let mut stop = Stop::default();
        assert_eq!(stop.handle(None, Instant::now()), Action::Wait);
        assert_eq!((stop.reason(), stop.deadline()), (None, None));
    }

    #[test]
    fn a_stop_is_gentle_first_and_forceful_after_the_grace_period() {
        let (mut stop, start) = (Stop::default(), Instant::now());
        assert_eq!(stop.handle(Some(Order::Loop), start), Action::Ask);
        assert_eq!(stop.handle(Some(Order::Loop), start), Action::Wait);
        assert_eq!(stop.deadline(), Some(start + GRACE));
        assert_eq!(stop.handle(None, start + GRACE - Duration::from_millis(1)), Action::Wait);
        assert_eq!(stop.handle(None, start + GRACE), Action::Kill);
        assert_eq!(stop.deadline(), None);
        assert!(stop.is_killing());
        assert_eq!(stop.reason(), Some(Ending::StoppedByLoop));
    }

    #[test]
    fn a_second_signal_kills_at_once_but_a_signal_after_the_loops_word_is_the_first() {
        let (mut stop, now) = (Stop::default(), Instant::now());
        assert_eq!(stop.handle(Some(Order::Loop), now), Action::Ask);
        assert!(stop.is_first_signal());
        assert_eq!(stop.handle(Some(Order::Signal), now), Action::Wait);
        assert!(!stop.is_first_signal());
        assert_eq!(stop.handle(Some(Order::Signal), now), Action::Kill);
        assert_eq!(stop.handle(Some(Order::Signal), now), Action::Wait);
        assert_eq!(stop.reason(), Some(Ending::StoppedByLoop));
    }
}
