//! QEMU's `microvm` machine: no PCI, a minimal firmware, all devices on virtio-mmio.

mod cpu_model;
mod firmware;
mod kernel;
mod plan;

pub(crate) use cpu_model::consequence;
pub(crate) use firmware::Firmware;
pub(crate) use plan::{Boot, Card, Invocation, Needs, Role, plan};
