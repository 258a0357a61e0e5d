//! The share of this host that each pool gets. Pure: time is passed in.
//!
//! Pools that ask for more machines than fit get them by turns: the next machine goes to the pool that has the least of the
//! host for its weight, as in weighted dominant resource fairness (Ghodsi et al., NSDI 2011). A pool whose machines are too
//! large for what is free does not hold the others up, unless it has waited for minutes without a single machine: then
//! nothing else starts until there is room for it. Idle runners make room sooner.
//!
//! A pool and its sizes are a family: they count as one pool, and have one maximum. Within it the next machine goes to the
//! size that has the fewest, jobs come before idle runners, and no idle runner takes a place that a job waits for.

use std::time::Duration;

use dayfly_vm::MachineSizes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::scratch::MACHINE_MIN_MIB;

/// Time after which a pool that has no machine, because none fits, takes precedence over all others.
const STARVING: Duration = Duration::from_secs(300);

/// Time for which a pool waits for its first machine before idle runners of other pools make room for it. Often a job ends
/// sooner.
const PATIENCE: Duration = Duration::from_secs(30);

/// The limits for all machines together; none: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// Number of machines of this process.
    pub machines: Option<u32>,
    /// Virtual CPUs of the machines of this host.
    pub vcpus: Option<u32>,
    /// Memory of the machines of this host, MiB.
    pub memory_mib: Option<u64>,
    /// Space that the machines of this host have on the disk of the state folder, with everything that ended ones have
    /// left, MiB.
    pub scratch_mib: Option<u64>,
}

impl Budget {
    /// Returns the limit of a part for a pool; none if it has none.
    pub(super) fn limit_of(self, part: Scarce, claim: &Claim) -> Option<u64> {
        match part {
            Scarce::Machines => self.machines.map(u64::from),
            Scarce::Vcpus => self.vcpus.map(u64::from),
            Scarce::MemoryMib => self.memory_mib,
            Scarce::ScratchMib => self.scratch_mib,
            Scarce::PoolScratchMib => claim.scratch.max_mib,
        }
    }

    /// Returns what machines of other processes leave of it.
    pub(super) fn beside(self, others: MachineSizes) -> Self {
        let vcpus = u32::try_from(others.vcpus).unwrap_or(u32::MAX);
        Self {
            machines: self.machines,
            vcpus: self.vcpus.map(|limit| limit.saturating_sub(vcpus)),
            memory_mib: self.memory_mib.map(|limit| limit.saturating_sub(others.memory_mib)),
            scratch_mib: self.scratch_mib,
        }
    }

    /// Returns what is left of it beside the scratch space that the machines of the pools here do not have. `total_mib`
    /// is all that is in use on this host.
    pub(super) fn beside_scratch(self, total_mib: u64, claims: &[Claim]) -> Self {
        let own_mib = claims.iter().map(|claim| claim.scratch.seen_mib).fold(0, u64::saturating_add);
        let others_mib = total_mib.saturating_sub(own_mib);
        Self { scratch_mib: self.scratch_mib.map(|limit| limit.saturating_sub(others_mib)), ..self }
    }
}

/// The size of each machine of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Size {
    pub(super) vcpus: u32,
    pub(super) memory_mib: u64,
    /// The scratch space that a new one is expected to have soon; 0 if there is no limit.
    pub(super) scratch_mib: u64,
}

/// A pool's machines and wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    /// Its weight; 0 counts as 1.
    pub(super) weight: u32,
    pub(super) size: Size,
    /// Machines that it has.
    pub(super) machines: u32,
    /// Further machines that it needs now.
    pub(super) wanted: u32,
    /// Those of them that jobs wait for; the others would be idle.
    pub(super) for_jobs: u32,
    /// Machines that it has and that no job needs.
    pub(super) idle: u32,
    /// Machines that it has and that are about to end.
    pub(super) leaving: u32,
    /// The family that it belongs to; none if it shares nothing but the host.
    pub(super) family: Option<Family>,
    /// Its scratch space.
    pub(super) scratch: PoolScratch,
    /// Time since which it needs a machine and has none.
    pub(super) without_since: Option<Instant>,
}

