//! Virtual machines for dayfly: drivers, VMM processes, templates, and the link to the agent in the guest.
//!
//! ```text
//!   start ──> fork: spare, fork or boot ──> vmm: plan (pure) ──> launch ──> VMM
//!     │          │ StartSource                                               │ agent's port
//!     │          v                                                           v
//!     ├───────> machine: supervisor <──── events, orders ────> Vm    entrypoint in the guest
//!     └───────> driver::*: plan (pure) ──> podman, krunvm: shared folder ────┘
//! ```
//!
//! The crate never prints, never reads environment variables, never exits the process, and knows nothing about forges.

mod accel;
mod cgroup;
pub mod check;
mod console;
mod driver;
mod environment;
mod folder_watch;
mod fork;
mod forward;
pub mod host;
pub mod launch;
mod load;
mod machine;
mod mount;
mod network;
mod pace;
mod process;
mod readiness;
pub mod shared_folder;
mod spec;
mod start;
mod throttle;
mod virtiofs;
mod vm_host;
mod vmm;
pub mod walls;

pub use accel::{Accel, AccelChoice, AccelChoiceError};
pub use cgroup::{MachineLimits, MachineUse, MemoryKill, machine_use, sweep_groups};
pub use driver::{
    ChooseError, ChosenDriver, DriverKind, DriverKindError, Pulling, UsableDrivers, choose, find, pull,
};
pub use environment::{EnvironmentDir, EnvironmentError};
pub use fork::{Spares, kept, template};
pub use forward::Forward;
pub use launch::{LaunchError, Launcher};
pub use load::{Flow, MachineLoad, machine_load};
pub use machine::{
    DISK_RESERVE_MIB, Exit, LeftoverError, Session, SessionError, StartError, StartedFrom, TakeOver,
    TakeOverError, Vm, VmEvent, destroy_leftover, is_alive, may_live, take_over,
};
pub use mount::{Mount, MountError};
pub use network::{
    AllowEntry, Decision, Destination, NetworkError, NetworkPolicy, NetworkUse, Protocol, Reason, network_use,
};
pub use pace::{NoMemory, OVERCOMMIT};
pub use spec::{
    Driver, Egress, Entrypoint, KrunSettings, Machine, Network, ProcessSettings, QemuSettings, VmSpec,
};
pub use start::start;
pub use template::{Preparing, TemplateSettings, Templates, WarmUp, prepare, rebuild, sweep_templates};
pub use vm_host::{KEPT_MAX_MIB, Limits, VmHost};
pub use vmm::probe::{AccelReport, ProbeGuest, Trust, answer as probe, is_known as is_probed, sweep_probes};
pub use vmm::{MachineSizes, machines_of_others};
