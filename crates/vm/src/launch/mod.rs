//! From a command line to a VMM that runs in a cage of its own.
//!
//! ```text
//!   host process                              launcher (this program again: `dayfly vmm-launch 0`)
//!    | -- spawn, socket as stdin -------------->|
//!    |  write down pid and start time           |   waits: where the host process dies now, so does it
//!    | -- Order, descriptors ------------------>|
//!    |                                          |   session, namespaces, port, limits, identity, no privileges
//!    |<------------- Listening, the listener -- |   only where a port was asked for
//!    |                                          |   exec
//!    |<------------ Failed | end of the stream -|   the end: the program runs
//! ```
//!
//! The launcher is a process of its own because namespaces and identities belong to single-threaded programs, and
//! because it must not hold anything of the host process: it is started by exec, and gets what it needs by name.
//! The VMM gets no death signal: a machine outlives the process that started it. What serves files to a VMM is launched
//! in the same way, with a view of the host in place of an identity.

mod child;
mod export;
mod order;
mod parent;

pub use child::main;
pub use parent::{LaunchError, Launcher};

pub(crate) use export::{EXPORT, Export};
pub(crate) use order::{Order, Place, User};
pub(crate) use parent::{Launched, launch};
