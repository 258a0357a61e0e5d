//! Tests of the entrypoint as a plain process on this machine, with scripts in place of a runner app. Nothing else is
//! needed, because the entrypoint uses files, standard output and processes only.
#![allow(missing_docs, clippy::unwrap_used)]

mod by_hand;
mod engine;
mod hooks;
mod jit;
mod listener;
mod notes;
mod official;
mod signals;
mod stage;
mod standby;
mod token;
