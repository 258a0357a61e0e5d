//! An entry of the history: some facts of one run, in a line of JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fact::{Fact, FactRecord, Moment, OverHow, RunnerRef};

/// Most facts of an entry. A guest can cause many by printing the lines of a runner app; the first and the last ones are kept.
const FACTS_MAX: usize = 200;

/// Some facts of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The runner.
    pub runner: RunnerRef,
    /// Name of its pool; none for a pool of a command line.
    pub pool: Option<String>,
    /// Number of its loop.
    pub loop_index: u32,
    /// The facts, with their times.
    pub facts: Vec<(Moment, Fact)>,
}

/// An entry as it is written. It has the fields that all facts of a run share once.
#[derive(Serialize, Deserialize)]
struct WrittenEntry {
    #[serde(flatten)]
    runner: RunnerRef,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pool: Option<String>,
    #[serde(rename = "loop")]
    loop_index: u32,
    /// Values, so that a fact of a later version does not make the others unreadable.
    facts: Vec<Value>,
}

/// A fact as it is written.
#[derive(Serialize, Deserialize)]
struct WrittenFact {
    at_us: u64,
    #[serde(flatten)]
    fact: Fact,
}

impl Entry {
    /// Returns the entry of a run with these facts; none if no fact names a runner.
    pub(super) fn of(records: &[FactRecord]) -> Option<Self> {
        let first = records.iter().find(|record| record.runner.is_some())?;
        let runner = first.runner.clone()?;
        let of_run = records.iter().filter(|record| record.runner.as_ref() == Some(&runner));
        let mut facts: Vec<_> = of_run.map(|record| (record.at, slim(&record.fact))).collect();
        if facts.len() > FACTS_MAX {
            facts.drain(FACTS_MAX / 2..facts.len() - FACTS_MAX / 2);
        }
        Some(Self { runner, pool: first.pool.clone(), loop_index: first.loop_index, facts })
    }

    /// Adds the end of a run whose process has died, unless the run had ended before.
    pub(super) fn end_with_its_process(&mut self, at: Moment) {
        if !self.facts.iter().any(|(_, fact)| matches!(fact, Fact::Over { .. })) {
            self.facts.push((at, Fact::Over { how: OverHow::ProcessDied, why: None, kind: None }));
        }
    }

    /// Returns the line of the entry, with its end.
    pub(super) fn line(&self) -> serde_json::Result<Vec<u8>> {
        let fact = |(at, fact): &(Moment, Fact)| {
            serde_json::to_value(WrittenFact { at_us: at.us(), fact: fact.clone() })
        };
        let written = WrittenEntry {
            runner: self.runner.clone(),
            pool: self.pool.clone(),
            loop_index: self.loop_index,
            facts: self.facts.iter().map(fact).collect::<serde_json::Result<_>>()?,
        };
        let mut line = serde_json::to_vec(&written)?;
        line.push(b'\n');
        Ok(line)
    }

    /// Reads a line. Returns none for a line that is no entry, as after a full disk. Leaves out facts that this version does not
    /// know.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let WrittenEntry { runner, pool, loop_index, facts } = serde_json::from_slice(line).ok()?;
        let facts = facts.into_iter().filter_map(|fact| serde_json::from_value::<WrittenFact>(fact).ok());
        let facts = facts.map(|WrittenFact { at_us, fact }| (Moment::of_us(at_us), fact)).collect();
        Some(Self { runner, pool, loop_index, facts })
    }

    /// Returns the facts as records.
    pub fn records(self) -> impl Iterator<Item = FactRecord> {
        let Self { runner, pool, loop_index, facts } = self;
        facts.into_iter().map(move |(at, fact)| FactRecord {
            at,
            pool: pool.clone(),
            loop_index,
            runner: Some(runner.clone()),
            fact,
        })
    }
}

/// Returns a fact without its longest parts, which the log of the runner has.
fn slim(fact: &Fact) -> Fact {
    match fact {
        Fact::JobConcluded { job, conclusion, annotations, annotations_left_out } => Fact::JobConcluded {
            job: job.clone(),
            conclusion: *conclusion,
            annotations: Vec::new(),
            annotations_left_out: annotations_left_out + annotations.len() as u64,
        },
        fact => fact.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::tests::{one_of_each, record};
    use crate::job_end::tests::failed_on;

    #[test]
    fn every_fact_of_an_entry_is_read_back() {
        let records: Vec<_> = one_of_each().into_iter().map(record).collect();
        let entry = Entry::of(&records).expect("an entry");
        let line = entry.line().expect("json");
        assert_eq!(Entry::read(&line).as_ref(), Some(&entry));
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert!(entry.facts.len() == records.len() && records.len() < FACTS_MAX);
    }

    #[test]
    fn a_fact_of_a_later_version_does_not_hide_the_others() {
        let entry = Entry::of(&[record(Fact::Registering), record(Fact::AgentHello)]).expect("an entry");
        let text = String::from_utf8(entry.line().expect("json")).expect("text");
        let read = Entry::read(text.replace("agent_hello", "agent_wave").as_bytes()).expect("an entry");
        assert_eq!(read.facts, entry.facts[..1]);
    }

    #[test]
    fn a_guest_cannot_make_an_entry_grow_without_end() {
        let mut records = vec![record(Fact::Registering)];
        records.extend((0..10_000).map(|_| record(Fact::JobStarted { job: "x".repeat(500) })));
        records.push(record(Fact::Ended));
        let entry = Entry::of(&records).expect("an entry");
        assert_eq!(entry.facts.len(), FACTS_MAX);
        assert_eq!((&entry.facts[0].1, &entry.facts[FACTS_MAX - 1].1), (&Fact::Registering, &Fact::Ended));
    }

    #[test]
    fn annotations_are_left_to_the_log() {
        let entry = Entry::of(&[record(failed_on("r", 7).fact())]).expect("an entry");
        let [(_, Fact::JobConcluded { annotations, annotations_left_out, .. })] = &entry.facts[..] else {
            panic!("{entry:?}")
        };
        assert_eq!((annotations.len(), *annotations_left_out), (0, 7));
    }

    #[test]
    fn a_run_that_had_ended_when_its_process_died_keeps_its_end() {
        let over = Fact::Over { how: OverHow::JobDone, why: None, kind: None };
        for (facts, expected) in [
            (vec![record(Fact::Registering), record(over.clone())], over),
            (
                vec![record(Fact::Registering)],
                Fact::Over { how: OverHow::ProcessDied, why: None, kind: None },
            ),
        ] {
            let mut entry = Entry::of(&facts).expect("an entry");
            entry.end_with_its_process(Moment::of_ms(9));
            assert_eq!(entry.facts.last().map(|(_, fact)| fact), Some(&expected));
            assert_eq!(entry.facts.len(), 2);
        }
    }
}
