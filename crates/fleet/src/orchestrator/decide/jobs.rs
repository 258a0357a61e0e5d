//! A runner for each job that waits, with the labels of that job.

use tokio::time::Instant;

use super::{Decision, Order};
use crate::demand::JobDemand;
use crate::orchestrator::slots::{Purpose, Slots, Waiting};

/// Matches waiting jobs with free runners: first with the runner that was started for the job, then with one whose job has
/// gone to another runner, if its labels fit. New slots start for the jobs that are left, and free runners that are left
/// stop.
pub(super) fn decide(max: u32, slots: &Slots, now: Instant) -> Decision {
    let alive = slots.slots.values().filter(|slot| slot.stage.is_alive()).count();
    let is_complete = slots.closed || (slots.complete && slots.waiting.is_empty());
    let mut free: Vec<(u32, &JobDemand)> = slots
        .slots
        .iter()
        .filter(|(_, slot)| slot.stage.is_free())
        .filter_map(|(&index, slot)| Some((index, slot.purpose.job()?)))
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
        let purpose = Purpose::Job(waiting.demand.clone());
        orders.push(Order::Start { index, purpose, is_awaited: false });
    }
    let pauses = open.iter().filter_map(|waiting| waiting.not_before).filter(|at| *at > now);
    Decision { orders, wake: pauses.min(), is_finished: is_complete && alive == 0 }
}

/// Removes the first runner whose job passes the test, and returns its slot.
fn take_first(free: &mut Vec<(u32, &JobDemand)>, test: impl Fn(&JobDemand) -> bool) -> Option<u32> {
    let at = free.iter().position(|(_, job)| test(job))?;
    Some(free.remove(at).0)
}
