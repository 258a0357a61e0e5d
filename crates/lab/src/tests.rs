//! Tests of the lab over HTTP, with a scripted runner.

#![expect(clippy::unwrap_used, reason = "tests")]

mod app;
mod bench;
mod fault;
mod hook;
mod job;
mod log;
mod prove;
mod reach;
mod registration;
mod replay;
mod rest;
mod restart;
mod runner;
mod scale_set;
mod schema;
mod scope;
mod summary;
