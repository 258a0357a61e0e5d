//! The messages. They are written so that a guest reads them with little code, which an emulated processor translates anew in
//! each fork: a variant's name before its content, numbers as numbers, text as it is to be put into files.
//!
//! Every text and list in them is bounded by the frame's length ([`super::frame::PAYLOAD_MAX`]).

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// What the host says to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostMessage {
    /// First on every connection. The agent answers with its own [`GuestMessage::Hello`].
    Hello {
        /// [`super::VERSION`] of the host.
        version: u32,
        /// Grows with each connection that the host makes to this machine.
        epoch: u64,
    },
    /// Get everything ready that any runner wants, and nothing that belongs to one: what has answered this is frozen, and
    /// others are forked from it. Legal once, before any [`HostMessage::Identify`]; answered by [`GuestMessage::Prepared`].
    Prepare(Prepare),
    /// Be nobody again: no name, no id, nothing started. Legal where all that was started is what [`HostMessage::Prepare`]
    /// started, after an [`HostMessage::Identify`] that was a rehearsal: what a machine has done before it was frozen, its
    /// forks do faster. Answered by [`GuestMessage::Prepared`].
    Forget,
    /// Who this machine is. Legal at any time before [`HostMessage::Start`], and again: the last one counts. Answered by
    /// [`Milestone::Identified`] or a [`GuestMessage::Fault`]; nothing is started for a machine that is not identified.
    Identify(Identity),
    /// Set the wall clock: a machine that stood still, or waited for its identity in a queue, is late.
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
    /// Remove a file of the environment directory; one that is not there is no error.
    RemoveFile {
        /// As in [`HostMessage::PutFile`].
        name: String,
    },
    /// Start the entrypoint. Legal once.
    Start(Start),
    /// Answered by [`GuestMessage::Pong`].
    Ping {
        /// Comes back unchanged.
        nonce: u64,
    },
    /// Stop everything and power the machine off.
    PowerOff,
}

/// What is got ready before a machine is frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// User that runner apps run as.
    pub user: String,
    /// DNS server, for what the warm-up fetches.
    pub dns: Option<Ipv4Addr>,
    /// Script that runs as that user before all else is got ready; it has network, and no secret.
    pub warm_up: Option<String>,
    /// How long that may take, seconds.
    pub warm_up_limit_s: u64,
}

/// Who a machine is, and what only the host can know.
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
    /// DNS server; none: that of QEMU's own network.
    pub dns: Option<Ipv4Addr>,
    /// Offer a root shell on the console, for a person who wants a look.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shell: bool,
}

/// How to start the entrypoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Runner id, e.g. `2-k3V9x0q`: names the files in `/_environment`.
    pub runner_id: String,
    /// The program, absolute, where it is not the guest binary that the machine was started with. It is called as that
    /// one is: `PROGRAM entrypoint ARGS`.
    pub program: Option<String>,
    /// Arguments of `dayfly-guest entrypoint`. No secret is ever among them.
    pub args: Vec<String>,
    /// What is mounted before; the entrypoint does not start where one of them fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// Its whole environment. No secret is ever in it.
    pub env: Vec<(String, String)>,
}

/// A folder or file of the host, by virtiofs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Its virtiofs tag.
    pub tag: String,
    /// Where it is mounted, absolute; made where it is not there.
    pub path: String,
    /// Only this file of it is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Nothing can be written there.
    pub read_only: bool,
}

/// What the agent says to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestMessage {
    /// First on every connection: sent when the port opens, and again as the answer to the host's hello.
    Hello {
        /// [`super::VERSION`] of the guest.
        version: u32,
        /// The host's epoch that this answers; 0 where no host has spoken yet.
        epoch: u64,
        /// Version of the guest binary.
        build: String,
    },
    /// A step of the machine's life is done.
    Milestone {
        /// Which.
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
        /// Who printed it.
        source: Source,
        /// The text, invalid UTF-8 replaced.
        text: String,
    },
    /// Lines were dropped since the last one, because the host did not keep up.
    LinesDropped {
        /// How many.
        count: u64,
    },
    /// The entrypoint has ended; exactly one of the two is set.
    EntrypointExited {
        /// Its exit status.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
    },
    /// Answer to [`HostMessage::Ping`].
    Pong {
        /// As it came.
        nonce: u64,
        /// Wall clock of the guest, nanoseconds since 1970-01-01 UTC.
        unix_time_ns: u64,
    },
    /// Answer to [`HostMessage::Prepare`] and [`HostMessage::Forget`]: the machine can be frozen.
    Prepared {
        /// Why it must not be: what was to be got ready failed.
        failure: Option<String>,
    },
    /// Something did not work; the machine may still be of use.
    Fault {
        /// What, where, and the cause.
        message: String,
    },
}

/// Steps of a machine's life, in their usual order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Milestone {
    /// Root file system, kernel file systems, scratch disk.
    Mounts,
    /// Loopback and, where there is one, the network interface.
    Network,
    /// The identity has been taken on.
    Identified,
    /// `GET /_ping` on Docker's socket answered.
    DockerReady,
}

/// Who printed a line.
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
