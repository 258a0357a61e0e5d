//! QEMU's `microvm` machine: no PCI, a minimal firmware, all devices on virtio-mmio.

mod census;
mod cpu_model;
mod doctor;
mod files;
mod firmware;
mod kernel;
pub(crate) mod memory;
mod monitor;
pub(crate) mod overlay;
mod plan;
mod platform;
pub(crate) mod probe;
mod program;
mod qmp;
mod sightings;
mod threads;
mod tsc;

pub(crate) use census::committed_mib;
pub use census::{MachineSizes, machines_of_others};
pub(crate) use doctor::checks;
pub(crate) use files::is_script;
pub(crate) use firmware::{NO_BOOT_DEVICE, NO_KERNEL_FOUND};
pub(crate) use monitor::{
    FreezeError, Monitor, MonitorEvent, NOT_EXITED, NOT_FROZEN, ShutdownCause, StateToRestore,
};
pub(crate) use plan::plan;
pub(crate) use platform::Platform;
pub(crate) use program::find as find_program;
pub(crate) use tsc::frequency_khz as tsc_khz;

/// File name of the monitor's socket in a machine's folder.
pub(crate) const MONITOR_SOCKET: &str = "qmp.sock";
/// The VMM's name in messages.
pub(crate) const NAME: &str = "QEMU";
