use proptest::prelude::*;

use super::*;

const SMALL: Size = Size { vcpus: 1, memory_mib: 1024, scratch_mib: 0 };
const LARGE: Size = Size { vcpus: 8, memory_mib: 8192, scratch_mib: 0 };

fn budget() -> Budget {
    Budget { machines: Some(100), vcpus: Some(8), memory_mib: Some(64 * 1024), scratch_mib: None }
}

fn claim(weight: u32, size: Size, machines: u32, wanted: u32) -> Claim {
    Claim {
        weight,
        size,
        machines,
        wanted,
        for_jobs: wanted,
        idle: 0,
        leaving: 0,
        family: None,
        scratch: PoolScratch::default(),
        without_since: None,
    }
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
    assert_eq!(left, Budget { vcpus: Some(3), memory_mib: Some(63 * 1024), ..budget() });
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

/// Returns a claim for a job of a pool that has had no machine for this time.
fn waits(size: Size, time: Duration, now: Instant) -> Claim {
    Claim { without_since: now.checked_sub(time), ..claim(1, size, 0, 1) }
}

#[test]
fn idle_runners_make_room_for_a_pool_that_has_waited_for_its_first_machine() {
    let now = Instant::now();
    let idle = |count| Claim { idle: count, wanted: 0, for_jobs: 0, ..claim(1, SMALL, 8, 0) };
    let given = |claims: &[Claim]| yielded(&budget(), claims, &vec![0; claims.len()], now);
    let small = waits(SMALL, PATIENCE, now);
    assert_eq!(given(&[idle(8), small]), [1, 0]);
    assert_eq!(given(&[idle(8), waits(SMALL, PATIENCE / 2, now)]), [0, 0], "a job may end");
    assert_eq!(given(&[Claim { leaving: 1, ..idle(7) }, small]), [0, 0], "there will be room");
    assert_eq!(given(&[idle(8), waits(LARGE, PATIENCE, now)]), [8, 0]);
    assert_eq!(given(&[idle(7), waits(LARGE, PATIENCE, now)]), [0, 0], "a job is in the way");
    assert_eq!(
        given(&[idle(8), Claim { for_jobs: 0, ..small }]),
        [0, 0],
        "no idle runner ends for another one"
    );
    assert_eq!(yielded(&budget(), &[claim(1, SMALL, 0, 0), small], &[0, 1], now), [0, 0], "it starts now");
}

#[test]
fn no_idle_runner_starts_while_a_pool_waits_for_room() {
    let now = Instant::now();
    let idle = Claim { for_jobs: 0, ..claim(1, SMALL, 4, 4) };
    let shares = |time| share(&budget(), &[idle, waits(LARGE, time, now), claim(1, SMALL, 0, 1)], now);
    assert_eq!(shares(Duration::ZERO), [3, 0, 1]);
    assert_eq!(shares(PATIENCE), [0, 0, 1], "jobs start");
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
        claim(weight, Size { vcpus, memory_mib: gib * 1024, scratch_mib: 0 }, 0, wanted)
    });
    proptest::collection::vec(claim, 1..6)
}

