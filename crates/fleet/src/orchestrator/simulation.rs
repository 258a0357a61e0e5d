//! A simulation of one pool through its crashes: time is virtual, and a seed decides the order of all events and every fault.
//!
//! The decisions ([`super::decide`]), the journal's lines and their reader, the fold [`RunnerState`] and the choice of the runs
//! that are taken over are the product's own. The forge, the machines, and the steps of a runner and of the recovery are
//! modelled, each as one write or one action, so that a process can die between any two of them.

mod forge;
mod host;
mod process;
mod runner;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

use crate::demand::{Demand, DemandEvent, Scale, StartOrder};
use crate::fact::RegistrationEnd;
use crate::state::{RegistrationState, RunnerState, VmState};
use forge::{Forge, JobStage, SourceKind};
use host::{Guest, Host};
use process::Process;

/// Number of events with faults, before the forge and the host are well again.
const STORMY_STEPS: u32 = 500;
/// Number of events after which a pool has to be calm.
const CALM_STEPS: u32 = 20_000;
/// Time between two polls of lists.
const POLL: Duration = Duration::from_secs(15);

/// A fault of a single call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// A call was carried out, and its answer was lost.
    LostAnswer,
    /// A machine does not start, does not end, or cannot be taken over.
    NoStart,
}

/// The surroundings that a process acts on.
struct Around<'a> {
    forge: &'a mut Forge,
    host: &'a mut Host,
    random: &'a mut StdRng,
    now: Instant,
    by_token: bool,
    is_stormy: bool,
}

impl Around<'_> {
    /// Returns true if this fault happens now.
    fn draws(&mut self, fault: Fault) -> bool {
        if fault == Fault::NoStart && self.host.lacks {
            return true;
        }
        let one_in = match fault {
            Fault::LostAnswer => 8,
            Fault::NoStart => 12,
        };
        self.is_stormy && self.random.random_ratio(1, one_in)
    }

    /// Deletes a registration as [`crate::registration::end`] does; none if the forge does not answer.
    fn delete(&mut self, name: String, registration: RegistrationState) -> Option<RegistrationEnd> {
        if self.forge.is_down {
            return None;
        }
        let id = registration.id().or_else(|| self.forge.find(&name));
        let how = id.map_or(RegistrationEnd::Gone, |id| self.forge.delete(id));
        (!self.draws(Fault::LostAnswer)).then_some(how)
    }

    /// Deletes the registration of a run, if there is one. Returns true if it is gone.
    fn is_unregistered(&mut self, run: u64, registration: RegistrationState) -> bool {
        let name = self.host.runs[&run].runner.name.clone();
        registration == RegistrationState::None
            || self.delete(name, registration).is_some_and(|how| how != RegistrationEnd::Busy)
    }

    /// Destroys the machine of a run.
    fn destroy(&mut self, run: u64) {
        let guest = self.host.guest(run);
        assert_ne!(guest, Guest::Busy, "the machine of run {run} is destroyed while its job runs");
        self.host.runs.get_mut(&run).expect("its folder").machine = None;
    }

    /// Removes the folder of a run, after which no later process knows of its registration.
    fn remove_folder(&mut self, run: u64) {
        let folder = self.host.runs.remove(&run).expect("its folder");
        assert!(folder.machine.is_none(), "a machine is left without a folder");
        assert_eq!(self.forge.find(&folder.runner.name), None, "a registration is left without a folder");
    }
}

/// An event of the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    QueueJob,
    CancelJob(usize),
    /// The guest of a run goes on.
    Guest(u64),
    Deliver,
    LoseMessage,
    RepeatMessage,
    Poll,
    Advance(u32),
    Reap(u64),
    WakeUp,
    Start,
    Crash,
    Reboot,
    KillMachine(u64),
    /// The forge notices that a runner with a job is gone.
    NoticeLoss(u64),
    TurnForge,
    FillDisk,
    Pass,
}

