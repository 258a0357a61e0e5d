//! The known limits of a credential, and the decision whether a call may be sent. Everything here is pure: the
//! caller passes in time and randomness.

use std::time::{Duration, Instant};

use reqwest::Method;

use super::counts::{CallCounts, CallEnd};
use super::headers::{AnswerLimits, DemandedWait, PrimaryLimit};
use super::{Importance, RateLimit, Usage};

/// Most limits that are stored. GitHub has about 15, of which dayfly's calls meet three.
const LIMITS_MAX: usize = 16;
/// Time that one point costs, and most points that may be spent at once. In any minute this allows
/// 150 + 60 s / 80 ms = 900 points, as GitHub does.
const POINT_TIME: Duration = Duration::from_millis(80);
const BURST_TIME: Duration = Duration::from_millis(150 * 80);
/// Longest wait after secondary limits that name no time. The wait doubles with each such answer in a row.
const UNSTATED_WAIT_MAX: Duration = Duration::from_secs(15 * 60);

/// The kind of a call as far as limits are concerned. Calls of a lane are counted for the same primary limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) importance: Importance,
    pub(crate) method: Method,
}

impl Lane {
    /// Returns the points that a call costs (docs.github.com, "Rate limits for the REST API").
    pub(super) fn points(&self) -> u32 {
        if self.method == Method::GET { 1 } else { 5 }
    }
}

/// A call that asks whether it may be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) lane: &'a Lane,
    /// The points that the call has still to spend.
    pub(super) points: u32,
    /// The latest time at which the call may begin.
    pub(super) latest: Instant,
    /// A number between 0 and 1 that spreads callers.
    pub(super) chance: f64,
}

/// The answer to an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// The call may be sent.
    Go,
    /// The call may ask again at this time.
    WaitUntil(Instant),
    /// The call is not sent, because it may not begin before this time.
    Shed { until: Instant, why: String },
}

/// A primary limit as the last answer reported it.
#[derive(Debug, Clone)]
struct Limit {
    last: PrimaryLimit,
    resets_at: Instant,
}

/// A time before which no call is sent.
#[derive(Debug, Clone, Copy)]
struct Block {
    until: Instant,
    /// Number of answers in a row that demanded a wait without naming its time.
    unstated_in_row: u32,
}

/// The state of a credential's limits.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    limits: Vec<Limit>,
    /// The limits for which calls are counted, as answers have told. Calls of other lanes are taken to count for `core`.
    lanes: Vec<(Lane, String)>,
    block: Option<Block>,
    /// The time until which points are spent.
    paced_until: Option<Instant>,
    calls: CallCounts,
    delayed: u64,
}

impl Ledger {
    /// Decides whether a call may be sent, and when.
    pub(super) fn decide(&self, ask: &Ask<'_>, now: Instant) -> Decision {
        let spread = ask.lane.importance.spread().mul_f64(ask.chance.clamp(0.0, 1.0));
        let held = [self.blocked(), self.used_up(ask.lane, now)].into_iter().flatten();
        let held = held.map(|(until, why)| (until, spread, why));
        // Calls that wait for points are not spread: each has a time of its own, because points are spent before the wait.
        let paced = self.paced(ask).map(|(until, why)| (until, Duration::ZERO, why));
        match held.chain(paced).filter(|(until, ..)| *until > now).max_by_key(|(until, ..)| *until) {
            None => Decision::Go,
            Some((until, _, why)) if until > ask.latest => Decision::Shed { until, why },
            Some((until, spread, _)) => Decision::WaitUntil(until + spread),
        }
    }

    /// Decides, spends the points of a call that is not shed, and counts one that is shed or has to wait.
    pub(super) fn admit(&mut self, ask: &Ask<'_>, now: Instant, delayed: &mut bool) -> Decision {
        let decision = self.decide(ask, now);
        match decision {
            Decision::Shed { .. } => self.count(ask.lane.importance, CallEnd::Shed),
            Decision::WaitUntil(_) if !*delayed => {
                *delayed = true;
                self.delayed += 1;
            }
            Decision::WaitUntil(_) | Decision::Go => {}
        }
        if !matches!(decision, Decision::Shed { .. }) && !self.limits.is_empty() {
            let from = self.paced_until.map_or(now, |until| until.max(now));
            self.paced_until = Some(from + POINT_TIME * ask.points);
        }
        decision
    }

