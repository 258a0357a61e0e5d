//! Drives a soak: dispatches jobs, orders faults, kills and starts processes, and gathers the evidence for the judge.

mod end;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dayfly_forge::Dispatch;
use dayfly_lab::{LabEvent, LabEventKind, LabEvents, Lagged};
use rustix::process::Signal as UnixSignal;
use serde_json::json;
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::children::{Children, Word};
use super::host;
use super::mounts::Namespace;
use super::plan::{Kill, Kills, Plan, PlannedFault, PlannedJob, PlannedTrouble, Troubles, Victim};
use super::stage::{self, Folder, OWNER, REPOSITORY};
use super::story::Stories;
use super::trouble::RunningTrouble;
use super::view::{Progress, View};
use crate::cli::{KillWord, LabSoakArgs, SoakDriver, Trouble};
use crate::commands::private_lab::PrivateLab;
use crate::exit::{Failure, Outcome, Result, Signal};
use crate::settings::Places;
use crate::signals::Signals;

/// Jobs that are open at once, for each runner of the scale set.
const OPEN_PER_RUNNER: usize = 4;
/// Longest time, after the last job, until all processes serve again.
const SETTLE: Duration = Duration::from_secs(120);
/// Longest time that dayfly may take to end in an orderly way.
const END: Duration = Duration::from_secs(120);
/// Longest time that it may take after the second signal.
const END_AT_ONCE: Duration = Duration::from_secs(30);
/// Longest time that a killed process may take to exit.
const END_KILLED: Duration = Duration::from_secs(20);

/// The phase of a soak, and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Jobs run.
    Running,
    /// All jobs have ended; the processes that were killed last start again.
    Settling,
    /// The processes were asked to end.
    Ending,
    /// They were asked to end at once.
    EndingAtOnce,
    /// They were killed, because they did not end.
    Killed,
    /// No process runs any more.
    Over,
}

/// An event that the soak reacts to.
enum Happened {
    Lab(Option<std::result::Result<Arc<LabEvent>, Lagged>>),
    Word(Word),
    /// A child has exited, perhaps one that was adopted.
    ChildExited,
    KillDue,
    TroubleDue,
    StartDue,
    PhaseOver,
    Signal(Signal),
}

/// A soak whose lab serves.
pub(super) struct Soak {
    view: View,
    lab: PrivateLab,
    lab_events: LabEvents,
    is_process_driver: bool,
    keep: bool,
    jobs: Vec<PlannedJob>,
    /// Number of jobs that were dispatched.
    dispatched: usize,
    open_max: usize,
    faults: std::iter::Peekable<std::vec::IntoIter<PlannedFault>>,
    kills: Kills,
    next_kill: Option<Kill>,
    troubles: Troubles,
    next_trouble: Option<PlannedTrouble>,
    /// The trouble that the host has now.
    trouble: Option<RunningTrouble>,
    /// The mount namespace of dayfly's processes, if they are in one of their own.
    namespace: Option<Namespace>,
    /// The time from which the moments of kills and troubles count: the end of the first job.
    warm_at: Option<Instant>,
    stories: Stories,
    children: Children,
    words: mpsc::Receiver<Word>,
    child_exits: unix::Signal,
    state: PathBuf,
    has_cleared_faults: bool,
    phase: Phase,
    phase_ends: Instant,
    /// Runners whose machines were killed, or had a full disk.
    killed: BTreeSet<String>,
    kill_counts: BTreeMap<&'static str, u32>,
    trouble_counts: BTreeMap<&'static str, u32>,
    told: Vec<(String, String)>,
    crashes: Vec<String>,
    signal: Option<Signal>,
    failure: Option<Failure>,
}

