//! Scale sets: the protocol with which a forge says how many runners it needs, without a port that it could call.
//!
//! ```text
//! registration token ──> POST actions/runner-registration ──> address and token of the Actions Service   connection
//!                                                                   │
//!               find, create, relabel, delete a scale set <─────────┤   admin token                      client
//!               JIT configs, runners by name, removal     <─────────┤   admin token                      runner
//!               session: create, refresh, delete          <─────────┘   admin token                      session
//!                  └─> queue: long poll, delete, acquire jobs           queue token                      session
//!
//! listener:  NoScaleSet ──> NoSession ──> Live ⇄ Stale
//!                ^──────────────┴──────────┴───────┘  each failure has one remedy
//! ```
//!
//! - [`ScaleSetClient`] makes single calls. Its clones share one connection pool and one admin token.
//! - [`ScaleSetListener`] holds a session and returns one [`ScaleSetUpdate`] after another. It has no policy: the caller
//!   decides from [`ScaleSetStatistics::runners_wanted`] how many runners there should be. It needs no thread and keeps no
//!   buffer between two messages, so that one process serves many scale sets.
//!
//! **Tokens and hosts.** The forge names the address of the Actions Service, and the service names the address of a queue.
//! Each token goes only to the scheme, host and port that it was issued for: the user's token and the registration token to
//! the forge, the admin token to the service, and a queue token to its queue and, to acquire jobs, to the service. Named
//! addresses must be https. Only a forge or service without TLS may name an address without TLS, and only one on its own
//! host (see `address`). A redirect is followed only for a GET, and only to the same scheme, host and port.
//!
//! Source of the protocol: github.com/actions/scaleset 0.4.0, the official client, and what its server was observed to do.

mod address;
mod client;
mod connection;
mod demand;
mod fault;
mod listener;
mod message;
mod offers;
mod remedy;
mod runner;
mod session;
mod update;
mod wire;

pub use client::{NewScaleSet, ScaleSetClient};
pub use demand::{ScaleSetDemand, ScaleSetStatistics};
pub use fault::ServiceFault;
pub use listener::{ScaleSetListener, ScaleSetSpec};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use message::{EVENTS_MAX, UNREAD_MAX};
pub use message::{RunnerOfJob, ScaleSetJob, ScaleSetJobEvent, ScaleSetMessage};
pub use runner::{NewScaleSetRunner, ScaleSetRunner};
pub use session::{ScaleSetSession, SessionId};
pub use update::{ListenerTrouble, ReadyScaleSet, ScaleSetUpdate};
pub use wire::{ScaleSet, ScaleSetLabel};
