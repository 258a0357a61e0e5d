//! Takes in the ends of loops: lets a slot end, or replaces it.
//!
//! A loop whose task has panicked loses no job. Its machine was let go, and a new task of the same slot takes the runner over
//! as one of a process that died.

use tokio::task::{Id, JoinError};
use tokio::time::Instant;

use super::Orchestrator;
use super::pool::RunningSlot;
use super::slots::{Fate, LoopResult};
use crate::fact::Fact;
use crate::history::History;
use crate::recovery;
use crate::stop::StopOrder;
use crate::{LoopEnd, RunnerEnd};

impl Orchestrator {
    pub(super) async fn take_end(&mut self, ended: Result<(Id, LoopEnd), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(slot) = self.tasks.running.remove(&id) else { return };
        let index = slot.index;
        let Some(place) = self.place_of(index) else { return self.roster.ended(index) };
        let result = match ended {
            Ok((_, end)) => self.judge(&end, index, place).await,
            Err(panic) => match self.recover(&panic, slot, place).await {
                Some(result) => result,
                None => return,
            },
        };
        self.roster.ended(index);
        self.settle(result, index, place).await;
    }

    async fn judge(&self, end: &LoopEnd, index: u32, (at, _): (usize, u32)) -> LoopResult {
        if let LoopEnd::Finished(RunnerEnd::MachineLost { exit }) = end {
            let message = format!("a machine has ended in the middle of its work: {exit}");
            let mut facts = self.facts.of_pool(&self.pools[at].pool).of_loop(index);
            facts.tell(Fact::Warning { message }).await;
        }
        judge(end, self.ordered != StopOrder::None)
    }

    /// Removes what a loop has left whose task has panicked. If its runner has a machine that lives, a new task of the slot goes
    /// on with the runner, under the orders that the slot had; returns the loop's result if there is none.
    async fn recover(
        &mut self,
        panic: &JoinError,
        mut slot: RunningSlot,
        (at, number): (usize, u32),
    ) -> Option<LoopResult> {
        let pool = &mut self.pools[at];
        let sink = self.facts.of_pool(&pool.pool);
        let mut facts = sink.of_loop(slot.index);
        let history = History::of(&self.host.state);
        let remains = recovery::after_panic((&pool.pool, &history), slot.index, slot.inherited.take()).await;
        for (run, why) in remains.left {
            let message = format!("{} is left for now: {why}", run.display());
            pool.pool.leftovers.add(run);
            facts.tell(Fact::Warning { message }).await;
        }
        let why = format!("it failed because of a bug in dayfly: {panic}");
        let Some(mut inherited) = remains.inherited else { return Some(LoopResult::Failed(why)) };
        let message = format!("{why}; its runner {} goes on", inherited.runner.name);
        facts.tell(Fact::Warning { message }).await;
        inherited.lines_told = slot.last_line.of(&inherited.runner.id);
        pool.slots.goes_on(number, &inherited, Instant::now());
        slot.inherited = Some(inherited);
        pool.go_on(number, slot, &self.environment, (&self.host, &sink, &mut self.tasks));
        None
    }

    async fn settle(&mut self, result: LoopResult, index: u32, (at, number): (usize, u32)) {
        let pool = &mut self.pools[at];
        let mut facts = self.facts.of_pool(&pool.pool).of_loop(index);
        let fate = pool.slots.ended(number, result, pool.rule, Instant::now());
        let is_reused = matches!(&fate, Fate::Replaced { .. }) && pool.slots.slots.contains_key(&number);
        let how = match fate {
            Fate::Finished(how) => how,
            Fate::Replaced { why, count, pause } => {
                let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                facts.tell(Fact::LoopReplaced { why: why.clone(), count, pause_ms }).await;
                why
            }
            Fate::GaveUp(why) => {
                facts.tell(Fact::GaveUp { why: why.clone() }).await;
                why
            }
        };
        if !is_reused {
            // The directory stays if it is not empty, because other contents are not this slot's.
            let _ = std::fs::remove_dir(pool.environment_of(&self.environment, index));
            facts.tell(Fact::LoopEnded { how }).await;
        }
    }

    pub(super) async fn stop_waiting(&mut self, at: usize, number: u32) {
        let pool = &mut self.pools[at];
        let waited = pool.slots.slots.get(&number).map(|slot| slot.start.elapsed()).unwrap_or_default();
        pool.slots.not_awaited(number);
        let index = pool.first + number;
        let message = format!(
            "no runner of loop {index} is up after {} s; the next loop starts nevertheless",
            waited.as_secs()
        );
        self.facts.of_pool(&pool.pool).of_loop(index).tell(Fact::Warning { message }).await;
    }
}

/// Returns the meaning of a loop's end.
fn judge(end: &LoopEnd, stopping: bool) -> LoopResult {
    match end {
        LoopEnd::Finished(RunnerEnd::LifetimeOver) => LoopResult::NoJob("its lifetime is over".to_owned()),
        LoopEnd::Finished(RunnerEnd::MachineLost { exit }) => {
            LoopResult::NoJob(format!("its runners have ended; the machine of the last one was lost: {exit}"))
        }
        LoopEnd::Finished(RunnerEnd::JobDone { .. }) => {
            LoopResult::Finished("its runners have ended".to_owned())
        }
        LoopEnd::Finished(_) => LoopResult::NoJob("its runners have ended".to_owned()),
        LoopEnd::Stopped => LoopResult::NoJob("it was stopped".to_owned()),
        LoopEnd::Broken if stopping => LoopResult::NoJob("it was stopped".to_owned()),
        LoopEnd::Failed(error) if stopping => LoopResult::NoJob(format!("it was stopped; {error}")),
        // Root in a VM can forge this end. It costs the loop a restart, and the other loops nothing.
        LoopEnd::Broken => {
            LoopResult::Failed("a program in its VM ended it without a request of this host".to_owned())
        }
        LoopEnd::Failed(error) => LoopResult::Failed(error.to_string()),
    }
}

#[cfg(test)]
pub(super) mod tests;
