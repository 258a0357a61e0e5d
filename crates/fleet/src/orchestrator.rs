//! Runs the slots of a pool side by side: starts them as the demand needs, replaces them if they fail, stops them together.
//!
//! ```text
//!   demand (a number, or jobs) --+
//!   facts of runners ------------+--> slots --> decide (pure) --> orders: start, stop, reassign
//!   ends of loops, time, stop ---+
//! ```
//!
//! A slot is a task of its own, so that a panic in one never touches another. The task is also the seam for other engines:
//! a slot gets its settings and a stop order, and returns facts and an end. All decisions are in [`decide`], without I/O.

mod decide;
mod roster;
mod slots;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use dayfly_vm::VmHost;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use crate::demand::{DemandEvent, DemandReceiver, JobDemand};
use crate::fact::{Fact, FactRecord};
use crate::pool::Pool;
use crate::reaper::reap;
use crate::runner_loop::run_slot;
use crate::slot::{Slot, environment_in};
use crate::stop::{Stop, StopOrder, StopSender};
use crate::stream::FactSink;
use crate::{LoopEnd, RunnerEnd, recovery};
use decide::{Order, decide};
use roster::Roster;
pub use slots::FailureRule;
use slots::{Fate, LoopResult, Slots};

/// Longest wait for a runner of a slot before the next slot starts all the same. A cold boot under emulation on a busy host
/// takes a minute.
pub const UP_LIMIT: Duration = Duration::from_secs(300);

/// A pool to run.
#[derive(Debug, Clone)]
pub struct Orchestration {
    /// The pool.
    pub pool: Pool,
    /// The rule for slots that fail.
    pub rule: FailureRule,
    /// The common environment directory.
    pub environment: PathBuf,
}

/// Runs the slots of a pool until the demand is over and all of them have ended. `jobs` brings the jobs of a demand for
/// jobs; `stop` stops all slots.
pub async fn orchestrate(
    orchestration: Orchestration,
    host: &VmHost,
    facts: &FactSink,
    jobs: Option<DemandReceiver>,
    stop: Stop,
) {
    let (decisive_sender, decisive) = mpsc::unbounded_channel();
    let Pool { leftovers, forge, limits, .. } = orchestration.pool.clone();
    let orchestrator = Orchestrator {
        orchestration,
        host: host.clone(),
        facts: facts.with_decisive(decisive_sender),
        slots: Slots::default(),
        roster: Roster::default(),
        decisive,
        jobs,
        tasks: JoinSet::new(),
        running: HashMap::new(),
        stop,
        ordered: StopOrder::None,
    };
    tokio::select! {
        () = orchestrator.run() => {}
        never = reap(&leftovers, &forge, limits.cleanup, facts) => match never {},
    }
}

struct Orchestrator {
    orchestration: Orchestration,
    host: VmHost,
    facts: FactSink,
    slots: Slots,
    roster: Roster,
    /// Copies of the facts that it decides by; see [`FactSink::with_decisive`].
    decisive: mpsc::UnboundedReceiver<FactRecord>,
    /// None if the demand is static, or once the source of jobs is gone.
    jobs: Option<DemandReceiver>,
    tasks: JoinSet<LoopEnd>,
    /// The slot of each task.
    running: HashMap<Id, RunningSlot>,
    stop: Stop,
    /// The order that was passed on to all slots.
    ordered: StopOrder,
}

struct RunningSlot {
    index: u32,
    stop: StopSender,
}

/// The next thing that an orchestrator has to react to.
enum OrchestratorInput {
    Fact(FactRecord),
    Demand(Option<DemandEvent>),
    Ended(Result<(Id, LoopEnd), JoinError>),
    Ordered(StopOrder),
    Due,
}

impl Orchestrator {
    async fn run(mut self) {
        loop {
            let decision = decide(&self.orchestration.pool.spec.demand, &self.slots, Instant::now());
            for order in decision.orders {
                self.carry_out(order).await;
            }
            if decision.is_finished {
                return;
            }
            match self.next_input(decision.wake).await {
                OrchestratorInput::Fact(record) => self.take_fact(&record),
                OrchestratorInput::Demand(Some(event)) => self.take_demand(event).await,
                OrchestratorInput::Demand(None) => {
                    self.jobs = None;
                    self.slots.take(DemandEvent::Closed);
                }
                OrchestratorInput::Ended(ended) => self.take_end(ended).await,
                OrchestratorInput::Ordered(order) => {
                    self.ordered = order;
                    self.slots.close();
                    self.running.values().for_each(|slot| slot.stop.order(order));
                }
                OrchestratorInput::Due => {}
            }
        }
    }

