//! The seam for the runner app: the program in the machine that speaks to the forge.
//!
//! Everything that depends on which program it is stands here: what it needs before it starts ([`Launch`],
//! [`JitConfig`]), what its lines say ([`observe`]) and what its end means ([`Ending`]). Now it is
//! github-act-runner 0.13.0; the words of the official actions/runner are understood already.

mod ending;
mod jit;
mod launch;
mod output;

pub use ending::Ending;
pub use jit::{JitConfig, JitConfigError, RunnerFile, RunnerSettings};
pub use launch::{Launch, PROGRAM, StopSignal, User};
pub use output::{JobResult, Observation, Relayed, observe, parse_relayed, relay};
