//! A runner of a simulation: the steps of [`crate::runner`], each of which is one write or one action, so that a process can
//! die between any two of them.

use rand::RngExt as _;

use crate::fact::{Fact, RegistrationEnd, StartKind};
use crate::journal;
use crate::orchestrator::slots::LoopResult;
use crate::state::{JobState, RegistrationState, RunnerState, VmState};

use super::host::{DiskFull, Guest, SimulatedMachine};
use super::{Around, Fault};

/// The next step of a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Announce,
    Request,
    NoteRegistered(u64),
    AnnounceVm,
    StartVm,
    Watch,
    AnnounceRetirement,
    Retire,
    AnnounceDestruction,
    Destroy,
    NoteGone,
    AnnounceDeletion,
    Delete,
    NoteDeleted(RegistrationEnd),
    RemoveFolder,
}

/// The end of a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    JobDone,
    NoJob,
    Stopped,
    Failed,
}

impl End {
    /// Returns the end of a loop that creates one runner.
    pub(super) fn of_loop(self) -> LoopResult {
        match self {
            Self::JobDone => LoopResult::Finished("job done".to_owned()),
            Self::NoJob | Self::Stopped => LoopResult::NoJob("no job".to_owned()),
            Self::Failed => LoopResult::Failed("failed".to_owned()),
        }
    }
}

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The runner has its name from here on.
    Named,
    /// Its app is up.
    Up,
    /// Nothing that a slot needs to know.
    Quiet,
    /// It has ended. Something is left if `is_over` is false.
    Ended { end: End, is_over: bool },
}

#[derive(Debug)]
pub(super) struct Runner {
    pub(super) run: u64,
    pub(super) state: RunnerState,
    step: Step,
    end: End,
    is_inherited: bool,
    /// The forge's answer to the attempt to retire, which is on its way, and true if the app was up when it was asked.
    answer: Option<(Option<RegistrationEnd>, bool)>,
    /// True once the forge has answered that the runner has a job, or is gone.
    was_asked: bool,
}

impl Runner {
    /// Creates the folder of a runner, and its journal.
    pub(super) fn begin(index: u32, around: &mut Around<'_>) -> Result<Self, DiskFull> {
        let run = around.host.create(index);
        let mut runner = Self {
            run,
            state: RunnerState::default(),
            step: Step::Announce,
            end: End::Failed,
            is_inherited: false,
            answer: None,
            was_asked: false,
        };
        let scope = dayfly_forge::RunnerScope::Organization("o".to_owned());
        let begun = journal::begun("/e".into(), "http://f/".to_owned(), scope);
        runner.record(begun, around).inspect_err(|_| {
            around.host.runs.remove(&run);
        })?;
        Ok(runner)
    }

    /// Takes the runner of a process that died over.
    pub(super) fn resume(run: u64, state: RunnerState, around: &mut Around<'_>) -> Result<Self, DiskFull> {
        let (step, end) = (Step::Watch, End::Failed);
        let mut runner = Self { run, state, step, end, is_inherited: true, answer: None, was_asked: false };
        runner.record(Fact::Resuming { environment: "/e".into() }, around)?;
        Ok(runner)
    }

    /// Returns true if the next step does something.
    pub(super) fn has_work(&self, is_retiring: bool, around: &Around<'_>) -> bool {
        if self.step != Step::Watch || self.answer.is_some() || self.can_retire(is_retiring) {
            return true;
        }
        match around.host.guest(self.run) {
            Guest::Booting | Guest::Started => false,
            Guest::Listening => !self.state.was_up(),
            Guest::Busy => self.state.job == JobState::None,
            Guest::Answered | Guest::Exited { .. } | Guest::Dead => true,
        }
    }

