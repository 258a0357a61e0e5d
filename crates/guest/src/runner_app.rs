//! The interface to the runner app, the program in the machine that speaks to the forge.
//!
//! This module holds everything that depends on the kind of runner app: its detection ([`RunnerApp`]), the data that it
//! needs before it starts ([`JitConfig`], [`Registration`]), its command lines ([`Launch`]), the meaning of its lines
//! ([`observe`]) and of its exit ([`Ending`], [`RunnerApp::after`]). Two apps are known: github-act-runner 0.13.0 and the
//! official actions/runner (2.336.0).

mod app;
mod ending;
mod jit;
mod launch;
mod output;
mod runtime;
mod version;

pub use app::{After, PROGRAM, RunnerApp, SETTINGS, StopSignal, without_token};
pub use ending::Ending;
pub use jit::{JitConfig, JitConfigError, RunnerFile, RunnerSettings};
pub use launch::{Launch, Proof, Registration, SEARCH_PATH, SecretVariable, User};
pub use output::{
    APP_LOG, DIAGNOSTICS, JobResult, Observation, Relayed, is_diagnostic, observe, parse_relayed, relay,
};
pub use runtime::{DOTNET_PROGRAMS, TIERED_PGO_VARIABLES, without_tiered_pgo};
pub use version::Version;
