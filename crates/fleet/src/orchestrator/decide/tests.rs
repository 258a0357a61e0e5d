mod pause;

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::time::Duration;

use dayfly_host::retry::{RUNNER, RUNNER_OF_JOB, Retry};
use proptest::prelude::*;

use super::super::slots::{FailureRule, Fate, HEALTHY, LoopResult, Stage};
use super::*;
use crate::demand::{DemandEvent, Scale, StartOrder};
use crate::fact::Fact;
use crate::fact::tests::record;
use crate::job_end::tests::failed_on;
use crate::recovery::Inherited;

const LIMIT: Duration = Duration::from_secs(300);
const IDLE: Duration = Duration::from_secs(600);

/// Slots that carry out the orders of each decision.
struct Pool {
    demand: Demand,
    slots: Slots,
    now: Instant,
    rule: FailureRule,
}

impl Pool {
    fn isolated(runners: u32, parallel: u32) -> Self {
        Self::of(Demand::Static { runners, start: StartOrder::Isolated { parallel, limit: LIMIT } }, RUNNER)
    }

    fn of_jobs(max: u32) -> Self {
        Self::of(Demand::Jobs { max }, RUNNER_OF_JOB)
    }

    fn of(demand: Demand, retry: Retry) -> Self {
        let rule = FailureRule { retry, is_strict: false };
        Self { demand, slots: Slots::default(), now: Instant::now(), rule }
    }

    fn scaled(min_idle: u32, max: u32) -> Self {
        Self::of(Demand::Scaled(Scale { min_idle, max, idle_timeout: IDLE }), RUNNER)
    }

    /// Notes that the runners of all slots that start are up.
    fn all_up(&mut self) {
        for index in alive(&self.slots) {
            self.slots.named(index, &format!("r{index}"));
            self.slots.is_up(index, self.now);
        }
    }

    fn assigned(&mut self, jobs: u32) {
        self.slots.take(DemandEvent::Assigned { jobs });
    }

    fn decide(&self) -> Decision {
        decide(&self.demand, &self.slots, self.now)
    }

    /// Decides and carries out. Returns the orders.
    fn act(&mut self) -> Vec<Order> {
        let decision = self.decide();
        for order in &decision.orders {
            match order.clone() {
                Order::Start { index, purpose, is_awaited } => {
                    self.slots.started(index, purpose, is_awaited, self.now)
                }
                Order::Retire { index } => self.slots.retiring(index),
                Order::Reassign { index, job } => self.slots.reassigned(index, job),
                Order::Stop { index } => self.slots.stopping(index),
                Order::StopWaiting { index } => self.slots.not_awaited(index),
            }
        }
        decision.orders
    }

    /// Returns the slots that start now, each with its job.
    fn start(&mut self) -> Vec<(u32, Option<u64>)> {
        let started = self.act().into_iter().filter_map(|order| match order {
            Order::Start { index, purpose, .. } => Some((index, purpose.job().map(|job| job.job))),
            _ => None,
        });
        started.collect()
    }

    /// Returns the numbers of the slots that start now.
    fn starts(&mut self) -> Vec<u32> {
        self.start().into_iter().map(|(index, _)| index).collect()
    }

    fn end(&mut self, index: u32, ended: LoopResult) -> Fate {
        self.slots.ended(index, ended, self.rule, self.now)
    }

    fn queue(&mut self, job: u64, labels: &[&str]) {
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        self.slots.take(DemandEvent::Queued(JobDemand { job, labels, group: 1 }));
    }

    fn taken(&mut self, job: u64, runner: &str) {
        self.slots.take(DemandEvent::Taken { job, runner: runner.to_owned() });
    }

    fn settled(&mut self, job: u64) {
        self.slots.take(DemandEvent::Settled { job });
    }
}

fn failed() -> LoopResult {
    LoopResult::Failed("x".to_owned())
}

fn finished() -> LoopResult {
    LoopResult::Finished("x".to_owned())
}

#[test]
fn the_next_slot_starts_when_a_runner_of_the_last_one_is_up() {
    let mut pool = Pool::isolated(3, 1);
    assert_eq!(pool.starts(), [1]);
    assert!(pool.starts().is_empty());
    pool.slots.not_awaited(1);
    assert_eq!(pool.starts(), [2]);
    // A slot that ends before its runner is up keeps no other slot from starting.
    pool.end(2, finished());
    assert_eq!(pool.starts(), [3]);
}