impl Soak {
    /// Starts the lab, and prepares dayfly's processes.
    ///
    /// # Errors
    /// The lab cannot be started, or the guest binary is missing.
    pub(super) async fn set_up(
        places: &Places,
        args: &LabSoakArgs,
        plan: Plan,
        folder: &Folder,
        seed: u64,
        view: View,
    ) -> Result<Self> {
        let child_exits = unix::signal(SignalKind::child()).map_err(Failure::cannot)?;
        let lab = stage::open_lab(folder, args, seed).await?;
        stage::write_config(folder, &lab, args)?;
        // Once the disk is mounted, which dayfly's processes must see too.
        let namespace = plan.troubles.include(Trouble::Memory).then(Namespace::make);
        let namespace = namespace.transpose().map_err(Failure::cannot)?;
        let entry = namespace.as_ref().map(Namespace::entry).transpose().map_err(Failure::cannot)?;
        let commands = stage::commands(places, folder, &lab, args)?;
        let (children, words) = Children::new(commands, entry.unwrap_or_default());
        let Plan { jobs, faults, mut kills, mut troubles } = plan;
        Ok(Self {
            view,
            lab_events: lab.lab.subscribe(),
            lab,
            is_process_driver: args.driver == SoakDriver::Process,
            keep: args.keep,
            jobs,
            dispatched: 0,
            open_max: args.parallel as usize * OPEN_PER_RUNNER,
            faults: faults.into_iter().peekable(),
            next_kill: kills.next(),
            kills,
            next_trouble: troubles.next(),
            troubles,
            trouble: None,
            namespace,
            warm_at: None,
            stories: Stories::default(),
            children,
            words,
            child_exits,
            state: folder.state(),
            has_cleared_faults: false,
            phase: Phase::Running,
            phase_ends: Instant::now() + args.limit.0,
            killed: BTreeSet::new(),
            kill_counts: BTreeMap::new(),
            trouble_counts: BTreeMap::new(),
            told: Vec::new(),
            crashes: Vec::new(),
            signal: None,
            failure: None,
        })
    }

    /// Runs the soak to its verdict.
    pub(super) async fn run(mut self, signals: &mut Signals, folder: Folder) -> Result<Outcome> {
        while self.phase != Phase::Over {
            if self.phase == Phase::Running
                && let Err(failure) = self.dispatch_due().await
            {
                self.fail(failure);
            }
            let happened = self.next(signals).await;
            self.take(happened);
            self.advance().await;
            self.view.progress(&self.count());
        }
        self.end(folder).await
    }

    async fn next(&mut self, signals: &mut Signals) -> Happened {
        let kill_at = self.due(self.next_kill.map(|kill| kill.at));
        let trouble_at = match &self.trouble {
            Some(running) => Some(running.until),
            None => self.due(self.next_trouble.map(|trouble| trouble.at)),
        };
        let start_at = self.children.next_start();
        tokio::select! {
            // A signal first. Lab events last, because there are thousands of them.
            biased;
            signal = signals.next() => Happened::Signal(signal),
            _ = self.child_exits.recv() => Happened::ChildExited,
            () = until(start_at) => Happened::StartDue,
            () = until(kill_at) => Happened::KillDue,
            () = until(trouble_at) => Happened::TroubleDue,
            () = until(Some(self.phase_ends)) => Happened::PhaseOver,
            Some(word) = self.words.recv() => Happened::Word(word),
            event = self.lab_events.next() => Happened::Lab(event),
        }
    }

    /// Returns the time of a kill or a trouble. There is none before the first job has ended, because a pool whose first
    /// machine needs a template would never get one.
    fn due(&self, at: Option<Duration>) -> Option<Instant> {
        if self.phase != Phase::Running {
            return None;
        }
        Some(self.warm_at? + at?)
    }

