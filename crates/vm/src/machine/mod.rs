//! The life of one machine, from its spec until its processes and files are removed.
//!
//! ```text
//!   start ──> supervisor (one task) ──> VmEvent ... Gone
//!     checks,    launch ──> hello ──> identify, environment, entrypoint ──> end of the VMM
//!     files        └─ no hello in time: kill, launch once again
//!   Vm::stop / Vm::kill: orders to the supervisor      Vm::destroy: the files
//! ```
//!
//! The supervisor owns the machine's state; all other code sends orders or reads events. [`supervisor`] is for machines
//! with an agent, [`mounted`] for machines that share their environment directory. If this process dies, the machine lives
//! on. A later process finds it by the record in the run folder ([`record`]), which is written before the machine exists.

mod disks;
mod error;
mod event;
mod exit;
mod folder;
mod handle;
mod handshake;
mod host;
mod link;
mod maker;
mod mounted;
pub(crate) mod origin;
pub(crate) mod record;
mod servers;
mod spare;
pub(crate) mod spawn;
mod spec;
mod start;
mod supervisor;
mod tree;

pub use error::{LeftoverError, StartError};
pub use event::VmEvent;
pub use exit::Exit;
pub(crate) use folder::MachineFolder;
pub use handle::Vm;
pub use host::{Limits, VmHost};
pub(crate) use maker::{MachineMaker, blocking};
pub use record::{Leftover, destroy_leftover, leftover};
pub(crate) use spare::NOBODY;
pub use spare::Spares;
pub use spec::{
    Driver, Egress, Entrypoint, KrunSettings, Machine, Network, ProcessSettings, QemuSettings, VmSpec,
};
pub(crate) use start::connect;
pub use start::start;
pub(crate) use supervisor::identity;
