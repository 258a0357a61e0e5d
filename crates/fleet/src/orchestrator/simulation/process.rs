//! A process of a simulation: the product's decisions, and a runner for each slot.

use std::collections::BTreeMap;
use std::path::Path;

use dayfly_host::retry::{CLEANUP, RUNNER};
use tokio::time::Instant;

use super::host::Guest;
use super::runner::{End, Progress, Runner};
use super::{Around, Fault};
use crate::demand::{Demand, DemandEvent};
use crate::orchestrator::decide::{Order, decide};
use crate::orchestrator::slots::{FailureRule, Fate, LoopResult, Purpose, Slots};
use crate::recovery::Inherited;
use crate::state::RunnerState;

const RULE: FailureRule = FailureRule { retry: RUNNER, is_strict: false };
/// Number from which a slot is looked for that takes a runner over although its number is used.
const FIRST: u32 = 1;

/// The loop of a slot.
#[derive(Debug)]
struct Loop {
    runner: Option<Runner>,
    /// Time of its next runner.
    next: Instant,
    failures: u32,
    is_retiring: bool,
    /// True if it creates one runner after another.
    is_place: bool,
}

/// A run that is being removed.
#[derive(Debug)]
struct Leftover {
    stage: Removal,
    /// Time of the next step.
    next: Instant,
    failures: u32,
}

/// The next step of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removal {
    Registration,
    Machine,
    /// With a registration that the machine has made meanwhile.
    Folder,
}

impl Leftover {
    fn new(now: Instant) -> Self {
        Self { stage: Removal::Registration, next: now, failures: 0 }
    }
}

#[derive(Debug)]
pub(super) struct Process {
    demand: Demand,
    pub(super) slots: Slots,
    /// Time of the next decision if nothing happens before.
    wake: Option<Instant>,
    is_finished: bool,
    loops: BTreeMap<u32, Loop>,
    /// Number of runners that it has taken over.
    pub(super) inherited: u32,
    /// Runs that are removed by and by.
    leftovers: BTreeMap<u64, Leftover>,
}

impl Process {
    /// Returns a process that has just started.
    pub(super) fn new(demand: Demand) -> Self {
        Self {
            demand,
            slots: Slots::default(),
            wake: None,
            is_finished: false,
            loops: BTreeMap::new(),
            inherited: 0,
            leftovers: BTreeMap::new(),
        }
    }

    /// Takes over what it can, and begins to remove the rest.
    pub(super) fn begin_work(&mut self, around: &mut Around<'_>) {
        for run in around.host.runs.keys().copied().collect::<Vec<_>>() {
            let records = around.host.read(run);
            let inherited = Inherited::if_alive(Path::new("/r"), &records);
            match inherited.filter(|_| around.host.guest(run) != Guest::Dead) {
                Some(inherited) => self.inherit(run, RunnerState::of(&records), &inherited, around),
                None => drop(self.leftovers.insert(run, Leftover::new(around.now))),
            }
        }
        self.act(around);
    }

    fn inherit(&mut self, run: u64, state: RunnerState, inherited: &Inherited, around: &mut Around<'_>) {
        let resumed = Runner::resume(run, state, around).ok();
        let Some(runner) = resumed.filter(|_| !around.draws(Fault::NoStart)) else {
            self.leftovers.insert(run, Leftover::new(around.now));
            return;
        };
        let is_free = |number: &u32| !self.loops.contains_key(number);
        let number = Some(inherited.index).filter(is_free).or_else(|| (FIRST..).find(is_free));
        let number = number.expect("a free number");
        let purpose = match self.demand {
            Demand::Static { runners, .. } if number <= runners => Purpose::Place,
            _ => Purpose::Any,
        };
        self.slots.inherited(number, purpose.clone(), inherited, around.now);
        self.begin(number, &purpose, Some(runner), around.now);
        self.inherited += 1;
    }

    fn begin(&mut self, number: u32, purpose: &Purpose, runner: Option<Runner>, next: Instant) {
        let is_place = *purpose == Purpose::Place;
        self.loops.insert(number, Loop { runner, next, failures: 0, is_retiring: false, is_place });
    }

    /// Decides and carries out, as the orchestrator does after each input.
    fn act(&mut self, around: &Around<'_>) {
        let decision = decide(&self.demand, &self.slots, around.now);
        (self.wake, self.is_finished) = (decision.wake, decision.is_finished);
        for order in decision.orders {
            match order {
                Order::Start { index, purpose, is_awaited } => {
                    self.slots.started(index, purpose.clone(), is_awaited, around.now);
                    self.begin(index, &purpose, None, around.now);
                }
                Order::Retire { index } => {
                    self.slots.retiring(index);
                    self.loops.get_mut(&index).expect("its loop").is_retiring = true;
                }
                Order::StopWaiting { index } => self.slots.not_awaited(index),
                Order::Reassign { .. } | Order::Stop { .. } => panic!("an order for single jobs: {order:?}"),
            }
        }
    }

    pub(super) fn take(&mut self, event: DemandEvent, around: &Around<'_>) {
        self.slots.take(event);
        self.act(around);
    }

    /// Ends the pool: no runner starts, and those that run end with their job.
    pub(super) fn drain(&mut self, around: &Around<'_>) {
        self.slots.drain();
        self.act(around);
    }

    /// Returns the number of runners.
    pub(super) fn runners(&self) -> usize {
        self.loops.values().filter(|slot| slot.runner.is_some()).count()
    }

