//! The events that the owner of a machine receives.

use dayfly_guest::protocol::{Milestone, Source};

use super::Exit;
use crate::cgroup::MachineLimits;
use crate::walls::Walls;

/// The origin of a machine's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartedFrom {
    /// The machine's kernel.
    Boot,
    /// A template, with the template's id.
    Fork(String),
    /// A spare, with the id of its template.
    Spare(String),
}

impl std::fmt::Display for StartedFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Boot => f.write_str("boot"),
            Self::Fork(template) => write!(f, "fork of template {template}"),
            Self::Spare(template) => write!(f, "spare of template {template}"),
        }
    }
}

/// An event in the life of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmEvent {
    /// The VMM runs. Sent again after [`VmEvent::Restarted`], and after a fork that failed.
    VmmStarted {
        /// Id of the VMM's process.
        pid: u32,
        /// The kernel, template or spare that the machine was started from.
        from: StartedFrom,
    },
    /// The limits that the kernel of this host enforces for the VMM. Comes after [`VmEvent::VmmStarted`].
    Limited(MachineLimits),
    /// The walls between the VMM and this host. Comes after [`VmEvent::Limited`].
    Jailed(Walls),
    /// This process has taken the machine over from one that died.
    TakenOver {
        /// Id of the VMM's process.
        pid: u32,
    },
    /// The machine was to be forked, but is booted.
    Cold {
        /// The reason.
        reason: String,
    },
    /// The watchdog has killed the machine because its agent said nothing, and starts it again.
    Restarted {
        /// The reason, with the console's last lines.
        reason: String,
    },
    /// The agent said hello.
    Hello,
    /// A step of the guest's start is done. Each step is reported once.
    Milestone {
        /// The step.
        milestone: Milestone,
        /// Milliseconds since the guest's kernel started, as reported by the guest.
        uptime_ms: u64,
    },
    /// A line of output.
    Line {
        /// Its number, by which the next process finds the lines that this one has not kept; 0 if the machine has no agent.
        number: u64,
        /// The program that printed it.
        source: Source,
        /// The text from the guest, with line ends in it made visible.
        text: String,
    },
    /// The entrypoint has exited. One of the two fields is set.
    EntrypointExited {
        /// The exit status.
        code: Option<i32>,
        /// The signal that killed it.
        signal: Option<i32>,
    },
    /// There is no Docker, although the image has a daemon. The entrypoint is started without it.
    DockerFailed {
        /// The failure and its reason.
        reason: String,
    },
    /// The machine's memory was used up, and its kernel has killed a process.
    OutOfMemory {
        /// Name of the process, as the guest reports it.
        process: String,
        /// The memory that it used, MiB.
        used_mib: u64,
        /// The memory of the machine, MiB.
        memory_mib: u64,
    },
    /// This host could not write to the machine's disk, so its job gets I/O errors.
    DiskFailed {
        /// The reason, as the VMM reports it.
        reason: String,
    },
    /// A person on this host has asked for a session, whose program starts now.
    SessionOpened {
        /// Its number.
        session: u64,
        /// The user on this host.
        uid: u32,
        /// Name of the user in the machine.
        user: String,
        /// The command, cut if it is long.
        command: String,
        /// True if the program has a terminal.
        has_terminal: bool,
    },
    /// The session is over.
    SessionEnded {
        /// Its number.
        session: u64,
        /// The end in words.
        how: String,
    },
    /// Something failed, but the machine may still be usable.
    Fault {
        /// The failure and its reason.
        message: String,
    },
    /// The VMM has exited. This is always the last event.
    Gone {
        /// The end of the machine.
        exit: Exit,
        /// The last lines that the console and the VMM printed.
        console_tail: String,
    },
}
