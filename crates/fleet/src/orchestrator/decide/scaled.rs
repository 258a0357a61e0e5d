//! As many alike runners as there are jobs, and some that wait for a job.

use tokio::time::Instant;

use super::{Decision, Order};
use crate::demand::Scale;
use crate::orchestrator::slots::{Purpose, Slots};

/// Returns the orders for a scaled pool. Each job without a runner needs one that is free, and the minimum of idle runners
/// comes on top. Runners above that number retire once they have been idle for their time, the longest idle first.
pub(super) fn decide(scale: Scale, slots: &Slots, now: Instant) -> Decision {
    let (alive, free) = (slots.alive() as usize, slots.free() as usize);
    if slots.closed {
        return Decision { orders: Vec::new(), wake: None, is_finished: alive == 0 };
    }
    let (unreported, forgotten) = slots.unreported(now);
    let wanted = free_runners_wanted(scale, slots, slots.jobs_without_runner(unreported));
    // They are not replaced until the other size has its machines.
    let wanted =
        if slots.yielded > 0 { wanted.min(free.saturating_sub(slots.yielded as usize)) } else { wanted };
    let is_finished = slots.complete && wanted == 0 && alive == 0;
    if free >= wanted {
        let (orders, retired) = retire(scale, slots, free - wanted, now);
        return Decision { orders, wake: [retired, forgotten].into_iter().flatten().min(), is_finished };
    }
    if let Some(wake) = slots.not_before.filter(|at| *at > now) {
        return Decision { orders: Vec::new(), wake: Some(wake), is_finished };
    }
    let room = (scale.max as usize).saturating_sub(alive);
    let unused = (1..).filter(|index| !slots.slots.contains_key(index));
    let start = |index| Order::Start { index, purpose: Purpose::Any, is_awaited: false };
    let orders = unused.take((wanted - free).min(room)).map(start).collect();
    Decision { orders, wake: forgotten, is_finished }
}

/// Returns the number of runners without a job that the pool should have for so many jobs, within its maximum.
fn free_runners_wanted(scale: Scale, slots: &Slots, jobs: usize) -> usize {
    let min_idle = if slots.complete { 0 } else { slots.min_idle.unwrap_or(scale.min_idle) };
    (jobs + min_idle as usize).min(scale.max.saturating_sub(slots.busy()) as usize)
}

/// Returns the number of free runners that a scaled pool needs for its jobs now: not for its minimum of idle ones, and no
/// further ones during a pause after failures. A pool that an administrator has paused needs none, so that no other size of
/// the pool gives up idle runners for it.
pub(in crate::orchestrator) fn wanted_for_jobs(scale: Scale, slots: &Slots, now: Instant) -> u32 {
    if slots.is_paused {
        return 0;
    }
    let is_pausing = slots.not_before.is_some_and(|at| at > now);
    let most = if is_pausing { slots.free() } else { scale.max.saturating_sub(slots.busy()) };
    slots.jobs_waiting(now).min(most)
}

/// Returns orders to retire at most `surplus` runners that have been idle for their time, and the time of the next one. Those
/// whose places another size of the pool needs go at once.
fn retire(scale: Scale, slots: &Slots, surplus: usize, now: Instant) -> (Vec<Order>, Option<Instant>) {
    let mut idle: Vec<(Instant, u32)> = slots
        .slots
        .iter()
        .filter(|(_, slot)| slot.stage.is_free())
        .filter_map(|(&index, slot)| Some((slot.up? + scale.idle_timeout, index)))
        .collect();
    idle.sort_unstable();
    idle.truncate(surplus);
    let yielded = (slots.yielded as usize).min(idle.len());
    let due = idle.iter().take_while(|(at, _)| *at <= now).count().max(yielded);
    let later = idle.split_off(due);
    let orders = idle.into_iter().map(|(_, index)| Order::Retire { index }).collect();
    (orders, later.first().map(|(at, _)| *at))
}
