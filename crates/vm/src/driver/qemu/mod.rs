//! QEMU's `microvm` machine: no PCI, no firmware to speak of, all devices on virtio-mmio.

mod kernel;
mod plan;

pub(crate) use plan::{Boot, Card, Invocation, Needs, Role, plan};
