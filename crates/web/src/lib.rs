//! The read-only server of an orchestrator.
//!
//! ```text
//!   facts ──> Publisher ──> counters ───────────────┐
//!                      └──> snapshot of the status ─┼──> Published ──> /metrics ──> WebServer ──> clients
//!   pools (start, reload, orders) ──────────────────┘
//! ```
//!
//! Everything here reads. The loop of the process adds to counters and replaces a snapshot; a client gets a text that was
//! complete before its first byte was sent, so no reader holds a lock or the loop up. Connections, headers, bytes and seconds
//! have limits, and a client that does not read is dropped.
//!
//! This crate prints nothing, reads no environment variable, and knows no command line.

mod access;
mod listen;
mod metrics;
mod page;
mod pools_now;
mod publish;
mod routes;
mod server;
mod stream;

pub use access::{Access, TOKEN_LENGTH_MIN};
pub use listen::{ListenAddress, ListenAddressError};
pub use page::visible;
pub use pools_now::{PHASES, PoolNow, pools_now};
pub use publish::{ForgeAccount, PoolEntry, Published, Publisher, Site, channel};
pub use routes::router;
pub use server::{BindError, WebServer};
