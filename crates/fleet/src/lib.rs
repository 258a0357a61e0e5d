//! Runs loops that create one ephemeral runner after another, each in a machine of its own.
//!
//! ```text
//!   orchestrate ──> the slots of a pool, as its demand needs
//!   run_loop ──> one runner: pull ─> register ─> .env ─> VM ─> .tkn ─> watch ─> end ─> destroy ─> delete registration
//!      │                                  │
//!      └─── stream of facts <─────────────┴──> journal (runs/<id>/journal.jsonl, flushed before the step it announces)
//! ```
//!
//! A loop is one function over its settings, so that a task of an orchestrator and `dayfly runner` alone run the same
//! code. It never prints; its caller reads its [`fact::Fact`]s. [`state::RunnerState`] is the fold of a runner's facts, for
//! the runner itself, for `dayfly ps`, and for the start that removes the remains of a dead process.
//!
//! A loop knows no driver's command line, no wire format of a forge, and no terminal.

pub mod cause;
pub mod demand;
pub mod fact;
pub mod history;
pub mod instance;
pub mod job_end;
pub mod journal;
pub mod kept;
pub mod orchestrator;
pub mod pool;
pub mod reaper;
pub mod recovery;
mod registration;
pub mod remains;
pub mod run_log;
mod runner;
mod runner_id;
mod runner_loop;
pub mod scratch;
pub mod slot;
pub mod state;
pub mod status;
pub mod stop;
pub mod stream;
pub mod why;

pub use runner::{RunnerEnd, RunnerError};
pub use runner_id::{RunnerId, RunnerIdError};
pub use runner_loop::{LoopEnd, run_loop};