#[test]
fn several_slots_start_at_once_if_that_is_requested() {
    let mut pool = Pool::isolated(5, 2);
    assert_eq!(pool.starts(), [1, 2]);
    pool.slots.not_awaited(2);
    assert_eq!(pool.starts(), [3]);
}

#[test]
fn the_wait_for_a_runner_has_a_limit() {
    let mut pool = Pool::isolated(2, 1);
    assert_eq!(pool.decide().wake, Some(pool.now + LIMIT));
    pool.act();
    pool.now += LIMIT / 2;
    assert_eq!(pool.act(), []);
    pool.now += LIMIT / 2;
    assert_eq!(
        pool.act(),
        [
            Order::StopWaiting { index: 1 },
            Order::Start { index: 2, purpose: Purpose::Place, is_awaited: true }
        ]
    );
}

#[test]
fn without_isolation_slots_start_by_the_clock() {
    let pause = Duration::from_secs(30);
    let mut pool = Pool::of(Demand::Static { runners: 2, start: StartOrder::Paused(pause) }, RUNNER);
    assert_eq!(pool.decide().wake, Some(pool.now + pause));
    assert_eq!(pool.starts(), [1]);
    pool.now += pause / 2;
    assert_eq!((pool.starts(), pool.decide().wake), (vec![], Some(pool.now + pause / 2)));
    pool.now += pause / 2;
    assert_eq!(pool.starts(), [2]);
    assert_eq!(pool.decide().wake, None);
}

#[test]
fn a_slot_that_fails_starts_again_after_a_pause_that_doubles() {
    let mut pool = Pool::isolated(1, 1);
    for (count, seconds) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
        assert_eq!(pool.starts(), [1]);
        pool.slots.not_awaited(1);
        let pause = Duration::from_secs(seconds);
        assert_eq!(pool.end(1, failed()), Fate::Replaced { why: "x".to_owned(), count, pause });
        assert!(!pool.decide().is_finished);
        assert_eq!((pool.starts(), pool.decide().wake), (vec![], Some(pool.now + pause)));
        pool.now += pause;
    }
    assert_eq!(pool.starts(), [1]);
    pool.now += HEALTHY;
    let fate = pool.end(1, failed());
    assert!(matches!(fate, Fate::Replaced { count: 1, .. }), "after a healthy life: {fate:?}");
}

#[test]
fn a_finished_slot_stays_finished_and_a_closed_pool_starts_nothing() {
    let mut pool = Pool::isolated(3, 3);
    pool.act();
    assert_eq!(pool.end(1, finished()), Fate::Finished("x".to_owned()));
    pool.end(2, failed());
    pool.slots.close();
    assert!(!pool.decide().is_finished, "slot 3 still runs");
    assert_eq!(pool.end(3, failed()), Fate::Finished("x".to_owned()));
    pool.now += HEALTHY;
    assert_eq!(pool.decide(), Decision { orders: vec![], wake: None, is_finished: true });
}

#[test]
fn no_more_runners_than_allowed_are_started_for_jobs() {
    let mut pool = Pool::of_jobs(2);
    (1..=3).for_each(|job| pool.queue(job, &["a"]));
    assert_eq!(pool.start(), [(0, Some(1)), (1, Some(2))]);
    assert_eq!(pool.start(), []);
    pool.slots.named(0, "r0");
    pool.taken(1, "r0");
    pool.settled(1);
    pool.end(0, finished());
    assert_eq!(pool.start(), [(2, Some(3))]);
}

#[test]
fn a_job_taken_by_anothers_runner_leaves_that_other_job_with_the_first_ones() {
    let mut pool = Pool::of_jobs(2);
    pool.queue(1, &["a"]);
    pool.queue(2, &["A"]);
    pool.act();
    pool.slots.named(0, "r0");
    pool.slots.named(1, "r1");
    pool.taken(2, "r0");
    let orders = pool.act();
    assert!(matches!(orders[..], [Order::Reassign { index: 1, .. }]), "{orders:?}");
    pool.taken(1, "r1");
    pool.settled(1);
    pool.settled(2);
    pool.slots.take(DemandEvent::Closed);
    assert_eq!(pool.act(), []);
    pool.end(0, finished());
    pool.end(1, finished());
    assert!(pool.decide().is_finished);
}

