//! The entrypoint as a plain process on this machine, with scripts for a runner app: it knows files, standard output
//! and processes only, so nothing else is needed.
#![allow(missing_docs, clippy::unwrap_used)]

mod by_hand;
mod engine;
mod jit;
mod notes;
mod official;
mod signals;
mod stage;
mod standby;
mod token;