    /// Returns the fact that the process is about to write, if it writes one next.
    pub(super) fn next_fact(&self) -> Option<Fact> {
        Some(match self.step {
            Step::Announce => Fact::Registering,
            Step::NoteRegistered(registration) => Fact::Registered { registration },
            Step::AnnounceVm => Fact::StartingVm,
            Step::AnnounceDestruction => Fact::DestroyingVm,
            Step::NoteGone => Fact::VmGone { exit: "x".to_owned() },
            Step::AnnounceRetirement | Step::AnnounceDeletion => Fact::DeletingRegistration,
            Step::NoteDeleted(how) => Fact::RegistrationEnded { how },
            _ => return None,
        })
    }

    /// Does the next step.
    pub(super) fn advance(&mut self, is_retiring: bool, around: &mut Around<'_>) -> Progress {
        match self.try_to_advance(is_retiring, around) {
            Ok(progress) => progress,
            Err(DiskFull) => self.fail(),
        }
    }

    fn try_to_advance(&mut self, is_retiring: bool, around: &mut Around<'_>) -> Result<Progress, DiskFull> {
        match self.step {
            Step::Announce => {
                self.record(Fact::Registering, around)?;
                self.step = Step::Request;
                return Ok(Progress::Named);
            }
            Step::Request => return Ok(self.request(around)),
            Step::NoteRegistered(registration) => {
                self.record(Fact::Registered { registration }, around)?;
                self.step = Step::AnnounceVm;
            }
            Step::AnnounceVm => {
                self.record(Fact::StartingVm, around)?;
                self.step = Step::StartVm;
            }
            Step::StartVm => return Ok(self.start(around)),
            Step::Watch => return self.watch(is_retiring, around),
            Step::AnnounceRetirement => {
                let _ = self.record(Fact::DeletingRegistration, around);
                self.step = Step::Retire;
            }
            Step::Retire => {
                let answer = around.delete(self.name(around), self.state.registration);
                (self.answer, self.step) = (Some((answer, self.state.was_up())), Step::Watch);
            }
            Step::AnnounceDestruction => {
                self.record_end(Fact::DestroyingVm, around);
                self.step = Step::Destroy;
            }
            Step::Destroy => {
                around.destroy(self.run);
                self.step = Step::NoteGone;
            }
            Step::NoteGone => {
                self.record_end(Fact::VmGone { exit: "x".to_owned() }, around);
                self.end_registration();
            }
            Step::AnnounceDeletion => {
                self.record_end(Fact::DeletingRegistration, around);
                self.step = Step::Delete;
            }
            Step::Delete => match around.delete(self.name(around), self.state.registration) {
                Some(how) => self.step = Step::NoteDeleted(how),
                None => self.step = Step::RemoveFolder,
            },
            Step::NoteDeleted(how) => {
                self.record_end(Fact::RegistrationEnded { how }, around);
                self.step = Step::RemoveFolder;
            }
            Step::RemoveFolder => {
                let is_over = self.state.is_over();
                if is_over {
                    around.remove_folder(self.run);
                }
                return Ok(Progress::Ended { end: self.end, is_over });
            }
        }
        Ok(Progress::Quiet)
    }

    fn request(&mut self, around: &mut Around<'_>) -> Progress {
        if around.forge.is_down {
            return self.fail();
        }
        if around.by_token {
            self.step = Step::AnnounceVm;
            return Progress::Quiet;
        }
        let id = around.forge.register(&self.name(around));
        if around.draws(Fault::LostAnswer) {
            return self.fail();
        }
        self.step = Step::NoteRegistered(id);
        Progress::Quiet
    }

    fn start(&mut self, around: &mut Around<'_>) -> Progress {
        if around.draws(Fault::NoStart) {
            return self.fail();
        }
        let machine = SimulatedMachine { guest: Guest::Booting, registration: self.state.registration.id() };
        around.host.runs.get_mut(&self.run).expect("its folder").machine = Some(machine);
        let started = Fact::VmmStarted { pid: 1, from: StartKind::Fork, template: None };
        self.state.take(&around.host.record(self.run, started));
        self.step = Step::Watch;
        Progress::Quiet
    }