    fn take(&mut self, happened: Happened) {
        match happened {
            Happened::Lab(Some(Ok(event))) => self.take_lab(&event),
            Happened::Lab(Some(Err(lagged))) => {
                self.fail(Failure::cannot(format!("the soak cannot judge: {lagged}")));
            }
            Happened::Lab(None) => self.fail(Failure::cannot("the lab has stopped unexpectedly")),
            Happened::Word(word) => self.take_word(word),
            Happened::ChildExited => host::reap_orphans(&self.children.pids()),
            Happened::KillDue => self.kill(),
            Happened::TroubleDue => match self.trouble {
                Some(_) => self.end_trouble(),
                None => self.begin_trouble(),
            },
            Happened::StartDue => {
                if let Err(error) = self.children.start_due() {
                    self.fail(Failure::cannot(format!("dayfly cannot be started: {error}")));
                }
            }
            Happened::PhaseOver => self.phase_over(),
            Happened::Signal(signal) => self.take_signal(signal),
        }
    }

    fn take_lab(&mut self, event: &LabEvent) {
        self.stories.take(event);
        self.view.lab(event);
        if let LabEventKind::JobAcquired { runner_name, .. } = &event.kind
            && self.has_full_disk()
        {
            self.killed.insert(runner_name.clone());
        }
        if self.warm_at.is_none() && self.stories.over() > 0 {
            self.warm_at = Some(Instant::now());
        }
    }

    fn take_word(&mut self, word: Word) {
        match word {
            Word::Ready { child } => self.children.is_ready(child),
            Word::Concluded { runner, conclusion } => self.told.push((runner, conclusion)),
            Word::Exited { child, status } => {
                if let Some(crash) = self.children.has_exited(child, status) {
                    self.view.warning(&crash);
                    self.crashes.push(crash);
                }
            }
        }
    }

    fn take_signal(&mut self, signal: Signal) {
        if self.signal.is_none() {
            self.view.warning("ending dayfly's processes (a second signal ends them at once)");
            self.signal = Some(signal);
            if !matches!(self.phase, Phase::EndingAtOnce | Phase::Killed) {
                self.enter(Phase::Ending);
            }
        } else {
            self.enter(Phase::EndingAtOnce);
        }
    }

    /// Ends the soak because it cannot go on. Only the first failure is reported.
    fn fail(&mut self, failure: Failure) {
        if self.failure.is_none() {
            self.failure = Some(failure);
            self.enter(Phase::Ending);
        }
    }

    /// Dispatches jobs while few enough are open, and orders the faults that are due before each.
    async fn dispatch_due(&mut self) -> Result<()> {
        while let Some(job) = self.jobs.get(self.dispatched).copied() {
            if self.dispatched - self.stories.over() >= self.open_max {
                break;
            }
            while let Some(fault) = self.faults.next_if(|fault| fault.after as usize <= self.dispatched) {
                self.lab.forge.add_lab_fault(json!(fault.spec)).await.map_err(Failure::cannot)?;
            }
            let inputs = stage::inputs(job.number, Duration::from_millis(job.ms));
            let dispatch = Dispatch { inputs, ..Dispatch::default() };
            let file = stage::workflow_file(job.lane);
            let run = self.lab.forge.dispatch(OWNER, REPOSITORY, &file, &dispatch).await;
            self.stories.dispatched(run.map_err(Failure::cannot)?, job.number);
            self.dispatched += 1;
        }
        Ok(())
    }

    /// Carries out the kill that is due, and draws the next one.
    fn kill(&mut self) {
        let Some(kill) = self.next_kill.take() else { return };
        self.next_kill = self.kills.next();
        let (word, killed) = match kill.victim {
            Victim::Orchestrator { down } => {
                (KillWord::Orchestrator, self.children.kill(0, down).map(|pid| (pid, None)))
            }
            Victim::Loop { number, down } => {
                (KillWord::Loop, self.children.kill(number as usize, down).map(|pid| (pid, None)))
            }
            Victim::Machine { draw } => (KillWord::Vm, self.kill_machine(draw)),
        };
        if let Some((pid, runner)) = killed {
            *self.kill_counts.entry(word.name()).or_default() += 1;
            self.view.kill(word, pid, runner.as_deref());
        }
    }

