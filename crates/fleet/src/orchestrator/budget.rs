//! The share of this host that each pool gets. Pure: time is passed in.
//!
//! Pools that ask for more machines than fit get them by turns: the next machine goes to the pool that has the least of the
//! host for its weight, as in weighted dominant resource fairness (Ghodsi et al., NSDI 2011). A pool whose machines are too
//! large for what is free does not hold the others up, unless it has waited for minutes without a single machine: then
//! nothing else starts until there is room for it.
//!
//! A pool and its sizes are a family: they count as one pool, and have one maximum. Within it the next machine goes to the
//! size that has the fewest, jobs come before idle runners, and no idle runner takes a place that a job waits for.

use std::time::Duration;

use dayfly_vm::MachineSizes;
use tokio::time::Instant;

/// Time after which a pool that has no machine, because none fits, takes precedence over all others.
const STARVING: Duration = Duration::from_secs(300);

/// The limits for all machines together; none: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// Number of machines of this process.
    pub machines: Option<u32>,
    /// Virtual CPUs of the machines of this host.
    pub vcpus: Option<u32>,
    /// Memory of the machines of this host, MiB.
    pub memory_mib: Option<u64>,
}

impl Budget {
    /// Returns what machines of other processes leave of it.
    pub(super) fn beside(self, others: MachineSizes) -> Self {
        let vcpus = u32::try_from(others.vcpus).unwrap_or(u32::MAX);
        Self {
            machines: self.machines,
            vcpus: self.vcpus.map(|limit| limit.saturating_sub(vcpus)),
            memory_mib: self.memory_mib.map(|limit| limit.saturating_sub(others.memory_mib)),
        }
    }
}

/// The size of each machine of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Size {
    pub(super) vcpus: u32,
    pub(super) memory_mib: u64,
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
    /// The family that it belongs to; none if it shares nothing but the host.
    pub(super) family: Option<Family>,
    /// Time since which it needs a machine and has none.
    pub(super) without_since: Option<Instant>,
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
}

impl Usage {
    fn of(size: Size, machines: u32) -> Self {
        let machines = u64::from(machines);
        Self {
            machines,
            vcpus: machines * u64::from(size.vcpus),
            memory_mib: machines.saturating_mul(size.memory_mib),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            machines: self.machines + other.machines,
            vcpus: self.vcpus + other.vcpus,
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
        }
    }

    fn fits(self, budget: &Budget) -> bool {
        budget.machines.is_none_or(|limit| self.machines <= limit.into())
            && budget.vcpus.is_none_or(|limit| self.vcpus <= limit.into())
            && budget.memory_mib.is_none_or(|limit| self.memory_mib <= limit)
    }

    /// Returns the largest part of a limit that this is, in millionths.
    fn dominant(self, budget: &Budget) -> u128 {
        let part = |used: u64, limit: Option<u64>| {
            limit.map_or(0, |limit| u128::from(used) * 1_000_000 / u128::from(limit.max(1)))
        };
        part(self.machines, budget.machines.map(u64::from))
            .max(part(self.vcpus, budget.vcpus.map(u64::from)))
            .max(part(self.memory_mib, budget.memory_mib))
    }
}

/// Returns how many machines each pool may start now.
pub(super) fn share(budget: &Budget, claims: &[Claim], now: Instant) -> Vec<u32> {
    let used = claims.iter().map(|claim| Usage::of(claim.size, claim.machines));
    let mut round =
        Round { claims, granted: vec![0; claims.len()], used: used.fold(Usage::default(), Usage::plus) };
    if let Some(starving) = round.starving(budget, now) {
        if !round.with_one_more(starving).fits(budget) {
            return round.granted;
        }
        round.grant(starving);
    }
    while let Some(next) = round.neediest(budget, now) {
        round.grant(next);
    }
    round.granted
}

/// The claims, and what was granted of them so far.
struct Round<'a> {
    claims: &'a [Claim],
    granted: Vec<u32>,
    used: Usage,
}

