//! The plan of a soak: which jobs, which faults after how many of them, which kills and which troubles of the host at which
//! moments. It follows from the seed alone. Pure.

use std::time::Duration;

use dayfly_lab::fault::{Fault, FaultSpec};

use super::dice::Dice;
use super::menu;
use crate::cli::{KillWord, Trouble};

/// Jobs for one order of each fault.
const JOBS_PER_ORDER: u32 = 100;
/// Most orders of one fault.
const ORDERS_MAX: u32 = 12;
/// One job in this many is long, so that kills meet jobs that run.
const LONG_OF: u64 = 5;
/// Longest time until a killed process is started again.
const DOWN_MAX_MS: u64 = 1500;
/// Kills for one trouble of the host.
const KILLS_PER_TROUBLE: u64 = 2;
/// Shortest and longest time of a trouble.
const TROUBLE_MS: (u64, u64) = (500, 5000);

/// The purposes of draws.
const JOBS: u64 = 1;
const FAULTS: u64 = 2;
const KILLS: u64 = 3;
const TROUBLES: u64 = 4;

/// The path by which jobs reach their runners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// A pool of the orchestrator with a scale set.
    ScaleSet,
    /// A pool of the orchestrator with a fixed number of runners.
    Fixed,
    /// A pool of the orchestrator that reads the lists of jobs.
    Polled,
    /// The runners of `dayfly runner`.
    Loops,
}

impl Lane {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::ScaleSet, Self::Fixed, Self::Polled, Self::Loops];

    /// Returns the name of its pool, which is the label of its jobs and the prefix of its runners.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ScaleSet => "soak-set",
            Self::Fixed => "soak-fixed",
            Self::Polled => "soak-polled",
            Self::Loops => "soak-loop",
        }
    }
}

/// The numbers that a plan is drawn from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PlanRequest {
    pub(super) seed: u64,
    pub(super) jobs: u32,
    pub(super) faults: Vec<Fault>,
    pub(super) kills: Vec<KillWord>,
    pub(super) troubles: Vec<Trouble>,
    /// Mean time between two kills.
    pub(super) kill_every: Duration,
    /// Number of `dayfly runner` processes.
    pub(super) loops: u32,
}

/// The plan.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// The jobs in the order of their dispatch.
    pub(super) jobs: Vec<PlannedJob>,
    /// The faults in the order of their moments.
    pub(super) faults: Vec<PlannedFault>,
    /// The kills in the order of their moments. They go on for as long as there are jobs.
    pub(super) kills: Kills,
    /// The troubles of the host, likewise.
    pub(super) troubles: Troubles,
}

/// A job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlannedJob {
    /// Its number, from 1.
    pub(super) number: u32,
    pub(super) lane: Lane,
    /// How long its step sleeps.
    pub(super) ms: u64,
}

/// A fault that is ordered once this many jobs were dispatched.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PlannedFault {
    pub(super) after: u32,
    pub(super) spec: FaultSpec,
}

/// A kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kill {
    /// Time since the first dispatch.
    pub(super) at: Duration,
    pub(super) victim: Victim,
}

/// The process that is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    /// The orchestrator, which is started again after a time.
    Orchestrator { down: Duration },
    /// One of the `dayfly runner` processes, from 1, which is started again after a time.
    Loop { number: u32, down: Duration },
    /// One of the machines that there are at that moment; the draw chooses it.
    Machine { draw: u64 },
}

/// A trouble of the host that begins at a moment. One that is about a process is about the orchestrator (0) or a `dayfly
/// runner` (from 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlannedTrouble {
    /// Time since the first dispatch.
    pub(super) at: Duration,
    pub(super) trouble: Trouble,
    pub(super) process: usize,
    pub(super) lasts: Duration,
}

/// Random moments, one in each stretch of time, so that the moments are random and their number is not.
#[derive(Debug, Clone)]
struct Moments {
    dice: Dice,
    every_ms: u64,
    drawn: u64,
}

impl Moments {
    fn new(request: &PlanRequest, purpose: u64, stretch: u64) -> Self {
        let every_ms = u64::try_from(request.kill_every.as_millis()).unwrap_or(u64::MAX).max(1);
        Self { dice: Dice::new(request.seed, purpose), every_ms: every_ms.saturating_mul(stretch), drawn: 0 }
    }

