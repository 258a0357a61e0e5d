//! The agent protocol, which the host speaks with the agent in a guest. It runs over one virtio-serial port, or over a
//! Unix socket if the agent is a process of the host itself.
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
//!    | -- Ping{number} ------------------->|   again and again, while the machine runs
//!    |<------------------ Pong{number} ----|
//!    | -- Session{..} -------------------->|   a program that a person starts beside the job ([`session`])
//!    |<------------------- Session{..} --- |
//!    | -- PowerOff ----------------------->|
//! ```
//!
//! A machine that is to be frozen gets `Prepare` once Docker answers, and replies with `Prepared`. Its forks get `Hello`
//! and `Identify` together, because the host has written both before the fork existed.
//!
//! Each message is one frame ([`frame`]): marker, length, sequence number, checksum, JSON. The guest may be hostile, so
//! the host bounds what it reads, and does not trust a message because its checksum is right.

pub mod frame;
mod message;
#[cfg(any(test, feature = "fuzzing"))]
pub mod properties;
pub mod session;

pub use message::*;

/// Version of the protocol. Host and guest come from one build, so their versions must be equal. A difference is an
/// error and is not negotiated.
pub const VERSION: u32 = 8;

/// Name of the virtio-serial port, which the guest finds under `/sys/class/virtio-ports/*/name`.
pub const PORT_NAME: &str = "dayfly.agent";
