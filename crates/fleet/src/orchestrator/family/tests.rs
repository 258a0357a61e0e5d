use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::orchestrator::budget::{Budget, Claim, PoolScratch, Size, share};

/// Runners that are idle, and jobs that wait for further ones.
fn idle_and_lacking(idle: u32, lacking: u32) -> Member {
    Member { alive: idle, busy: 0, free: idle, for_jobs: lacking }
}

#[test]
fn idle_runners_give_up_their_places_for_the_jobs_of_other_sizes() {
    let job = idle_and_lacking(0, 1);
    assert_eq!(yielded(2, &[idle_and_lacking(2, 0), job]), [1, 0]);
    assert_eq!(yielded(3, &[idle_and_lacking(2, 0), job]), [0, 0], "there is room");
    assert_eq!(yielded(2, &[idle_and_lacking(2, 2), job]), [0, 0], "its own jobs need them");
    assert_eq!(yielded(3, &[idle_and_lacking(2, 0), idle_and_lacking(1, 0), job]), [0, 1, 0]);
    let leaving = Member { alive: 2, busy: 0, free: 1, for_jobs: 0 };
    assert_eq!(yielded(2, &[leaving, job]), [0, 0], "a place will be free");
    let busy = Member { alive: 2, busy: 2, free: 0, for_jobs: 0 };
    assert_eq!(yielded(2, &[busy, job]), [0, 0], "no job ends for another one");
}

/// A pool or a size in a model of an orchestrator: runners start at once, and idle ones that were given up end at once.
#[derive(Debug, Clone, Default)]
struct Model {
    busy: u32,
    free: u32,
    waiting: u32,
    min_idle: u32,
    without_since: Option<Instant>,
}

impl Model {
    fn member(&self) -> Member {
        Member { alive: self.busy + self.free, busy: self.busy, free: self.free, for_jobs: self.waiting }
    }

    fn claim(&mut self, max: u32, now: Instant) -> Claim {
        let machines = self.busy + self.free;
        let wanted =
            (self.waiting + self.min_idle).saturating_sub(self.free).min(max.saturating_sub(machines));
        let waits = machines == 0 && wanted > 0;
        self.without_since = if waits { self.without_since.or(Some(now)) } else { None };
        Claim {
            weight: 1,
            size: Size::default(),
            machines,
            wanted,
            for_jobs: self.waiting.saturating_sub(self.free).min(wanted),
            idle: 0,
            leaving: 0,
            family: Some(Family { number: 0, max }),
            scratch: PoolScratch::default(),
            without_since: self.without_since,
        }
    }
}

proptest! {
    #[test]
    fn the_sizes_of_a_pool_never_exceed_its_maximum_and_none_starves(
        max in 1..6_u32,
        min_idle in 0..6_u32,
        sizes in 1..6_usize,
        ends in proptest::collection::vec(0..100_usize, 400),
    ) {
        // The first is the pool, with idle runners at the start. Jobs of every size always wait, and one job ends in a step.
        let mut models = vec![Model { waiting: 3, ..Model::default() }; sizes + 1];
        (models[0].min_idle, models[0].free) = (min_idle.min(max), max);
        let mut jobs_run = vec![0; models.len()];
        let mut now = Instant::now();
        for end in ends {
            let members: Vec<Member> = models.iter().map(Model::member).collect();
            for (model, yielded) in models.iter_mut().zip(yielded(max, &members)) {
                prop_assert!(yielded <= model.free.saturating_sub(model.waiting), "a runner that a job needs");
                model.free -= yielded;
            }
            let claims: Vec<Claim> = models.iter_mut().map(|model| model.claim(max, now)).collect();
            for (model, started) in models.iter_mut().zip(share(&Budget::default(), &claims, now)) {
                model.free += started;
            }
            let alive: u32 = models.iter().map(|model| model.busy + model.free).sum();
            prop_assert!(alive <= max, "{alive} of {max}");
            for (model, run) in models.iter_mut().zip(&mut jobs_run) {
                let taken = model.free.min(model.waiting);
                (model.free, model.busy, model.waiting) = (model.free - taken, model.busy + taken, 3);
                *run += taken;
                // The orchestrator also decides while the machine runs.
                if model.busy > 0 {
                    model.without_since = None;
                }
            }
            let count = models.len();
            let busy = (0..count).map(|offset| (end + offset) % count).find(|&at| models[at].busy > 0);
            models[busy.expect("a job runs, because jobs wait")].busy -= 1;
            now += Duration::from_secs(5);
        }
        // With an equal share, each would have run 400 jobs divided by the number of sizes.
        let fair = 400 / u32::try_from(models.len()).expect("few");
        prop_assert!(jobs_run.iter().all(|run| *run >= fair / 2), "{jobs_run:?} of {fair}");
    }

    #[test]
    fn idle_runners_never_keep_a_job_of_another_size_waiting(
        max in 1..8_u32,
        idle in 0..8_u32,
        busy in 0..8_u32,
    ) {
        let (busy, idle) = (busy.min(max), idle.min(max - busy.min(max)));
        let own = Member { alive: busy + idle, busy, free: idle, for_jobs: 0 };
        let yielded = yielded(max, &[own, idle_and_lacking(0, 1)]);
        let alive_after = busy + idle - yielded[0];
        prop_assert_eq!(alive_after < max, busy < max);
        prop_assert!(yielded[0] <= 1);
    }
}
