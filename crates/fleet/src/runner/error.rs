//! How a runner ends, and why one could not be made.

use std::path::PathBuf;
use std::time::Duration;

use dayfly_forge::ForgeError;
use dayfly_guest::envfile::EnvFileError;
use dayfly_guest::runner_app::JobResult;
use dayfly_vm::{LeftoverError, StartError};

use crate::journal::JournalError;

/// How a runner ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunnerEnd {
    /// It ran a job, with the result that the runner app told (a hint: the forge knows better).
    JobDone {
        /// None where the runner app did not say.
        result: Option<JobResult>,
    },
    /// The runner app ended without a job having been seen.
    NoJob,
    /// The machine was gone before the entrypoint's end.
    MachineLost {
        /// How the VMM ended.
        exit: String,
    },
    /// It was ended by whoever runs the loop.
    Stopped,
    /// It was ended because it has lived as long as it may.
    LifetimeOver,
    /// Somebody in the VM ended it by a `.brk` with the right secret.
    Broken,
}

/// Why a runner could not be made or brought up.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// No registration.
    #[error("cannot register runner {name}: {source}")]
    Register {
        /// Name of the runner.
        name: String,
        /// Cause.
        source: ForgeError,
    },
    /// No VM.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The machine ended before its agent said hello.
    #[error("the machine of {name} never said hello: {exit}; its console's last lines:\n{console}")]
    NoHello {
        /// Name of the runner.
        name: String,
        /// How it ended.
        exit: String,
        /// Last lines of the console.
        console: String,
    },
    /// The machine came up, but the runner app did not.
    #[error("the runner app of {name} was not about to start within {} s of the agent's hello; the console's last lines:\n{console}", limit.as_secs())]
    NotUp {
        /// Name of the runner.
        name: String,
        /// How long was waited.
        limit: Duration,
        /// Last lines of the console.
        console: String,
    },
    /// The runner app could not be started, or ended before any job.
    #[error("the runner app of {name} {what}; the last lines of its machine:\n{lines}")]
    App {
        /// Name of the runner.
        name: String,
        /// What it did.
        what: &'static str,
        /// Last lines of the machine.
        lines: String,
    },
    /// The environment file.
    #[error("cannot write the environment of {name}: {source}")]
    EnvFile {
        /// Name of the runner.
        name: String,
        /// Cause.
        source: EnvFileError,
    },
    /// The state folder.
    #[error("cannot {what} {}: {source}", path.display())]
    State {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The journal: what it cannot announce is not done.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What is left of the machine.
    #[error(transparent)]
    Leftover(#[from] LeftoverError),
    /// The environment directory.
    #[error(transparent)]
    Environment(#[from] dayfly_vm::EnvironmentError),
    /// Where the forge is, cannot be found out.
    #[error("the machine of {name} could not reach the forge: the address of {host} is not found: {problem}")]
    Address {
        /// Name of the runner.
        name: String,
        /// Which host.
        host: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl RunnerError {
    /// Whether trying again with a fresh runner could help.
    pub fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::Register { source, .. } => source.is_temporary(),
            Self::Start(error) => error.is_transient(),
            Self::NoHello { .. } | Self::NotUp { .. } | Self::App { .. } | Self::Address { .. } => true,
            Self::EnvFile { .. }
            | Self::Leftover(_)
            | Self::State { .. }
            | Self::Journal(_)
            | Self::Environment(_) => false,
        }
    }
}
