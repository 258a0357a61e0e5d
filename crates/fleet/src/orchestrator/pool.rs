//! One pool of an orchestrator: its slots, and how they start.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dayfly_vm::{Driver, VmHost};
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;

use super::SLOTS_MAX;
use super::budget::{Claim, Family, PoolScratch, Size};
use super::decide::{Decision, Order, decide, wanted_for_jobs};
use super::scratch::{Expectation, Measured};
use super::slots::{FailureRule, Purpose, Slots};
use super::wait::{Decided, Wait, wait_of};
use crate::LoopEnd;
use crate::demand::{Demand, Source};
use crate::pool::{Pool, PoolSpec};
use crate::recovery::Inherited;
use crate::runner_loop::run_slot;
use crate::slot::{Slot, environment_in};
use crate::stop::{Stop, StopOrder, StopSender};
use crate::stream::{FactSink, LastLine};

/// A pool to run.
#[derive(Debug)]
pub struct PoolRun {
    /// The pool.
    pub pool: Pool,
    /// The rule for slots that fail.
    pub rule: FailureRule,
    /// The sources of its demand; none if the demand is static, or if its jobs come from the caller.
    pub sources: Vec<Source>,
    /// The runners that it takes over from a process that died.
    pub inherited: Vec<Inherited>,
}

/// The tasks of all slots, and the slot of each.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    pub(super) ends: JoinSet<LoopEnd>,
    pub(super) running: HashMap<Id, RunningSlot>,
}

/// A slot whose loop runs. It outlives a panic of the loop's task.
#[derive(Debug)]
pub(super) struct RunningSlot {
    /// Number of the slot in the process.
    pub(super) index: u32,
    stop: StopSender,
    /// The last line of its runner that was told.
    pub(super) last_line: LastLine,
    /// The runner that its task took over, until that has ended.
    pub(super) inherited: Option<Inherited>,
}

impl RunningSlot {
    pub(super) fn new(index: u32, inherited: Option<Inherited>) -> Self {
        let (stop, _) = crate::stop::channel();
        Self { index, stop, last_line: LastLine::default(), inherited }
    }

    /// Returns the receiving end of its orders.
    pub(super) fn stop(&self) -> Stop {
        self.stop.subscribe()
    }
}

impl Tasks {
    /// Starts the task of a slot.
    pub(super) fn spawn(&mut self, slot: RunningSlot, run: impl Future<Output = LoopEnd> + Send + 'static) {
        let task = self.ends.spawn(run);
        self.running.insert(task.id(), slot);
    }

    /// Notes that the runner which a slot took over has ended. Its instance goes with it.
    pub(super) fn runner_ended(&mut self, index: u32) {
        self.running.values_mut().filter(|slot| slot.index == index).for_each(|slot| slot.inherited = None);
    }

    /// Passes an order on to the loop of a slot.
    pub(super) fn order(&self, index: u32, order: StopOrder) {
        self.running.values().filter(|slot| slot.index == index).for_each(|slot| slot.stop.order(order));
    }

    /// Passes an order on to all loops.
    pub(super) fn order_all(&self, order: StopOrder) {
        self.running.values().for_each(|slot| slot.stop.order(order));
    }
}

/// A pool that runs.
#[derive(Debug)]
pub(super) struct RunningPool {
    pub(super) pool: Pool,
    pub(super) rule: FailureRule,
    pub(super) slots: Slots,
    /// Its number, from 0 in the order in which the orchestrator got the pools.
    pub(super) number: u32,
    /// Added to a slot's number in the pool, it is the slot's number in the process.
    pub(super) first: u32,
    /// Stops its sources. They have ended if it has no receiver.
    pub(super) sources: Arc<StopSender>,
    /// Dropped with the pool, it ends the task that removes what its runners have left, once there is nothing.
    _life: StopSender,
    /// Time since which it needs a machine and has none.
    without_since: Option<Instant>,
    /// The number of jobs that wait, as the last fact about it says.
    told_waiting: u32,
    /// The reason why its jobs wait, as it was decided last, and as the last fact about it says.
    wait: Option<Wait>,
    told_wait: Option<Wait>,
    /// The family that it belongs to; none without sizes.
    pub(super) family: Option<Family>,
    /// The scratch space of its next machine.
    expectation: Expectation,
}

