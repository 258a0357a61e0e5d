//! Drivers: they turn a machine's needs into a program's command line.
//!
//! There are two ways to communicate with the programs in a machine:
//!
//! - *carried* (`qemu`, by [`crate::vmm`], and [`process`]): an agent in the machine, with a port of its own, starts the entrypoint and carries
//!   the files of the environment directory.
//! - *mounted* ([`podman`], [`krunvm`]): the machine shares the environment directory, and the entrypoint is the machine's
//!   command. Its output is the machine's output, and the machine stops when it exits.
//!
//! Neither the loop nor the entrypoint can tell which way is used.

pub(crate) mod choose;
mod kind;
pub(crate) mod krunvm;
pub(crate) mod mounted;
pub(crate) mod podman;
pub(crate) mod process;
pub(crate) mod pull;

pub use choose::{ChooseError, ChosenDriver, UsableDrivers, choose, find};
pub use kind::{DriverKind, DriverKindError};
pub use pull::{Pulling, pull};