#[test]
fn a_job_whose_runner_is_taken_gets_a_new_one_if_the_idle_one_does_not_fit() {
    let mut pool = Pool::of_jobs(2);
    pool.queue(1, &["a", "b"]);
    pool.queue(2, &["a"]);
    pool.act();
    pool.slots.named(0, "r0");
    pool.slots.named(1, "r1");
    pool.taken(2, "r0");
    pool.settled(2);
    assert_eq!(pool.act(), [Order::Stop { index: 1 }], "its labels do not fit job 1");
    assert_eq!(pool.act(), []);
    pool.end(1, finished());
    assert_eq!(pool.start(), [(2, Some(1))]);
}

#[test]
fn a_runner_whose_job_was_cancelled_is_stopped() {
    let mut pool = Pool::of_jobs(1);
    pool.queue(1, &["a"]);
    pool.act();
    pool.settled(1);
    assert_eq!(pool.act(), [Order::Stop { index: 0 }]);
    assert_eq!(pool.end(0, finished()), Fate::Finished("x".to_owned()));
}

#[test]
fn a_job_that_has_ended_needs_no_runner_even_if_its_start_was_not_told() {
    let mut pool = Pool::of_jobs(1);
    pool.queue(7, &["a"]);
    pool.act();
    pool.slots.take(DemandEvent::Ended(failed_on("r0", 0)));
    assert_eq!(pool.act(), [Order::Stop { index: 0 }]);
    pool.end(0, finished());
    assert_eq!(pool.start(), []);
}

#[test]
fn a_job_that_no_runner_takes_is_given_up_after_some_attempts() {
    let mut pool = Pool::of_jobs(1);
    pool.queue(1, &["a"]);
    for index in 0..2 {
        assert_eq!(pool.start(), [(index, Some(1))]);
        assert_eq!(pool.end(index, finished()), Fate::Finished("x".to_owned()));
        assert_eq!(pool.start(), [], "there is a pause first");
        pool.now = pool.decide().wake.expect("a time");
    }
    assert_eq!(pool.start(), [(2, Some(1))]);
    let Fate::GaveUp(why) = pool.end(2, finished()) else { panic!("not given up") };
    assert_eq!(why, "3 machines were started for a job, and none of them took it");
    assert_eq!(pool.start(), []);
}

#[test]
fn a_strict_pool_gives_up_at_the_first_error_and_no_other_one_does() {
    for is_strict in [false, true] {
        let mut pool = Pool::of_jobs(1);
        pool.rule.is_strict = is_strict;
        pool.queue(1, &["a"]);
        pool.act();
        let fate = pool.end(0, failed());
        assert_eq!(matches!(fate, Fate::GaveUp(_)), is_strict, "{fate:?}");
    }
}

#[test]
fn a_job_whose_runners_go_to_other_jobs_is_not_given_up() {
    let mut pool = Pool::of_jobs(9);
    pool.queue(1, &["a"]);
    for other in 2..9 {
        pool.act();
        let (index, _) = pool.slots.slots.iter().find(|(_, slot)| slot.stage.is_free()).expect("a runner");
        let (index, name) = (*index, format!("r{index}"));
        pool.slots.named(index, &name);
        pool.queue(other, &["a"]);
        pool.taken(other, &name);
        pool.settled(other);
        assert_eq!(pool.end(index, finished()), Fate::Finished("x".to_owned()));
    }
    assert_eq!(pool.start().len(), 1);
}

