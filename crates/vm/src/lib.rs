//! Virtual machines for dayfly: images, the QEMU driver, VMM processes, and the link to the agent inside.
//!
//! ```text
//!   image ──> machine::start ──> driver::qemu::plan (pure) ──> launch ──> VMM
//!                  │                                                       │ virtio-serial
//!                  └── supervisor <── events, orders ──> Vm      agent in the guest
//! ```
//!
//! Nothing here prints, reads the environment or exits; nothing here knows what a forge is.

mod accel;
mod console;
mod driver;
mod environment;
mod forward;
pub mod host;
pub mod image;
mod kvm;
pub mod launch;
mod machine;
mod mount;
mod network;
mod probe;
mod process;
mod qmp;
mod readiness;
mod socket;
mod space;
mod tsc;
mod virtiofs;

pub use accel::{Accel, AccelChoice, AccelChoiceError};
pub use environment::{EnvironmentDir, EnvironmentError};
pub use forward::Forward;
pub use image::Image;
pub use launch::{LaunchError, Launcher};
pub use machine::{
    Driver, Egress, Entrypoint, Exit, Leftover, LeftoverError, Limits, Machine, Network, QemuSettings,
    StartError, Vm, VmEvent, VmHost, VmSpec, destroy_leftover, leftover, start,
};
pub use mount::{Mount, MountError};
pub use network::NetworkError;
pub use probe::{Answer, answer as probe};
