//! Starts a VMM from a command line, and isolates it.
//!
//! ```text
//!   host process                              launcher (this program again: `dayfly vmm-launch 0`)
//!    | -- spawn, socket as stdin -------------->|
//!    |  write down pid and start time           |   waits, and exits if the host process dies now
//!    | -- LaunchOrder, descriptors ------------------>|
//!    |                                          |   session, namespaces, port, limits, root, identity, no privileges
//!    |<----------------- Handed, descriptors -- |   only if a port or a network was requested
//!    |                                          |   exec; a gate serves; the maker of a network exits
//!    |<------------ Failed | end of the stream -|   the end: the program runs, or the gate serves
//! ```
//!
//! The launcher is a separate process because a program must have one thread to change its namespaces and identity, and
//! because the launcher must not hold anything of the host process. So it is started by exec, and the order names what it
//! needs. The VMM gets no death signal, because a machine outlives the process that started it. A server of files for a VMM
//! is launched in the same way. It stays root, because files have many owners, and has its export in its root. The gate of a
//! machine's network is the launcher itself: it serves instead of executing a program, so its root needs no file. Without root,
//! the network of a machine is made by a launcher too.

mod bpf;
mod calls;
mod child;
mod export;
mod gate_calls;
mod landlock;
mod libraries;
mod modes;
mod mounts;
mod order;
mod parent;
mod root;

pub use child::main;
pub use parent::{LaunchError, Launcher};

pub(crate) use calls::VmmCalls;
pub(crate) use child::is_user_of_vmm;
pub(crate) use export::{EXPORT, Export};
pub(crate) use landlock::version as landlock_version;
pub(crate) use libraries::{EVERYTHING, LIBRARY_LIST, libraries};
pub(crate) use order::{CallFilter, LaunchOrder, NetworkPlace, Program, Task, User};
pub(crate) use parent::{Launched, launch};
pub(crate) use root::OwnRoot;