    fn can_retire(&self, is_retiring: bool) -> bool {
        is_retiring
            && !self.was_asked
            && self.answer.is_none()
            && self.state.registration != RegistrationState::None
    }

    fn watch(&mut self, is_retiring: bool, around: &mut Around<'_>) -> Result<Progress, DiskFull> {
        if let Some((answer, was_up)) = self.answer.take_if(|_| around.random.random()) {
            return self.take_retirement(answer, was_up, around);
        }
        match around.host.guest(self.run) {
            Guest::Dead => return Ok(self.finish(End::NoJob)),
            Guest::Answered if !self.state.has_answered => self.record(Fact::AgentHello, around)?,
            // The process that died had not given the order to start, and its settings are gone.
            Guest::Answered if self.is_inherited => return Ok(self.fail()),
            Guest::Answered => around.host.machine(self.run).expect("a machine").guest = Guest::Started,
            Guest::Listening | Guest::Busy if !self.state.was_up() => {
                self.record(Fact::RunnerUp, around)?;
                let found = around.forge.find(&self.name(around)).filter(|_| !around.forge.is_down);
                if let (None, Some(registration)) = (self.state.registration.id(), found) {
                    let _ = self.record(Fact::Registered { registration }, around);
                }
                return Ok(Progress::Up);
            }
            Guest::Busy if self.state.job == JobState::None => {
                self.record(Fact::JobStarted { job: "j".to_owned() }, around)?;
            }
            Guest::Exited { had_job } => {
                self.record(Fact::EntrypointExited { code: Some(0), signal: None }, around)?;
                return Ok(self.finish(if had_job { End::JobDone } else { End::NoJob }));
            }
            _ if self.can_retire(is_retiring) => self.step = Step::AnnounceRetirement,
            _ => {}
        }
        Ok(Progress::Quiet)
    }

    fn take_retirement(
        &mut self,
        answer: Option<RegistrationEnd>,
        was_up: bool,
        around: &mut Around<'_>,
    ) -> Result<Progress, DiskFull> {
        match answer {
            Some(RegistrationEnd::Deleted) => {
                self.record(Fact::RegistrationEnded { how: RegistrationEnd::Deleted }, around)?;
                return Ok(self.finish(End::Stopped));
            }
            Some(RegistrationEnd::Busy) => self.was_asked = true,
            // A machine that registers itself may not have done so yet.
            Some(RegistrationEnd::Gone) => self.was_asked = was_up,
            None => {}
        }
        Ok(Progress::Quiet)
    }

    fn fail(&mut self) -> Progress {
        self.finish(End::Failed)
    }

    /// Goes on with the end of the runner.
    fn finish(&mut self, end: End) -> Progress {
        self.end = end;
        match self.state.vm {
            VmState::None => self.end_registration(),
            VmState::MayRun | VmState::Runs { .. } => self.step = Step::AnnounceDestruction,
        }
        Progress::Quiet
    }

    fn end_registration(&mut self) {
        self.step = match self.state.registration {
            RegistrationState::None => Step::RemoveFolder,
            RegistrationState::Requested | RegistrationState::Exists(_) => Step::AnnounceDeletion,
        };
    }

    fn name(&self, around: &Around<'_>) -> String {
        around.host.runs[&self.run].runner.name.clone()
    }

    /// Takes a fact into the state, and into the journal as [`crate::runner`] does.
    fn record(&mut self, fact: Fact, around: &mut Around<'_>) -> Result<(), DiskFull> {
        let record = around.host.record(self.run, fact);
        if record.fact.is_durable() {
            around.host.write(self.run, &record, true)?;
        } else if record.fact.is_noted() {
            let _ = around.host.write(self.run, &record, false);
        }
        self.state.take(&record);
        Ok(())
    }

    /// Takes a fact of the runner's end. The end goes on although the disk is full.
    fn record_end(&mut self, fact: Fact, around: &mut Around<'_>) {
        let record = around.host.record(self.run, fact);
        let _ = around.host.write(self.run, &record, true);
        self.state.take(&record);
    }
}
