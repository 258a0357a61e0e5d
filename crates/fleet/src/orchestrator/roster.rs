//! Which loop starts when. Pure: time is passed in.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::settings::Limits;

/// A loop that has lived this long counts as healthy: what it did before is forgotten.
const HEALTHY: Duration = Duration::from_secs(600);

/// In which order loops start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOrder {
    /// The next one when a runner of the last one is up.
    Isolated {
        /// How many may be starting at once.
        parallel: u32,
        /// How long one is waited for.
        limit: Duration,
    },
    /// The next one after a while, whatever the last one does.
    Paused(Duration),
}

/// What an end of a loop means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is not to be replaced; why.
    Finished(String),
    /// It is; why.
    Replace(String),
}

/// What becomes of a loop that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It has finished; why.
    Finished(String),
    /// It is replaced.
    Replaced {
        /// Why.
        why: String,
        /// How often in a row.
        count: u32,
        /// When.
        pause: Duration,
    },
}

/// All loops.
#[derive(Debug)]
pub(super) struct Roster {
    order: StartOrder,
    limits: Limits,
    /// Not started yet.
    waiting: VecDeque<u32>,
    /// Started, and no runner of it is up yet: since when.
    starting: HashMap<u32, Instant>,
    /// All that run: since when.
    running: HashMap<u32, Instant>,
    /// To be replaced, and when.
    due: HashMap<u32, Instant>,
    /// How often in a row each was replaced.
    replaced: HashMap<u32, u32>,
    /// Before this nothing is started, where loops start by the clock.
    not_before: Option<Instant>,
    closed: bool,
}

impl Roster {
    /// Loops 1 to `loops`.
    pub(super) fn new(loops: u32, order: StartOrder, limits: Limits) -> Self {
        Self {
            order,
            limits,
            waiting: (1..=loops).collect(),
            starting: HashMap::new(),
            running: HashMap::new(),
            due: HashMap::new(),
            replaced: HashMap::new(),
            not_before: None,
            closed: false,
        }
    }

    /// The loops that start now.
    pub(super) fn start(&mut self, now: Instant) -> Vec<u32> {
        if self.closed {
            return Vec::new();
        }
        let mut start: Vec<u32> =
            self.due.iter().filter(|(_, at)| **at <= now).map(|(&index, _)| index).collect();
        start.sort_unstable();
        self.due.retain(|_, at| *at > now);
        while let Some(&next) = self.waiting.front() {
            match self.order {
                StartOrder::Isolated { parallel, .. } => {
                    if self.starting.len() >= parallel as usize {
                        break;
                    }
                    self.starting.insert(next, now);
                }
                StartOrder::Paused(pause) => {
                    if self.not_before.is_some_and(|at| at > now) {
                        break;
                    }
                    self.not_before = Some(now + pause);
                }
            }
            self.waiting.pop_front();
            start.push(next);
        }
        self.running.extend(start.iter().map(|&index| (index, now)));
        start
    }

    /// A runner of this loop is up.
    pub(super) fn is_up(&mut self, index: u32) {
        self.starting.remove(&index);
    }

    /// The loops that are waited for no longer, and how long they were.
    pub(super) fn give_up_waiting(&mut self, now: Instant) -> Vec<(u32, Duration)> {
        let StartOrder::Isolated { limit, .. } = self.order else { return Vec::new() };
        let late: Vec<_> = self
            .starting
            .iter()
            .map(|(&index, &since)| (index, now.saturating_duration_since(since)))
            .filter(|(_, waited)| *waited >= limit)
            .collect();
        for (index, _) in &late {
            self.starting.remove(index);
        }
        late
    }

    /// A loop has ended.
    pub(super) fn ended(&mut self, index: u32, verdict: Verdict, now: Instant) -> Fate {
        self.starting.remove(&index);
        let lived = self.running.remove(&index).map_or(Duration::ZERO, |since| now - since);
        let why = match verdict {
            Verdict::Finished(how) => return Fate::Finished(how),
            Verdict::Replace(why) if self.closed => return Fate::Finished(why),
            Verdict::Replace(why) => why,
        };
        let count = self.replaced.entry(index).or_default();
        *count = if lived >= HEALTHY { 1 } else { *count + 1 };
        let (count, pause) = (*count, self.limits.pause_after(*count));
        self.due.insert(index, now + pause);
        Fate::Replaced { why, count, pause }
    }