#[test]
fn a_scaled_pool_goes_up_from_zero_and_back_to_zero() {
    let mut pool = Pool::scaled(0, 3);
    assert_eq!(pool.act(), []);
    (1..=4).for_each(|job| pool.queue(job, &["a"]));
    assert_eq!(pool.starts(), [1, 2, 3], "no more than its maximum");
    pool.all_up();
    pool.taken(1, "r2");
    pool.taken(2, "r1");
    assert!(pool.starts().is_empty());
    for (job, index) in [(1, 2), (2, 1)] {
        pool.settled(job);
        assert_eq!(pool.end(index, finished()), Fate::Finished("x".to_owned()));
    }
    assert_eq!(pool.starts(), [1], "job 3 and job 4 wait, and a runner waits for one of them");
    pool.settled(3);
    pool.settled(4);
    pool.all_up();
    assert_eq!((pool.act(), pool.decide().wake), (vec![], Some(pool.now + IDLE)));
    pool.now += IDLE;
    assert_eq!(pool.act(), [Order::Retire { index: 1 }, Order::Retire { index: 3 }]);
    assert_eq!(pool.act(), []);
    for index in [1, 3] {
        assert_eq!(pool.end(index, LoopResult::NoJob("x".to_owned())), Fate::Finished("x".to_owned()));
    }
    assert_eq!(pool.decide(), Decision { orders: vec![], wake: None, is_finished: false });
    pool.slots.take(DemandEvent::Closed);
    assert!(pool.decide().is_finished);
}

#[test]
fn the_minimum_of_idle_runners_comes_on_top_of_the_jobs() {
    let mut pool = Pool::scaled(2, 4);
    assert_eq!(pool.starts(), [1, 2]);
    pool.all_up();
    pool.assigned(1);
    assert_eq!(pool.starts(), [3]);
    pool.all_up();
    pool.taken(7, "r1");
    assert!(pool.starts().is_empty(), "one has a job and two are idle");
    pool.slots.take(DemandEvent::MinIdle(0));
    pool.now += IDLE;
    assert_eq!(pool.act(), [Order::Retire { index: 2 }, Order::Retire { index: 3 }]);
}

#[test]
fn idle_runners_go_at_once_if_another_size_needs_their_places_and_come_back_later() {
    let mut pool = Pool::scaled(2, 3);
    assert_eq!(pool.starts(), [1, 2]);
    pool.all_up();
    pool.slots.yielded = 1;
    assert_eq!(pool.act(), [Order::Retire { index: 1 }], "the longest idle one, before its time");
    pool.end(1, LoopResult::NoJob("it was stopped".to_owned()));
    pool.slots.yielded = 0;
    assert_eq!(pool.starts(), [1], "the minimum holds again");
}

#[test]
fn a_runner_that_is_not_up_yet_gives_up_its_place_once_it_is() {
    let mut pool = Pool::scaled(1, 1);
    pool.start();
    pool.slots.yielded = 1;
    assert!(pool.act().is_empty(), "the forge may not know it yet");
    pool.all_up();
    assert_eq!(pool.act(), [Order::Retire { index: 1 }]);
}

#[test]
fn a_job_that_two_sources_tell_of_gets_one_runner() {
    let mut pool = Pool::scaled(0, 9);
    pool.assigned(2);
    pool.queue(1, &["a"]);
    pool.queue(1, &["a"]);
    assert_eq!(pool.starts(), [1, 2]);
    pool.all_up();
    pool.taken(1, "r1");
    assert!(pool.starts().is_empty());
}

#[test]
fn a_job_whose_changes_two_sources_report_counts_once() {
    let mut pool = Pool::scaled(0, 9);
    pool.queue(7, &["a"]);
    pool.queue(7, &["a"]);
    assert_eq!(pool.starts(), [1]);
    pool.all_up();
    pool.taken(7, "r1");
    pool.taken(7, "r1");
    assert_eq!(pool.act(), []);
    // A webhook says how it ended, and the lists of jobs that it is gone.
    pool.slots.take(DemandEvent::Ended(failed_on("r1", 0)));
    pool.settled(7);
    pool.end(1, finished());
    assert_eq!(pool.act(), []);
    pool.queue(8, &["a"]);
    assert_eq!(pool.starts(), [1], "neither report counts against another job");
}

#[test]
fn a_runner_that_retires_counts_again_if_the_forge_gave_it_a_job() {
    let mut pool = Pool::scaled(0, 2);
    pool.assigned(1);
    pool.starts();
    pool.all_up();
    pool.assigned(0);
    pool.now += IDLE;
    assert_eq!(pool.act(), [Order::Retire { index: 1 }]);
    pool.taken(5, "r1");
    pool.assigned(1);
    assert_eq!(pool.act(), [], "the job has its runner");
    assert_eq!(pool.end(1, finished()), Fate::Finished("x".to_owned()));
}

