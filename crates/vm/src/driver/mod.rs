//! Drivers: what turns a machine's needs into a program's command line.
//!
//! There are two ways to speak with what runs inside:
//!
//! - *carried* ([`qemu`], [`process`]): an agent there, over a port of its own; it starts the entrypoint, and carries the
//!   files of the environment directory;
//! - *mounted* ([`podman`], [`krunvm`]): the environment directory is shared, the entrypoint is the machine's command: its
//!   output is the machine's, its end the machine's end.
//!
//! Neither the loop nor the entrypoint can tell which one it is.

pub(crate) mod choose;
mod kind;
pub(crate) mod krunvm;
pub(crate) mod mounted;
pub(crate) mod podman;
pub(crate) mod process;
pub(crate) mod pull;
pub(crate) mod qemu;

pub use choose::{ChooseError, Chosen, Found, choose, find};
pub use kind::{DriverKind, DriverKindError};
pub use pull::{Pulling, pull};
