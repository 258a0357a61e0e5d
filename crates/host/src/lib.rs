//! Files, programs and the clock of the host, for the crates that build and run machines.
//!
//! - [`file`] replaces a small file in one step;
//! - [`stage`] builds a folder under a lock and publishes it by one rename;
//! - [`reserve`] keeps space for the end of what fills the disk;
//! - [`open`] opens files that others may have put there;
//! - [`digest`], [`space`], [`clock`] and [`name`] read files, file systems, the time and the host's name;
//! - [`socket`] has Unix sockets whose path may have any length;
//! - [`descriptors`] raises the limit of open files;
//! - [`scarcity`] tells a host that has run out of something from a thing that is broken;
//! - [`retry`] has the rules for repeating what failed, and all of their values;
//! - `left_out` tells what tests leave out without root;
//! - [`quantity`] writes a number with its noun;
//! - [`tool`] runs a program with a time limit; [`confine`] runs one that works on the bytes of strangers.
//!
//! This crate knows neither images nor machines.

pub mod clock;
pub mod confine;
pub mod descriptors;
pub mod digest;
pub mod file;
#[cfg(any(test, feature = "test"))]
pub mod left_out;
pub mod name;
pub mod open;
pub mod quantity;
pub mod reserve;
pub mod retry;
pub mod scarcity;
pub mod socket;
pub mod space;
pub mod stage;
pub mod tool;
