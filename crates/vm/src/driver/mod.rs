//! Drivers: what turns a machine's needs into a program's command line.

pub(crate) mod qemu;
