//! Decides which slots start and which stop: one pure function over the demand, the slots and the time.

use tokio::time::Instant;

use super::slots::{Slot, Slots, Stage, Waiting};
use crate::demand::{Demand, JobDemand, StartOrder};

/// An order to the orchestrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Start the loop of a slot.
    Start {
        /// Number of the slot.
        index: u32,
        /// The job that its runner is for.
        job: Option<JobDemand>,
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
    match demand {
        Demand::Static { runners, start } => decide_static(*runners, *start, slots, now),
        Demand::Jobs { max } => decide_jobs(*max, slots, now),
    }
}

fn decide_static(runners: u32, start: StartOrder, slots: &Slots, now: Instant) -> Decision {
    let is_alive = slots.slots.values().any(|slot| slot.stage.is_alive());
    if slots.closed {
        return Decision { orders: Vec::new(), wake: None, is_finished: !is_alive };
    }
    let mut orders = late(start, slots, now);
    let mut wakes: Vec<Instant> = slots.slots.values().filter_map(|slot| wake_of(start, slot, now)).collect();
    // A slot that is replaced waits for no other one.
    orders.extend(due(slots, now).map(|index| Order::Start { index, job: None, is_awaited: false }));
    let fresh: Vec<u32> = (1..=runners).filter(|index| !slots.slots.contains_key(index)).collect();
    let (count, wake, is_awaited) = match start {
        StartOrder::Isolated { parallel, limit } => {
            let awaited = slots.slots.values().filter(|slot| slot.stage == Stage::Awaited).count();
            let no_longer = orders.iter().filter(|order| matches!(order, Order::StopWaiting { .. })).count();
            let count = (parallel as usize).saturating_sub(awaited - no_longer);
            (count, Some(now + limit).filter(|_| count > 0), true)
        }
        StartOrder::Paused(pause) => {
            let next = slots.slots.values().map(|slot| slot.first_start + pause).max();
            let is_due = next.is_none_or(|next| next <= now);
            // A pause of no length starts all slots at once.
            let count = if !is_due {
                0
            } else if pause.is_zero() {
                fresh.len()
            } else {
                1
            };
            (count, if is_due { Some(now + pause) } else { next }, false)
        }
    };
    let first = fresh.iter().take(count);
    orders.extend(first.map(|&index| Order::Start { index, job: None, is_awaited }));
    let is_last = fresh.len() <= count;
    match start {
        StartOrder::Isolated { .. } => wakes.extend(wake.filter(|_| !fresh.is_empty())),
        StartOrder::Paused(_) => wakes.extend(wake.filter(|_| !is_last)),
    }
    let is_over = slots.slots.values().all(|slot| slot.stage == Stage::Finished);
    Decision { orders, wake: wakes.into_iter().min(), is_finished: fresh.is_empty() && is_over }
}

/// Returns orders for the slots whose runner was awaited too long.
fn late(start: StartOrder, slots: &Slots, now: Instant) -> Vec<Order> {
    let StartOrder::Isolated { limit, .. } = start else { return Vec::new() };
    let is_late = |slot: &Slot| slot.stage == Stage::Awaited && slot.start + limit <= now;
    let late = slots.slots.iter().filter(|(_, slot)| is_late(slot));
    late.map(|(&index, _)| Order::StopWaiting { index }).collect()
}

/// Returns the slots whose pause is over.
fn due(slots: &Slots, now: Instant) -> impl Iterator<Item = u32> {
    let is_due = move |slot: &Slot| matches!(slot.stage, Stage::Paused(until) if until <= now);
    slots.slots.iter().filter(move |(_, slot)| is_due(slot)).map(|(&index, _)| index)
}

/// Returns the next time after `now` at which a slot needs a decision.
fn wake_of(start: StartOrder, slot: &Slot, now: Instant) -> Option<Instant> {
    let at = match (slot.stage, start) {
        (Stage::Paused(until), _) => until,
        (Stage::Awaited, StartOrder::Isolated { limit, .. }) => slot.start + limit,
        _ => return None,
    };
    Some(at).filter(|at| *at > now)
}

/// Matches waiting jobs with free runners: first with the runner that was started for the job, then with one whose job has
/// gone to another runner, if its labels fit. New slots start for the jobs that are left, and free runners that are left
/// stop.
fn decide_jobs(max: u32, slots: &Slots, now: Instant) -> Decision {
    let alive = slots.slots.values().filter(|slot| slot.stage.is_alive()).count();
    let is_complete = slots.closed || (slots.complete && slots.waiting.is_empty());
    let mut free: Vec<(u32, &JobDemand)> = slots
        .slots
        .iter()
        .filter(|(_, slot)| slot.stage.is_free())
        .filter_map(|(&index, slot)| Some((index, slot.job.as_ref()?)))
        .collect();
    let mut open: Vec<&Waiting> = slots.waiting.iter().collect();
    open.retain(|waiting| take_first(&mut free, |job| job.job == waiting.demand.job).is_none());
    let mut orders = Vec::new();
    open.retain(|waiting| match take_first(&mut free, |job| job.fits(&waiting.demand)) {
        Some(index) => {
            orders.push(Order::Reassign { index, job: waiting.demand.clone() });
            false
        }
        None => true,
    });
    orders.extend(free.iter().map(|&(index, _)| Order::Stop { index }));
    let room = (max as usize).saturating_sub(alive);
    let startable = open.iter().filter(|waiting| waiting.not_before.is_none_or(|at| at <= now));
    for (index, waiting) in (slots.next..).zip(startable.take(room)) {
        orders.push(Order::Start { index, job: Some(waiting.demand.clone()), is_awaited: false });
    }
    let pauses = open.iter().filter_map(|waiting| waiting.not_before).filter(|at| *at > now);
    Decision { orders, wake: pauses.min(), is_finished: is_complete && alive == 0 }
}

/// Removes the first runner whose job passes the test, and returns its slot.
fn take_first(free: &mut Vec<(u32, &JobDemand)>, test: impl Fn(&JobDemand) -> bool) -> Option<u32> {
    let at = free.iter().position(|(_, job)| test(job))?;
    Some(free.remove(at).0)
}

#[cfg(test)]
mod tests;