    fn kill_machine(&mut self, draw: u64) -> Option<(u32, Option<String>)> {
        let mut machines = host::machines(&self.state);
        let place = draw.checked_rem(machines.len() as u64)?;
        let machine = machines.swap_remove(usize::try_from(place).ok()?);
        self.killed.insert(machine.name.clone());
        host::kill(machine.pid);
        Some((machine.pid, Some(machine.name)))
    }

    /// Makes the trouble that is due, and draws the next one.
    fn begin_trouble(&mut self) {
        let Some(planned) = self.next_trouble.take() else { return };
        self.next_trouble = self.troubles.next();
        let place = (self.state.as_path(), self.namespace.as_ref());
        match RunningTrouble::begin(planned, &self.children, place) {
            Ok(None) => return,
            Ok(running) => self.trouble = running,
            Err(error) => {
                let name = planned.trouble.name();
                return self.fail(Failure::cannot(format!("the trouble {name} cannot be made: {error}")));
            }
        }
        *self.trouble_counts.entry(planned.trouble.name()).or_default() += 1;
        self.view.trouble(&planned, self.children.name(planned.process));
        self.mark_machines_on_full_disk();
    }

    fn end_trouble(&mut self) {
        self.mark_machines_on_full_disk();
        let Some(running) = self.trouble.take() else { return };
        let name = running.trouble.name();
        if let Err(error) = running.end(&self.children, self.namespace.as_ref()) {
            self.fail(Failure::cannot(format!("the trouble {name} cannot be ended: {error}")));
        }
    }

    fn has_full_disk(&self) -> bool {
        self.trouble.as_ref().is_some_and(|running| running.trouble == Trouble::Disk)
    }

    /// Marks the machines whose disk is full: each may fail, and so may its job.
    fn mark_machines_on_full_disk(&mut self) {
        if self.has_full_disk() {
            self.killed.extend(host::machines(&self.state).into_iter().map(|machine| machine.name));
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.end_trouble();
        self.phase = phase;
        let limit = match phase {
            Phase::Running => return,
            Phase::Settling => SETTLE,
            Phase::Ending => END,
            Phase::EndingAtOnce => END_AT_ONCE,
            Phase::Killed | Phase::Over => END_KILLED,
        };
        match phase {
            // The second signal is the one that ends runners at once.
            Phase::Ending | Phase::EndingAtOnce => self.children.end(UnixSignal::TERM),
            Phase::Killed => self.children.end(UnixSignal::KILL),
            Phase::Running | Phase::Settling | Phase::Over => {}
        }
        self.phase_ends = Instant::now() + limit;
    }

    /// Goes on because a phase has reached its limit.
    fn phase_over(&mut self) {
        match self.phase {
            Phase::Running => {
                self.view.warning("the time limit is reached; jobs that have not ended are lost");
                self.enter(Phase::Settling);
            }
            Phase::Settling => self.enter(Phase::Ending),
            Phase::Ending => {
                self.crashes.push(format!("dayfly has not ended {} s after SIGTERM", END.as_secs()));
                self.enter(Phase::EndingAtOnce);
            }
            Phase::EndingAtOnce => self.enter(Phase::Killed),
            Phase::Killed | Phase::Over => self.phase = Phase::Over,
        }
    }

    /// Goes on because a phase has done its work.
    async fn advance(&mut self) {
        if self.phase == Phase::Running && self.stories.over() >= self.jobs.len() {
            self.enter(Phase::Settling);
        }
        if self.phase == Phase::Settling {
            if !std::mem::replace(&mut self.has_cleared_faults, true) {
                self.clear_faults().await;
            }
            if self.children.are_ready() {
                self.enter(Phase::Ending);
            }
        }
        if self.children.are_over() {
            self.phase = Phase::Over;
        }
    }

    /// Returns the numbers that the view shows.
    fn count(&self) -> Progress {
        Progress {
            over: self.stories.over(),
            running: self.stories.running(),
            kills: self.kill_counts.values().sum(),
            faults: self.stories.fired.values().sum(),
            troubles: self.trouble_counts.values().sum(),
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
