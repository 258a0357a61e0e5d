//! The ends of a runner, and the errors of creating one.

use std::path::PathBuf;
use std::time::Duration;

use dayfly_guest::envfile::EnvFileError;
use dayfly_guest::runner_app::JobResult;
use dayfly_host::scarcity::Scarcity;
use dayfly_vm::{LeftoverError, StartError};

use crate::demand::RegisterError;
use crate::journal::JournalError;

/// The end of a runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunnerEnd {
    /// It ran a job. The result is the one that the runner app reported: a hint, because only the forge knows it for sure.
    JobDone {
        /// Result of the job; none if the runner app reported none.
        result: Option<JobResult>,
    },
    /// The runner app exited, and no job was seen.
    NoJob,
    /// The machine ended before the entrypoint exited.
    MachineLost {
        /// The way in which the VMM exited.
        exit: String,
    },
    /// The loop's caller stopped it.
    Stopped,
    /// The loop stopped it because its lifetime was over.
    LifetimeOver,
    /// The loop ended it because it had waited too long for a job. Its registration was deleted before.
    Idle,
    /// A program in the VM ended it by a `.brk` with the right secret.
    Broken,
}

/// Errors of creating a runner and of bringing its app up.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The forge has not registered the runner.
    #[error("cannot register runner {name}: {source}")]
    Register {
        /// Name of the runner.
        name: String,
        /// Cause.
        source: RegisterError,
    },
    /// The VM cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The machine ended before its agent said hello.
    #[error("the machine of {name} never said hello: {exit}; its console's last lines:\n{console}")]
    NoHello {
        /// Name of the runner.
        name: String,
        /// The way in which the machine ended.
        exit: String,
        /// Last lines of the console.
        console: String,
    },
    /// The kernel of this host killed the machine for memory before its agent said hello.
    #[error(
        "the machine of {name} was lost while it started: {exit}; run fewer or smaller machines on this host"
    )]
    KilledForMemory {
        /// Name of the runner.
        name: String,
        /// The way in which the machine ended.
        exit: String,
    },
    /// The machine is up, but its runner app was not about to start within the limit.
    #[error("the runner app of {name} did not start within {} s of the agent's hello; the console's last lines:\n{console}", limit.as_secs())]
    NotUp {
        /// Name of the runner.
        name: String,
        /// The limit.
        limit: Duration,
        /// Last lines of the console.
        console: String,
    },
    /// The runner app could not be started, or exited before any job.
    #[error("the runner app of {name} {what}; the last lines of its machine:\n{lines}")]
    App {
        /// Name of the runner.
        name: String,
        /// The event, as the predicate of the message.
        what: &'static str,
        /// Last lines of the machine.
        lines: String,
    },
    /// The environment file cannot be written.
    #[error("cannot write the environment of {name}: {source}")]
    EnvFile {
        /// Name of the runner.
        name: String,
        /// Cause.
        source: EnvFileError,
    },
    /// A file or folder of the run cannot be used.
    #[error("cannot {what} {}: {source}", path.display())]
    State {
        /// The attempted operation.
        what: &'static str,
        /// Path of the file or folder.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The journal cannot be used. A step that it cannot announce is not taken.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The rest of the machine cannot be removed.
    #[error(transparent)]
    Leftover(#[from] LeftoverError),
    /// The environment directory cannot be used.
    #[error(transparent)]
    Environment(#[from] dayfly_vm::EnvironmentError),
    /// The machine of a process that died cannot be taken over.
    #[error(
        "a runner of an earlier process goes on without being watched, until the forge says that it has no job: {0}"
    )]
    TakeOver(#[from] dayfly_vm::TakeOverError),
    /// The address of the forge is not found.
    #[error("the machine of {name} could not reach the forge: the address of {host} is not found: {problem}")]
    Address {
        /// Name of the runner.
        name: String,
        /// Host of the forge.
        host: String,
        /// The problem with its address.
        problem: String,
    },
}

impl RunnerError {
    /// Returns true if the forge has another runner of the same name, so that the next runner, which has a new name, can succeed.
    pub(crate) fn is_taken_name(&self) -> bool {
        matches!(self, Self::Register { source, .. } if source.is_taken_name())
    }

    /// Returns what this host has run out of, if that is the cause.
    pub fn scarcity(&self) -> Option<Scarcity> {
        match self {
            Self::Start(error) => error.scarcity(),
            Self::KilledForMemory { .. } => Some(Scarcity::Memory),
            // The forge's errors have causes of their own.
            Self::Register { .. } => None,
            _ => Scarcity::of(self),
        }
    }

    /// Returns true if another attempt with a new runner could help.
    pub fn is_worth_a_retry(&self) -> bool {
        if self.scarcity().is_some() {
            return true;
        }
        match self {
            Self::Register { source, .. } => source.is_temporary(),
            Self::Start(error) => error.is_transient(),
            Self::NoHello { .. }
            | Self::KilledForMemory { .. }
            | Self::NotUp { .. }
            | Self::App { .. }
            | Self::Address { .. }
            | Self::TakeOver(_) => true,
            Self::EnvFile { .. }
            | Self::Leftover(_)
            | Self::State { .. }
            | Self::Journal(_)
            | Self::Environment(_) => false,
        }
    }
}