#[test]
fn a_job_that_has_ended_gets_no_second_runner_while_its_source_is_late() {
    let mut pool = Pool::scaled(0, 2);
    pool.queue(1, &["a"]);
    pool.queue(2, &["a"]);
    assert_eq!(pool.starts(), [1, 2]);
    pool.all_up();
    pool.end(1, finished());
    pool.end(2, finished());
    assert_eq!(pool.act(), [], "both jobs had a runner");
    pool.queue(3, &["a"]);
    assert_eq!(pool.starts(), [1], "a new job has none");
    pool.settled(1);
    pool.taken(2, "r2");
    assert_eq!(pool.act(), []);
    // The word of a runner is a hint, so it is forgotten if no source confirms it.
    pool.queue(4, &["a"]);
    assert_eq!(pool.starts(), [2]);
    pool.end(2, finished());
    assert_eq!(pool.act(), []);
    pool.now = pool.decide().wake.expect("a time");
    assert_eq!(pool.starts(), [2], "no source has said that a job has ended");
}

#[test]
fn a_scaled_pool_pauses_after_a_runner_that_had_no_job_and_after_one_that_failed() {
    let mut pool = Pool::scaled(1, 2);
    for (count, end) in [(1, LoopResult::NoJob("x".to_owned())), (2, failed()), (3, failed())] {
        assert_eq!(pool.starts(), [1]);
        let pause = RUNNER.pause_after(count).expect("it never ends");
        assert_eq!(pool.end(1, end), Fate::Replaced { why: "x".to_owned(), count, pause });
        assert_eq!((pool.act(), pool.decide().wake), (vec![], Some(pool.now + pause)));
        pool.now += pause;
    }
    assert_eq!(pool.starts(), [1]);
    pool.end(1, finished());
    assert_eq!(pool.starts(), [1], "a runner that had a job ends the pauses");
}

#[test]
fn a_pool_that_drains_retires_its_idle_runners_and_ends_with_the_last_job() {
    let mut pool = Pool::scaled(1, 4);
    pool.assigned(2);
    assert_eq!(pool.starts(), [1, 2, 3]);
    pool.all_up();
    pool.taken(7, "r2");
    pool.slots.drain();
    assert_eq!(pool.act(), [Order::Retire { index: 1 }, Order::Retire { index: 3 }]);
    assert_eq!(pool.act(), [], "each is told once");
    pool.assigned(4);
    pool.queue(9, &["a"]);
    assert_eq!(pool.act(), [], "new jobs are for another pool");
    pool.end(1, LoopResult::NoJob("x".to_owned()));
    pool.end(3, finished());
    assert!(!pool.decide().is_finished, "runner 2 has a job");
    assert_eq!(pool.end(2, finished()), Fate::Finished("x".to_owned()));
    assert!(pool.decide().is_finished);
}

#[test]
fn a_slot_that_took_a_busy_runner_over_is_free_again_with_its_next_runner() {
    let mut pool = Pool::isolated(1, 1);
    let busy =
        [Fact::Registering, Fact::StartingVm, Fact::AgentHello, Fact::JobStarted { job: "j".to_owned() }];
    let inherited = Inherited::if_alive(Path::new("/r"), &busy.map(record)).expect("it can be taken over");
    pool.slots.inherited(1, Purpose::Place, &inherited, pool.now);
    pool.slots.drain();
    assert_eq!(pool.act(), [], "it has a job");
    pool.slots.named(1, "r2");
    assert_eq!(pool.act(), [Order::Retire { index: 1 }]);
}

#[test]
fn a_static_pool_that_drains_starts_no_slot_that_waits_or_pauses() {
    let mut pool = Pool::isolated(4, 2);
    assert_eq!(pool.starts(), [1, 2]);
    pool.end(1, failed());
    pool.slots.drain();
    pool.now += HEALTHY;
    assert_eq!(pool.act(), [Order::Retire { index: 2 }]);
    pool.end(2, LoopResult::NoJob("x".to_owned()));
    assert_eq!(pool.decide(), Decision { orders: vec![], wake: None, is_finished: true });
}

