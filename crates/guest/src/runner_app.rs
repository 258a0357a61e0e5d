//! The seam for the runner app: the program in the machine that speaks to the forge.
//!
//! Everything that depends on which program it is stands here: how it is told apart ([`RunnerApp`]), what it needs
//! before it starts ([`JitConfig`], [`Registration`]), its command lines ([`Launch`]), what its lines say
//! ([`observe`]) and what its end means ([`Ending`], [`RunnerApp::after`]). Two are known: github-act-runner 0.13.0 and
//! the official actions/runner (2.336.0).

mod app;
mod ending;
mod jit;
mod launch;
mod output;
mod version;

pub use app::{After, PROGRAM, RunnerApp, SETTINGS, StopSignal, without_token};
pub use ending::Ending;
pub use jit::{JitConfig, JitConfigError, RunnerFile, RunnerSettings};
pub use launch::{Launch, Proof, Registration, SEARCH_PATH, SecretVariable, User};
pub use output::{
    DIAGNOSTICS, JobResult, Observation, Relayed, is_diagnostic, observe, parse_relayed, relay,
};
pub use version::Version;