/// The scratch space of a pool, MiB; all 0 if there is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct PoolScratch {
    /// The space that its machines were seen to have.
    pub(super) seen_mib: u64,
    /// The space that they have, or are expected to have soon.
    pub(super) machines_mib: u64,
    /// The space of runs that have ended, or that are not of this pool's own slots.
    pub(super) rest_mib: u64,
    /// Most space of the pool and its sizes; none if there is no limit.
    pub(super) max_mib: Option<u64>,
}

/// Pools that have one maximum and one weight together: a pool and its sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Family {
    /// Its number.
    pub(super) number: usize,
    /// Most machines of all its pools.
    pub(super) max: u32,
}

/// Parts of a budget that are in use.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    machines: u64,
    vcpus: u64,
    memory_mib: u64,
    scratch_mib: u64,
}

impl Usage {
    fn of(size: Size, machines: u32) -> Self {
        let machines = u64::from(machines);
        Self {
            machines,
            vcpus: machines * u64::from(size.vcpus),
            memory_mib: machines.saturating_mul(size.memory_mib),
            scratch_mib: machines.saturating_mul(size.scratch_mib),
        }
    }

    /// Returns what the machines have that a pool has.
    fn of_claim(claim: &Claim) -> Self {
        Self { scratch_mib: claim.scratch.machines_mib, ..Self::of(claim.size, claim.machines) }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            machines: self.machines + other.machines,
            vcpus: self.vcpus + other.vcpus,
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
            scratch_mib: self.scratch_mib.saturating_add(other.scratch_mib),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            machines: self.machines.saturating_sub(other.machines),
            vcpus: self.vcpus.saturating_sub(other.vcpus),
            memory_mib: self.memory_mib.saturating_sub(other.memory_mib),
            scratch_mib: self.scratch_mib.saturating_sub(other.scratch_mib),
        }
    }

    fn fits(self, budget: &Budget) -> bool {
        budget.machines.is_none_or(|limit| self.machines <= limit.into())
            && budget.vcpus.is_none_or(|limit| self.vcpus <= limit.into())
            && budget.memory_mib.is_none_or(|limit| self.memory_mib <= limit)
            && budget.scratch_mib.is_none_or(|limit| self.scratch_mib <= limit)
    }

    /// Returns the largest part of a limit that this is, in millionths.
    fn dominant(self, budget: &Budget) -> u128 {
        let part = |used: u64, limit: Option<u64>| {
            limit.map_or(0, |limit| u128::from(used) * 1_000_000 / u128::from(limit.max(1)))
        };
        part(self.machines, budget.machines.map(u64::from))
            .max(part(self.vcpus, budget.vcpus.map(u64::from)))
            .max(part(self.memory_mib, budget.memory_mib))
            .max(part(self.scratch_mib, budget.scratch_mib))
    }
}

/// Returns how many machines each pool may start now.
pub(super) fn share(budget: &Budget, claims: &[Claim], now: Instant) -> Vec<u32> {
    let mut round = Round::begin(claims);
    if let Some(starving) = round.longest_waiting(budget, STARVING, now) {
        if !round.with_one_more(starving).fits(budget) {
            return round.granted;
        }
        round.grant(starving);
    }
    let is_patient = round.longest_waiting(budget, PATIENCE, now).is_none();
    while let Some(next) = round.neediest(budget, is_patient, now) {
        round.grant(next);
    }
    round.granted
}

