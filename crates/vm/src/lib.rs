//! Virtual machines for dayfly: drivers, VMM processes, templates, and the link to the agent in the guest.
//!
//! ```text
//!   image ──> machine::start ──> driver::*::plan (pure) ──> launch ──> VMM
//!                  │                                                    │ agent's port, or a shared folder
//!                  └── supervisor <── events, orders ──> Vm     entrypoint in the guest
//! ```
//!
//! The crate never prints, never reads environment variables, never exits the process, and knows nothing about forges.

mod accel;
pub mod check;
mod console;
mod driver;
mod environment;
mod folder_watch;
mod forward;
pub mod host;
pub mod launch;
mod machine;
mod mount;
mod network;
mod pace;
mod process;
mod readiness;
mod socket;
pub mod template;
mod virtiofs;
mod vmm;

pub use accel::{Accel, AccelChoice, AccelChoiceError};
pub use driver::{ChooseError, Chosen, DriverKind, DriverKindError, Found, Pulling, choose, find, pull};
pub use environment::{EnvironmentDir, EnvironmentError};
pub use forward::Forward;
pub use launch::{LaunchError, Launcher};
pub use machine::{
    Driver, Egress, Entrypoint, Exit, KrunSettings, Leftover, LeftoverError, Limits, Machine, Network,
    ProcessSettings, QemuSettings, Spares, StartError, Vm, VmEvent, VmHost, VmSpec, destroy_leftover,
    leftover, start,
};
pub use mount::{Mount, MountError};
pub use network::NetworkError;
pub use pace::NoMemory;
pub use template::{
    Preparing, StartedFrom, TemplateSettings, Templates, WarmUp, prepare, rebuild, sweep_templates,
};
pub use vmm::probe::{Answer, ProbeGuest, Trust, answer as probe, is_known as is_probed};
