//! The writing end, for the loop of the process.

use dayfly_fleet::fact::{Fact, FactRecord};
use tokio::sync::mpsc;

use crate::counts::TraceCounts;
use crate::open_runs::{OpenRuns, Told};

/// Takes the facts of a process in, and never waits.
#[derive(Debug)]
pub struct TraceWriter {
    runs: OpenRuns,
    queue: mpsc::Sender<Told>,
    counts: TraceCounts,
}

impl TraceWriter {
    pub(crate) fn new(queue: mpsc::Sender<Told>, counts: TraceCounts) -> Self {
        Self { runs: OpenRuns::default(), queue, counts }
    }

    /// Takes a fact in. If it ends a run and the queue is full, the run's trace is dropped and counted.
    pub fn take(&mut self, fact: &FactRecord) {
        // There are thousands of lines a second, and no span shows them.
        if matches!(fact.fact, Fact::Line { .. }) {
            return;
        }
        let Some(told) = self.runs.take(fact) else { return };
        let is_trace = !matches!(told, Told::Concluded(_));
        if self.queue.try_send(told).is_err() && is_trace {
            self.counts.lose(1);
        }
    }
}
