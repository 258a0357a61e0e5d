//! Decides which slots start and which stop: one pure function over the demand, the slots and the time.

mod jobs;
mod scaled;
mod stationary;

use tokio::time::Instant;

use super::slots::{Purpose, Slots};
use crate::demand::{Demand, JobDemand};
pub(super) use scaled::wanted_for_jobs;

/// An order to the orchestrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Start the loop of a slot.
    Start {
        /// Number of the slot.
        index: u32,
        /// The jobs that its runners are for.
        purpose: Purpose,
        /// True if other slots wait for its runner.
        is_awaited: bool,
    },
    /// Use a slot's runner for another job, because the job that it was started for has another runner.
    Reassign {
        /// Number of the slot.
        index: u32,
        /// The job.
        job: JobDemand,
    },
    /// End a slot unless its runner has a job, and start no other runner in it. The forge decides, because only it knows.
    Retire {
        /// Number of the slot.
        index: u32,
    },
    /// Stop a slot whose runner waits for a job that it will not get.
    Stop {
        /// Number of the slot.
        index: u32,
    },
    /// Stop waiting for a slot's runner, and warn that it is late.
    StopWaiting {
        /// Number of the slot.
        index: u32,
    },
}

/// The result of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    /// Orders, to be carried out in this sequence.
    pub(super) orders: Vec<Order>,
    /// Time of the next decision if nothing happens before. It counts once the orders are carried out.
    pub(super) wake: Option<Instant>,
    /// True if no slot runs and none will.
    pub(super) is_finished: bool,
}

/// Returns the orders that the demand, the slots and the time require.
pub(super) fn decide(demand: &Demand, slots: &Slots, now: Instant) -> Decision {
    if slots.is_draining {
        return drain(slots);
    }
    if slots.is_paused && !slots.closed {
        return Decision { is_finished: false, ..drain(slots) };
    }
    match demand {
        Demand::Static { runners, start } => stationary::decide(*runners, *start, slots, now),
        Demand::Jobs { max } => jobs::decide(*max, slots, now),
        Demand::Scaled(scale) => scaled::decide(*scale, slots, now),
    }
}

/// Returns the orders for a pool that starts no runner: those without a job end, and the others end with their job.
fn drain(slots: &Slots) -> Decision {
    let free = slots.slots.iter().filter(|(_, slot)| slot.stage.is_free());
    let orders = free.map(|(&index, _)| Order::Retire { index }).collect();
    let is_finished = !slots.slots.values().any(|slot| slot.stage.is_alive());
    Decision { orders, wake: None, is_finished }
}

#[cfg(test)]
mod tests;
