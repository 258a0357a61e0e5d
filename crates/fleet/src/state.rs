//! The state of one runner: the fold of its facts.
//!
//! A live runner, one that is taken over after a crash, and one that a later start removes have the same state. They only
//! enter it at different points: at the first fact, or at the last one in the journal.

use std::path::PathBuf;

use dayfly_forge::RunnerScope;
use dayfly_guest::runner_app::JobResult;
use serde::{Deserialize, Serialize};

use crate::fact::{Fact, FactRecord, RegistrationEnd, RunnerRef};

/// Progress of a runner, or of the loop that creates runners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The image is fetched, the template built, the registration requested.
    #[default]
    Preparing,
    /// The VM starts.
    Booting,
    /// The runner app starts.
    Starting,
    /// The runner app waits for a job.
    Idle,
    /// The runner app has a job.
    Busy,
    /// The runner is being stopped, or has ended.
    Ending,
    /// The loop waits before it tries again.
    Pausing,
    /// The loop has ended for good.
    Ended,
}

impl Phase {
    /// Returns the word that people read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Booting => "booting",
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Ending => "ending",
            Self::Pausing => "pausing",
            Self::Ended => "ended",
        }
    }
}

/// State of a runner.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunnerState {
    /// The runner; none before its first fact.
    pub runner: Option<RunnerRef>,
    /// The places of its files and its registration, for a later start; none if they are not in the journal.
    pub begun: Option<Begun>,
    /// Its progress.
    pub phase: Phase,
    /// Its registration.
    pub registration: RegistrationState,
    /// Its VM.
    pub vm: VmState,
    /// True once the agent in the VM has said hello.
    pub has_answered: bool,
    /// The runner app in the VM.
    pub app: AppState,
    /// Its job.
    pub job: JobState,
}

/// The places of a runner's files and of its registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// The loop's environment directory, which may hold files of the runner.
    pub environment: PathBuf,
    /// Base URL of the forge's API.
    pub forge: String,
    /// Scope of the registration.
    pub scope: RunnerScope,
}

/// State of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RegistrationState {
    /// No registration exists.
    #[default]
    None,
    /// A registration was requested under the runner's name. It exists if the forge got the request and the answer was
    /// lost, or if the VM has registered itself.
    Requested,
    /// The registration exists under this id.
    Exists(u64),
}

impl RegistrationState {
    /// Returns the id at the forge, if it is known.
    pub fn id(self) -> Option<u64> {
        match self {
            Self::Exists(id) => Some(id),
            Self::None | Self::Requested => None,
        }
    }
}

/// State of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VmState {
    /// No VM runs.
    #[default]
    None,
    /// A start was announced: a VM may run in the run's folder.
    MayRun,
    /// The VMM runs.
    Runs {
        /// Its process id.
        pid: u32,
    },
}

/// State of the runner app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AppState {
    /// The runner app was not started yet.
    #[default]
    NotUp,
    /// The runner app is about to start, or runs.
    Up,
    /// The entrypoint has exited. `was_up` is false if the runner app was never about to start.
    Exited {
        /// True if the runner app was about to start before.
        was_up: bool,
    },
}

/// State of the runner's job, as the runner app reports it. A runner in token mode may have one job after another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum JobState {
    /// The runner had no job.
    #[default]
    None,
    /// The runner has this job.
    Runs {
        /// Name of the job.
        name: String,
    },
    /// The runner's last job has ended.
    Ended {
        /// The result.
        result: JobResult,
    },
}

impl JobState {
    /// Returns the result of the last job, if one has ended.
    pub fn result(&self) -> Option<JobResult> {
        match self {
            Self::Ended { result } => Some(*result),
            Self::None | Self::Runs { .. } => None,
        }
    }

    /// Returns the name of the job that the runner has.
    pub fn running(&self) -> Option<&str> {
        match self {
            Self::Runs { name } => Some(name),
            Self::None | Self::Ended { .. } => None,
        }
    }
}

impl RunnerState {
    /// Returns the state after these facts.
    pub fn of(records: &[FactRecord]) -> Self {
        let mut state = Self::default();
        records.iter().for_each(|record| state.take(record));
        state
    }

    /// Takes in the next fact of the runner.
    pub fn take(&mut self, record: &FactRecord) {
        if self.runner.is_none() {
            self.runner.clone_from(&record.runner);
        }
        match &record.fact {
            Fact::Begun { environment, forge, scope, .. } => {
                let (environment, forge, scope) = (environment.clone(), forge.clone(), scope.clone());
                self.begun = Some(Begun { environment, forge, scope });
            }
            Fact::Resuming { environment } => {
                if let Some(begun) = &mut self.begun {
                    begun.environment.clone_from(environment);
                }
            }
            Fact::VmTakenOver { pid, phase, registration, job } => {
                self.vm = VmState::Runs { pid: *pid };
                self.phase = *phase;
                self.registration = registration.map_or(self.registration, RegistrationState::Exists);
                if matches!(phase, Phase::Starting | Phase::Idle | Phase::Busy) {
                    self.app = AppState::Up;
                }
                if let Some(name) = job {
                    self.job = JobState::Runs { name: name.clone() };
                }
            }
            Fact::Registering => self.registration = RegistrationState::Requested,
            Fact::Registered { registration } => self.registration = RegistrationState::Exists(*registration),
            Fact::RegistrationEnded { how: RegistrationEnd::Deleted | RegistrationEnd::Gone } => {
                self.registration = RegistrationState::None;
            }
            Fact::StartingVm => self.vm = VmState::MayRun,
            Fact::VmmStarted { pid, .. } => self.vm = VmState::Runs { pid: *pid },
            Fact::VmGone { .. } => (self.vm, self.has_answered) = (VmState::None, false),
            Fact::AgentHello => self.has_answered = true,
            Fact::RunnerUp => self.app = AppState::Up,
            Fact::EntrypointExited { .. } => {
                self.app = AppState::Exited { was_up: self.app == AppState::Up };
            }
            Fact::JobStarted { job } => self.job = JobState::Runs { name: job.clone() },
            Fact::JobFinished { result } => self.job = JobState::Ended { result: *result },
            _ => {}
        }
        self.phase = phase_after(&record.fact).unwrap_or(self.phase);
    }

