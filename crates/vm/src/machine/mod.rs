//! One machine, from its needs to the moment when nothing of it is left.
//!
//! ```text
//!   start ──> supervisor (one task) ──> VmEvent ... Gone
//!     checks,    launch ──> hello ──> identify, environment, entrypoint ──> end of the VMM
//!     files        └─ no hello in time: kill, launch once again
//!   Vm::stop / Vm::kill: orders to the supervisor      Vm::destroy: the files
//! ```
//!
//! The supervisor owns the machine's state; everybody else sends orders or reads events. If this process dies, the
//! machine lives on: its process is written down in the run folder ([`record`]), its sockets stand there.

mod disks;
mod error;
mod event;
mod exit;
mod handle;
mod handshake;
mod host;
mod initramfs;
mod link;
pub(crate) mod record;
mod servers;
pub(crate) mod spawn;
mod spec;
mod start;
mod supervisor;
mod watcher;

pub use error::{LeftoverError, StartError};
pub use event::VmEvent;
pub use exit::Exit;
pub use handle::Vm;
pub use host::{Limits, VmHost};
pub use record::{Leftover, destroy_leftover, leftover};
pub use spec::{Driver, Egress, Entrypoint, Machine, Network, QemuSettings, VmSpec};
pub use start::start;

pub(crate) use initramfs::{InitramfsError, with_guest};