proptest! {
    #[test]
    fn the_budget_holds_and_nothing_that_fits_is_left_waiting(claims in claims(), vcpus in 1..40_u32) {
        let budget = Budget { machines: Some(30), vcpus: Some(vcpus), memory_mib: Some(32 * 1024), scratch_mib: None };
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
        let budget = Budget { machines: Some(12), vcpus: Some(9), memory_mib: Some(8 * 1024), scratch_mib: None };
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

#[test]
fn the_part_of_the_budget_that_is_used_up_is_named() {
    let claim = |machines| Claim {
        weight: 1,
        size: Size { vcpus: 2, memory_mib: 1024, scratch_mib: 0 },
        machines,
        wanted: 1,
        for_jobs: 1,
        idle: 0,
        leaving: 0,
        family: None,
        scratch: PoolScratch::default(),
        without_since: None,
    };
    let claims = [claim(2), claim(1)];
    let budget = |machines, vcpus, memory_mib| Budget { machines, vcpus, memory_mib, scratch_mib: None };
    for (budget, granted, expected) in [
        (budget(None, None, None), [0, 0], None),
        (budget(Some(3), Some(8), None), [0, 0], Some(Scarce::Machines)),
        (budget(Some(9), Some(7), None), [0, 0], Some(Scarce::Vcpus)),
        (budget(None, None, Some(4096)), [0, 0], None),
        (budget(None, None, Some(4096)), [1, 0], Some(Scarce::MemoryMib)),
    ] {
        assert_eq!(scarce(&budget, &claims, &granted, 1), expected, "{budget:?}");
    }
}

/// Returns a claim of a pool whose machines have this scratch space, and whose next one is expected to have as much as
/// each.
fn writes(each_mib: u64, machines: u32, wanted: u32) -> Claim {
    let machines_mib = each_mib * u64::from(machines);
    let scratch = PoolScratch { seen_mib: machines_mib, machines_mib, ..PoolScratch::default() };
    let size = Size { scratch_mib: each_mib, ..SMALL };
    Claim { scratch, ..claim(1, size, machines, wanted) }
}

#[test]
fn no_machine_starts_that_the_scratch_space_has_no_room_for() {
    let now = Instant::now();
    let budget = Budget { scratch_mib: Some(1000), ..Budget::default() };
    let claims = [writes(100, 4, 20)];
    assert_eq!(share(&budget.beside_scratch(400, &claims), &claims, now), [6]);
    assert_eq!(
        share(&budget.beside_scratch(950, &claims), &claims, now),
        [0],
        "what ended runs have left counts"
    );
    let grown = PoolScratch { machines_mib: 950, ..PoolScratch::default() };
    assert_eq!(share(&budget, &[Claim { scratch: grown, ..claims[0] }], now), [0]);
    assert_eq!(share(&Budget::default(), &claims, now), [20], "there is no limit");
    let full = [writes(100, 4, 1), writes(100, 6, 1)];
    assert_eq!(scarce(&budget, &full, &[0, 0], 1), Some(Scarce::ScratchMib));
    assert_eq!(scarce(&budget, &claims, &[0], 0), None);
}

#[test]
fn a_pool_whose_machines_write_more_than_its_limit_has_one_at_a_time() {
    let now = Instant::now();
    let budget = Budget { scratch_mib: Some(1000), ..Budget::default() };
    let shares = |budget: &Budget, mut claims: Vec<Claim>| {
        fit_alone(budget, &mut claims);
        share(budget, &claims, now)
    };
    assert_eq!(shares(&budget, vec![writes(5000, 0, 3)]), [1]);
    assert_eq!(shares(&budget, vec![writes(5000, 1, 3)]), [0]);
    let own = |max_mib| {
        let claim = writes(800, 0, 3);
        Claim { scratch: PoolScratch { rest_mib: 100, max_mib: Some(max_mib), ..claim.scratch }, ..claim }
    };
    assert_eq!(shares(&budget, vec![own(500), writes(100, 0, 9)]), [1, 6]);
    assert_eq!(shares(&budget, vec![own(163), writes(100, 0, 9)]), [0, 9], "there is no room for the least");
}

#[test]
fn a_pool_with_a_limit_of_its_own_leaves_the_rest_to_others() {
    let now = Instant::now();
    let budget = Budget { scratch_mib: Some(1000), ..Budget::default() };
    let limited = |rest_mib| {
        let claim = writes(100, 1, 20);
        Claim { scratch: PoolScratch { rest_mib, max_mib: Some(300), ..claim.scratch }, ..claim }
    };
    assert_eq!(share(&budget, &[limited(0), writes(100, 1, 20)], now), [2, 6]);
    assert_eq!(share(&budget, &[limited(150), writes(100, 1, 20)], now), [0, 8]);
    let waiting = [limited(150), writes(100, 1, 0)];
    assert_eq!(scarce(&budget, &waiting, &[0, 0], 0), Some(Scarce::PoolScratchMib));
    let since = Claim { machines: 0, without_since: now.checked_sub(STARVING), ..limited(250) };
    assert_eq!(share(&budget, &[since, writes(100, 1, 3)], now), [0, 3], "it holds no other pool up");
}

#[test]
fn a_pool_and_its_sizes_have_one_limit_of_scratch_space() {
    let of = |claim: Claim| Claim { scratch: PoolScratch { max_mib: Some(500), ..claim.scratch }, ..claim };
    let claims = family(20, of(writes(100, 1, 9)), of(writes(200, 0, 9)));
    assert_eq!(share(&Budget::default(), &claims, Instant::now()), [2, 1]);
}

proptest! {
    #[test]
    fn the_scratch_space_holds_and_nothing_that_fits_is_left_waiting(
        pools in proptest::collection::vec((1..300_u64, 0..5_u32, 0..20_u32), 1..6), limit in 0..3000_u64,
    ) {
        let claims: Vec<Claim> = pools.iter().map(|&(each, machines, wanted)| writes(each, machines, wanted)).collect();
        let budget = Budget { scratch_mib: Some(limit), ..Budget::default() };
        let granted = share(&budget, &claims, Instant::now());
        let has: u64 = claims.iter().map(|claim| claim.scratch.machines_mib).sum();
        let gets: u64 = claims.iter().zip(&granted).map(|(claim, count)| claim.size.scratch_mib * u64::from(*count)).sum();
        prop_assert!(gets == 0 || has + gets <= limit, "{granted:?}");
        for (claim, count) in claims.iter().zip(&granted) {
            prop_assert!(*count == claim.wanted || has + gets + claim.size.scratch_mib > limit);
        }
    }
}
