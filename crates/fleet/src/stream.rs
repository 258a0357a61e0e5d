//! The stream of facts: all loops of a process write, one reader passes them on.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::fact::{Fact, FactRecord, Moment, RunnerRef};
use crate::orchestrator::SLOTS_MAX;
use crate::pool::Pool;
use crate::runner_id::RunnerId;

/// Most facts that wait for the reader. Lines beyond it are counted and dropped; all other facts wait.
const QUEUE_LENGTH: usize = 4096;

/// Writes the facts of one runner, or of one loop.
#[derive(Debug, Clone)]
pub struct FactWriter {
    sink: FactSink,
    loop_index: u32,
    runner: Option<RunnerRef>,
    dropped: u64,
}

/// The stream that all loops of a process share.
#[derive(Debug, Clone)]
pub struct FactSink {
    /// The pool whose facts are written; none for a pool without a name.
    pool: Option<Arc<str>>,
    sender: mpsc::Sender<FactRecord>,
    decisive: Option<mpsc::UnboundedSender<FactRecord>>,
    /// Notes the last line.
    last_line: LastLine,
}

/// The number of the last line that a loop has sent, and its runner. Clones share it, so that it is known after a panic of the
/// loop's task, when the runner's log may not have the line yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastLine(Arc<Mutex<Option<(RunnerId, u64)>>>);

impl LastLine {
    /// Returns the number of the last line of a runner; 0 if none was sent.
    pub(crate) fn of(&self, runner: &RunnerId) -> u64 {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(of, _)| of == runner).map_or(0, |(_, number)| *number)
    }

    fn note(&self, runner: &RunnerId, number: u64) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *last {
            Some((of, last)) if of == runner => *last = number,
            _ => *last = Some((runner.clone(), number)),
        }
    }
}

/// Creates the stream.
pub fn channel() -> (FactSink, mpsc::Receiver<FactRecord>) {
    let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
    (FactSink { pool: None, sender, decisive: None, last_line: LastLine::default() }, receiver)
}

impl FactSink {
    /// Returns the same stream with a copy of each decisive fact for an orchestrator. Its queue needs no bound, because each
    /// runner has three such facts.
    pub(crate) fn with_decisive(&self, decisive: mpsc::UnboundedSender<FactRecord>) -> Self {
        Self { decisive: Some(decisive), ..self.clone() }
    }

    /// Returns the same stream, which notes the number of its last line.
    pub(crate) fn noting_lines(&self, last_line: &LastLine) -> Self {
        Self { last_line: last_line.clone(), ..self.clone() }
    }

    /// Returns the same stream for the facts of a pool.
    pub(crate) fn of_pool(&self, pool: &Pool) -> Self {
        Self { pool: pool.spec.name.as_deref().map(Arc::from), ..self.clone() }
    }

    /// Returns the writer for the facts of a pool that the orchestrator of this process does not have yet. `number` tells several
    /// such pools apart.
    pub fn of_waiting_pool(&self, name: &str, number: u32) -> FactWriter {
        // The numbers of the others begin at 0.
        let first = (u32::MAX / SLOTS_MAX - number) * SLOTS_MAX;
        Self { pool: Some(Arc::from(name)), ..self.clone() }.of_loop(first)
    }

    /// Returns the writer for the facts of one loop as a whole.
    pub fn of_loop(&self, loop_index: u32) -> FactWriter {
        FactWriter { sink: self.clone(), loop_index, runner: None, dropped: 0 }
    }

    /// Returns the writer for the facts of one runner.
    pub fn of(&self, loop_index: u32, runner: &RunnerId, name: &str) -> FactWriter {
        let runner = RunnerRef { id: runner.clone(), name: name.to_owned() };
        FactWriter { sink: self.clone(), loop_index, runner: Some(runner), dropped: 0 }
    }
}

impl FactWriter {
    /// Returns a fact of this writer's runner or loop, with the current time.
    pub(crate) fn record(&self, fact: Fact) -> FactRecord {
        FactRecord {
            at: Moment::now(),
            pool: self.sink.pool.as_deref().map(str::to_owned),
            loop_index: self.loop_index,
            runner: self.runner.clone(),
            fact,
        }
    }

    /// Sends a fact with the current time; see [`FactWriter::send`].
    pub async fn tell(&mut self, fact: Fact) {
        self.send(self.record(fact)).await;
    }

    /// Sends a fact, unless it only announces a step. A line never waits for a slow reader; every other fact does, so that
    /// no state is lost. A closed stream is no error, because the journal has the durable facts.
    pub(crate) async fn send(&mut self, record: FactRecord) {
        if record.fact.is_intent() {
            return;
        }
        if let Fact::Line { number, .. } = record.fact {
            match self.sink.sender.try_send(record) {
                Ok(()) => self.runner.iter().for_each(|runner| self.sink.last_line.note(&runner.id, number)),
                Err(_) => self.dropped += 1,
            }
            return;
        }
        if self.dropped > 0 {
            let count = std::mem::take(&mut self.dropped);
            let _ = self.sink.sender.send(self.record(Fact::LinesDropped { count })).await;
        }
        let decisive = self.sink.decisive.as_ref().filter(|_| record.fact.is_decisive());
        let copy = decisive.map(|decisive| (decisive, record.clone()));
        let _ = self.sink.sender.send(record).await;
        // After the fact itself, so that the facts that follow from a decision come later in the stream.
        if let Some((decisive, copy)) = copy {
            let _ = decisive.send(copy);
        }
    }
}

#[cfg(test)]
mod tests {
    use dayfly_guest::protocol::Source;

    use super::*;

    #[tokio::test]
    async fn the_last_line_of_a_runner_is_known_without_its_writer() {
        let (sink, _receiver) = channel();
        let (first, second) = (RunnerId::random(0), RunnerId::random(0));
        let last_line = LastLine::default();
        let line = |number| Fact::Line { number, source: Source::Agent, text: String::new() };
        let mut facts = sink.noting_lines(&last_line).of(0, &first, "x");
        facts.tell(line(1)).await;
        facts.tell(line(2)).await;
        drop(facts);
        assert_eq!((last_line.of(&first), last_line.of(&second)), (2, 0));
        sink.noting_lines(&last_line).of(0, &second, "y").tell(line(1)).await;
        assert_eq!((last_line.of(&first), last_line.of(&second)), (0, 1));
    }

    #[tokio::test]
    async fn lines_that_nobody_reads_are_counted_not_kept() {
        let (sink, mut receiver) = channel();
        let id = RunnerId::random(0);
        let mut facts = sink.of(0, &id, "x");
        for _ in 0..QUEUE_LENGTH + 10 {
            facts.tell(Fact::Line { number: 1, source: Source::Agent, text: "flood".to_owned() }).await;
        }
        for _ in 0..QUEUE_LENGTH {
            receiver.recv().await.expect("a line");
        }
        facts.tell(Fact::AgentHello).await;
        assert_eq!(receiver.recv().await.expect("count").fact, Fact::LinesDropped { count: 10 });
        assert_eq!(receiver.recv().await.expect("hello").fact, Fact::AgentHello);
    }
}
