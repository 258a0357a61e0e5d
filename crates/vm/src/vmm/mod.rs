//! The seam between machines and the program that runs a guest (VMM), which is QEMU today.
//!
//! ```text
//!   fork, machine ──> vmm: VmmNeeds ──plan──> VmmCommand ──> launch
//!                          Monitor <── socket of the running VMM
//!                            └── qemu/   everything that knows QEMU
//! ```
//!
//! Only [`qemu`] knows QEMU's options, monitor, firmware and file formats. All other code uses the names that this module
//! exports. A second VMM gets a folder beside `qemu/` and brings these parts:
//!
//! - **program**: finds its program ([`find_program`]) and checks this host for `dayfly doctor` ([`checks`]),
//! - **platform**: what is resolved once per machine, with the files of its program and firmware, which are part of a
//!   template's key ([`Platform`], [`probe::resolve`]), and finds out whether a guest boots ([`probe`]),
//! - **plan**: turns [`VmmNeeds`] into a [`VmmCommand`], pure ([`plan`]),
//! - **monitor**: pauses, resumes, freezes and quits a running VMM, restores a fork, and reports why the machine stops
//!   ([`Monitor`]),
//! - **census**: the sizes of all machines that run on this host ([`committed_mib`], [`machines_of_others`]),
//! - **snapshot**: the memory of a template in the form that its forks map ([`memory`]), and a fork's disk over the
//!   template's ([`overlay`]),
//! - **words**: its name, and what its firmware prints if it finds no kernel, in messages for people ([`NAME`],
//!   [`NO_BOOT_DEVICE`], [`NO_KERNEL_FOUND`], [`NOT_FROZEN`], [`NOT_EXITED`]).
//!
//! There is no trait yet, because with one VMM nothing would show which methods both can honour. The second VMM turns these
//! names into an enum or a trait. [`VmmNeeds`], [`VmmCommand`], [`VmmFiles`] and [`kvm`] are for every VMM.

mod command;
mod files;
mod initramfs;
pub(crate) mod kvm;
mod needs;
mod qemu;

pub(crate) use command::{DescriptorRole, VmmCommand};
pub(crate) use files::VmmFiles;
pub(crate) use needs::{Boot, NetworkCard, VmmNeeds};
pub(crate) use qemu::{
    FreezeError, MONITOR_SOCKET, Monitor, MonitorEvent, NAME, NO_BOOT_DEVICE, NO_KERNEL_FOUND, NOT_EXITED,
    NOT_FROZEN, Platform, ShutdownCause, StateToRestore, checks, committed_mib, find_program, is_script,
    memory, overlay, plan, probe, tsc_khz,
};
pub use qemu::{MachineSizes, machines_of_others};
