//! The fault desk: failures of a forge that an admin of the lab orders, so that a client can be held to its behaviour.
//!
//! ```text
//!  dayfly lab fault add ──> POST /lab/v1/faults ──> FaultDesk (in the state: rules, each with its own generator)
//!                                                     │
//!  request ──> layer ── before: refuse? ──> handler ──┼─> state faults: conflicts, theft, lost messages, webhooks
//!                 └──── after the commit: drop, delay or change the reply
//!                                                     └─> event `fault_injected` for each fault that has happened
//! ```
//!
//! A [`FaultSpec`] is what an admin orders: the [`Fault`], the [`Operation`] it is for, and the [`Trigger`] that decides which
//! occasions it takes. Whether an occasion is taken depends on the seed, the rule and the number of occasions before, so a run
//! with the same seed and the same requests fails in the same way. Calls below `/lab` never fail, so the admin can always
//! clear the desk. Rules do not outlive the process.

mod desk;
mod kind;
mod layer;
mod operation;
#[cfg(test)]
mod page;
mod reply;
mod spec;

pub(crate) use desk::{FaultDesk, Fired};
pub use desk::{FaultReport, FaultRule};
pub use kind::{Fault, FaultValue};
pub(crate) use layer::{Dropped, Reply, play};
pub use operation::Operation;
pub(crate) use operation::{Call, Side};
pub use spec::{FaultError, FaultSpec, Trigger, parse_seconds};
