//! Runs the slots of pools side by side: starts them as the demand needs, replaces them if they fail, stops them together.
//!
//! ```text
//!   demand (a number, or jobs) --+
//!   facts of runners ------------+--> slots of each pool --> decide (pure) --> share (pure) --> orders: start, retire,
//!   ends of loops, time, stop ---+                                             the budget       stop, reassign
//! ```
//!
//! A slot is a task of its own, so that a panic in one never touches another. The task is also the seam for other engines:
//! a slot gets its settings and a stop order, and returns facts and an end. All decisions are in [`decide`] and [`budget`], without I/O.

mod ahead;
mod book;
mod budget;
mod change;
mod decide;
mod ends;
mod family;
mod heartbeat;
mod neighbours;
mod pool;
mod roster;
mod scratch;
#[cfg(test)]
mod simulation;
mod slots;
mod wait;

use std::path::PathBuf;
use std::time::Duration;

use dayfly_vm::VmHost;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use crate::LoopEnd;
use crate::demand::{self, DemandEvent, DemandReceiver, DemandSender, PoolDemand, Predecessors};
use crate::fact::{Fact, FactRecord, Moment};
use crate::history::History;
use crate::pool::Pool;
use crate::reaper::{LAST_ATTEMPT, reap_once};
use crate::stop::{Stop, StopOrder};
use crate::stream::FactSink;
use book::{JobBook, JobNews};
pub use budget::{Budget, Scarce};
pub use change::{CHANGES_MAX, Changes, PoolChange};
use decide::{Decision, Order};
pub use heartbeat::Heartbeat;
use neighbours::Neighbours;
pub use pool::PoolRun;
use pool::{RunningPool, Tasks};
use roster::Roster;
use scratch::Scratch;
pub use slots::FailureRule;
pub use wait::Wait;

/// Longest wait for a runner of a slot before the next slot starts all the same. A cold boot under emulation on a busy host
/// takes a minute.
pub const UP_LIMIT: Duration = Duration::from_secs(300);
/// Most slots of a pool, if a process runs several: the slots of the second pool have the numbers from this one on.
pub const SLOTS_MAX: u32 = 1000;

/// The pools to run.
#[derive(Debug)]
pub struct Orchestration {
    /// The pools. Each has a name of its own if there are several.
    pub pools: Vec<PoolRun>,
    /// The limits for all their machines together, and for those of other processes.
    pub budget: Budget,
    /// The common environment directory.
    pub environment: PathBuf,
    /// Changes of the pools while they run; none: they stay as they are.
    pub changes: Option<mpsc::Receiver<Changes>>,
    /// True if [`orchestrate`] returns once the demand of all pools is over. If not, only a stop order or [`PoolChange::End`] ends
    /// it, because a change may bring new demand.
    pub ends_with_demand: bool,
    /// The sign of life for a watchdog.
    pub heartbeat: Option<Heartbeat>,
}

/// Runs the slots of pools until their demand is over and all slots have ended. `jobs` brings the jobs that the caller knows
/// of; `stop` stops all slots and sources.
pub async fn orchestrate(
    orchestration: Orchestration,
    host: &VmHost,
    facts: &FactSink,
    jobs: Option<DemandReceiver>,
    stop: Stop,
) {
    let mut orchestrator = Orchestrator::new(orchestration, host, facts, jobs, stop);
    orchestrator.run().await;
    orchestrator.reap_at_the_end().await;
    // A pool that is gone stops its sources. The end of a session at the forge has a limit of its own.
    orchestrator.pools.clear();
    while orchestrator.beside.sources.join_next().await.is_some() {}
}