    fn next(&mut self) -> Duration {
        self.drawn += 1;
        let begin = (self.drawn - 1).saturating_mul(self.every_ms);
        Duration::from_millis(begin.saturating_add(self.dice.below(self.every_ms)))
    }
}

/// The kills, one after another.
#[derive(Debug, Clone)]
pub(super) struct Kills {
    moments: Moments,
    words: Vec<KillWord>,
    loops: u32,
}

/// The troubles of the host, one after another.
#[derive(Debug, Clone)]
pub(super) struct Troubles {
    moments: Moments,
    troubles: Vec<Trouble>,
    loops: u32,
}

impl Plan {
    /// Draws the plan of a seed.
    pub(super) fn draw(request: &PlanRequest) -> Self {
        let loops = request.loops.max(1);
        let kills = Kills { moments: Moments::new(request, KILLS, 1), words: request.kills.clone(), loops };
        let moments = Moments::new(request, TROUBLES, KILLS_PER_TROUBLE);
        let troubles = Troubles { moments, troubles: request.troubles.clone(), loops };
        Self { jobs: jobs(request), faults: faults(request), kills, troubles }
    }
}

/// Draws the jobs. Half of them go through the scale set.
fn jobs(request: &PlanRequest) -> Vec<PlannedJob> {
    let mut dice = Dice::new(request.seed, JOBS);
    let lanes = [Lane::ScaleSet, Lane::ScaleSet, Lane::ScaleSet, Lane::Fixed, Lane::Polled, Lane::Loops];
    let mut job = |number| {
        let lane = dice.one_of(&lanes).unwrap_or(Lane::ScaleSet);
        let ms = match dice.below(LONG_OF) {
            0 => dice.between(2000, 6000),
            _ => dice.between(0, 1000),
        };
        PlannedJob { number, lane, ms }
    };
    (1..=request.jobs).map(&mut job).collect()
}

/// Draws the faults, spread over the first nine tenths of the jobs, so that each has an occasion.
fn faults(request: &PlanRequest) -> Vec<PlannedFault> {
    let mut dice = Dice::new(request.seed, FAULTS);
    let orders = (1 + request.jobs / JOBS_PER_ORDER).min(ORDERS_MAX);
    let last = u64::from(request.jobs) * 9 / 10;
    let mut planned = Vec::new();
    for fault in &request.faults {
        for _ in 0..orders {
            let after = u32::try_from(dice.between(0, last)).unwrap_or_default();
            planned.extend(menu::draw(*fault, &mut dice).map(|spec| PlannedFault { after, spec }));
        }
    }
    planned.sort_by_key(|planned| planned.after);
    planned
}

impl Iterator for Kills {
    type Item = Kill;

    fn next(&mut self) -> Option<Kill> {
        let word = self.moments.dice.one_of(&self.words)?;
        let at = self.moments.next();
        let dice = &mut self.moments.dice;
        let down = Duration::from_millis(dice.below(DOWN_MAX_MS));
        let (number, draw) = (dice.between(1, u64::from(self.loops)), dice.next());
        let victim = match word {
            KillWord::Orchestrator => Victim::Orchestrator { down },
            KillWord::Loop => Victim::Loop { number: u32::try_from(number).unwrap_or(1), down },
            KillWord::Vm => Victim::Machine { draw },
        };
        Some(Kill { at, victim })
    }
}

impl Troubles {
    /// Returns true if a trouble may be among them.
    pub(super) fn include(&self, trouble: Trouble) -> bool {
        self.troubles.contains(&trouble)
    }
}

impl Iterator for Troubles {
    type Item = PlannedTrouble;

