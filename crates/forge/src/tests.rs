//! Tests of the client against servers that the tests start.

#![expect(clippy::unwrap_used, reason = "tests")]

mod prove;
mod redirect;
mod server;
mod tls;