#[test]
fn a_static_pool_gets_smaller_from_its_end_and_larger_again() {
    let smaller =
        |runners| Demand::Static { runners, start: StartOrder::Isolated { parallel: 9, limit: LIMIT } };
    let mut pool = Pool::isolated(4, 9);
    assert_eq!(pool.starts(), [1, 2, 3, 4]);
    (1..=4).for_each(|index| pool.slots.not_awaited(index));
    pool.end(4, failed());
    pool.demand = smaller(2);
    assert_eq!(pool.act(), [Order::Retire { index: 3 }]);
    pool.now += HEALTHY;
    assert_eq!(
        pool.decide(),
        Decision { orders: vec![], wake: None, is_finished: false },
        "4 pauses for ever"
    );
    pool.demand = smaller(4);
    assert_eq!(pool.starts(), [4], "3 still ends");
    assert_eq!(pool.end(3, LoopResult::NoJob("x".to_owned())), Fate::Finished("x".to_owned()));
    assert_eq!(pool.starts(), [3]);
    pool.end(1, finished());
    assert!(pool.starts().is_empty(), "a slot that has created its number of runners stays finished");
}

#[test]
fn the_jobs_that_the_runners_of_a_pools_predecessor_have_need_no_other_runner() {
    let mut pool = Pool::scaled(0, 9);
    pool.slots.busy_elsewhere = 2;
    pool.assigned(3);
    assert_eq!(pool.starts(), [1]);
    pool.slots.busy_elsewhere = 0;
    pool.assigned(1);
    assert!(pool.starts().is_empty());
}

#[test]
fn a_scaled_pool_with_a_smaller_maximum_retires_idle_runners_only() {
    let mut pool = Pool::scaled(0, 3);
    pool.assigned(3);
    pool.starts();
    pool.all_up();
    pool.taken(1, "r1");
    pool.taken(2, "r2");
    pool.demand = Demand::Scaled(Scale { min_idle: 0, max: 1, idle_timeout: IDLE });
    pool.now += IDLE;
    assert_eq!(pool.act(), [Order::Retire { index: 3 }]);
    assert!(pool.starts().is_empty());
}

/// The rules of the shell version, written down as a state machine: the model of a static pool.
struct Model {
    waiting: VecDeque<u32>,
    awaited: HashMap<u32, Instant>,
    running: HashMap<u32, Instant>,
    due: HashMap<u32, Instant>,
    failures: HashMap<u32, u32>,
    parallel: usize,
}

impl Model {
    fn new(runners: u32, parallel: u32) -> Self {
        Self {
            waiting: (1..=runners).collect(),
            awaited: HashMap::new(),
            running: HashMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            parallel: parallel as usize,
        }
    }

    fn start(&mut self, now: Instant) -> HashSet<u32> {
        self.awaited.retain(|_, since| *since + LIMIT > now);
        let mut starts: HashSet<u32> = HashSet::new();
        self.due.retain(|&index, at| *at > now || !starts.insert(index));
        while self.awaited.len() < self.parallel {
            let Some(next) = self.waiting.pop_front() else { break };
            self.awaited.insert(next, now);
            starts.insert(next);
        }
        self.running.extend(starts.iter().map(|&index| (index, now)));
        starts
    }

    fn end(&mut self, index: u32, fails: bool, now: Instant) {
        self.awaited.remove(&index);
        let since = self.running.remove(&index).expect("it runs");
        if fails {
            let count = self.failures.entry(index).or_default();
            *count = if now - since >= HEALTHY { 1 } else { *count + 1 };
            self.due.insert(index, now + RUNNER.pause_after(*count).expect("it never ends"));
        }
    }

    fn is_finished(&self) -> bool {
        self.running.is_empty() && self.due.is_empty() && self.waiting.is_empty()
    }
}

#[derive(Debug, Clone)]
enum Input {
    Pass(u64),
    Up(prop::sample::Index),
    End(prop::sample::Index, bool),
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let input = prop_oneof![
        (0..700_u64).prop_map(Input::Pass),
        any::<prop::sample::Index>().prop_map(Input::Up),
        (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(slot, fails)| Input::End(slot, fails)),
    ];
    proptest::collection::vec(input, 0..80)
}

#[derive(Debug, Clone)]
enum JobInput {
    Queue(u64, usize),
    Take(u64, prop::sample::Index),
    Settle(u64),
    End(prop::sample::Index, bool),
    Pass(u64),
}

