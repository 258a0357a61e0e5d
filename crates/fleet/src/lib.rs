//! Loops that make one ephemeral runner after another, each in a machine of its own.
//!
//! ```text
//!   orchestrate ──> many loops, replaced when they die
//!   run_loop ──> one runner: pull ─> register ─> .env ─> VM ─> .tkn ─> watch ─> end ─> destroy ─> delete registration
//!      │                                  │
//!      └────────────── events <───────────┴──> journal (runs/<id>/journal.jsonl, flushed before each call it announces)
//! ```
//!
//! A loop is one function over its settings, so that a task of an orchestrator and `dayfly runner` alone run the same
//! code. It never prints; whoever started it reads its [`event::Event`]s.
//!
//! What the loop does not do: it knows no driver's command line, no wire format of a forge, no terminal.

pub mod event;
pub mod instance;
pub mod journal;
pub mod orchestrator;
pub mod recovery;
pub mod run_log;
mod runner;
mod runner_id;
mod runner_loop;
pub mod settings;
pub mod status;
pub mod stop;

pub use runner::{RunnerEnd, RunnerError};
pub use runner_id::{RunnerId, RunnerIdError};
pub use runner_loop::{LoopEnd, run_loop};