/// Returns how many idle runners each pool gives up, so that there is room for a job of the pool that has waited longest for
/// its first machine: a minimum of idle runners never keeps the jobs of another pool waiting for ever. `granted` are the
/// machines that start now.
pub(super) fn yielded(budget: &Budget, claims: &[Claim], granted: &[u32], now: Instant) -> Vec<u32> {
    let none = vec![0; claims.len()];
    let mut round = Round::begin(claims);
    let waiting = round.longest_waiting(budget, PATIENCE, now).filter(|&index| granted[index] == 0);
    let Some(waiting) = waiting else { return none };
    (0..claims.len()).for_each(|index| (0..granted[index]).for_each(|_| round.grant(index)));
    let leaving = claims.iter().map(|claim| Usage::of(claim.size, claim.leaving));
    let mut used = round.with_one_more(waiting).minus(leaving.fold(Usage::default(), Usage::plus));
    let mut all = none.clone();
    while !used.fits(budget) {
        let idle = |&index: &usize| claims[index].idle.saturating_sub(all[index]);
        let most = (0..claims.len()).filter(|index| *index != waiting && idle(index) > 0).max_by_key(idle);
        // Machines with a job are in the way.
        let Some(index) = most else { return none };
        used = used.minus(Usage::of(claims[index].size, 1));
        all[index] += 1;
    }
    all
}

/// A part of the budget of the host, or of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scarce {
    /// The number of machines.
    Machines,
    /// Virtual CPUs.
    Vcpus,
    /// Memory.
    MemoryMib,
    /// Scratch space of the host.
    ScratchMib,
    /// Scratch space of the pool.
    PoolScratchMib,
}

/// Returns the part of the budget that the next machine of a pool does not fit into. `granted` are the machines that start now.
pub(super) fn scarce(budget: &Budget, claims: &[Claim], granted: &[u32], index: usize) -> Option<Scarce> {
    let mut round = Round::begin(claims);
    (0..claims.len()).for_each(|at| (0..granted[at]).for_each(|_| round.grant(at)));
    let used = round.with_one_more(index);
    let all = [
        (Scarce::Machines, used.machines),
        (Scarce::Vcpus, used.vcpus),
        (Scarce::MemoryMib, used.memory_mib),
        (Scarce::PoolScratchMib, round.scratch_with_one_more(index)),
        (Scarce::ScratchMib, used.scratch_mib),
    ];
    let is_used_up = |part, used| budget.limit_of(part, &claims[index]).is_some_and(|limit| used > limit);
    all.into_iter().find(|(part, used)| is_used_up(*part, *used)).map(|(part, _)| part)
}

/// Lets the next machine of each pool count as no more than it may have alone, because a pool whose last machines have
/// written more than that would otherwise never start one again.
pub(super) fn fit_alone(budget: &Budget, claims: &mut [Claim]) {
    let round = Round::begin(claims);
    let of_family = |index: usize| {
        let rest_mib = round.family_of(index).map(|at| claims[at].scratch.rest_mib);
        let rest_mib = rest_mib.fold(0, u64::saturating_add);
        claims[index].scratch.max_mib.map(|max_mib| max_mib.saturating_sub(rest_mib))
    };
    let room = |index: usize| [budget.scratch_mib, of_family(index)].into_iter().flatten().min();
    let rooms: Vec<_> = (0..claims.len()).map(room).collect();
    for (claim, room) in claims.iter_mut().zip(rooms) {
        let most = room.map_or(u64::MAX, |room| room.max(MACHINE_MIN_MIB));
        claim.size.scratch_mib = claim.size.scratch_mib.min(most);
    }
}

/// Returns the time from which idle runners of other pools make room for a pool that has no machine.
pub(super) fn loses_patience(claim: &Claim) -> Option<Instant> {
    claim.without_since.map(|since| since + PATIENCE)
}

/// The claims, and what was granted of them so far.
struct Round<'a> {
    claims: &'a [Claim],
    granted: Vec<u32>,
    used: Usage,
}

impl<'a> Round<'a> {
    fn begin(claims: &'a [Claim]) -> Self {
        let used = claims.iter().map(Usage::of_claim);
        Self { claims, granted: vec![0; claims.len()], used: used.fold(Usage::default(), Usage::plus) }
    }

    fn with_one_more(&self, index: usize) -> Usage {
        self.used.plus(Usage::of(self.claims[index].size, 1))
    }

    fn grant(&mut self, index: usize) {
        self.used = self.with_one_more(index);
        self.granted[index] += 1;
    }