    async fn next_input(&mut self, wake: Option<Instant>) -> OrchestratorInput {
        let due = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let demand = async {
            match &mut self.jobs {
                Some(jobs) => jobs.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // In this order, so that a slot whose runner took a job is known as such when its loop ends.
            biased;
            order = self.stop.above(self.ordered) => OrchestratorInput::Ordered(order),
            Some(record) = self.decisive.recv() => OrchestratorInput::Fact(record),
            event = demand => OrchestratorInput::Demand(event),
            Some(ended) = self.tasks.join_next_with_id() => OrchestratorInput::Ended(ended),
            () = due => OrchestratorInput::Due,
        }
    }

    async fn carry_out(&mut self, order: Order) {
        match order {
            Order::Start { index, job, is_awaited } => self.start(index, job, is_awaited).await,
            Order::Reassign { index, job } => self.slots.reassigned(index, job),
            Order::Stop { index } => {
                self.slots.stopping(index);
                let slot = self.running.values().find(|slot| slot.index == index);
                slot.into_iter().for_each(|slot| slot.stop.order(StopOrder::Gently));
            }
            Order::StopWaiting { index } => self.stop_waiting(index).await,
        }
    }

    async fn start(&mut self, index: u32, job: Option<JobDemand>, is_awaited: bool) {
        let for_job = job.as_ref().map(|job| job.job);
        self.facts.of_loop(index).tell(Fact::LoopStarted { for_job }).await;
        let slot = self.slot(index, job.as_ref());
        self.slots.started(index, job, is_awaited, Instant::now());
        let (pool, host, facts) = (self.orchestration.pool.clone(), self.host.clone(), self.facts.clone());
        let (sender, stop) = crate::stop::channel();
        let task = self.tasks.spawn(async move { run_slot(&pool, &slot, &host, &facts, stop).await });
        self.running.insert(task.id(), RunningSlot { index, stop: sender });
    }

    fn slot(&self, index: u32, job: Option<&JobDemand>) -> Slot {
        let (pool, environment) = (&self.orchestration.pool, self.environment_of(index));
        match job {
            None => Slot { is_patient: true, ..Slot::new(pool, index, environment) },
            Some(job) => Slot::for_job(pool, index, environment, job),
        }
    }

    fn environment_of(&self, index: u32) -> PathBuf {
        environment_in(&self.orchestration.environment, &self.orchestration.pool.spec.prefix, index)
    }

    async fn take_demand(&mut self, event: DemandEvent) {
        if let DemandEvent::Ended(end) = &event {
            self.roster.tell(end, &self.facts).await;
        }
        self.slots.take(event);
    }

    fn take_fact(&mut self, record: &FactRecord) {
        match &record.fact {
            Fact::Registering => {
                self.slots.named(record.loop_index, record.name());
                record.runner.iter().for_each(|runner| self.roster.begun(record.loop_index, runner.clone()));
            }
            Fact::RunnerUp => self.slots.not_awaited(record.loop_index),
            _ => {}
        }
    }

    async fn take_end(&mut self, ended: Result<(Id, LoopEnd), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(RunningSlot { index, .. }) = self.running.remove(&id) else { return };
        self.roster.ended(index);
        let mut facts = self.facts.of_loop(index);
        let verdict = match ended {
            Ok((_, end)) => {
                if let LoopEnd::Finished(RunnerEnd::MachineLost { exit }) = &end {
                    let message = format!("a machine has ended in the middle of its work: {exit}");
                    facts.tell(Fact::Warning { message }).await;
                }
                judge(&end, self.ordered != StopOrder::None)
            }
            Err(error) => {
                self.clear_up_after(index).await;
                LoopResult::Failed(format!("it failed because of a bug in dayfly: {error}"))
            }
        };
        match self.slots.ended(index, verdict, self.orchestration.rule, Instant::now()) {
            Fate::Finished(how) => self.tell_end(index, how).await,
            Fate::Replaced { why, count, pause } => {
                let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                facts.tell(Fact::LoopReplaced { why, count, pause_ms }).await;
            }
            Fate::GaveUp(why) => {
                facts.tell(Fact::GaveUp { why: why.clone() }).await;
                self.tell_end(index, why).await;
            }
        }
    }

    async fn tell_end(&self, index: u32, how: String) {
        // The directory stays if it is not empty, because other contents are not this slot's.
        let _ = std::fs::remove_dir(self.environment_of(index));
        self.facts.of_loop(index).tell(Fact::LoopEnded { how }).await;
    }

    /// Removes the run of a loop that has panicked: its machine died with it, but its registration and files did not.
    async fn clear_up_after(&mut self, index: u32) {
        let sweep =
            recovery::sweep_loop(&self.orchestration.pool.runs, index, &self.orchestration.pool.forge).await;
        for (run, why) in sweep.left {
            let message = format!("{} is left for now: {why}", run.display());
            self.orchestration.pool.leftovers.add(run);
            self.facts.of_loop(index).tell(Fact::Warning { message }).await;
        }
    }

    async fn stop_waiting(&mut self, index: u32) {
        let waited = self.slots.slots.get(&index).map(|slot| slot.start.elapsed()).unwrap_or_default();
        self.slots.not_awaited(index);
        let message = format!(
            "no runner of loop {index} is up after {} s; the next loop starts nevertheless",
            waited.as_secs()
        );
        self.facts.of_loop(index).tell(Fact::Warning { message }).await;
    }
}

/// Returns the meaning of a loop's end.
fn judge(end: &LoopEnd, stopping: bool) -> LoopResult {
    match end {
        LoopEnd::Finished(RunnerEnd::LifetimeOver) => LoopResult::Finished("its lifetime is over".to_owned()),
        LoopEnd::Finished(RunnerEnd::MachineLost { exit }) => LoopResult::Finished(format!(
            "its runners have ended; the machine of the last one was lost: {exit}"
        )),
        LoopEnd::Finished(_) => LoopResult::Finished("its runners have ended".to_owned()),
        LoopEnd::Stopped => LoopResult::Finished("it was stopped".to_owned()),
        LoopEnd::Broken if stopping => LoopResult::Finished("it was stopped".to_owned()),
        LoopEnd::Failed(error) if stopping => LoopResult::Finished(format!("it was stopped; {error}")),
        // Root in a VM can forge this end. It costs the loop a restart, and the other loops nothing.
        LoopEnd::Broken => {
            LoopResult::Failed("a program in its VM ended it without a request of this host".to_owned())
        }
        LoopEnd::Failed(error) => LoopResult::Failed(error.to_string()),
    }
}
