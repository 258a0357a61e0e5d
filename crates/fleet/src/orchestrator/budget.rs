//! The share of this host that each pool gets. Pure: time is passed in.
//!
//! Pools that ask for more machines than fit get them by turns: the next machine goes to the pool that has the least of the
//! host for its weight, as in weighted dominant resource fairness (Ghodsi et al., NSDI 2011). A pool whose machines are too
//! large for what is free does not hold the others up, unless it has waited for minutes without a single machine: then
//! nothing else starts until there is room for it.

use std::time::Duration;

use tokio::time::Instant;

/// Time after which a pool that has no machine, because none fits, takes precedence over all others.
const STARVING: Duration = Duration::from_secs(300);

/// The limits for all machines of a process together; none: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// Number of machines.
    pub machines: Option<u32>,
    /// Virtual CPUs.
    pub vcpus: Option<u32>,
    /// Memory, MiB.
    pub memory_mib: Option<u64>,
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
    /// Time since which it needs a machine and has none.
    pub(super) without_since: Option<Instant>,
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
    let mut granted = vec![0; claims.len()];
    let mut used =
        claims.iter().map(|claim| Usage::of(claim.size, claim.machines)).fold(Usage::default(), Usage::plus);
    if let Some(starving) = starving(claims, now) {
        let one = used.plus(Usage::of(claims[starving].size, 1));
        if !one.fits(budget) {
            return granted;
        }
        (granted[starving], used) = (1, one);
    }
    while let Some(next) = neediest(budget, claims, &granted, used) {
        granted[next] += 1;
        used = used.plus(Usage::of(claims[next].size, 1));
    }
    granted
}

/// Returns the pool that has waited longest for its first machine, if it has waited too long.
fn starving(claims: &[Claim], now: Instant) -> Option<usize> {
    let waits =
        |claim: &Claim| claim.without_since.filter(|since| claim.wanted > 0 && *since + STARVING <= now);
    let waiting = claims.iter().enumerate().filter_map(|(index, claim)| Some((waits(claim)?, index)));
    waiting.min().map(|(_, index)| index)
}

/// Returns the pool with the least share for its weight among those whose next machine fits.
fn neediest(budget: &Budget, claims: &[Claim], granted: &[u32], used: Usage) -> Option<usize> {
    let open = claims.iter().enumerate().filter(|(index, claim)| {
        granted[*index] < claim.wanted && used.plus(Usage::of(claim.size, 1)).fits(budget)
    });
    open.min_by_key(|(index, claim)| {
        let machines = claim.machines + granted[*index];
        let share = Usage::of(claim.size, machines).dominant(budget);
        // By number too, because machines count as nothing if there is no limit.
        let weight = u128::from(claim.weight.max(1));
        (share * 1_000_000 / weight, u128::from(machines) * 1_000_000 / weight)
    })
    .map(|(index, _)| index)
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
        Claim { weight, size, machines, wanted, without_since: None }
    }

    #[test]
    fn without_limits_each_pool_gets_what_it_needs() {
        let claims = [claim(1, SMALL, 3, 4), claim(2, LARGE, 0, 500)];
        assert_eq!(share(&Budget::default(), &claims, Instant::now()), [4, 500]);
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
        fn no_pool_starves_while_others_always_want_more(claims in claims(), seed in 0..1000_usize) {
            // Every pool can run at least one machine alone, and always wants more. In each step one machine ends.
            let budget = Budget { machines: Some(12), vcpus: Some(9), memory_mib: Some(8 * 1024) };
            let mut claims: Vec<Claim> = claims.into_iter().map(|claim| Claim { wanted: 5, ..claim }).collect();
            let mut now = Instant::now();
            let mut has_run = vec![false; claims.len()];
            for step in 0..600 {
                let granted = share(&budget, &claims, now);
                for (index, claim) in claims.iter_mut().enumerate() {
                    claim.machines += granted[index];
                    has_run[index] |= claim.machines > 0;
                    claim.without_since =
                        if claim.machines > 0 { None } else { claim.without_since.or(Some(now)) };
                }
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
