//! How the app is stopped: gently, then after a grace period by force. Pure: time is passed in.

use super::Event;
use dayfly_guest::runner_app::Ending;
use std::time::{Duration, Instant};

/// How long the app may take to cancel its job and sign off. actions/runner signs off in at most 30 s.
const GRACE: Duration = Duration::from_secs(30);

/// Where the stop stands.
#[derive(Debug, Default)]
enum State {
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

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Wait,
    /// The app's stop signal to its process group.
    Ask,
    /// SIGKILL to it.
    Kill,
    /// The app has ended.
    Done,
}

/// The state machine.
#[derive(Debug, Default)]
pub(super) struct Stop {
    state: State,
    signalled: bool,
}

impl Stop {
    /// When [`Stop::handle`] must be called even without an event.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Asked { kill_at, .. } => Some(kill_at),
            State::Running | State::Killed { .. } => None,
        }
    }

    /// Whether a signal that comes now is the first.
    pub(super) fn is_first_signal(&self) -> bool {
        !self.signalled
    }

    /// Who asked for the end first; `None` for an app that ended by itself.
    pub(super) fn reason(&self) -> Option<Ending> {
        match self.state {
            State::Running => None,
            State::Asked { reason, .. } | State::Killed { reason } => Some(reason),
        }
    }

    /// Takes an event, or `None` for the deadline.
    pub(super) fn handle(&mut self, event: Option<Event>, now: Instant) -> Action {
        let second_signal = event == Some(Event::Signal) && std::mem::replace(&mut self.signalled, true);
        let reason = match event {
            Some(Event::Ended) => return Action::Done,
            Some(Event::Terminate) => Ending::StoppedByLoop,
            Some(Event::Signal) | None => Ending::StoppedBySignal,
        };
        match self.state {
            State::Running if event.is_some() => {
                self.state = State::Asked { reason, kill_at: now + GRACE };
                Action::Ask
            }
            State::Asked { reason, kill_at } if second_signal || now >= kill_at => {
                self.state = State::Killed { reason };
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
    fn an_app_that_ends_by_itself_was_not_stopped() {
        let mut stop = Stop::default();
        assert_eq!(stop.handle(Some(Event::Ended), Instant::now()), Action::Done);
        assert_eq!((stop.reason(), stop.deadline()), (None, None));
    }

    #[test]
    fn a_stop_is_gentle_first_and_forceful_after_the_grace_period() {
        let (mut stop, start) = (Stop::default(), Instant::now());
        assert_eq!(stop.handle(Some(Event::Terminate), start), Action::Ask);
        assert_eq!(stop.handle(Some(Event::Terminate), start), Action::Wait);
        assert_eq!(stop.deadline(), Some(start + GRACE));
        assert_eq!(stop.handle(None, start + GRACE - Duration::from_millis(1)), Action::Wait);
        assert_eq!(stop.handle(None, start + GRACE), Action::Kill);
        assert_eq!(stop.deadline(), None);
        assert_eq!(stop.handle(Some(Event::Ended), start + GRACE), Action::Done);
        assert_eq!(stop.reason(), Some(Ending::StoppedByLoop));
    }

    #[test]
    fn a_second_signal_kills_at_once_but_a_signal_after_the_loops_word_is_the_first() {
        let (mut stop, now) = (Stop::default(), Instant::now());
        assert_eq!(stop.handle(Some(Event::Terminate), now), Action::Ask);
        assert!(stop.is_first_signal());
        assert_eq!(stop.handle(Some(Event::Signal), now), Action::Wait);
        assert!(!stop.is_first_signal());
        assert_eq!(stop.handle(Some(Event::Signal), now), Action::Kill);
        assert_eq!(stop.handle(Some(Event::Signal), now), Action::Wait);
        assert_eq!(stop.reason(), Some(Ending::StoppedByLoop));
    }
}