    /// Stores what an answer says.
    pub(super) fn learn(&mut self, lane: &Lane, answer: &AnswerLimits, now: Instant) {
        if let Some(primary) = &answer.primary {
            self.learn_primary(lane, primary, now);
        }
        match answer.demanded {
            // An answer to an earlier call does not end a pause that a later call has caused.
            None => self.block = self.block.filter(|block| block.until > now),
            // Only calls of this limit are refused, and the limit itself is stored above.
            Some(DemandedWait::Primary(_)) if answer.primary.is_some() => {}
            Some(demanded) => self.learn_pause(demanded, now),
        }
    }

    fn learn_pause(&mut self, demanded: DemandedWait, now: Instant) {
        let (until, row) = self.block.map_or((now, 0), |block| (block.until, block.unstated_in_row));
        let (wait, row) = match demanded {
            DemandedWait::Primary(wait) | DemandedWait::Stated(wait) => (wait, row),
            // Calls that were on their way together were refused for the same reason, so they count once.
            DemandedWait::Unstated if until > now => return,
            DemandedWait::Unstated => {
                let wait = demanded.time().saturating_mul(2_u32.saturating_pow(row.min(10)));
                (wait.min(UNSTATED_WAIT_MAX), row + 1)
            }
        };
        self.block = Some(Block { until: until.max(now + wait), unstated_in_row: row });
    }

    fn learn_primary(&mut self, lane: &Lane, primary: &PrimaryLimit, now: Instant) {
        match self.lanes.iter_mut().find(|(known, _)| known == lane) {
            Some((_, resource)) if *resource == primary.resource => {}
            Some((_, resource)) => resource.clone_from(&primary.resource),
            None => self.lanes.push((lane.clone(), primary.resource.clone())),
        }
        let limit = Limit { last: primary.clone(), resets_at: now + primary.resets_in };
        let known = self.limits.iter_mut().find(|known| known.last.resource == primary.resource);
        // Answers overtake each other, so an older hour never counts, and of the same hour the smallest rest does.
        match known {
            Some(known) if known.last.reset_s > primary.reset_s && known.resets_at > now => {}
            Some(known) if known.last.reset_s == primary.reset_s => {
                let remaining = known.last.remaining.min(primary.remaining);
                *known = limit;
                known.last.remaining = remaining;
            }
            Some(known) => *known = limit,
            None => {
                self.limits.truncate(LIMITS_MAX - 1);
                self.limits.push(limit);
            }
        }
    }

    pub(super) fn count(&mut self, importance: Importance, end: CallEnd) {
        self.calls.add(importance, end);
    }

    pub(super) fn usage(&self, now: Instant) -> Usage {
        let limits = self.limits.iter().map(|limit| RateLimit {
            resource: limit.last.resource.clone(),
            limit: limit.last.limit,
            remaining: if limit.resets_at > now { limit.last.remaining } else { limit.last.limit },
            used: if limit.resets_at > now { limit.last.used } else { 0 },
            resets_in: limit.resets_at.saturating_duration_since(now),
        });
        Usage {
            calls: self.calls,
            delayed: self.delayed,
            limits: limits.collect(),
            blocked_for: self.block.and_then(|block| block.until.checked_duration_since(now)),
        }
    }

    /// Returns the end of a wait that the forge has demanded.
    fn blocked(&self) -> Option<(Instant, String)> {
        self.block.map(|block| (block.until, "the forge has demanded a pause".to_owned()))
    }

    /// Returns the reset of the call's primary limit if the rest is kept for more important calls.
    fn used_up(&self, lane: &Lane, now: Instant) -> Option<(Instant, String)> {
        let resource = self.lanes.iter().find(|(known, _)| known == lane).map_or("core", |(_, name)| name);
        let limit = self.limits.iter().find(|limit| limit.last.resource == resource)?;
        let PrimaryLimit { limit: all, remaining, .. } = limit.last;
        let reserve = all / 100 * lane.importance.reserve_percent()
            + all % 100 * lane.importance.reserve_percent() / 100;
        let why = match remaining {
            0 => format!("all {all} calls of \"{resource}\" are used"),
            _ => format!(
                "the last {remaining} of {all} calls of \"{resource}\" are kept for more important ones"
            ),
        };
        (limit.resets_at > now && remaining <= reserve).then_some((limit.resets_at, why))
    }

    /// Returns the time at which the points of a call may be spent. Only a forge with limits counts points.
    fn paced(&self, ask: &Ask<'_>) -> Option<(Instant, String)> {
        let until = self.paced_until.filter(|_| ask.points > 0 && !self.limits.is_empty())?;
        let then = (until + POINT_TIME * ask.points).checked_sub(BURST_TIME)?;
        Some((then, "more calls would exceed the forge's limit per minute".to_owned()))
    }
}

#[cfg(test)]
mod tests;
