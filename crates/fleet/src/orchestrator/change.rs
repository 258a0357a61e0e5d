//! Changes of the pools while they run: a pool comes, goes, or gets other numbers.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::pool::{PoolRun, RunningPool};
use super::{Budget, Orchestrator, SLOTS_MAX, ahead};
use crate::demand::{self, Demand, Predecessors};
use crate::fact::Fact;
use crate::history::History;
use crate::reaper::reap_until;
use crate::stop::{self, StopOrder, StopSender};

/// Most sets of changes that wait for an orchestrator. It takes each at once.
pub const CHANGES_MAX: usize = 16;

/// Changes that an orchestrator makes together, in this order.
pub type Changes = Vec<PoolChange>;

/// A change of the pools. A name means the pool of that name that does not drain.
#[derive(Debug)]
pub enum PoolChange {
    /// Drain a pool: its sources and its idle runners end, its busy runners end with their job, and no other one starts.
    Drain {
        /// Its name.
        pool: String,
    },
    /// Start a pool. Its sources begin once those of all pools that drain have ended.
    Add(Box<PoolRun>),
    /// Change the numbers of a pool.
    Adjust {
        /// Its name.
        pool: String,
        /// Its demand, of the same kind as before.
        demand: Demand,
        /// Its weight.
        weight: u32,
        /// Most scratch space of its machines, MiB; none: no limit of its own.
        scratch_mib: Option<u64>,
    },
    /// Pause a pool: its idle runners end, its busy runners end with their job, and no other one starts. Its sources go on.
    Pause {
        /// Its name.
        pool: String,
    },
    /// End the pause of a pool.
    Resume {
        /// Its name.
        pool: String,
    },
    /// Replace the limits for all machines together.
    Budget(Budget),
    /// Drain all pools, and end after the last runner. Further changes are refused.
    End,
}

impl Orchestrator {
    /// Makes changes.
    pub(super) async fn take_changes(&mut self, changes: Changes) {
        let mut before = self.ending_sources();
        for change in changes {
            match change {
                PoolChange::Budget(budget) => self.budget = budget,
                PoolChange::Drain { pool } => {
                    let Some(first) = self.live(&pool).map(|pool| pool.first) else { continue };
                    before.extend(self.drain(first).await);
                }
                PoolChange::Pause { pool } => self.set_paused(&pool, true).await,
                PoolChange::Resume { pool } => self.set_paused(&pool, false).await,
                PoolChange::End => {
                    let live = self.pools.iter().filter(|pool| !pool.slots.is_draining);
                    for first in live.map(|pool| pool.first).collect::<Vec<_>>() {
                        before.extend(self.drain(first).await);
                    }
                    self.changes = None;
                }
                PoolChange::Add(run) => {
                    let first = self.add(*run, &before);
                    self.tell(first, Fact::PoolAdded).await;
                }
                PoolChange::Adjust { pool, demand, weight, scratch_mib } => {
                    let Some(pool) = self.live(&pool) else { continue };
                    pool.adjust(demand, weight, scratch_mib);
                    let first = pool.first;
                    self.tell(first, Fact::PoolAdjusted).await;
                }
            }
        }
        self.ending = before;
    }

    /// Starts a pool: its sources after those of `before`, and everything that its slots need. Returns the number before that
    /// of its first slot.
    pub(super) fn add(&mut self, run: PoolRun, before: &Predecessors) -> u32 {
        let PoolRun { pool, rule, sources, inherited } = run;
        let first = free_range(&self.pools.iter().map(|pool| pool.first).collect::<Vec<_>>());
        let (source_stop, stop) = stop::channel();
        let (life, mut over) = stop::channel();
        let beside = &mut self.beside;
        [&mut beside.sources, &mut beside.preparing, &mut beside.reapers].into_iter().for_each(forget_ended);
        let number = self.added;
        self.added += 1;
        let demand = self.sender.of(number);
        demand::start(sources, (&pool, first), (&demand, before), (&self.facts, &stop), &mut beside.sources);
        ahead::start((&pool, first), &self.host, (&self.facts, &stop), &mut beside.preparing);
        let (leftovers, forge, retry) = (pool.leftovers.clone(), pool.forge.clone(), pool.limits.cleanup);
        let (facts, history) = (self.facts.of_pool(&pool), History::of(&self.host.state));
        beside.reapers.spawn(async move {
            let over = async {
                over.above(StopOrder::None).await;
            };
            reap_until(over, &leftovers, &forge, retry, (&facts, &history)).await;
        });
        let mut running = RunningPool::new(pool, rule, (number, first), source_stop, life);
        for inherited in inherited {
            let (runner, facts) = (inherited.runner.clone(), self.facts.of_pool(&running.pool));
            let number = running.inherit(inherited, &self.environment, (&self.host, &facts, &mut self.tasks));
            self.roster.begun(first + number, runner);
        }
        self.pools.push(running);
        first
    }

