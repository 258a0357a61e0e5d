//! A fixed number of slots, each of which creates one runner after another, by the rules of the shell version.

use tokio::time::Instant;

use super::{Decision, Order};
use crate::demand::StartOrder;
use crate::orchestrator::slots::{Purpose, Slot, Slots, Stage};

/// Returns the orders for a fixed number of slots.
pub(super) fn decide(runners: u32, start: StartOrder, slots: &Slots, now: Instant) -> Decision {
    let is_alive = slots.slots.values().any(|slot| slot.stage.is_alive());
    if slots.closed {
        return Decision { orders: Vec::new(), wake: None, is_finished: !is_alive };
    }
    let mut orders = late(start, slots, now);
    let mut wakes: Vec<Instant> =
        counted(runners, slots).filter_map(|(_, slot)| wake_of(start, slot, now)).collect();
    orders.extend(surplus(runners, slots).map(|index| Order::Retire { index }));
    // A slot that is replaced waits for no other one.
    orders.extend(due(runners, slots, now).map(|index| Order::Start {
        index,
        purpose: Purpose::Place,
        is_awaited: false,
    }));
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
    orders.extend(first.map(|&index| Order::Start { index, purpose: Purpose::Place, is_awaited }));
    let is_last = fresh.len() <= count;
    match start {
        StartOrder::Isolated { .. } => wakes.extend(wake.filter(|_| !fresh.is_empty())),
        StartOrder::Paused(_) => wakes.extend(wake.filter(|_| !is_last)),
    }
    let is_over = !is_alive && counted(runners, slots).all(|(_, slot)| slot.stage == Stage::Finished);
    Decision { orders, wake: wakes.into_iter().min(), is_finished: fresh.is_empty() && is_over }
}

/// Returns orders for the slots whose runner was awaited too long.
fn late(start: StartOrder, slots: &Slots, now: Instant) -> Vec<Order> {
    let StartOrder::Isolated { limit, .. } = start else { return Vec::new() };
    let is_late = |slot: &Slot| slot.stage == Stage::Awaited && slot.start + limit <= now;
    let late = slots.slots.iter().filter(|(_, slot)| is_late(slot));
    late.map(|(&index, _)| Order::StopWaiting { index }).collect()
}

/// Returns the slots that the pool should have, among those that it has.
fn counted(runners: u32, slots: &Slots) -> impl Iterator<Item = (u32, &Slot)> {
    slots.slots.range(..=runners).map(|(&index, slot)| (index, slot))
}

/// Returns the slots that the pool has too many, because its number was larger before, and that were not told so yet.
fn surplus(runners: u32, slots: &Slots) -> impl Iterator<Item = u32> {
    let beyond = slots.slots.range(runners.saturating_add(1)..);
    beyond.filter(|(_, slot)| slot.stage.is_free()).map(|(&index, _)| index)
}

/// Returns the slots whose pause is over.
fn due(runners: u32, slots: &Slots, now: Instant) -> impl Iterator<Item = u32> {
    let is_due = move |slot: &Slot| matches!(slot.stage, Stage::Paused(until) if until <= now);
    counted(runners, slots).filter(move |(_, slot)| is_due(slot)).map(|(index, _)| index)
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
