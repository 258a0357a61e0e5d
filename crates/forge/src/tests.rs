//! Tests of the client against servers that the tests start.

#![expect(clippy::unwrap_used, reason = "tests")]

mod app;
mod limits;
mod open_jobs;
mod prove;
mod redirect;
mod rsa_key;
mod scale_set;
pub(crate) mod scripted;
mod server;
mod tls;

pub(crate) use rsa_key::{pem, rsa_key};
