//! The messages of the protocol. A guest parses them with little code, because an emulated processor translates this code
//! again in each fork: a variant's name comes before its content, numbers are numbers, and text is ready to be written to
//! files.
//!
//! The frame's length ([`super::frame::PAYLOAD_MAX`]) bounds every text and list in them.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::session::{SessionInput, SessionOutput};

/// A message from the host to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostMessage {
    /// The first message on every connection. The agent answers with its own [`GuestMessage::Hello`].
    Hello {
        /// [`super::VERSION`] of the host.
        version: u32,
        /// Grows with each connection that the host makes to this machine.
        epoch: u64,
        /// Number of the last line that a host has kept; 0 if there is none. The agent sends the lines after it again.
        #[serde(default)]
        lines_seen: u64,
    },
    /// Prepare everything that any runner needs, and nothing that belongs to one runner. The machine answers with
    /// [`GuestMessage::Prepared`]; then it is frozen, and others are forked from it. Legal once, before any
    /// [`HostMessage::Identify`]; the answer to another one is a failure.
    Prepare(Prepare),
    /// Remove the identity again: name and ids. Legal after an [`HostMessage::Identify`] that was a rehearsal, if
    /// only [`HostMessage::Prepare`] has started anything. A machine rehearses because its forks are faster at all that it
    /// has done before it was frozen. Answered by [`GuestMessage::Prepared`].
    Forget,
    /// Take on an identity. Legal at any time before [`HostMessage::Start`], also repeatedly: the last one counts. Answered
    /// by [`Milestone::Identified`] or a [`GuestMessage::Fault`]. No entrypoint is started in a machine without an identity.
    Identify(Identity),
    /// Set the wall clock, which is late if the machine stood still or waited in a queue for its identity, and wrong if the
    /// host's clock has jumped. Legal at any time.
    Clock {
        /// Wall clock of the host, nanoseconds since 1970-01-01 UTC, read as late as possible.
        unix_time_ns: u64,
    },
    /// Write a file of the environment directory (`/_environment`), atomically and readable by root only.
    PutFile {
        /// A name without a slash, e.g. `2-k3V9x0q.env`.
        name: String,
        /// Whole content, UTF-8.
        content: String,
    },
    /// Start the entrypoint. Legal once.
    Start(Start),
    /// Answer with [`GuestMessage::Pong`]. Legal at any time.
    Ping {
        /// A number, which the answer repeats.
        number: u64,
    },
    /// A message to the program of a session. Legal once the machine has an identity. The sessions of a host end when another
    /// host says hello.
    Session {
        /// Number of the session, which the host chooses and uses once.
        session: u64,
        /// The message.
        input: SessionInput,
    },
    /// Stop everything and power the machine off.
    PowerOff,
}

/// The preparations before a machine is frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// User that runner apps run as.
    pub user: String,
    /// DNS server that the warm-up uses.
    pub dns: Option<Ipv4Addr>,
    /// Script that runs as that user before all other preparations. It has network, and no secret.
    pub warm_up: Option<String>,
    /// Longest time that the warm-up may take, seconds.
    pub warm_up_limit_s: u64,
}

/// The identity of a machine, and values that only the host can know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Host name, e.g. `GH-runner-2-k3V9x0q`.
    pub hostname: String,
    /// 32 lower-case hexadecimal digits, as in `/etc/machine-id`.
    pub machine_id: String,
    /// Wall clock of the host, nanoseconds since 1970-01-01 UTC, read as late as possible.
    pub unix_time_ns: u64,
    /// A random UUID (RFC 9562, version 4), which programs read as the kernel's boot id.
    pub boot_id: String,
    /// 48 to 512 fresh random bytes for the kernel's random number generator.
    pub entropy: Vec<u8>,
    /// DNS server; `None` means that of QEMU's own network.
    pub dns: Option<Ipv4Addr>,
    /// True to offer a root shell on the console, for a person who inspects the machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shell: bool,
}