    /// Nothing more is started.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.waiting.clear();
        self.due.clear();
        self.starting.clear();
    }

    /// When something is to be looked at again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let limits = self.starting.values().filter_map(|&since| match self.order {
            StartOrder::Isolated { limit, .. } => Some(since + limit),
            StartOrder::Paused(_) => None,
        });
        let paused = self.not_before.filter(|_| !self.waiting.is_empty());
        self.due.values().copied().chain(limits).chain(paused).min()
    }

    /// No loop runs, and none will.
    pub(super) fn is_finished(&self) -> bool {
        self.running.is_empty() && self.due.is_empty() && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(300);

    fn roster(loops: u32, parallel: u32) -> Roster {
        Roster::new(loops, StartOrder::Isolated { parallel, limit: LIMIT }, Limits::default())
    }

    fn replace() -> Verdict {
        Verdict::Replace("x".to_owned())
    }

    fn finished() -> Verdict {
        Verdict::Finished("x".to_owned())
    }

    #[test]
    fn the_next_loop_starts_when_a_runner_of_the_last_one_is_up() {
        let (mut roster, now) = (roster(3, 1), Instant::now());
        assert_eq!(roster.start(now), [1]);
        assert_eq!(roster.start(now), Vec::<u32>::new());
        roster.is_up(1);
        assert_eq!(roster.start(now), [2]);
        // One that ends before it is up holds nobody up.
        roster.ended(2, finished(), now);
        assert_eq!(roster.start(now), [3]);
    }

    #[test]
    fn several_start_at_once_where_that_is_asked_for() {
        let (mut roster, now) = (roster(5, 2), Instant::now());
        assert_eq!(roster.start(now), [1, 2]);
        roster.is_up(2);
        assert_eq!(roster.start(now), [3]);
    }

    #[test]
    fn the_wait_for_a_loop_has_a_limit() {
        let (mut roster, now) = (roster(2, 1), Instant::now());
        roster.start(now);
        assert_eq!(roster.next_due(), Some(now + LIMIT));
        assert_eq!(roster.give_up_waiting(now + LIMIT / 2), []);
        assert_eq!(roster.give_up_waiting(now + LIMIT), [(1, LIMIT)]);
        assert_eq!(roster.start(now + LIMIT), [2]);
    }

    #[test]
    fn without_isolation_loops_start_by_the_clock() {
        let pause = Duration::from_secs(30);
        let mut roster = Roster::new(2, StartOrder::Paused(pause), Limits::default());
        let now = Instant::now();
        assert_eq!(roster.start(now), [1]);
        assert_eq!(roster.next_due(), Some(now + pause));
        assert_eq!(roster.start(now + pause / 2), Vec::<u32>::new());
        assert_eq!(roster.start(now + pause), [2]);
        assert_eq!(roster.next_due(), None);
    }

    #[test]
    fn a_loop_that_dies_is_replaced_after_a_pause_that_doubles() {
        let (mut roster, mut now) = (roster(1, 1), Instant::now());
        for (count, seconds) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
            assert_eq!(roster.start(now), [1]);
            roster.is_up(1);
            let pause = Duration::from_secs(seconds);
            let fate = roster.ended(1, replace(), now);
            assert_eq!(fate, Fate::Replaced { why: "x".to_owned(), count, pause });
            assert!(!roster.is_finished());
            assert_eq!(roster.start(now), Vec::<u32>::new());
            now += pause;
        }
        roster.start(now);
        // After a healthy life it begins anew.
        let fate = roster.ended(1, replace(), now + HEALTHY);
        assert!(matches!(fate, Fate::Replaced { count: 1, .. }), "{fate:?}");
    }

    #[test]
    fn a_finished_loop_stays_finished_and_a_closed_roster_starts_nothing() {
        let (mut roster, now) = (roster(3, 3), Instant::now());
        roster.start(now);
        assert_eq!(roster.ended(1, finished(), now), Fate::Finished("x".to_owned()));
        roster.ended(2, replace(), now);
        roster.close();
        assert_eq!(roster.ended(3, replace(), now), Fate::Finished("x".to_owned()));
        assert!(roster.is_finished());
        assert_eq!(roster.start(now + HEALTHY), Vec::<u32>::new());
        assert_eq!(roster.next_due(), None);
    }
}
