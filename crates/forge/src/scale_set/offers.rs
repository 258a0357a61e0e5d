//! The jobs that a forge offers to a scale set and that wait to be acquired.

use std::collections::VecDeque;

use super::demand::ScaleSetStatistics;
use super::message::ScaleSetJobEvent;

/// Most offers that are kept. If there are more, the forge is asked for the rest later.
const OFFERS_MAX: usize = 1000;
/// Most jobs that one call acquires, as many as a message offers.
const AT_ONCE_MAX: usize = 50;

/// Offered jobs, oldest first, by the ids of their requests. The scale set acquires as many as it has room for.
#[derive(Debug, Default)]
pub(super) struct Offers {
    waiting: VecDeque<i64>,
    /// Jobs that were acquired after the forge counted.
    uncounted: u32,
    /// True if the forge may have offered more jobs than are known here.
    is_incomplete: bool,
    is_resting: bool,
}

impl Offers {
    /// Takes over the counts of a session that was opened or refreshed. The forge may have offered jobs earlier.
    pub(super) fn begin(&mut self, statistics: &ScaleSetStatistics) {
        self.is_incomplete |= statistics.total_available_jobs > 0;
        (self.uncounted, self.is_resting) = (0, false);
    }

    /// Notes that a call for offers has failed. Then they rest until the next poll, so that they do not hold it up.
    pub(super) fn rest(&mut self) {
        self.is_resting = true;
    }

    /// Notes that a poll has succeeded.
    pub(super) fn polled(&mut self) {
        self.is_resting = false;
    }

    /// Returns true if the forge must be asked which jobs it offers.
    pub(super) fn must_be_asked_for(&self) -> bool {
        self.is_incomplete && self.waiting.is_empty() && !self.is_resting
    }

    /// Notes that the forge was asked.
    pub(super) fn asked_for(&mut self) {
        self.is_incomplete = false;
    }

    /// Adds offers that are not known yet.
    pub(super) fn add(&mut self, ids: impl IntoIterator<Item = i64>) {
        for id in ids {
            if self.waiting.contains(&id) {
                continue;
            }
            match self.waiting.len() < OFFERS_MAX {
                true => self.waiting.push_back(id),
                false => self.is_incomplete = true,
            }
        }
    }

    /// Takes over the news of a message: new offers, and jobs that need no acquiring any more.
    pub(super) fn note(&mut self, events: &[ScaleSetJobEvent]) {
        for event in events {
            let id = event.job().runner_request_id;
            match event {
                ScaleSetJobEvent::Available(_) => self.add([id]),
                _ => self.waiting.retain(|waiting| *waiting != id),
            }
        }
    }

    /// Notes that the forge has counted.
    pub(super) fn counted(&mut self) {
        self.uncounted = 0;
    }

    /// Returns the offers to acquire now, so that the scale set has at most `capacity` jobs.
    pub(super) fn to_acquire(&self, capacity: u32, statistics: &ScaleSetStatistics) -> Vec<i64> {
        if self.is_resting {
            return Vec::new();
        }
        let held = statistics.total_assigned_jobs.saturating_add(self.uncounted);
        let free = usize::try_from(capacity.saturating_sub(held)).unwrap_or(usize::MAX);
        self.waiting.iter().take(free.min(AT_ONCE_MAX)).copied().collect()
    }

    /// Removes offers for which the forge has answered. It gave `acquired` of them; the others are gone.
    pub(super) fn settle(&mut self, asked: &[i64], acquired: usize) {
        self.waiting.retain(|id| !asked.contains(id));
        self.uncounted = self.uncounted.saturating_add(u32::try_from(acquired).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn assigned(jobs: u32) -> ScaleSetStatistics {
        serde_json::from_value(json!({"totalAssignedJobs": jobs})).unwrap()
    }

    #[test]
    fn jobs_are_acquired_in_order_up_to_the_capacity() {
        let mut offers = Offers::default();
        offers.add([1, 2, 3, 2, 1]);
        assert_eq!(offers.to_acquire(4, &assigned(2)), [1, 2]);
        assert_eq!(offers.to_acquire(2, &assigned(2)), [0_i64; 0]);
        assert_eq!(offers.to_acquire(1, &assigned(2)), [0_i64; 0]);
        assert_eq!(offers.to_acquire(100, &assigned(0)), [1, 2, 3]);
    }

    #[test]
    fn acquired_jobs_take_room_before_the_forge_counts_them() {
        let mut offers = Offers::default();
        offers.add([1, 2, 3]);
        offers.settle(&[1, 2], 1);
        assert_eq!(offers.to_acquire(1, &assigned(0)), [0_i64; 0]);
        assert_eq!(offers.to_acquire(2, &assigned(0)), [3], "2 was gone and takes no room");
        offers.counted();
        assert_eq!(offers.to_acquire(1, &assigned(0)), [3]);
    }

    #[test]
    fn offers_rest_after_a_failure_until_a_poll_succeeds() {
        let mut offers = Offers::default();
        offers.add([1]);
        offers.rest();
        assert_eq!(offers.to_acquire(9, &assigned(0)), [0_i64; 0]);
        offers.polled();
        assert_eq!(offers.to_acquire(9, &assigned(0)), [1]);
    }

    #[test]
    fn offers_and_calls_have_a_bound() {
        let mut offers = Offers::default();
        offers.add(0..5000);
        assert_eq!(offers.waiting.len(), OFFERS_MAX);
        assert_eq!(offers.to_acquire(u32::MAX, &assigned(0)).len(), AT_ONCE_MAX);
        let all: Vec<i64> = (0..5000).collect();
        offers.settle(&all, 0);
        assert!(offers.must_be_asked_for(), "the rest is still offered");
    }
}