    fn next(&mut self) -> Option<PlannedTrouble> {
        let trouble = self.moments.dice.one_of(&self.troubles)?;
        let at = self.moments.next();
        let dice = &mut self.moments.dice;
        let process = usize::try_from(dice.between(0, u64::from(self.loops))).unwrap_or_default();
        let lasts = Duration::from_millis(dice.between(TROUBLE_MS.0, TROUBLE_MS.1));
        Some(PlannedTrouble { at, trouble, process, lasts })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(seed: u64, jobs: u32, kill_every_ms: u64) -> PlanRequest {
        PlanRequest {
            seed,
            jobs,
            faults: Fault::ALL.to_vec(),
            kills: KillWord::ALL.to_vec(),
            troubles: Trouble::ALL.to_vec(),
            kill_every: Duration::from_millis(kill_every_ms),
            loops: 2,
        }
    }

    #[test]
    fn a_plan_of_forty_jobs() {
        let plan = Plan::draw(&request(1, 40, 5000));
        let jobs = plan.jobs.iter().take(5).map(|job| format!("{job:?}"));
        let faults = plan.faults.iter().map(|fault| format!("after {}: {}", fault.after, fault.spec));
        let kills = plan.kills.take(6).map(|kill| format!("{kill:?}"));
        let troubles = plan.troubles.take(6).map(|trouble| format!("{trouble:?}"));
        let lines: Vec<String> = jobs.chain(faults).chain(kills).chain(troubles).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn without_faults_kills_and_troubles_there_are_none() {
        let (faults, kills, troubles) = (Vec::new(), Vec::new(), Vec::new());
        let mut plan = Plan::draw(&PlanRequest { faults, kills, troubles, ..request(1, 10, 5000) });
        assert_eq!((plan.faults.len(), plan.kills.next(), plan.troubles.next()), (0, None, None));
    }

    proptest! {
        #[test]
        fn a_seed_is_a_plan(seed: u64, jobs in 1_u32..300) {
            let (one, other) = (Plan::draw(&request(seed, jobs, 5000)), Plan::draw(&request(seed, jobs, 5000)));
            prop_assert_eq!(&one.jobs, &other.jobs);
            prop_assert_eq!(&one.faults, &other.faults);
            prop_assert!(one.kills.take(100).eq(other.kills.take(100)));
            prop_assert!(one.troubles.take(100).eq(other.troubles.take(100)));
        }

        #[test]
        fn each_job_is_dispatched_once_and_each_fault_has_jobs_after_it(seed: u64, jobs in 1_u32..300) {
            let plan = Plan::draw(&request(seed, jobs, 5000));
            prop_assert!(plan.jobs.iter().map(|job| job.number).eq(1..=jobs));
            prop_assert!(plan.faults.iter().all(|fault| fault.after < jobs));
            prop_assert!(plan.faults.is_sorted_by_key(|fault| fault.after));
            for fault in Fault::ALL.into_iter().filter(|fault| !menu::places(*fault).is_empty()) {
                prop_assert!(plan.faults.iter().any(|planned| planned.spec.fault == fault), "{}", fault.name());
            }
        }

        #[test]
        fn each_stretch_of_time_has_one_kill_and_each_second_one_a_trouble(seed: u64, every_ms in 1_u64..60_000) {
            let plan = Plan::draw(&request(seed, 1, every_ms));
            for (kill, number) in plan.kills.take(200).zip(0_u128..) {
                let every = u128::from(every_ms);
                prop_assert_eq!(kill.at.as_millis() / every, number);
                if let Victim::Loop { number, .. } = kill.victim {
                    prop_assert!((1..=2).contains(&number));
                }
            }
            for (trouble, number) in plan.troubles.take(200).zip(0_u128..) {
                prop_assert_eq!(trouble.at.as_millis() / (2 * u128::from(every_ms)), number);
                prop_assert!(trouble.process <= 2 && trouble.lasts <= Duration::from_secs(5));
            }
        }

        #[test]
        fn only_what_was_asked_for_is_killed(seed: u64, asked in 0_usize..3) {
            let word = KillWord::ALL[asked];
            let plan = Plan::draw(&PlanRequest { kills: vec![word], ..request(seed, 1, 10) });
            let is_asked = |kill: Kill| match kill.victim {
                Victim::Orchestrator { .. } => word == KillWord::Orchestrator,
                Victim::Loop { .. } => word == KillWord::Loop,
                Victim::Machine { .. } => word == KillWord::Vm,
            };
            prop_assert!(plan.kills.take(50).all(is_asked));
        }
    }
}