impl Round<'_> {
    fn with_one_more(&self, index: usize) -> Usage {
        self.used.plus(Usage::of(self.claims[index].size, 1))
    }

    fn grant(&mut self, index: usize) {
        self.used = self.with_one_more(index);
        self.granted[index] += 1;
    }

    /// Returns the pool that has waited longest for its first machine, if it has waited too long. A machine that does not fit
    /// beside those of other processes holds nothing up, because the pools here cannot make room for it.
    fn starving(&self, budget: &Budget, now: Instant) -> Option<usize> {
        let waiting = self.claims.iter().enumerate().filter_map(|(index, claim)| {
            let since = claim.without_since.filter(|since| claim.wanted > 0 && *since + STARVING <= now)?;
            let is_possible = self.has_place(index) && Usage::of(claim.size, 1).fits(budget);
            is_possible.then_some((since, index))
        });
        waiting.min().map(|(_, index)| index)
    }

    /// Returns the pool with the least share for its weight among those whose next machine fits.
    fn neediest(&self, budget: &Budget, now: Instant) -> Option<usize> {
        let is_open = |index: &usize| {
            self.granted[*index] < self.claims[*index].wanted
                && self.has_place(*index)
                && self.with_one_more(*index).fits(budget)
        };
        (0..self.claims.len()).filter(is_open).min_by_key(|&index| {
            let claim = &self.claims[index];
            let (usage, machines) =
                self.family_of(index).fold((Usage::default(), 0), |(usage, machines), at| {
                    let count = self.machines(at);
                    (usage.plus(Usage::of(self.claims[at].size, count)), machines + u128::from(count))
                });
            // By number too, because machines count as nothing if there is no limit.
            let weight = u128::from(claim.weight.max(1));
            let share = (usage.dominant(budget) * 1_000_000 / weight, machines * 1_000_000 / weight);
            let since = claim.without_since.unwrap_or(now);
            (share, !self.is_for_job(index), self.machines(index), since)
        })
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

    /// Returns true if the family of a pool may have another machine. An idle runner leaves the places for jobs.
    fn has_place(&self, index: usize) -> bool {
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SMALL: Size = Size { vcpus: 1, memory_mib: 1024 };
    const LARGE: Size = Size { vcpus: 8, memory_mib: 8192 };

    fn budget() -> Budget {
        Budget { machines: Some(100), vcpus: Some(8), memory_mib: Some(64 * 1024) }
    }

    fn claim(weight: u32, size: Size, machines: u32, wanted: u32) -> Claim {
        Claim { weight, size, machines, wanted, for_jobs: wanted, family: None, without_since: None }
    }

    #[test]
    fn without_limits_each_pool_gets_what_it_needs() {
        let claims = [claim(1, SMALL, 3, 4), claim(2, LARGE, 0, 500)];
        assert_eq!(share(&Budget::default(), &claims, Instant::now()), [4, 500]);
    }

    #[test]
    fn machines_of_other_processes_leave_less() {
        let others = MachineSizes { vcpus: 5, memory_mib: 1024 };
        let left = budget().beside(others);
        assert_eq!(left, Budget { machines: Some(100), vcpus: Some(3), memory_mib: Some(63 * 1024) });
        assert_eq!(share(&left, &[claim(1, SMALL, 1, 9)], Instant::now()), [2]);
        let full = budget().beside(MachineSizes { vcpus: u64::MAX, memory_mib: u64::MAX });
        assert_eq!(share(&full, &[claim(1, SMALL, 0, 9)], Instant::now()), [0]);
        assert_eq!(Budget::default().beside(others), Budget::default());
    }

    #[test]
    fn machines_are_shared_by_weight() {
        let claims = [claim(1, SMALL, 0, 20), claim(3, SMALL, 0, 20)];
        assert_eq!(share(&budget(), &claims, Instant::now()), [2, 6]);
        let claims = [claim(1, SMALL, 6, 20), claim(1, SMALL, 0, 20)];
        assert_eq!(share(&budget(), &claims, Instant::now()), [0, 2], "the other pool has its share already");
    }

    #[test]
    fn a_share_that_is_not_needed_goes_to_the_others() {
        let claims = [claim(1, SMALL, 0, 1), claim(1, SMALL, 0, 20)];
        assert_eq!(share(&budget(), &claims, Instant::now()), [1, 7]);
    }

    #[test]
    fn a_pool_of_large_machines_waits_for_room_and_after_some_time_the_others_wait_for_it() {
        let now = Instant::now();
        let since = |age: Duration| Some(now.checked_sub(age).expect("the host is up for longer"));
        let large = |age| Claim { without_since: since(age), ..claim(1, LARGE, 0, 1) };
        let short = Duration::from_secs(1);
        assert_eq!(share(&budget(), &[claim(1, SMALL, 1, 4), large(short)], now), [4, 0]);
        assert_eq!(share(&budget(), &[claim(1, SMALL, 1, 4), large(STARVING)], now), [0, 0]);
        assert_eq!(share(&budget(), &[claim(1, SMALL, 0, 4), large(STARVING)], now), [0, 1]);
        let left = budget().beside(MachineSizes { vcpus: 1, memory_mib: 0 });
        assert_eq!(share(&left, &[claim(1, SMALL, 1, 4), large(STARVING)], now), [4, 0], "it cannot fit");
    }

    /// A pool of weight 1 with small machines and its size with large ones, in a family with this maximum.
    fn family(max: u32, own: Claim, of_size: Claim) -> [Claim; 2] {
        let family = Some(Family { number: 0, max });
        [own, of_size].map(|claim| Claim { family, ..claim })
    }

    #[test]
    fn a_pool_and_its_sizes_have_one_maximum_and_one_weight() {
        let now = Instant::now();
        let unlimited = Budget::default();
        let claims = family(5, claim(1, SMALL, 2, 9), claim(1, LARGE, 0, 9));
        assert_eq!(share(&unlimited, &claims, now), [1, 2], "the size with fewer machines goes first");
        assert_eq!(share(&unlimited, &family(2, claims[0], claims[1]), now), [0, 0]);
        let [own, of_size] = family(100, claim(1, SMALL, 0, 9), claim(1, SMALL, 0, 9));
        assert_eq!(share(&budget(), &[own, of_size, claim(1, SMALL, 0, 9)], now), [2, 2, 4]);
    }

    #[test]
    fn idle_runners_come_after_the_jobs_of_other_sizes_and_leave_them_their_places() {
        let now = Instant::now();
        let idle = Claim { for_jobs: 0, ..claim(1, SMALL, 0, 3) };
        assert_eq!(share(&budget(), &family(3, idle, claim(1, SMALL, 1, 1)), now), [1, 1]);
        let no_room = Budget { vcpus: Some(4), ..budget() };
        assert_eq!(share(&no_room, &family(1, idle, claim(1, LARGE, 0, 1)), now), [0, 0]);
    }

    #[test]
    fn of_two_sizes_without_a_machine_the_one_that_waits_longer_goes_first() {
        let now = Instant::now();
        let since = |seconds| now.checked_sub(Duration::from_secs(seconds));
        let waits = |seconds| Claim { without_since: since(seconds), ..claim(1, SMALL, 0, 1) };
        assert_eq!(share(&Budget::default(), &family(1, waits(1), waits(2)), now), [0, 1]);
        assert_eq!(share(&Budget::default(), &family(1, waits(2), waits(1)), now), [1, 0]);
    }

    fn claims() -> impl Strategy<Value = Vec<Claim>> {
        let claim = (1..5_u32, 1..9_u32, 1..5_u64, 0..20_u32).prop_map(|(weight, vcpus, gib, wanted)| {
            claim(weight, Size { vcpus, memory_mib: gib * 1024 }, 0, wanted)
        });
        proptest::collection::vec(claim, 1..6)
    }

    proptest! {
        #[test]
        fn the_budget_holds_and_nothing_that_fits_is_left_waiting(claims in claims(), vcpus in 1..40_u32) {
            let budget = Budget { machines: Some(30), vcpus: Some(vcpus), memory_mib: Some(32 * 1024) };
            let granted = share(&budget, &claims, Instant::now());
            let usage = |granted: &[u32]| {
                let each = claims.iter().zip(granted).map(|(claim, &count)| Usage::of(claim.size, count));
                each.fold(Usage::default(), Usage::plus)
            };
            prop_assert!(usage(&granted).fits(&budget));
            for (index, claim) in claims.iter().enumerate() {
                prop_assert!(granted[index] <= claim.wanted);
                let mut more = granted.clone();
                more[index] += 1;
                prop_assert!(granted[index] == claim.wanted || !usage(&more).fits(&budget));
            }
        }

        #[test]
        fn no_pool_starves_while_others_always_want_more(
            claims in claims(),
            seed in 0..1000_usize,
            family_max in 1..4_u32,
        ) {
            // Every pool can run at least one machine alone, and always wants more. In each step one machine ends. Every
            // second pool is of a family.
            let budget = Budget { machines: Some(12), vcpus: Some(9), memory_mib: Some(8 * 1024) };
            let family = |index: usize| (index % 2 == 1).then_some(Family { number: 1, max: family_max });
            let claims = claims.into_iter().enumerate();
            let mut claims: Vec<Claim> = claims
                .map(|(index, claim)| Claim { wanted: 5, for_jobs: 5, family: family(index), ..claim })
                .collect();
            let mut now = Instant::now();
            let mut has_run = vec![false; claims.len()];
            for step in 0..1200 {
                let granted = share(&budget, &claims, now);
                for (index, claim) in claims.iter_mut().enumerate() {
                    claim.machines += granted[index];
                    has_run[index] |= claim.machines > 0;
                    claim.without_since =
                        if claim.machines > 0 { None } else { claim.without_since.or(Some(now)) };
                }
                let of_family = claims.iter().filter(|claim| claim.family.is_some());
                prop_assert!(of_family.map(|claim| claim.machines).sum::<u32>() <= family_max);
                let first = (seed + step) % claims.len();
                let busy = (0..claims.len()).map(|offset| (first + offset) % claims.len());
                if let Some(index) = busy.into_iter().find(|index| claims[*index].machines > 0) {
                    claims[index].machines -= 1;
                }
                now += Duration::from_secs(5);
            }
            prop_assert!(has_run.iter().all(|has| *has), "{:?}", claims);
        }
    }
}
