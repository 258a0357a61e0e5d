//! The life of one machine, from its spec until its processes and files are removed.
//!
//! ```text
//!   start ──> supervisor (one task) ──> VmEvent ... Gone
//!     checks,    launch ──> hello ──> identify, environment, entrypoint ──> end of the VMM
//!     files        └─ no hello in time: kill, launch once again
//!   Vm::stop / Vm::kill: orders to the supervisor      Vm::destroy: the files
//! ```
//!
//! This layer knows no templates: a [`StartSource`] provides each start, and is told how it went.
//!
//! The supervisor owns the machine's state; all other code sends orders or reads events. [`supervisor`] is for machines
//! with an agent, [`mounted`] for machines that share their environment directory. If this process dies, the machine lives
//! on. A later process finds it by the record in the run folder ([`record`]), which is written before the machine exists, and
//! takes it over ([`take_over`]) or removes it.

mod attempt;
mod create;
pub(crate) mod disks;
mod error;
mod event;
mod exit;
mod folder;
mod handle;
mod handshake;
#[cfg(test)]
mod hundred;
mod identity;
mod jail;
mod link;
mod maker;
mod mounted;
mod owned;
mod pulse;
pub(crate) mod record;
mod restore;
mod servers;
mod sessions;
mod source;
pub(crate) mod spawn;
mod supervise;
mod supervisor;
mod take_over;
mod tree;

pub(crate) use create::{Mounting, start_mounted};
pub use disks::DISK_RESERVE_MIB;
pub use error::{LeftoverError, StartError};
pub use event::{StartedFrom, VmEvent};
pub use exit::Exit;
pub(crate) use folder::MachineFolder;
pub use handle::Vm;
pub(crate) use identity::{identity, unix_time_ns};
pub(crate) use maker::{MachineMaker, blocking};
pub(crate) use record::MachineRecordKind;
pub use record::destroy_leftover;
pub(crate) use restore::restore;
pub use sessions::{Session, SessionError};
pub(crate) use source::{KeptParts, KeptVmm, StartSource, Started};
pub(crate) use supervise::supervise;
pub(crate) use supervisor::MachineRole;
pub use take_over::{TakeOver, TakeOverError, is_alive, may_live, take_over};
pub(crate) use tree::TreeRecipe;