struct World {
    demand: Demand,
    source: SourceKind,
    /// True if each machine registers itself, by a token, instead of the process.
    by_token: bool,
    forge: Forge,
    host: Host,
    process: Option<Process>,
    random: StdRng,
    /// Decides when the host runs out of memory, processes or open files; none if it never does. It has dice of its own, so
    /// that a seed plays the same otherwise.
    shortage: Option<StdRng>,
    now: Instant,
    next_poll: Instant,
    is_stormy: bool,
    /// Number of events in which one is a fault, on average.
    events_a_fault: u32,
    jobs_left: u32,
    tally: Tally,
}

/// The counts of a simulation.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    jobs_done: usize,
    /// Jobs whose machine was ended by a fault.
    jobs_lost: usize,
    /// Processes that died while runners lived.
    crashes: usize,
    /// Runners that a later process went on with.
    taken_over: usize,
    /// Times at which the host ran out of memory, processes or open files.
    shortages: usize,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.jobs_done += other.jobs_done;
        self.jobs_lost += other.jobs_lost;
        self.crashes += other.crashes;
        self.taken_over += other.taken_over;
        self.shortages += other.shortages;
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let source = if random.random() { SourceKind::Counts } else { SourceKind::Lists };
        let max = random.random_range(1..=4);
        let demand = match random.random_range(0..3) {
            0 => {
                let limit = Duration::from_secs(300);
                Demand::Static { runners: max, start: StartOrder::Isolated { parallel: 2, limit } }
            }
            min_idle => {
                let idle_timeout = Duration::from_secs(60);
                Demand::Scaled(Scale { min_idle: min_idle - 1, max, idle_timeout })
            }
        };
        let by_token = random.random_ratio(1, 3);
        let now = Instant::now();
        let jobs_left = random.random_range(1..=20);
        let events_a_fault = [5, 20, 80][random.random_range(0..3)];
        Self {
            demand,
            source,
            by_token,
            forge: Forge::new(source),
            host: Host::default(),
            process: None,
            random,
            shortage: None,
            now,
            next_poll: now,
            is_stormy: true,
            events_a_fault,
            jobs_left,
            tally: Tally::default(),
        }
    }

    /// Calls `act` with the process and its surroundings.
    fn with_process<T>(&mut self, act: impl FnOnce(&mut Process, &mut Around<'_>) -> T) -> T {
        let mut around = Around {
            forge: &mut self.forge,
            host: &mut self.host,
            random: &mut self.random,
            now: self.now,
            by_token: self.by_token,
            is_stormy: self.is_stormy,
        };
        act(self.process.as_mut().expect("a process"), &mut around)
    }

    /// Returns the events that can happen now without a fault.
    fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        if self.jobs_left > 0 {
            events.push(Event::QueueJob);
        }
        events.extend(self.host.runs.keys().filter(|run| self.goes_on(**run)).map(|&run| Event::Guest(run)));
        let is_lost = |id: &u64| {
            let has_machine = |run: &u64| {
                let machine = self.host.runs[run].machine;
                machine
                    .is_some_and(|machine| machine.registration == Some(*id) && machine.guest == Guest::Busy)
            };
            self.forge.runners[id].job.is_some() && !self.host.runs.keys().any(has_machine)
        };
        events.extend(self.forge.runners.keys().filter(|id| is_lost(id)).map(|&id| Event::NoticeLoss(id)));
        if self.process.is_none() {
            events.push(Event::Start);
            return events;
        }
        // A fixed number of runners has no source.
        if !self.forge.is_down && matches!(self.demand, Demand::Scaled(_)) {
            events.extend((!self.forge.messages.is_empty()).then_some(Event::Deliver));
            let polls = self.source == SourceKind::Lists && self.next_poll <= self.now;
            events.extend(polls.then_some(Event::Poll));
        }
        let now = self.now;
        self.with_process(|process, around| {
            events.extend(process.loops_with_work(around).into_iter().map(Event::Advance));
            events.extend(process.due_leftovers(now).into_iter().map(Event::Reap));
            events.extend(process.is_due(now).then_some(Event::WakeUp));
        });
        events
    }

    /// Returns true if the guest of a run can go on by itself.
    fn goes_on(&self, run: u64) -> bool {
        let Some(machine) = self.host.runs[&run].machine else { return false };
        match machine.guest {
            Guest::Booting => true,
            Guest::Started => machine.registration.is_some() || !self.forge.is_down,
            Guest::Listening => {
                let is_registered =
                    machine.registration.is_some_and(|id| self.forge.runners.contains_key(&id));
                // The look at the registration and the end of the machine are milliseconds apart, and a runner app needs
                // seconds between its registration and its first job.
                let ends = self.process.as_ref().is_some_and(|process| process.is_about_to_destroy(run));
                !is_registered || (!ends && !self.forge.is_down && self.forge.queued().next().is_some())
            }
            Guest::Busy => !self.forge.is_down,
            Guest::Answered | Guest::Exited { .. } | Guest::Dead => false,
        }
    }

    /// Returns the faults that can happen now.
    fn faults(&self) -> Vec<Event> {
        let mut events = vec![Event::TurnForge, Event::FillDisk, Event::Reboot];
        events.extend(self.forge.queued().next().map(Event::CancelJob));
        let has_machine = |run: &&u64| self.host.guest(**run) != Guest::Dead;
        events.extend(self.host.runs.keys().rfind(has_machine).map(|&run| Event::KillMachine(run)));
        if self.process.is_some() {
            events.extend([Event::Crash; 3]);
            events.extend([Event::LoseMessage, Event::RepeatMessage]);
        }
        events
    }

    fn step(&mut self) {
        let mut events = self.events();
        if self.is_stormy && self.random.random_ratio(1, self.events_a_fault) {
            events = self.faults();
        } else if self.is_stormy || events.is_empty() {
            events.push(Event::Pass);
        }
        let event = events[self.random.random_range(0..events.len())];
        self.happen(event);
        if self.is_stormy {
            self.run_short();
        }
        self.now += Duration::from_millis(self.random.random_range(0..300));
        self.check();
    }

    /// Makes the host run out of what machines need, or have it again. If memory is used up, its kernel takes a machine.
    fn run_short(&mut self) {
        let Some(dice) = &mut self.shortage else { return };
        if !dice.random_ratio(1, 40) {
            return;
        }
        let takes_machine = dice.random();
        self.host.lacks = !self.host.lacks;
        self.tally.shortages += usize::from(self.host.lacks);
        let living = self.host.runs.keys().copied().rfind(|run| self.host.guest(*run) != Guest::Dead);
        if let Some(run) = living.filter(|_| self.host.lacks && takes_machine) {
            self.happen(Event::KillMachine(run));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::QueueJob => {
                self.jobs_left -= 1;
                self.forge.queue();
            }
            Event::CancelJob(job) => self.forge.cancel(job),
            Event::Guest(run) => self.guest_goes_on(run),
            Event::Deliver => {
                let message = self.forge.messages.pop_front().expect("a message");
                self.with_process(|process, around| process.take(message, around));
            }
            Event::LoseMessage => self.lose_message(),
            Event::RepeatMessage => {
                if let Some(message) = self.forge.messages.front().cloned() {
                    self.forge.messages.push_front(message);
                }
            }
            Event::Poll => {
                self.next_poll = self.now + POLL;
                self.forge.tell_all();
            }
            Event::Advance(number) => self.with_process(|process, around| process.advance(number, around)),
            Event::Reap(run) => self.with_process(|process, around| process.reap(run, around)),
            Event::WakeUp => self.with_process(|process, around| process.wake_up(around)),
            Event::Start => self.start(),
            Event::Crash => self.crash(),
            Event::Reboot => self.reboot(),
            Event::KillMachine(run) => self.host.machine(run).expect("a machine").guest = Guest::Dead,
            Event::NoticeLoss(id) => {
                self.tally.jobs_lost += 1;
                self.forge.end_job(id, JobStage::Lost);
            }
            Event::TurnForge => self.forge.is_down = !self.forge.is_down,
            Event::FillDisk => self.host.is_full = !self.host.is_full,
            Event::Pass => self.pass(),
        }
    }

    fn guest_goes_on(&mut self, run: u64) {
        let folder = self.host.runs.get_mut(&run).expect("its folder");
        let machine = folder.machine.as_mut().expect("a machine");
        if machine.guest == Guest::Started && machine.registration.is_none() {
            machine.registration = Some(self.forge.register(&folder.runner.name));
        }
        let id = machine.registration.unwrap_or_default();
        machine.guest = match machine.guest {
            Guest::Booting => Guest::Answered,
            Guest::Started => Guest::Listening,
            Guest::Listening if !self.forge.runners.contains_key(&id) => Guest::Exited { had_job: false },
            Guest::Listening if self.forge.assign(id).is_some() => Guest::Busy,
            Guest::Busy => {
                self.forge.end_job(id, JobStage::Done);
                Guest::Exited { had_job: true }
            }
            guest => guest,
        };
    }

    /// Loses a message about a single job. The forge repeats a number until the source has confirmed it.
    fn lose_message(&mut self) {
        let is_single = |message: &DemandEvent| !matches!(message, DemandEvent::Assigned { .. });
        if let Some(at) = self.forge.messages.iter().position(is_single) {
            self.forge.messages.remove(at);
        }
    }

    fn start(&mut self) {
        // A new session begins with the number, and a new poll with the lists.
        self.forge.messages.clear();
        self.forge.tell_all();
        self.process = Some(Process::new(self.demand));
        let taken_over = self.with_process(|process, around| {
            process.begin_work(around);
            process.inherited
        });
        self.tally.taken_over += taken_over as usize;
    }

    fn crash(&mut self) {
        let length = self.random.random_range(0..60);
        self.tally.crashes += self.process.as_ref().map_or(0, Process::runners).min(1);
        self.with_process(|process, around| process.tear(around, length));
        self.process = None;
        self.check_journals();
    }

    fn reboot(&mut self) {
        self.process = None;
        self.host.reboot();
        self.check_journals();
    }

    /// Lets time pass until the process does something by itself.
    fn pass(&mut self) {
        let next = self.process.as_ref().and_then(Process::next_time);
        let is_polled = self.source == SourceKind::Lists && matches!(self.demand, Demand::Scaled(_));
        let poll = is_polled.then_some(self.next_poll);
        match [next, poll].into_iter().flatten().min().filter(|at| *at > self.now) {
            Some(at) if !self.is_stormy => self.now = at,
            _ => self.now += Duration::from_secs(self.random.random_range(0..5)),
        }
    }

    /// Checks what holds at every moment.
    fn check(&self) {
        let names: BTreeSet<&str> =
            self.host.runs.values().map(|folder| folder.runner.name.as_str()).collect();
        for runner in self.forge.runners.values() {
            assert!(names.contains(runner.name.as_str()), "no folder names the registration {}", runner.name);
        }
        let Some(process) = &self.process else { return };
        let max = match self.demand {
            Demand::Static { runners, .. } => runners,
            Demand::Scaled(Scale { max, .. }) | Demand::Jobs { max } => max,
        };
        // A runner that one process could not take over may be taken over by the next one, beyond the maximum.
        let max = max.max(process.inherited);
        assert!(process.slots.alive() <= max, "{} of {max} runners", process.slots.alive());
    }

    /// Checks that a later process would find everything that exists.
    fn check_journals(&self) {
        for (&run, folder) in &self.host.runs {
            let state = RunnerState::of(&self.host.read(run));
            let name = &folder.runner.name;
            let (has_machine, registration) = (folder.machine.is_some(), self.forge.find(name));
            assert!(!has_machine || state.vm != VmState::None, "no journal names the machine of {name}");
            let is_known = state.registration != RegistrationState::None;
            assert!(registration.is_none() || is_known, "no journal names the registration {name}");
        }
    }

    /// Returns true if every job has ended, and nothing is going to happen but for time.
    fn has_served(&self) -> bool {
        let is_over = |stage: &JobStage| !matches!(stage, JobStage::Queued | JobStage::Runs);
        self.jobs_left == 0 && self.forge.jobs.iter().all(is_over)
    }

    fn step_until(&mut self, what: &str, is_reached: impl Fn(&Self) -> bool) {
        for _ in 0..CALM_STEPS {
            if is_reached(self) {
                return;
            }
            self.step();
        }
        panic!("{what}: {:?} {:?} {:?}", self.process, self.forge, self.host);
    }
}