impl RunningPool {
    pub(super) fn new(
        pool: Pool,
        rule: FailureRule,
        (number, first): (u32, u32),
        sources: StopSender,
        life: StopSender,
    ) -> Self {
        let sources = Arc::new(sources);
        Self {
            pool,
            rule,
            slots: Slots::default(),
            number,
            first,
            sources,
            _life: life,
            without_since: None,
            told_waiting: 0,
            wait: None,
            told_wait: None,
            family: None,
            expectation: Expectation::default(),
        }
    }

    /// Returns the pool's name, for sources of demand.
    pub(super) fn name(&self) -> &str {
        self.pool.spec.name.as_deref().unwrap_or_default()
    }

    /// Replaces its numbers. The runners that it has are not touched.
    pub(super) fn adjust(&mut self, demand: Demand, weight: u32, scratch_mib: Option<u64>) {
        self.pool.spec =
            Arc::new(PoolSpec { demand, weight, scratch_mib, ..PoolSpec::clone(&self.pool.spec) });
    }

    /// Returns the number of jobs that wait for its runners, if it has changed since the last call. A pool without a name, which
    /// is no pool of a file, has none.
    pub(super) fn news_of_waiting(&mut self, now: Instant) -> Option<u32> {
        self.pool.spec.name.as_ref()?;
        let count = self.slots.jobs_waiting(now);
        (std::mem::replace(&mut self.told_waiting, count) != count).then_some(count)
    }

    /// Notes why its jobs wait. `granted` are the machines that it gets now; `held_by` is the limit that allows no
    /// more.
    pub(super) fn waits_for(&mut self, granted: u32, claim: &Claim, held_by: Option<Wait>, now: Instant) {
        let max = match self.pool.spec.demand {
            Demand::Scaled(scale) => Some(scale.max),
            Demand::Jobs { max } => Some(max),
            Demand::Static { .. } => None,
        };
        let is_held_up = self.slots.is_paused || self.slots.closed;
        self.wait = wait_of(Decided {
            jobs: if is_held_up { 0 } else { self.slots.jobs_waiting(now) },
            alive: claim.machines,
            max,
            family_max: claim.family.map(|family| family.max),
            wanted: claim.wanted,
            granted: granted.min(claim.wanted),
            held_by,
            is_pausing: self.slots.not_before.is_some_and(|at| at > now),
        });
    }

    /// Returns the reason why its jobs wait, if it has changed since the last call. A pool without a name tells none.
    pub(super) fn news_of_wait(&mut self) -> Option<Option<Wait>> {
        self.pool.spec.name.as_ref()?;
        (std::mem::replace(&mut self.told_wait, self.wait) != self.wait).then_some(self.wait)
    }

    pub(super) fn decide(&self, now: Instant) -> Decision {
        decide(&self.pool.spec.demand, &self.slots, now)
    }

    /// Returns the machines that the pool has, and those that a decision asks for. `measured` is none if nothing limits
    /// the scratch space, or if it is not known yet.
    pub(super) fn claim(&mut self, decision: &Decision, measured: Option<&Measured>, now: Instant) -> Claim {
        let machines = self.slots.alive();
        let starts = decision.orders.iter().filter(|order| order.is_start()).count();
        let wanted = u32::try_from(starts).unwrap_or(u32::MAX);
        let (slots, free) = (&self.slots, self.slots.free());
        let (for_jobs, idle) = match self.pool.spec.demand {
            Demand::Scaled(scale) => {
                let needed = wanted_for_jobs(scale, slots, now);
                (needed.saturating_sub(free).min(wanted), free.saturating_sub(needed))
            }
            Demand::Static { .. } | Demand::Jobs { .. } => (wanted, 0),
        };
        let leaving = machines.saturating_sub(slots.busy()).saturating_sub(free);
        let waits = machines == 0 && wanted > 0;
        self.without_since = if waits { self.without_since.or(Some(now)) } else { None };
        let scratch = measured.map_or_else(PoolScratch::default, |measured| self.scratch(measured));
        let scratch_mib = measured.map_or(0, |_| self.expectation.mib());
        Claim {
            weight: self.pool.spec.weight,
            size: Size { scratch_mib, ..size_of(&self.pool) },
            machines,
            wanted,
            for_jobs,
            idle,
            leaving,
            family: self.family,
            scratch,
            without_since: self.without_since,
        }
    }

    fn scratch(&mut self, measured: &Measured) -> PoolScratch {
        let alive = self.slots.slots.values().filter(|slot| slot.stage.is_alive());
        let machines: Vec<Option<&str>> = alive.map(|slot| slot.runner.as_deref()).collect();
        let spec = &self.pool.spec;
        let scratch = self.expectation.of_pool(measured, spec.name.as_deref(), &machines);
        PoolScratch { max_mib: spec.scratch_mib, ..scratch }
    }

