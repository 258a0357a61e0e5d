//! A light stand-in for the official runner app (actions/runner 2.336.0), for tests of the lab and of dayfly.
//!
//! It makes the same calls, prints the same lines and exits with the same statuses, as one small process without a runtime
//! to start. So tests can script all that a runner app does, also what a sound one does not ([`Mood`]), and many of them
//! run on one host.
//!
//! ```text
//! JIT config --> listener --> worker --> steps (processes)
//!                   |            |
//!                 Client     JobClient --> http --> the lab
//! ```
//!
//! Differences from the official app: scripts (`run:`) run, actions (`uses:`) fail with a message; there is no live feed, so
//! the lines of a step come when it ends; there are no containers, hooks and updates; processes in the background outlive
//! their job; the JIT config stays in memory, so that many runners share one installation.

mod assertion;
mod client;
mod command;
mod folders;
mod http;
mod install;
mod listener;
mod log;
mod message;
mod mood;
mod registration;
mod run_step;
mod script;
mod step;
mod worker;

use std::path::PathBuf;
use std::time::Duration;

use dayfly_forge::jit::JitConfig;
use tokio::sync::watch;

pub use assertion::sign;
pub use client::{Client, JobClient, Message, RunnerStatus, Upload};
pub use http::CallError;
pub use install::install;
pub use mood::Mood;
pub use registration::{NewRegistration, register, registered};

/// The version of actions/runner that this runner claims to be: the one whose exchanges were recorded.
pub const VERSION: &str = "2.336.0";

/// Takes a line of the listener.
pub type Say<'a> = &'a (dyn Fn(&str) + Sync);

/// The settings of a runner.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder of the installation. The work folder of the JIT config is relative to it.
    pub folder: PathBuf,
    /// The environment that jobs inherit.
    pub env: Vec<(String, String)>,
    /// Pause after a poll that failed; half the pause after a session that cannot be opened. actions/runner waits 15 to
    /// 30 seconds.
    pub pause: Duration,
    /// Interval at which a job's lock is renewed.
    pub renewal: Duration,
    /// Wait before each call of a job.
    pub slowness: Duration,
    /// A way to misbehave.
    pub mood: Option<Mood>,
}

impl Settings {
    /// Returns the settings of a sound runner whose jobs inherit no environment.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            env: Vec::new(),
            pause: Duration::from_secs(15),
            renewal: Duration::from_secs(60),
            slowness: Duration::ZERO,
            mood: None,
        }
    }
}

/// The end of the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Its only job is done, it was told to stop, or its registration is gone.
    Success,
    /// It cannot run, for example because the forge does not know the registration.
    Terminated,
    /// Something failed that may work soon.
    Retryable,
    /// Another session of the runner stayed open.
    SessionConflict,
    /// The forge refuses its version.
    VersionDeprecated,
    /// It is gone without a word ([`Mood::VanishAtStep`]).
    Vanished,
}

impl Exit {
    /// Returns the exit status; `None` for an app that is killed.
    pub fn code(self) -> Option<u8> {
        match self {
            Self::Success => Some(0),
            Self::Terminated => Some(1),
            Self::Retryable => Some(2),
            Self::SessionConflict => Some(5),
            Self::VersionDeprecated => Some(7),
            Self::Vanished => None,
        }
    }
}

/// Runs a runner until it exits. It stops when `stop` becomes true, which fails its job as a signal does.
pub async fn run(config: JitConfig, settings: &Settings, say: Say<'_>, stop: watch::Receiver<bool>) -> Exit {
    let client = Client::new(config);
    listener::Listener { client, settings, say, stop, polls_failed: 0 }.run().await
}
