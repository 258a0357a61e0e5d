//! The budget of a credential: how many calls a forge still allows, which of them go first, and how many were made.
//!
//! GitHub limits the calls of a credential in two ways (docs.github.com, "Rate limits for the REST API"). The primary limit
//! is a number of calls per hour and resource, which the headers of each answer report. The secondary limits are a number of
//! simultaneous calls, 900 points per minute, and whatever else GitHub finds too much; an answer with 403 or 429 reports
//! them, often with `retry-after`. `Ledger::decide` is the one rule for all of them, and it is pure:
//!
//! ```text
//! headers of each answer ──> Ledger ──> decide(importance, now) ──> go
//!                                                               ├─> wait until   (bounded by the importance)
//!                                                               └─> shed until   (an error)
//! ```
//!
//! A GHES and the lab send no such headers; then nothing is held back unless they refuse a call.

mod counts;
mod headers;
mod ledger;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

pub use counts::{CallCounts, CallEnd};
pub(crate) use headers::AnswerLimits;
pub(crate) use ledger::Lane;
use ledger::{Ask, Decision, Ledger};

/// Most calls of one credential at a time. GitHub allows 100, REST and GraphQL together, also for other users of the
/// credential.
const CALLS_AT_ONCE: usize = 50;
/// Most of them that only look for something. If such calls hang, registrations and deletions still go through.
const LOOKS_AT_ONCE: usize = 35;

/// How important a call is. If calls have to be held back, the least important ones are held back first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Importance {
    /// A search for work that other sources may report as well.
    Poll,
    /// A look at runners, groups or jobs.
    Look,
    /// A registration token, or another preparation of a registration.
    Register,
    /// A JIT config that a job waits for, or a deletion, without which a machine or a registration would stay.
    Essential,
}

impl Importance {
    /// All of them, the least important first.
    pub const ALL: [Self; 4] = [Self::Poll, Self::Look, Self::Register, Self::Essential];

    /// Returns true if the call changes nothing at the forge.
    fn is_look(self) -> bool {
        self <= Self::Look
    }

    /// Returns the share of an hour's calls, in percent, that is kept for more important calls.
    fn reserve_percent(self) -> u64 {
        match self {
            Self::Poll => 30,
            Self::Look => 15,
            Self::Register => 5,
            Self::Essential => 0,
        }
    }

    /// Returns the longest time that a call waits before it is shed.
    fn patience(self) -> Duration {
        Duration::from_secs(match self {
            Self::Poll => 0,
            Self::Look => 10,
            Self::Register => 30,
            Self::Essential => 60,
        })
    }

    /// Returns the time over which waiting calls are spread after a limit has ended.
    fn spread(self) -> Duration {
        Duration::from_secs(match self {
            Self::Poll => 8,
            Self::Look => 4,
            Self::Register => 2,
            Self::Essential => 1,
        })
    }
}

/// The state of one of the forge's limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// The name of the limit (`core`, `actions_runner_registration`, ...).
    pub resource: String,
    /// Calls per hour.
    pub limit: u64,
    /// Calls that are left until the reset.
    pub remaining: u64,
    /// Calls that were used since the last reset, also by other programs with this credential.
    pub used: u64,
    /// Time until the reset.
    pub resets_in: Duration,
}

/// The calls that a credential has used, and those that it has left.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// The calls of this process.
    pub calls: CallCounts,
    /// Number of calls that had to wait.
    pub delayed: u64,
    /// The forge's limits, as far as answers have reported them.
    pub limits: Vec<RateLimit>,
    /// Time until the forge accepts calls again, if it has refused one because of a limit.
    pub blocked_for: Option<Duration>,
}

/// The reason why a call is not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shed {
    pub(crate) why: String,
    pub(crate) wait: Duration,
}

/// The budget of a credential. All clients with the credential share it.
#[derive(Debug)]
pub(crate) struct Budget {
    ledger: Mutex<Ledger>,
    at_once: Semaphore,
    looks_at_once: Semaphore,
}

