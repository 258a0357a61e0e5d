//! The client against servers of its own.

#![expect(clippy::unwrap_used, reason = "tests")]

mod prove;
mod server;
mod tls;
