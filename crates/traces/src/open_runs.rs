//! The runs that have not ended: the fold of their facts. Pure.

use std::collections::HashMap;

use dayfly_fleet::RunnerId;
use dayfly_fleet::fact::{Fact, FactRecord};
use dayfly_fleet::history::{Entry, RunRecord};

/// Most runs that are remembered at a time. An orchestrator has at most 999 for each pool.
const RUNS_MAX: usize = 8192;

/// The runs that have not ended.
#[derive(Debug, Default)]
pub(crate) struct OpenRuns {
    runs: HashMap<RunnerId, OpenRun>,
}

#[derive(Debug)]
struct OpenRun {
    record: RunRecord,
    /// False if another process has seen its first facts.
    is_whole: bool,
}

/// An order for the exporter about the trace of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// The run has ended.
    Ended(Box<RunRecord>),
    /// A run has ended whose first facts are in the history only, because this process has taken it over.
    EndedTakenOver(RunnerId),
    /// The forge has reported the end of the job of a run that has ended before.
    Concluded(Box<FactRecord>),
}

impl OpenRuns {
    /// Takes a fact in.
    pub(crate) fn take(&mut self, fact: &FactRecord) -> Option<Told> {
        let id = &fact.runner.as_ref()?.id;
        if !self.runs.contains_key(id) {
            if matches!(fact.fact, Fact::JobConcluded { .. }) {
                return Some(Told::Concluded(Box::new(fact.clone())));
            }
            self.begin(id, fact)?;
        }
        match fact.fact {
            Fact::Ended => {
                let OpenRun { record, is_whole } = self.runs.remove(id)?;
                return Some(if is_whole {
                    Told::Ended(Box::new(record))
                } else {
                    Told::EndedTakenOver(id.clone())
                });
            }
            // The next process reports its end.
            Fact::VmHandedOver => drop(self.runs.remove(id)),
            _ => take_into(&mut self.runs.get_mut(id)?.record, fact),
        }
        None
    }

    /// Begins a run with its first fact. Others may come after the end of a run, and begin none.
    fn begin(&mut self, id: &RunnerId, fact: &FactRecord) -> Option<()> {
        let begins = matches!(
            fact.fact,
            Fact::Pulled
                | Fact::Registering
                | Fact::ImagePhase { .. }
                | Fact::TemplateBuilding { .. }
                | Fact::TemplateWaiting { .. }
                | Fact::VmmStarted { .. }
                | Fact::VmTakenOver { .. }
        );
        if !begins || self.runs.len() >= RUNS_MAX {
            return None;
        }
        let mut record = RunRecord::new(&entry_of(fact)?);
        record.times.slot = Some(fact.at.ms());
        let is_whole = !matches!(fact.fact, Fact::VmTakenOver { .. });
        self.runs.insert(id.clone(), OpenRun { record, is_whole });
        Some(())
    }
}

/// Takes a fact of a run into its record.
pub(crate) fn take_into(record: &mut RunRecord, fact: &FactRecord) {
    if let Some(entry) = entry_of(fact) {
        record.take(&entry);
    }
}

fn entry_of(fact: &FactRecord) -> Option<Entry> {
    Some(Entry {
        runner: fact.runner.clone()?,
        pool: fact.pool.clone(),
        loop_index: fact.loop_index,
        facts: vec![(fact.at, fact.fact.clone())],
    })
}