struct Orchestrator {
    pools: Vec<RunningPool>,
    budget: Budget,
    neighbours: Neighbours,
    scratch: Scratch,
    environment: PathBuf,
    host: VmHost,
    facts: FactSink,
    roster: Roster,
    book: JobBook,
    /// Copies of the facts that it decides by; see [`FactSink::with_decisive`].
    decisive: mpsc::UnboundedReceiver<FactRecord>,
    /// None once the caller's jobs are over.
    demand: Option<DemandReceiver>,
    /// For the sources of further pools.
    sender: DemandSender,
    changes: Option<mpsc::Receiver<Changes>>,
    ends_with_demand: bool,
    heartbeat: Option<Heartbeat>,
    /// Number of pools that it has got.
    added: u32,
    tasks: Tasks,
    beside: Beside,
    /// The sources of pools that drain, until they have ended.
    ending: Predecessors,
    stop: Stop,
    /// The order that was passed on to all slots.
    ordered: StopOrder,
}

/// The tasks beside the slots.
#[derive(Debug, Default)]
struct Beside {
    /// The sources of demand.
    sources: JoinSet<()>,
    /// The preparations of templates.
    preparing: JoinSet<()>,
    /// They remove what runners have left.
    reapers: JoinSet<()>,
}

/// The next thing that an orchestrator has to react to.
enum OrchestratorInput {
    Fact(FactRecord),
    Changes(Option<Changes>),
    Demand(Option<PoolDemand>),
    Ended(Result<(Id, LoopEnd), JoinError>),
    Ordered(StopOrder),
    Measured,
    Due,
}

impl Orchestrator {
    /// Returns an orchestrator with its pools, before their first slots.
    fn new(
        orchestration: Orchestration,
        host: &VmHost,
        facts: &FactSink,
        jobs: Option<DemandReceiver>,
        stop: Stop,
    ) -> Self {
        let Orchestration { pools, budget, environment, changes, ends_with_demand, heartbeat } =
            orchestration;
        let (decisive_sender, decisive) = mpsc::unbounded_channel();
        let (sender, receiver) = demand::channel();
        let mut orchestrator = Self {
            pools: Vec::new(),
            budget,
            neighbours: Neighbours::default(),
            scratch: Scratch::default(),
            environment,
            host: host.clone(),
            facts: facts.with_decisive(decisive_sender),
            roster: Roster::default(),
            book: JobBook::default(),
            decisive,
            demand: Some(jobs.unwrap_or(receiver)),
            sender,
            changes,
            ends_with_demand,
            heartbeat,
            added: 0,
            tasks: Tasks::default(),
            beside: Beside::default(),
            ending: Predecessors::new(),
            stop,
            ordered: StopOrder::None,
        };
        for run in pools {
            orchestrator.add(run, &Predecessors::new());
        }
        orchestrator
    }

    async fn run(&mut self) {
        loop {
            let now = Instant::now();
            let decisions = self.decide(now).await;
            self.tell_waiting(now).await;
            self.tell_scratch().await;
            let next_beat = self.heartbeat.as_mut().map(|heartbeat| heartbeat.beat(now));
            let wake = decisions.iter().filter_map(|decision| decision.wake).chain(next_beat).min();
            let finished: Vec<bool> = decisions.iter().map(|decision| decision.is_finished).collect();
            for (at, decision) in decisions.into_iter().enumerate() {
                for order in decision.orders {
                    self.carry_out(at, order).await;
                }
            }
            self.remove_drained(&finished).await;
            let may_end = self.ends_with_demand || self.changes.is_none();
            if may_end && finished.iter().all(|is_finished| *is_finished) {
                return;
            }
            match self.next_input(wake).await {
                OrchestratorInput::Fact(record) => self.take_fact(&record),
                OrchestratorInput::Changes(Some(changes)) => self.take_changes(changes).await,
                OrchestratorInput::Changes(None) => self.changes = None,
                OrchestratorInput::Demand(Some(demand)) => self.take_demand(demand).await,
                OrchestratorInput::Demand(None) => {
                    self.demand = None;
                    self.pools.iter_mut().for_each(|pool| pool.slots.take(DemandEvent::Closed));
                }
                OrchestratorInput::Ended(ended) => self.take_end(ended).await,
                OrchestratorInput::Ordered(order) => {
                    self.ordered = order;
                    // Further changes are refused.
                    self.changes = None;
                    for pool in &mut self.pools {
                        pool.slots.close();
                        pool.sources.order(order);
                    }
                    self.tasks.order_all(order);
                }
                OrchestratorInput::Measured | OrchestratorInput::Due => {}
            }
        }
    }

