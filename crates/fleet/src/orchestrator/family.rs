//! A pool and its sizes: each is a pool of its own with another machine, and all have one maximum together.
//!
//! The maximum holds in [`super::budget`]. If it is reached while jobs of one size wait, idle runners of the other sizes give
//! up their places here, so that the minimum of idle runners never keeps a job waiting.

use tokio::time::Instant;

use super::budget::Family;
use super::decide::wanted_for_jobs;
use super::pool::RunningPool;
use crate::demand::{Demand, Scale};

/// The runners of one pool of a family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Member {
    /// All runners.
    alive: u32,
    /// Those that have a job.
    busy: u32,
    /// Those that wait for a job, or will.
    free: u32,
    /// The number of free runners that its jobs need.
    for_jobs: u32,
}

/// Notes for each pool its family, and the number of idle runners that it gives up.
pub(super) fn settle(pools: &mut [RunningPool], now: Instant) {
    for pool in pools.iter_mut() {
        pool.family = None;
        pool.slots.yielded = 0;
    }
    for first in 0..pools.len() {
        let Some(Scale { max, .. }) = scale(&pools[first]).filter(|_| pools[first].family.is_none()) else {
            continue;
        };
        let all: Vec<usize> = (first..pools.len()).filter(|&at| is_same(&pools[first], &pools[at])).collect();
        if all.len() == 1 {
            continue;
        }
        let members: Vec<Member> = all.iter().map(|&at| member(&pools[at], now)).collect();
        for (at, yielded) in all.into_iter().zip(yielded(max, &members)) {
            pools[at].family = Some(Family { number: first, max });
            pools[at].slots.yielded = yielded;
        }
    }
}

/// Returns the rule for the runners of a scaled pool that does not drain. Others are in no family.
fn scale(pool: &RunningPool) -> Option<Scale> {
    match pool.pool.spec.demand {
        Demand::Scaled(scale) if !pool.slots.is_draining => Some(scale),
        _ => None,
    }
}

fn is_same(one: &RunningPool, other: &RunningPool) -> bool {
    let name = |pool: &RunningPool| {
        let spec = &pool.pool.spec;
        scale(pool).and(spec.size_of.clone().or_else(|| spec.name.clone()))
    };
    std::ptr::eq(one, other) || name(one).is_some_and(|own| name(other) == Some(own))
}

fn member(pool: &RunningPool, now: Instant) -> Member {
    let slots = &pool.slots;
    Member {
        alive: slots.alive(),
        busy: slots.busy(),
        free: slots.free(),
        for_jobs: scale(pool).map_or(0, |scale| wanted_for_jobs(scale, slots, now)),
    }
}

/// Returns how many idle runners each member gives up, so that there is room for the jobs of all. Those of the sizes, which
/// come after the pool itself, go first, because only the pool keeps a minimum of idle runners.
fn yielded(max: u32, members: &[Member]) -> Vec<u32> {
    let sum = |of: fn(&Member) -> u32| members.iter().map(of).fold(0, u32::saturating_add);
    let lacking = sum(|member| member.for_jobs.saturating_sub(member.free));
    let room = max.saturating_sub(sum(|member| member.alive));
    let leaving = sum(|member| member.alive.saturating_sub(member.busy).saturating_sub(member.free));
    let mut short = lacking.saturating_sub(room).saturating_sub(leaving);
    let mut all = vec![0; members.len()];
    for (member, yielded) in members.iter().zip(&mut all).rev() {
        *yielded = member.free.saturating_sub(member.for_jobs).min(short);
        short -= *yielded;
    }
    all
}

#[cfg(test)]
mod tests;