/// The right to send a call, which ends with the call.
#[derive(Debug)]
pub(crate) struct CallPermit<'a> {
    _look: Option<SemaphorePermit<'a>>,
    _call: SemaphorePermit<'a>,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self {
            ledger: Mutex::new(Ledger::default()),
            at_once: Semaphore::new(CALLS_AT_ONCE),
            looks_at_once: Semaphore::new(LOOKS_AT_ONCE),
        }
    }

    /// Waits until a call may be sent, at most as long as its importance allows. The permit is to be held during the call.
    ///
    /// # Errors
    /// [`Shed`] if that would take longer.
    pub(crate) async fn admit(&self, lane: &Lane) -> Result<CallPermit<'_>, Shed> {
        let importance = lane.importance;
        let latest = Instant::now() + importance.patience();
        let mut ask = Ask { lane, points: lane.points(), latest, chance: chance() };
        let mut delayed = false;
        loop {
            let now = Instant::now();
            let decision = self.ledger().admit(&ask, now, &mut delayed);
            match decision {
                Decision::Go => break,
                Decision::WaitUntil(then) => tokio::time::sleep_until(then.into()).await,
                Decision::Shed { until, why } => {
                    return Err(Shed { why, wait: until.saturating_duration_since(now) });
                }
            }
            // The points are spent, and the time that they cost is over.
            ask.points = 0;
        }
        match tokio::time::timeout_at(latest.into(), self.permit(importance)).await {
            Ok(Some(permit)) => Ok(permit),
            Ok(None) | Err(_) => {
                self.count(importance, CallEnd::Shed);
                let most = if importance.is_look() { LOOKS_AT_ONCE } else { CALLS_AT_ONCE };
                let why = format!("{most} calls of this credential are on their way");
                Err(Shed { why, wait: Duration::from_secs(1) })
            }
        }
    }

    /// Waits for a permit. Returns `None` never, because no semaphore is closed.
    async fn permit(&self, importance: Importance) -> Option<CallPermit<'_>> {
        let look = match importance.is_look() {
            true => Some(self.looks_at_once.acquire().await.ok()?),
            false => None,
        };
        Some(CallPermit { _look: look, _call: self.at_once.acquire().await.ok()? })
    }

    /// Stores what an answer says about limits, and counts the call.
    pub(crate) fn learn(&self, lane: &Lane, status: u16, limits: &AnswerLimits) {
        self.ledger().learn(lane, limits, Instant::now());
        self.count(lane.importance, CallEnd::of(status, limits.demanded.is_some()));
    }

    /// Counts a call.
    pub(crate) fn count(&self, importance: Importance, end: CallEnd) {
        self.ledger().count(importance, end);
    }

    pub(crate) fn usage(&self) -> Usage {
        self.ledger().usage(Instant::now())
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a random number between 0 and 1, with which callers that failed at the same time are spread.
pub(crate) fn chance() -> f64 {
    f64::from(rand::random::<u16>()) / f64::from(u16::MAX)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use reqwest::Method;

    use super::*;

    fn lane(importance: Importance) -> Lane {
        Lane { importance, method: Method::GET }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_look_for_something_leave_room_for_those_that_change_something() {
        let (budget, poll, essential) = (Budget::new(), lane(Importance::Poll), lane(Importance::Essential));
        let mut permits = Vec::new();
        for _ in 0..LOOKS_AT_ONCE {
            permits.push(budget.admit(&poll).await.unwrap());
        }
        let refused = "35 calls of this credential are on their way";
        assert_eq!(budget.admit(&poll).await.unwrap_err().why, refused);
        assert_eq!(budget.admit(&lane(Importance::Look)).await.unwrap_err().why, refused);
        for _ in LOOKS_AT_ONCE..CALLS_AT_ONCE {
            permits.push(budget.admit(&essential).await.unwrap());
        }
        let refused = "50 calls of this credential are on their way";
        assert_eq!(budget.admit(&essential).await.unwrap_err().why, refused);
        assert_eq!(budget.usage().calls.of(Importance::Poll, CallEnd::Shed), 1);
        permits.remove(0);
        drop(budget.admit(&poll).await.unwrap());
    }
}