    /// Decides for each pool, and leaves out the starts that the budget does not allow. These are decided again at the
    /// next input, and room comes with one: the end of a slot, or a measurement of the scratch space. Only the machines
    /// of other processes end without an input, and idle runners give up their places after some time.
    async fn decide(&mut self, now: Instant) -> Vec<Decision> {
        pool::count_busy_elsewhere(&mut self.pools);
        family::settle(&mut self.pools, now);
        let mut decisions: Vec<Decision> = self.pools.iter().map(|pool| pool.decide(now)).collect();
        self.measure_scratch();
        let measured = self.scratch.latest();
        let pools = self.pools.iter_mut().zip(&decisions);
        let mut claims: Vec<_> =
            pools.map(|(pool, decision)| pool.claim(decision, measured.as_deref(), now)).collect();
        let budget = self.neighbours.leave(self.budget, &claims, now).await;
        let budget = budget.beside_scratch(measured.map_or(0, |measured| measured.total_mib), &claims);
        budget::fit_alone(&budget, &mut claims);
        let is_unknown = self.scratch.is_unknown();
        let shares = if is_unknown { vec![0; claims.len()] } else { budget::share(&budget, &claims, now) };
        let yielded = budget::yielded(&budget, &claims, &shares, now);
        for ((pool, decision), yielded) in self.pools.iter_mut().zip(&mut decisions).zip(yielded) {
            if yielded > 0 {
                pool.slots.yielded = pool.slots.yielded.max(yielded);
                *decision = pool.decide(now);
            }
        }
        for (index, pool) in self.pools.iter_mut().enumerate() {
            let claim = &claims[index];
            let is_held = shares[index] < claim.wanted;
            let scarce = is_held.then(|| budget::scarce(&budget, &claims, &shares, index)).flatten();
            let held_by = match scarce {
                _ if is_unknown => Some(Wait::Measuring),
                // The whole limit, although machines of other processes may use some of it.
                Some(scarce) => {
                    self.budget.limit_of(scarce, claim).map(|limit| Wait::Budget { scarce, limit })
                }
                None => None,
            };
            pool.waits_for(shares[index], claim, held_by, now);
        }
        for ((decision, claim), mut left) in decisions.iter_mut().zip(&claims).zip(shares) {
            if left < claim.wanted {
                let patience = budget::loses_patience(claim).filter(|at| *at > now);
                let wakes = [decision.wake, self.neighbours.next_look(), patience];
                decision.wake = wakes.into_iter().flatten().min();
            }
            decision.orders.retain(|order| {
                let is_allowed = !order.is_start() || left > 0;
                left -= u32::from(is_allowed && order.is_start());
                is_allowed
            });
        }
        decisions
    }

    /// Tries once more to remove what runners have left, unless a next start follows at once.
    async fn reap_at_the_end(&mut self) {
        self.beside.reapers.shutdown().await;
        if self.ordered == StopOrder::HandOver {
            return;
        }
        let history = History::of(&self.host.state);
        let all = async {
            for Pool { leftovers, forge, .. } in self.pools.iter().map(|pool| &pool.pool) {
                reap_once(leftovers, forge, (&self.facts, &history)).await;
            }
        };
        let _ = tokio::time::timeout(LAST_ATTEMPT, all).await;
    }