    /// Drains the pool whose slots begin at this number. Returns its sources, which end.
    async fn drain(&mut self, first: u32) -> Option<Arc<StopSender>> {
        let pool = self.pools.iter_mut().find(|pool| pool.first == first)?;
        pool.slots.drain();
        pool.sources.order(StopOrder::Gently);
        let sources = pool.sources.clone();
        self.tell(first, Fact::PoolDraining).await;
        Some(sources)
    }

    /// Pauses or resumes a pool, unless it is so already.
    async fn set_paused(&mut self, pool: &str, is_paused: bool) {
        let Some(pool) = self.live(pool).filter(|pool| pool.slots.is_paused != is_paused) else { return };
        pool.slots.is_paused = is_paused;
        let first = pool.first;
        self.tell(first, if is_paused { Fact::PoolPaused } else { Fact::PoolResumed }).await;
    }

    /// Tells the number of jobs that wait, and why they do, of each pool for which it has changed.
    pub(super) async fn tell_waiting(&mut self, now: Instant) {
        let news = self.pools.iter_mut().filter_map(|pool| Some((pool.first, pool.news_of_waiting(now)?)));
        for (first, count) in news.collect::<Vec<_>>() {
            self.tell(first, Fact::JobsWaiting { count }).await;
        }
        let news = self.pools.iter_mut().filter_map(|pool| Some((pool.first, pool.news_of_wait()?)));
        for (first, why) in news.collect::<Vec<_>>() {
            self.tell(first, Fact::PoolWaits { why }).await;
        }
    }

    /// Removes the pools that have drained.
    pub(super) async fn remove_drained(&mut self, finished: &[bool]) {
        let pools = self.pools.iter().zip(finished);
        let over: Vec<u32> = pools
            .filter(|(pool, is_finished)| pool.slots.is_draining && **is_finished)
            .map(|(pool, _)| pool.first)
            .collect();
        for first in over {
            self.tell(first, Fact::PoolDrained).await;
            self.pools.retain(|pool| pool.first != first);
            self.host.templates.user_is_gone();
        }
    }

    /// Returns the sources that were told to end and have not ended.
    fn ending_sources(&mut self) -> Predecessors {
        let mut ending = std::mem::take(&mut self.ending);
        ending.retain(|sources| !sources.is_ended());
        ending
    }

    fn live(&mut self, name: &str) -> Option<&mut RunningPool> {
        self.pools.iter_mut().find(|pool| pool.name() == name && !pool.slots.is_draining)
    }

    /// Tells a fact of the pool whose slots begin at this number.
    async fn tell(&self, first: u32, fact: Fact) {
        let Some(pool) = self.pools.iter().find(|pool| pool.first == first) else { return };
        self.facts.of_pool(&pool.pool).of_loop(first).tell(fact).await;
    }
}

/// Returns the lowest number at which the slots of another pool can begin.
fn free_range(used: &[u32]) -> u32 {
    (0..).step_by(SLOTS_MAX as usize).find(|first| !used.contains(first)).unwrap_or(u32::MAX)
}

/// Drops the results of tasks that have ended.
fn forget_ended(tasks: &mut JoinSet<()>) {
    while tasks.try_join_next().is_some() {}
}

#[cfg(test)]
pub(super) mod tests;
