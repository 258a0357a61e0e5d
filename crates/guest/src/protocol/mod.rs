//! The agent protocol: how the host speaks with the agent in a guest, over one virtio-serial port
//! (or, where the agent is a process of the host itself, over a Unix socket).
//!
//! ```text
//!   host                                  guest (agent, PID 1)
//!    | -- Hello{version, epoch} ---------->|   first on every connection
//!    |<---------- Hello{version, epoch} -- |
//!    |<-------------- Milestone(..) ------ |   mounts, network, docker
//!    | -- Identify(..) ------------------->|   hostname, clock, entropy
//!    | -- PutFile{"<id>.env"} ------------>|   the environment directory, mirrored
//!    | -- Start(..) ---------------------->|   the entrypoint, as its own program
//!    |<----------- File{"<id>.tkn"} ------ |
//!    |<------------------- Line{..} ------ |   relayed output
//!    |<-------- EntrypointExited{..} ----- |
//!    | -- PowerOff ----------------------->|
//! ```
//!
//! A machine that is to be frozen hears `Prepare` once Docker answers, and answers `Prepared`. One that is forked from it
//! hears `Hello` and `Identify` in one go: they were written before it was there.
//!
//! Each message is one frame ([`frame`]): marker, length, sequence number, checksum, JSON. The guest is hostile:
//! the host bounds what it reads and believes nothing that a checksum alone vouches for.

pub mod frame;
mod message;

pub use message::*;

/// Version of the protocol. Host and guest come from one build, so versions must be equal: a difference is an
/// error, not something to negotiate.
pub const VERSION: u32 = 4;

/// Name of the virtio-serial port, as the guest finds it under `/sys/class/virtio-ports/*/name`.
pub const PORT_NAME: &str = "dayfly.agent";