    async fn next_input(&mut self, wake: Option<Instant>) -> OrchestratorInput {
        let due = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let demand = async {
            match &mut self.demand {
                Some(demand) => demand.recv().await,
                None => std::future::pending().await,
            }
        };
        let changes = async {
            match &mut self.changes {
                Some(changes) => changes.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // In this order, so that a slot whose runner took a job is known as such when its loop ends.
            biased;
            order = self.stop.above(self.ordered) => OrchestratorInput::Ordered(order),
            Some(record) = self.decisive.recv() => OrchestratorInput::Fact(record),
            changes = changes => OrchestratorInput::Changes(changes),
            demand = demand => OrchestratorInput::Demand(demand),
            Some(ended) = self.tasks.ends.join_next_with_id() => OrchestratorInput::Ended(ended),
            () = self.scratch.measured() => OrchestratorInput::Measured,
            () = due => OrchestratorInput::Due,
        }
    }

    async fn carry_out(&mut self, at: usize, order: Order) {
        let pool = &mut self.pools[at];
        match order {
            Order::Start { index, purpose, is_awaited } => {
                let facts = self.facts.of_pool(&pool.pool);
                let for_job = purpose.job().map(|job| job.job);
                facts.of_loop(pool.first + index).tell(Fact::LoopStarted { for_job }).await;
                let shared = (&self.host, &facts, &mut self.tasks);
                pool.start(index, purpose, is_awaited, &self.environment, shared);
            }
            Order::Reassign { index, job } => pool.slots.reassigned(index, job),
            Order::Retire { index } => {
                pool.slots.retiring(index);
                self.tasks.order(pool.first + index, StopOrder::WhenIdle);
            }
            Order::Stop { index } => {
                pool.slots.stopping(index);
                self.tasks.order(pool.first + index, StopOrder::Gently);
            }
            Order::StopWaiting { index } => self.stop_waiting(at, index).await,
        }
    }

    /// Returns the place of a slot's pool, and the slot's number in it. `index` is the slot's number in the process.
    fn place_of(&self, index: u32) -> Option<(usize, u32)> {
        // The slots of the only pool may have any number.
        let is_only = self.pools.len() == 1;
        let number_in = |pool: &RunningPool| {
            let number = index.checked_sub(pool.first);
            number.filter(|number| is_only || *number < SLOTS_MAX)
        };
        self.pools.iter().enumerate().find_map(|(at, pool)| Some((at, number_in(pool)?)))
    }

    async fn take_demand(&mut self, demand: PoolDemand) {
        let Some(pool) = self.pools.iter_mut().find(|pool| pool.number == demand.pool) else { return };
        let facts = self.facts.of_pool(&pool.pool);
        if let Some(news) = self.book.take(demand.pool, &demand.event, Moment::now().ms()) {
            tell_of_job(news, (&self.roster, pool.first), &facts).await;
        }
        if let DemandEvent::Ended(end) = &demand.event {
            self.roster.tell(end, &facts).await;
        }
        let taken = matches!(demand.event, DemandEvent::Taken { .. }).then(|| demand.event.clone());
        pool.slots.take(demand.event);
        let name = pool.name().to_owned();
        if let Some(taken) = taken {
            // The source may tell of a runner that the pool's predecessor has started.
            let draining = self.pools.iter_mut().filter(|pool| pool.slots.is_draining && pool.name() == name);
            draining.for_each(|pool| pool.slots.take(taken.clone()));
        }
    }

    fn take_fact(&mut self, record: &FactRecord) {
        let Some((at, number)) = self.place_of(record.loop_index) else { return };
        let pool = &mut self.pools[at];
        match &record.fact {
            Fact::Registering => {
                pool.slots.named(number, record.name());
                record.runner.iter().for_each(|runner| self.roster.begun(record.loop_index, runner.clone()));
            }
            Fact::RunnerUp => pool.slots.is_up(number, Instant::now()),
            Fact::Ended => self.tasks.runner_ended(record.loop_index),
            _ => {}
        }
    }
}

/// Tells the news about a job: as a fact of its runner if it has one here, else as one of the pool.
async fn tell_of_job(news: JobNews, (roster, first): (&Roster, u32), facts: &FactSink) {
    let fact = match news {
        JobNews::Seen(job) => Fact::JobSeen { job: Box::new(job) },
        JobNews::Left(id) => Fact::JobLeft { id },
        JobNews::Taken { job, runner } => {
            if let Some((index, runner)) = roster.find(&runner) {
                facts.of(index, &runner.id, &runner.name).tell(Fact::JobTaken { job: Box::new(job) }).await;
                return;
            }
            Fact::JobLeft { id: job.id }
        }
    };
    facts.of_loop(first).tell(fact).await;
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::change::tests::pool_of_processes;
    pub(crate) use super::ends::tests::lab;
}