    /// Returns the environment directory of a slot.
    pub(super) fn environment_of(&self, common: &Path, index: u32) -> PathBuf {
        environment_in(common, &self.pool.spec.prefix, index)
    }

    /// Starts the loop of a slot. `number` is the slot's number in the pool.
    pub(super) fn start(
        &mut self,
        number: u32,
        purpose: Purpose,
        is_awaited: bool,
        environment: &Path,
        (host, facts, tasks): (&VmHost, &FactSink, &mut Tasks),
    ) {
        // Its next wait for a first machine begins anew, even if this one ends before the next decision.
        self.without_since = None;
        self.slots.started(number, purpose.clone(), is_awaited, Instant::now());
        let slot = RunningSlot::new(self.first + number, None);
        self.spawn(&purpose, slot, environment, (host, facts, tasks));
    }

    /// Starts the loop of a slot that takes a runner over. Returns the slot's number in the pool: that of the loop that had the
    /// runner, if it is free.
    pub(super) fn inherit(
        &mut self,
        inherited: Inherited,
        environment: &Path,
        shared: (&VmHost, &FactSink, &mut Tasks),
    ) -> u32 {
        let is_free =
            |number: &u32| (1..SLOTS_MAX).contains(number) && !self.slots.slots.contains_key(number);
        let earlier = inherited.index.checked_sub(self.first).filter(is_free);
        let number = earlier.or_else(|| (1..SLOTS_MAX).find(is_free)).unwrap_or(SLOTS_MAX);
        let purpose = match self.pool.spec.demand {
            Demand::Static { runners, .. } if number <= runners => Purpose::Place,
            _ => Purpose::Any,
        };
        self.slots.inherited(number, purpose.clone(), &inherited, Instant::now());
        let slot = RunningSlot::new(self.first + number, Some(inherited));
        self.spawn(&purpose, slot, environment, shared);
        number
    }

    /// Starts a new task for a slot whose loop has failed, which takes its runner over.
    pub(super) fn go_on(
        &self,
        number: u32,
        slot: RunningSlot,
        environment: &Path,
        shared: (&VmHost, &FactSink, &mut Tasks),
    ) {
        let purpose = self.slots.slots.get(&number).map_or(Purpose::Any, |slot| slot.purpose.clone());
        self.spawn(&purpose, slot, environment, shared);
    }

    fn spawn(
        &self,
        purpose: &Purpose,
        running: RunningSlot,
        environment: &Path,
        (host, facts, tasks): (&VmHost, &FactSink, &mut Tasks),
    ) {
        let index = running.index;
        let (pool, environment) = (&self.pool, self.environment_of(environment, index));
        let slot = match purpose {
            Purpose::Place => Slot { is_patient: true, ..Slot::new(pool, index, environment) },
            Purpose::Any => Slot::for_one_runner(pool, index, environment),
            Purpose::Job(job) => Slot::for_job(pool, index, environment, job),
        };
        let (pool, host, facts) = (self.pool.clone(), host.clone(), facts.noting_lines(&running.last_line));
        let (inherited, stop) = (running.inherited.clone(), running.stop());
        tasks.spawn(running, async move { run_slot((&pool, &slot, &host), inherited, &facts, stop).await });
    }
}

/// Notes for each pool the jobs that runners of a draining pool of the same name have. The forge still counts them.
pub(super) fn count_busy_elsewhere(pools: &mut [RunningPool]) {
    let draining = pools.iter().filter(|pool| pool.slots.is_draining);
    let busy: Vec<(String, u32)> = draining.map(|pool| (pool.name().to_owned(), pool.slots.busy())).collect();
    for pool in pools.iter_mut().filter(|pool| !pool.slots.is_draining) {
        let same = busy.iter().filter(|(name, _)| name == pool.name());
        pool.slots.busy_elsewhere = same.map(|(_, busy)| busy).sum();
    }
}

impl Order {
    /// Returns true if the order starts a machine.
    pub(super) fn is_start(&self) -> bool {
        matches!(self, Self::Start { .. })
    }
}

/// Returns the size of a pool's machines. Processes of this host are no machines.
fn size_of(pool: &Pool) -> Size {
    match pool.machine.driver {
        Driver::Process(_) => Size::default(),
        _ => Size { vcpus: pool.machine.cpus, memory_mib: pool.machine.memory_mib.into(), scratch_mib: 0 },
    }
}