fn job_inputs() -> impl Strategy<Value = Vec<JobInput>> {
    let index = any::<prop::sample::Index>;
    let input = prop_oneof![
        3 => (0..12_u64, 0..4_usize).prop_map(|(job, labels)| JobInput::Queue(job, labels)),
        3 => (0..12_u64, index()).prop_map(|(job, slot)| JobInput::Take(job, slot)),
        2 => (0..12_u64).prop_map(JobInput::Settle),
        2 => (index(), any::<bool>()).prop_map(|(slot, fails)| JobInput::End(slot, fails)),
        1 => (0..5_u64).prop_map(JobInput::Pass),
    ];
    proptest::collection::vec(input, 0..120)
}

#[derive(Debug, Clone)]
enum ScaledInput {
    Queue(u64),
    Assigned(u32),
    MinIdle(u32),
    Up,
    Take(u64, prop::sample::Index),
    Settle(u64),
    End(prop::sample::Index, bool),
    Pass(u64),
}

fn scaled_inputs() -> impl Strategy<Value = Vec<ScaledInput>> {
    let index = any::<prop::sample::Index>;
    let input = prop_oneof![
        (0..12_u64).prop_map(ScaledInput::Queue),
        (0..6_u32).prop_map(ScaledInput::Assigned),
        (0..3_u32).prop_map(ScaledInput::MinIdle),
        Just(ScaledInput::Up),
        (0..12_u64, index()).prop_map(|(job, slot)| ScaledInput::Take(job, slot)),
        (0..12_u64).prop_map(ScaledInput::Settle),
        (index(), any::<bool>()).prop_map(|(slot, fails)| ScaledInput::End(slot, fails)),
        (0..700_u64).prop_map(ScaledInput::Pass),
    ];
    proptest::collection::vec(input, 0..120)
}

/// Returns the slots with a loop, in the order of their numbers.
fn alive(slots: &Slots) -> Vec<u32> {
    slots.slots.iter().filter(|(_, slot)| slot.stage.is_alive()).map(|(&index, _)| index).collect()
}

