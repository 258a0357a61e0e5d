//! Looks at this host: the published status of each process, and the kernel's counts of each machine. Only reads.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dayfly_fleet::fact::Moment;
use dayfly_fleet::instance;
use dayfly_fleet::why::Process;
use dayfly_host::space::SpaceMeter;

use super::board::{Board, board};
use super::usage::{Sample, Usage, usage};
use crate::commands::{jobs, reload};
use crate::exit::Result;
use crate::settings::Places;

/// Most machines whose counts are read in a look.
const MACHINES_MAX: usize = 1000;
/// Bounds of a look at the machines' files.
const FILES_MAX: usize = 20_000;
const FILES_TIME: Duration = Duration::from_millis(50);

/// The looks at this host so far.
#[derive(Debug)]
pub(super) struct Looks<'a> {
    places: &'a Places,
    began: Instant,
    /// The last look at each machine, by the id of its runner.
    samples: BTreeMap<String, Sample>,
}

impl<'a> Looks<'a> {
    pub(super) fn of(places: &'a Places) -> Self {
        Self { places, began: Instant::now(), samples: BTreeMap::new() }
    }

    /// Returns the board without the use of machines, which takes longer.
    ///
    /// # Errors
    /// The folder of instances cannot be read.
    pub(super) fn glance(&self) -> Result<Board> {
        Ok(board(&self.processes()?, &BTreeMap::new(), Moment::now().ms()))
    }

    /// Returns the board with the use of machines since the look before.
    ///
    /// # Errors
    /// The folder of instances cannot be read.
    pub(super) fn look(&mut self) -> Result<Board> {
        let processes = self.processes()?;
        let samples = self.sampled(&processes);
        let usages: BTreeMap<String, Usage> = samples
            .iter()
            .map(|(runner, now)| (runner.clone(), usage(self.samples.get(runner), now)))
            .collect();
        // Runners that have ended are forgotten with the old samples.
        self.samples = samples;
        Ok(board(&processes, &usages, Moment::now().ms()))
    }

    fn processes(&self) -> Result<Vec<Process>> {
        let living = jobs::living(self.places)?.into_iter();
        let process =
            |(seen, status)| Process { instance: reload::name_of(&seen), serves: seen.serves, status };
        Ok(living.map(process).collect())
    }

    fn sampled(&self, processes: &[Process]) -> BTreeMap<String, Sample> {
        let loops = processes.iter().flat_map(|process| process.status.loops.values());
        let runners = loops.filter(|one| one.vmm.is_some()).filter_map(|one| one.runner.as_deref());
        let mut meter = SpaceMeter::new(FILES_MAX, FILES_TIME);
        let sample = |runner: &str| {
            let id = runner.parse().ok()?;
            let machine = instance::machine_of_runner(&self.places.state, &id).ok().flatten()?;
            let load = dayfly_vm::machine_load(&machine);
            let bytes = meter.allocated(&machine);
            let space = meter.is_whole().then_some(bytes);
            Some((runner.to_owned(), Sample { at: self.began.elapsed(), load, space }))
        };
        runners.take(MACHINES_MAX).filter_map(sample).collect()
    }
}

#[cfg(test)]
mod tests {
    use dayfly_fleet::instance::{Instance, Serves};
    use dayfly_fleet::status::{LoopStatus, Status};
    use dayfly_forge::RunnerScope;

    use super::*;

    #[test]
    fn a_host_without_a_process_has_an_empty_board_and_no_error() {
        let state = tempfile::tempdir().expect("a folder");
        let places = Places::for_tests(state.path());
        let board = Looks::of(&places).look().expect("a board");
        assert_eq!((board.processes, board.pools.len(), board.machines.len()), (0, 0, 0));
    }

    #[test]
    fn a_machine_of_a_process_is_found_and_the_space_of_its_files_is_measured() {
        let state = tempfile::tempdir().expect("a folder");
        let places = Places::for_tests(state.path());
        let serves = Serves {
            pool: Some("build".to_owned()),
            forge: "http://f".to_owned(),
            scope: RunnerScope::Organization("o".into()),
            prefix: "p".to_owned(),
            private_lab: false,
            labels: Vec::new(),
        };
        let instance = Instance::create(state.path(), vec![serves]).expect("an instance");
        let mut status = Status::begin();
        let runner = Some("1-aaaaaaa".to_owned());
        let pool = Some("build".to_owned());
        status.loops.insert(1, LoopStatus { pool, runner, vmm: Some(1), ..LoopStatus::default() });
        status.write(instance.folder()).expect("written");
        let machine = instance.folder().join("runs/1-aaaaaaa/vm");
        std::fs::create_dir_all(&machine).expect("a folder");
        std::fs::write(machine.join("disk"), vec![1; 100_000]).expect("a file");
        let mut looks = Looks::of(&places);
        assert_eq!(looks.glance().expect("a board").machines[0].usage, Usage::default());
        let board = looks.look().expect("a board");
        assert_eq!(board.pools[0].key.pool, "build");
        let usage = board.machines[0].usage;
        assert!(usage.space.is_some_and(|bytes| bytes >= 100_000), "{usage:?}");
        assert_eq!((usage.cpu_percent, usage.memory), (None, None), "it has no control group");
    }
}