    /// Returns true if the pool is over, and nothing of it is left.
    pub(super) fn is_over(&self) -> bool {
        self.is_finished && self.loops.is_empty() && self.leftovers.is_empty()
    }

    /// Returns true if the machine of a run is about to be destroyed.
    pub(super) fn is_about_to_destroy(&self, run: u64) -> bool {
        self.leftovers.get(&run).is_some_and(|leftover| leftover.stage == Removal::Machine)
    }

    /// Returns the loops that have something to do.
    pub(super) fn loops_with_work(&self, around: &Around<'_>) -> Vec<u32> {
        let has_work = |(_, slot): &(&u32, &Loop)| match &slot.runner {
            Some(runner) => runner.has_work(slot.is_retiring, around),
            None => slot.next <= around.now || slot.is_retiring,
        };
        self.loops.iter().filter(has_work).map(|(&number, _)| number).collect()
    }

    /// Returns the next time at which the process does something by itself.
    pub(super) fn next_time(&self) -> Option<Instant> {
        let loops = self.loops.values().filter(|slot| slot.runner.is_none()).map(|slot| slot.next);
        let leftovers = self.leftovers.values().map(|leftover| leftover.next);
        loops.chain(leftovers).chain(self.wake).min()
    }

    /// Returns true if a decision is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.wake.is_some_and(|at| at <= now)
    }

    pub(super) fn wake_up(&mut self, around: &Around<'_>) {
        self.act(around);
    }

    /// Does the next step of a loop.
    pub(super) fn advance(&mut self, number: u32, around: &mut Around<'_>) {
        let slot = self.loops.get_mut(&number).expect("its loop");
        let Some(runner) = &mut slot.runner else { return self.next_runner(number, around) };
        match runner.advance(slot.is_retiring, around) {
            Progress::Quiet => {}
            Progress::Named => {
                let name = around.host.runs[&runner.run].runner.name.clone();
                self.slots.named(number, &name);
                self.act(around);
            }
            Progress::Up => {
                self.slots.is_up(number, around.now);
                self.act(around);
            }
            Progress::Ended { end, is_over } => {
                let run = runner.run;
                slot.runner = None;
                if !is_over {
                    self.leftovers.insert(run, Leftover::new(around.now));
                }
                self.ended(number, end, around);
            }
        }
    }

    fn next_runner(&mut self, number: u32, around: &mut Around<'_>) {
        let slot = self.loops.get_mut(&number).expect("its loop");
        if slot.is_place && slot.is_retiring {
            return self.loop_ended(number, End::Stopped.of_loop(), around);
        }
        match Runner::begin(number, around) {
            Ok(runner) => slot.runner = Some(runner),
            Err(_) => self.ended(number, End::Failed, around),
        }
    }

    /// Goes on after the end of a runner, as [`crate::runner_loop`] does.
    fn ended(&mut self, number: u32, end: End, around: &Around<'_>) {
        let slot = self.loops.get_mut(&number).expect("its loop");
        match end {
            _ if !slot.is_place => self.loop_ended(number, end.of_loop(), around),
            End::Stopped => self.loop_ended(number, end.of_loop(), around),
            End::JobDone => (slot.failures, slot.next) = (0, around.now),
            End::NoJob | End::Failed => {
                slot.failures += 1;
                slot.next = around.now + RUNNER.pause_after(slot.failures).expect("it never gives up");
            }
        }
    }

    fn loop_ended(&mut self, number: u32, result: LoopResult, around: &Around<'_>) {
        self.loops.remove(&number);
        if let Fate::GaveUp(why) = self.slots.ended(number, result, RULE, around.now) {
            panic!("it gave up: {why}");
        }
        self.act(around);
    }

    /// Goes on with removing a run, as [`crate::recovery`] does: its registration first, because a job may run in its machine.
    pub(super) fn reap(&mut self, run: u64, around: &mut Around<'_>) {
        let state = RunnerState::of(&around.host.read(run));
        let leftover = self.leftovers.get_mut(&run).expect("it is left");
        let is_done = match leftover.stage {
            Removal::Registration => around.is_unregistered(run, state.registration),
            Removal::Machine => {
                let is_done = !around.draws(Fault::NoStart);
                if is_done {
                    around.destroy(run);
                }
                is_done
            }
            Removal::Folder => around.is_unregistered(run, state.registration),
        };
        leftover.stage = match (is_done, leftover.stage) {
            (true, Removal::Registration) => Removal::Machine,
            (true, Removal::Machine) => Removal::Folder,
            (true, Removal::Folder) => {
                around.remove_folder(run);
                self.leftovers.remove(&run);
                return;
            }
            (false, _) => {
                leftover.failures += 1;
                leftover.next =
                    around.now + CLEANUP.pause_after(leftover.failures).expect("it never gives up");
                Removal::Registration
            }
        };
    }

    /// Returns the runs that are tried to be removed now.
    pub(super) fn due_leftovers(&self, now: Instant) -> Vec<u64> {
        self.leftovers.iter().filter(|(_, leftover)| leftover.next <= now).map(|(&run, _)| run).collect()
    }

    /// Leaves, as the process dies, a part of the line that one of its runners was writing.
    pub(super) fn tear(&self, around: &mut Around<'_>, length: usize) {
        let writing = self.loops.values().filter_map(|slot| slot.runner.as_ref());
        let Some((run, fact)) = writing.filter_map(|runner| Some((runner.run, runner.next_fact()?))).next()
        else {
            return;
        };
        let record = around.host.record(run, fact);
        around.host.tear(run, &record, length);
    }
}
