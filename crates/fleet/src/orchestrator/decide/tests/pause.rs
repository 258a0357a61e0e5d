//! A pool that an administrator pauses and resumes.

use super::*;

#[test]
fn a_paused_pool_retires_its_idle_runners_and_starts_none_while_its_jobs_are_counted() {
    let mut pool = Pool::scaled(1, 4);
    pool.assigned(1);
    assert_eq!(pool.starts(), [1, 2]);
    pool.all_up();
    pool.taken(7, "r1");
    pool.slots.is_paused = true;
    assert_eq!(pool.act(), [Order::Retire { index: 2 }]);
    pool.assigned(4);
    assert_eq!(pool.act(), [], "no runner starts for jobs that come meanwhile");
    assert_eq!(pool.slots.jobs_waiting(pool.now), 3);
    let Demand::Scaled(scale) = pool.demand else { panic!("it is scaled") };
    assert_eq!(wanted_for_jobs(scale, &pool.slots, pool.now), 0, "other pools keep their places");
    pool.end(2, LoopResult::NoJob("x".to_owned()));
    pool.end(1, finished());
    pool.assigned(3);
    let nothing = Decision { orders: vec![], wake: None, is_finished: false };
    assert_eq!(pool.decide(), nothing, "it is not over, although it has no runner");
}

#[test]
fn a_resumed_pool_starts_the_runners_for_the_jobs_that_came_meanwhile() {
    let mut pool = Pool::scaled(0, 4);
    pool.slots.is_paused = true;
    pool.assigned(1);
    pool.queue(8, &["a"]);
    pool.queue(9, &["a"]);
    assert_eq!(pool.act(), []);
    assert_eq!(pool.slots.jobs_waiting(pool.now), 2, "two sources report the same jobs");
    pool.slots.is_paused = false;
    assert_eq!(pool.starts(), [1, 2]);
    pool.all_up();
    pool.taken(8, "r1");
    pool.taken(9, "r2");
    assert_eq!(pool.slots.jobs_waiting(pool.now), 0);
}

#[test]
fn a_runner_that_takes_a_job_while_its_pool_pauses_counts_after_the_resumption() {
    let mut pool = Pool::scaled(1, 1);
    assert_eq!(pool.starts(), [1]);
    pool.all_up();
    pool.slots.is_paused = true;
    assert_eq!(pool.act(), [Order::Retire { index: 1 }]);
    pool.taken(7, "r1");
    pool.slots.is_paused = false;
    assert_eq!(pool.act(), [], "the maximum is one runner, and it is busy");
}

#[test]
fn a_paused_static_pool_has_all_its_places_again_after_the_resumption() {
    let mut pool = Pool::isolated(2, 2);
    assert_eq!(pool.starts(), [1, 2]);
    pool.end(2, failed());
    pool.slots.is_paused = true;
    assert_eq!(pool.act(), [Order::Retire { index: 1 }]);
    pool.now += HEALTHY;
    assert_eq!(pool.act(), [], "the pause of the slot that failed is over, and that of the pool is not");
    pool.end(1, LoopResult::NoJob("x".to_owned()));
    pool.slots.is_paused = false;
    let mut starts = pool.starts();
    starts.sort_unstable();
    assert_eq!(starts, [1, 2]);
}

#[test]
fn a_paused_pool_ends_after_a_stop_order_as_any_other_does() {
    let mut pool = Pool::scaled(1, 4);
    assert_eq!(pool.starts(), [1]);
    pool.slots.is_paused = true;
    pool.slots.close();
    assert_eq!(pool.act(), [], "the stop order goes to all slots by itself");
    pool.end(1, LoopResult::NoJob("x".to_owned()));
    assert!(pool.decide().is_finished);
}

#[test]
fn a_pool_that_drains_has_no_jobs_that_wait() {
    let mut pool = Pool::scaled(0, 4);
    pool.assigned(3);
    assert_eq!(pool.slots.jobs_waiting(pool.now), 3);
    pool.slots.drain();
    pool.assigned(4);
    assert_eq!(pool.slots.jobs_waiting(pool.now), 0, "they are for another pool");
}

#[test]
fn the_jobs_of_a_paused_pool_take_no_places_from_the_other_sizes_of_the_pool() {
    let scale = Scale { min_idle: 1, max: 4, idle_timeout: IDLE };
    let mut pool = Pool::scaled(1, 4);
    pool.assigned(2);
    assert_eq!(wanted_for_jobs(scale, &pool.slots, pool.now), 2);
    pool.slots.is_paused = true;
    assert_eq!(wanted_for_jobs(scale, &pool.slots, pool.now), 0);
    pool.slots.is_paused = false;
    assert_eq!(wanted_for_jobs(scale, &pool.slots, pool.now), 2);
}