/// Runs a pool through a storm, then waits until it has served all jobs, and drains it.
fn simulate(seed: u64) -> Tally {
    play(World::new(seed))
}

/// Runs it on a host that runs out of memory, processes or open files now and then.
fn simulate_on_a_poor_host(seed: u64) -> Tally {
    play(World { shortage: Some(StdRng::seed_from_u64(!seed)), ..World::new(seed) })
}

fn play(mut world: World) -> Tally {
    for _ in 0..STORMY_STEPS {
        world.step();
    }
    (world.is_stormy, world.forge.is_down) = (false, false);
    (world.host.is_full, world.host.lacks) = (false, false);
    world.step_until("a job was never served", World::has_served);
    world.step_until("no process", |world| world.process.is_some());
    world.with_process(|process, around| process.drain(around));
    world.step_until("a pool never ended", |world| world.process.as_ref().is_some_and(Process::is_over));
    assert!(world.host.runs.is_empty(), "something is left on the host: {:?}", world.host.runs);
    assert!(world.forge.runners.is_empty(), "something is left at the forge: {:?}", world.forge.runners);
    let count = |stage| world.forge.jobs.iter().filter(|other| **other == stage).count();
    assert_eq!(count(JobStage::Lost), world.tally.jobs_lost, "a job was lost without a fault of its machine");
    Tally { jobs_done: count(JobStage::Done), ..world.tally }
}