    /// Returns true if no VM and no registration of the runner can exist.
    pub fn is_over(&self) -> bool {
        self.vm == VmState::None && self.registration == RegistrationState::None
    }

    /// Returns true if another process could take the runner over: a job may run in its VM, and its agent has answered. An
    /// agent that has not may never do so, because a fork that was not told where its state is runs nothing.
    pub fn can_be_taken_over(&self) -> bool {
        self.registration != RegistrationState::None && self.vm != VmState::None && self.has_answered
    }

    /// Returns true if the runner app was about to start, whether or not it has exited since.
    pub fn was_up(&self) -> bool {
        matches!(self.app, AppState::Up | AppState::Exited { was_up: true })
    }
}

/// Returns the phase that begins with a fact, if one does.
fn phase_after(fact: &Fact) -> Option<Phase> {
    Some(match fact {
        Fact::LoopStarted { .. }
        | Fact::Begun { .. }
        | Fact::ImagePhase { .. }
        | Fact::Pulled
        | Fact::TemplateBuilding { .. }
        | Fact::TemplateWaiting { .. }
        | Fact::Registering => Phase::Preparing,
        Fact::VmmStarted { .. } | Fact::VmRestarted { .. } => Phase::Booting,
        Fact::RunnerUp => Phase::Starting,
        Fact::Listening => Phase::Idle,
        Fact::JobStarted { .. } => Phase::Busy,
        Fact::Stopping { .. } | Fact::EntrypointExited { .. } | Fact::VmGone { .. } | Fact::VmHandedOver => {
            Phase::Ending
        }
        Fact::Retrying { .. } | Fact::LoopReplaced { .. } => Phase::Pausing,
        Fact::LoopEnded { .. } | Fact::GaveUp { .. } => Phase::Ended,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fact::tests::{one_of_each, record};

    fn state_after(facts: impl IntoIterator<Item = Fact>) -> RunnerState {
        RunnerState::of(&facts.into_iter().map(record).collect::<Vec<_>>())
    }

    fn gone() -> Fact {
        Fact::VmGone { exit: "x".to_owned() }
    }

    #[test]
    fn a_registration_whose_answer_was_lost_may_exist_under_the_runners_name() {
        let state = state_after([Fact::Registering]);
        assert_eq!((state.registration, state.is_over()), (RegistrationState::Requested, false));
        assert_eq!(state.runner.expect("a runner").name, "p-0-aaaaaaa");
    }

    #[test]
    fn a_runner_is_over_if_its_vm_and_its_registration_are_gone() {
        let ended = |how| Fact::RegistrationEnded { how };
        let begun = [Fact::Registering, Fact::Registered { registration: 7 }, Fact::StartingVm];
        let after = |facts: &[Fact]| state_after(begun.iter().chain(facts).cloned());
        assert!(!after(&[]).is_over());
        assert!(!after(&[gone()]).is_over());
        assert!(!after(&[ended(RegistrationEnd::Gone)]).is_over());
        assert!(!after(&[gone(), ended(RegistrationEnd::Busy)]).is_over());
        assert!(after(&[gone(), ended(RegistrationEnd::Deleted)]).is_over());
    }

    #[test]
    fn an_entrypoint_that_exits_early_leaves_an_app_that_was_never_up() {
        let exited = || Fact::EntrypointExited { code: Some(0), signal: None };
        assert!(!state_after([exited()]).was_up());
        assert!(state_after([Fact::RunnerUp, exited()]).was_up());
    }

    proptest! {
        /// The journal has the durable facts only, so a later start must not depend on the others.
        #[test]
        fn the_durable_facts_alone_lead_to_the_same_remains(
            picks in proptest::collection::vec(any::<prop::sample::Index>(), 0..60),
        ) {
            let all = one_of_each();
            // No VMM starts unless its start was announced, and no fact follows the end of its VM.
            let facts: Vec<Fact> = picks
                .iter()
                .map(|pick| pick.get(&all).clone())
                .flat_map(|fact| match fact {
                    Fact::VmmStarted { .. } | Fact::VmTakenOver { .. } => vec![Fact::Registered { registration: 7 }, Fact::StartingVm, fact],
                    fact => vec![fact],
                })
                .collect();
            let live = state_after(facts.iter().cloned());
            let read = state_after(facts.into_iter().filter(Fact::is_durable));
            prop_assert_eq!(&live.begun, &read.begun);
            prop_assert_eq!(live.registration, read.registration);
            prop_assert_eq!(live.vm == VmState::None, read.vm == VmState::None);
            prop_assert_eq!(live.is_over(), read.is_over());
        }
    }
}