    /// Returns the pool that has waited longest for its first machine, if it has waited for this time. A machine that does not
    /// fit beside those of other processes holds nothing up, because the pools here cannot make room for it.
    fn longest_waiting(&self, budget: &Budget, time: Duration, now: Instant) -> Option<usize> {
        let waiting = self.claims.iter().enumerate().filter_map(|(index, claim)| {
            let since = claim.without_since.filter(|since| claim.for_jobs > 0 && *since + time <= now)?;
            let is_possible = self.has_place(index) && Usage::of(claim.size, 1).fits(budget);
            is_possible.then_some((since, index))
        });
        waiting.min().map(|(_, index)| index)
    }

    /// Returns the pool with the least share for its weight among those whose next machine fits. `with_idle` is false if no
    /// idle runner starts, because a job waits for room.
    fn neediest(&self, budget: &Budget, with_idle: bool, now: Instant) -> Option<usize> {
        let is_open = |index: &usize| {
            self.granted[*index] < self.claims[*index].wanted
                && (with_idle || self.is_for_job(*index))
                && self.has_place(*index)
                && self.with_one_more(*index).fits(budget)
        };
        (0..self.claims.len()).filter(is_open).min_by_key(|&index| {
            let claim = &self.claims[index];
            let (usage, machines) =
                self.family_of(index).fold((Usage::default(), 0), |(usage, machines), at| {
                    let count = self.machines(at);
                    (usage.plus(self.usage(at)), machines + u128::from(count))
                });
            // By number too, because machines count as nothing if there is no limit.
            let weight = u128::from(claim.weight.max(1));
            let share = (usage.dominant(budget) * 1_000_000 / weight, machines * 1_000_000 / weight);
            let since = claim.without_since.unwrap_or(now);
            (share, !self.is_for_job(index), self.machines(index), since)
        })
    }

    /// Returns what a pool has and gets.
    fn usage(&self, index: usize) -> Usage {
        let claim = &self.claims[index];
        Usage::of_claim(claim).plus(Usage::of(claim.size, self.granted[index]))
    }

    fn machines(&self, index: usize) -> u32 {
        self.claims[index].machines.saturating_add(self.granted[index])
    }

    /// Returns true if a job waits for the next machine of a pool.
    fn is_for_job(&self, index: usize) -> bool {
        self.granted[index] < self.claims[index].for_jobs
    }

    /// Returns the pools of a pool's family, itself included.
    fn family_of(&self, index: usize) -> impl Iterator<Item = usize> {
        let number = |claim: &Claim| claim.family.map(|family| family.number);
        let own = number(&self.claims[index]);
        let is_same = move |at: usize| at == index || (own.is_some() && number(&self.claims[at]) == own);
        (0..self.claims.len()).filter(move |at| is_same(*at))
    }

    /// Returns the scratch space of a pool's family with its next machine, MiB.
    fn scratch_with_one_more(&self, index: usize) -> u64 {
        let used = self.family_of(index).map(|at| {
            let rest_mib = self.claims[at].scratch.rest_mib;
            self.usage(at).scratch_mib.saturating_add(rest_mib)
        });
        used.fold(self.claims[index].size.scratch_mib, u64::saturating_add)
    }

    /// Returns true if the family of a pool may have another machine. An idle runner leaves the places for jobs.
    fn has_place(&self, index: usize) -> bool {
        let scratch_max_mib = self.claims[index].scratch.max_mib;
        if scratch_max_mib.is_some_and(|max_mib| self.scratch_with_one_more(index) > max_mib) {
            return false;
        }
        let Some(family) = self.claims[index].family else { return true };
        let taken = self.family_of(index).map(|at| u64::from(self.machines(at))).sum::<u64>();
        let jobs = self.family_of(index).map(|at| {
            let claim = &self.claims[at];
            u64::from(claim.for_jobs.saturating_sub(self.granted[at]))
        });
        let kept = if self.is_for_job(index) { 0 } else { jobs.sum() };
        taken + kept < u64::from(family.max)
    }
}

#[cfg(test)]
mod tests;