/// How to start the entrypoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Runner id, e.g. `2-k3V9x0q`, which names the files in `/_environment`.
    pub runner_id: String,
    /// Absolute path of the program, if it is not the guest binary that the machine was started with. Both are called in
    /// the same way: `PROGRAM entrypoint ARGS`.
    pub program: Option<String>,
    /// Arguments of `dayfly-guest entrypoint`. No secret is ever among them.
    pub args: Vec<String>,
    /// The shares that are mounted before. The entrypoint is not started if one of them fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// The entrypoint's whole environment. No secret is ever in it.
    pub env: Vec<(String, String)>,
}

/// A folder or file of the host, mounted by virtiofs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Its virtiofs tag.
    pub tag: String,
    /// Absolute path of the mount point, which is created if it does not exist.
    pub path: String,
    /// If set, only this file of the folder is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// True if the guest cannot write to it.
    pub read_only: bool,
}

/// A message from the agent to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestMessage {
    /// The first message on every connection: sent when the port opens, and again as the answer to the host's hello.
    Hello {
        /// [`super::VERSION`] of the guest.
        version: u32,
        /// The epoch of the host's hello that this answers; 0 if no host has said hello yet.
        epoch: u64,
        /// Version of the guest binary.
        build: String,
        /// True once an entrypoint was started.
        #[serde(default)]
        started: bool,
    },
    /// The machine has reached a milestone.
    Milestone {
        /// The milestone.
        milestone: Milestone,
        /// Milliseconds since the guest's kernel started.
        uptime_ms: u64,
    },
    /// A file has appeared in the environment directory. Only names of the current runner with the suffixes
    /// `.tkn` and `.brk` are sent, 4 KiB of content at most.
    File {
        /// A name without a slash.
        name: String,
        /// Whole content, invalid UTF-8 replaced.
        content: String,
    },
    /// A line of output, without its line end, cut after 8 KiB.
    Line {
        /// Its number, from 1 on. Missing numbers are lines that were dropped, because the host did not keep up.
        number: u64,
        /// The program that printed it.
        source: Source,
        /// The text, invalid UTF-8 replaced.
        text: String,
    },
    /// The entrypoint has exited. Exactly one of the two fields is set.
    EntrypointExited {
        /// Its exit status.
        code: Option<i32>,
        /// The signal that killed it.
        signal: Option<i32>,
    },
    /// Answer to [`HostMessage::Prepare`] and [`HostMessage::Forget`]. The machine can be frozen unless there is a failure.
    Prepared {
        /// The step that failed, and the reason why the machine must not be frozen.
        failure: Option<String>,
    },
    /// Answer to [`HostMessage::Ping`].
    Pong {
        /// The number of the ping.
        number: u64,
    },
    /// A message from the program of a session. Only the host that has opened it gets it.
    Session {
        /// Number of the session.
        session: u64,
        /// The message.
        output: SessionOutput,
    },
    /// The Docker daemon could not be started, has not answered in time, or has exited. The machine is usable without it.
    DockerFailed {
        /// The failure and its reason, with the daemon's last lines.
        reason: String,
    },
    /// The machine's memory was used up, and the kernel has killed a process.
    OutOfMemory {
        /// Name of the process.
        process: String,
        /// The memory that it used, MiB.
        used_mib: u64,
        /// The memory of the machine, MiB.
        memory_mib: u64,
    },
    /// Something else has failed, but the machine may still be usable.
    Fault {
        /// The failure, its place, and its cause.
        message: String,
    },
}

/// Steps of a machine's start, in their usual order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Milestone {
    /// Root file system, kernel file systems and scratch disk are mounted.
    Mounts,
    /// Loopback is up, and the network interface if there is one.
    Network,
    /// The machine has taken on its identity.
    Identified,
    /// `GET /_ping` on Docker's socket answered.
    DockerReady,
}

/// The program that printed a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Init and agent themselves.
    Agent,
    /// The Docker daemon.
    Docker,
    /// The entrypoint, which relays the runner app as `[runner@runner-<id>] text`.
    Entrypoint,
    /// The script of [`Prepare::warm_up`].
    WarmUp,
}
