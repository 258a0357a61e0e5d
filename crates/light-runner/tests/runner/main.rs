//! Whole scenarios: a lab and light runners in one process, over HTTP.

#![expect(clippy::unwrap_used, reason = "tests")]

mod ends;
mod gate;
mod jobs;
mod program;
mod sessions;
mod stage;
