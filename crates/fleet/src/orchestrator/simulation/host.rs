//! The host of a simulation: the journals and the machines, which outlive a process.

use std::collections::BTreeMap;
use std::path::Path;

use crate::fact::{Fact, FactRecord, Moment, RunnerRef};
use crate::journal;

/// The stage of the guest in a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guest {
    /// The agent has not said hello.
    Booting,
    /// The agent waits for the order to start.
    Answered,
    /// The entrypoint runs, and the runner app is not up.
    Started,
    /// The runner app waits for a job.
    Listening,
    /// The runner app has a job.
    Busy,
    /// The entrypoint has exited.
    Exited { had_job: bool },
    /// The machine was killed.
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SimulatedMachine {
    pub(super) guest: Guest,
    /// The registration that the runner app uses; none before a machine has registered itself.
    pub(super) registration: Option<u64>,
}

/// The folder of a run.
#[derive(Debug, Clone)]
pub(super) struct RunFolder {
    pub(super) runner: RunnerRef,
    pub(super) loop_index: u32,
    journal: Vec<u8>,
    /// Length of the journal that a crash of the host cannot take away.
    flushed: usize,
    pub(super) machine: Option<SimulatedMachine>,
}

/// The disk is full.
#[derive(Debug)]
pub(super) struct DiskFull;

#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) runs: BTreeMap<u64, RunFolder>,
    pub(super) is_full: bool,
    /// True if it has no memory, processes or open files left for another machine.
    pub(super) lacks: bool,
    last_run: u64,
}

impl Host {
    /// Creates the folder of a run for a loop's next runner. Returns its number.
    pub(super) fn create(&mut self, loop_index: u32) -> u64 {
        self.last_run += 1;
        let id: crate::RunnerId = format!("{loop_index}-{:07}", self.last_run).parse().expect("an id");
        let runner = RunnerRef { name: id.name("p"), id };
        let folder = RunFolder { runner, loop_index, journal: Vec::new(), flushed: 0, machine: None };
        self.runs.insert(self.last_run, folder);
        self.last_run
    }

    /// Appends a fact to a journal, as [`journal::Journal`] does.
    pub(super) fn write(&mut self, run: u64, record: &FactRecord, flush: bool) -> Result<(), DiskFull> {
        let is_full = self.is_full;
        let folder = self.runs.get_mut(&run).expect("its folder");
        let line = serde_json::to_vec(record).expect("json");
        if folder.journal.last().is_some_and(|last| *last != b'\n') {
            folder.journal.push(b'\n');
        }
        if is_full {
            // A full disk may still have room for a part of a line.
            folder.journal.extend(&line[..line.len() / 2]);
            return Err(DiskFull);
        }
        folder.journal.extend(line);
        folder.journal.push(b'\n');
        if flush {
            folder.flushed = folder.journal.len();
        }
        Ok(())
    }

    /// Leaves a part of a line that a process was writing as it died.
    pub(super) fn tear(&mut self, run: u64, record: &FactRecord, length: usize) {
        let folder = self.runs.get_mut(&run).expect("its folder");
        let line = serde_json::to_vec(record).expect("json");
        if folder.journal.last().is_some_and(|last| *last != b'\n') {
            folder.journal.push(b'\n');
        }
        folder.journal.extend(&line[..length.min(line.len() - 1)]);
    }

    /// Reads a journal by the product's own code.
    pub(super) fn read(&self, run: u64) -> Vec<FactRecord> {
        let content = journal::parse(Path::new("journal"), &self.runs[&run].journal).expect("this version's");
        assert!(!content.is_damaged, "a journal that was only cut counts as damaged");
        content.records
    }

    pub(super) fn machine(&mut self, run: u64) -> Option<&mut SimulatedMachine> {
        self.runs.get_mut(&run)?.machine.as_mut()
    }

    /// Returns the record of a fact about the runner of a run.
    pub(super) fn record(&self, run: u64, fact: Fact) -> FactRecord {
        let folder = &self.runs[&run];
        let (loop_index, runner) = (folder.loop_index, Some(folder.runner.clone()));
        FactRecord { at: Moment::of_ms(0), pool: None, loop_index, runner, fact }
    }

    /// Returns what runs in the machine of a run; dead if it has none.
    pub(super) fn guest(&self, run: u64) -> Guest {
        self.runs.get(&run).and_then(|folder| folder.machine).map_or(Guest::Dead, |machine| machine.guest)
    }

    /// Ends the host's power: machines die, and journals lose what was not flushed.
    pub(super) fn reboot(&mut self) {
        for folder in self.runs.values_mut() {
            folder.journal.truncate(folder.flushed);
            if let Some(machine) = &mut folder.machine {
                machine.guest = Guest::Dead;
            }
        }
    }
}