/// Runs the simulations of many seeds on all processors, and names those that fail.
fn simulate_all(seeds: std::ops::Range<u64>, simulate: impl Fn(u64) -> Tally + Sync) -> Tally {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut all = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return all;
            }
            let done = std::panic::catch_unwind(AssertUnwindSafe(|| simulate(seed)));
            all += done.unwrap_or_else(|_| panic!("seed {seed} fails; the reason stands above"));
        }
    };
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        threads.into_iter().fold(Tally::default(), |mut all, thread| {
            all += thread.join().expect("no seed fails");
            all
        })
    })
}

#[test]
fn no_pool_loses_a_job_or_leaves_anything_whatever_dies_and_whenever() {
    let all = simulate_all(0..500, simulate);
    // The seeds do reach what they are about.
    assert!(
        all.jobs_done > 500 && all.jobs_lost > 20 && all.crashes > 500 && all.taken_over > 200,
        "{all:?}"
    );
}

#[test]
fn no_pool_loses_a_job_or_leaves_anything_on_a_host_that_runs_out_of_memory_processes_or_files() {
    let all = simulate_all(0..500, simulate_on_a_poor_host);
    assert!(
        all.jobs_done > 500 && all.jobs_lost > 20 && all.shortages > 1000 && all.taken_over > 100,
        "{all:?}"
    );
}

/// A static slot that had taken a busy runner over counted as busy for ever, so that its pool never drained.
#[test]
fn a_pool_drains_whose_slots_have_taken_busy_runners_over() {
    simulate(125);
}

/// A runner that registered itself between the question and the answer was never asked again, so that its pool never drained.
#[test]
fn a_runner_retires_that_registers_itself_while_the_forge_is_asked() {
    simulate(51);
}

/// `DAYFLY_TEST_SEEDS` is the number of seeds.
#[test]
#[ignore = "twenty thousand seeds take minutes"]
fn no_pool_of_many_seeds_loses_a_job_or_leaves_anything() {
    let count = std::env::var("DAYFLY_TEST_SEEDS").map_or(20_000, |count| count.parse().expect("a number"));
    simulate_all(0..count, simulate);
    simulate_all(0..count, simulate_on_a_poor_host);
}