proptest! {
    #[test]
    fn a_static_pool_does_what_the_shell_version_does(
        runners in 0..6_u32,
        parallel in 1..4_u32,
        inputs in inputs(),
    ) {
        let mut pool = Pool::isolated(runners, parallel);
        let mut model = Model::new(runners, parallel);
        for input in inputs {
            let starts: HashSet<u32> = pool.starts().into_iter().collect();
            prop_assert_eq!(starts, model.start(pool.now));
            prop_assert_eq!(pool.decide().orders, vec![], "a decision that was carried out is repeated");
            let running = alive(&pool.slots);
            match input {
                Input::Pass(seconds) => pool.now += Duration::from_secs(seconds),
                _ if running.is_empty() => {}
                Input::Up(slot) => {
                    let index = *slot.get(&running);
                    pool.slots.not_awaited(index);
                    model.awaited.remove(&index);
                }
                Input::End(slot, fails) => {
                    let index = *slot.get(&running);
                    pool.end(index, if fails { failed() } else { finished() });
                    model.end(index, fails, pool.now);
                }
            }
            prop_assert_eq!(pool.decide().is_finished, model.is_finished());
        }
    }

    #[test]
    fn a_pool_for_jobs_has_a_runner_for_each_job_and_none_too_many(
        max in 1..5_u32,
        inputs in job_inputs(),
    ) {
        let sets: [&[&str]; 4] = [&[], &["a"], &["b"], &["a", "b"]];
        let mut pool = Pool::of_jobs(max);
        for input in inputs {
            let running = alive(&pool.slots);
            match input {
                JobInput::Queue(job, labels) => pool.queue(job, sets[labels]),
                JobInput::Settle(job) => pool.settled(job),
                JobInput::Pass(seconds) => pool.now += Duration::from_secs(seconds),
                _ if running.is_empty() => {}
                JobInput::Take(job, slot) => {
                    let index = *slot.get(&running);
                    let name = format!("r{index}");
                    pool.slots.named(index, &name);
                    pool.taken(job, &name);
                }
                JobInput::End(slot, fails) => {
                    pool.end(*slot.get(&running), if fails { failed() } else { finished() });
                }
            }
            let taken: Vec<u32> = pool.slots.slots.iter()
                .filter(|(_, slot)| slot.stage == Stage::Taken).map(|(&index, _)| index).collect();
            let orders = pool.act();
            // No runner that has a job is stopped or given another job.
            for order in &orders {
                if let Order::Stop { index } | Order::Reassign { index, .. } = order {
                    prop_assert!(!taken.contains(index), "{:?}", order);
                }
            }
            prop_assert!(alive(&pool.slots).len() <= max as usize);
            prop_assert_eq!(pool.decide().orders, vec![], "a decision that was carried out is repeated");
            // Each free runner is for a job that waits, and no two are for the same one.
            let free: Vec<u64> = pool.slots.slots.values().filter(|slot| slot.stage.is_free())
                .map(|slot| slot.purpose.job().expect("a job").job).collect();
            let waiting: HashSet<u64> =
                pool.slots.waiting.iter().map(|waiting| waiting.demand.job).collect();
            prop_assert!(free.iter().all(|job| waiting.contains(job)), "{:?} {:?}", free, waiting);
            prop_assert_eq!(free.iter().collect::<HashSet<_>>().len(), free.len());
            // A job without a runner waits for a place, or for the end of a pause.
            let is_full = alive(&pool.slots).len() == max as usize;
            let unserved = pool.slots.waiting.iter().filter(|waiting| !free.contains(&waiting.demand.job));
            for waiting in unserved {
                prop_assert!(is_full || waiting.not_before.is_some_and(|at| at > pool.now), "{:?}", waiting);
            }
        }
    }

    #[test]
    fn a_scaled_pool_keeps_its_bounds_and_never_retires_a_runner_that_is_needed(
        max in 1..6_u32,
        inputs in scaled_inputs(),
    ) {
        let mut pool = Pool::scaled(1, max);
        for input in inputs {
            let running = alive(&pool.slots);
            match input {
                ScaledInput::Queue(job) => pool.queue(job, &["a"]),
                ScaledInput::Assigned(jobs) => pool.assigned(jobs),
                ScaledInput::MinIdle(count) => pool.slots.take(DemandEvent::MinIdle(count)),
                ScaledInput::Settle(job) => pool.settled(job),
                ScaledInput::Pass(seconds) => pool.now += Duration::from_secs(seconds),
                _ if running.is_empty() => {}
                ScaledInput::Up => pool.all_up(),
                ScaledInput::Take(job, slot) => pool.taken(job, &format!("r{}", slot.get(&running))),
                ScaledInput::End(slot, fails) => {
                    pool.end(*slot.get(&running), if fails { failed() } else { finished() });
                }
            }
            let stages = |pool: &Pool| -> HashMap<u32, Stage> {
                pool.slots.slots.iter().map(|(&index, slot)| (index, slot.stage)).collect()
            };
            let before = stages(&pool);
            let orders = pool.act();
            let after = stages(&pool);
            for order in &orders {
                if let Order::Retire { index } = order {
                    prop_assert_eq!(before[index], Stage::Runs);
                }
            }
            prop_assert!(alive(&pool.slots).len() <= max as usize);
            prop_assert_eq!(pool.decide().orders, vec![], "a decision that was carried out is repeated");
            let count = |test: fn(Stage) -> bool| after.values().filter(|stage| test(**stage)).count();
            let (free, busy) = (count(Stage::is_free), count(|stage| stage == Stage::Taken));
            let min_idle = pool.slots.min_idle.unwrap_or(1) as usize;
            let jobs = pool.slots.waiting.len().max((pool.slots.assigned as usize).saturating_sub(busy));
            let jobs = jobs.saturating_sub(pool.slots.unreported(pool.now).0);
            let wanted = (jobs + min_idle).min(max as usize - busy);
            if orders.iter().any(|order| matches!(order, Order::Retire { .. })) {
                prop_assert!(free >= wanted);
            }
            // A runner is missing only if there is no room, or during a pause.
            let is_full = alive(&pool.slots).len() == max as usize;
            let pauses = pool.slots.not_before.is_some_and(|at| at > pool.now);
            prop_assert!(free >= wanted || is_full || pauses, "{} of {}", free, wanted);
        }
    }
}
