//! Limits the questions that a gate asks for its machine. Pure: time is passed in.

use std::time::{Duration, Instant};

/// Time that each question pays for: 100 questions a second.
const COST: Duration = Duration::from_millis(10);
/// Questions that a machine may ask at once after a silence.
const BURST: u32 = 1024;

/// The rate of one machine.
#[derive(Debug)]
pub(super) struct Rate {
    /// Time at which all questions so far have been paid for.
    paid_until: Instant,
}

impl Rate {
    /// Returns the rate of a machine that has asked nothing.
    pub(super) fn new(now: Instant) -> Self {
        Self { paid_until: now }
    }

    /// Returns true, and counts a question, if it may be asked now.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        let paid_until = self.paid_until.max(now);
        let has_room = paid_until - now < COST * BURST;
        if has_room {
            self.paid_until = paid_until + COST;
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_questions_passes_and_a_flood_is_held_to_the_rate() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let mut asked = |seconds, count: u32| {
            let now = start + Duration::from_secs(seconds);
            (0..count).filter(|_| rate.admits(now)).count()
        };
        assert_eq!(asked(0, 5000), 1024);
        assert_eq!(asked(1, 5000), 100);
        assert_eq!(asked(3, 50), 50);
        assert_eq!(asked(3, 5000), 150);
        assert_eq!(asked(1000, 5000), 1024, "a silence is no credit without end");
    }
}
