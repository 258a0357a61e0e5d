//! What happens to a machine, as its owner hears it.

use dayfly_guest::protocol::{Milestone, Source};

use super::Exit;
use crate::template::StartedFrom;

/// Something that happened to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmEvent {
    /// The VMM runs. Comes once more after [`VmEvent::Restarted`].
    VmmStarted {
        /// Its process.
        pid: u32,
        /// What it was started from.
        from: StartedFrom,
    },
    /// It was to be forked, and is booted instead.
    Cold {
        /// Why.
        reason: String,
    },
    /// The watchdog has ended a machine whose agent said nothing, and starts it once again.
    Restarted {
        /// Why, with the console's last lines.
        reason: String,
    },
    /// The agent has spoken.
    Hello,
    /// A step of the guest's start is done; each comes once.
    Milestone {
        /// Which.
        milestone: Milestone,
        /// Milliseconds since the guest's kernel started, as the guest says.
        uptime_ms: u64,
    },
    /// A line of output.
    Line {
        /// Who printed it.
        source: Source,
        /// The text, as the guest sent it.
        text: String,
    },
    /// The entrypoint has ended; one of the two is set.
    EntrypointExited {
        /// Its exit status.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
    },
    /// Something did not work; the machine may still be of use.
    Fault {
        /// What, and why.
        message: String,
    },
    /// The VMM has ended. Always the last event.
    Gone {
        /// How.
        exit: Exit,
        /// The last lines of the console and of the VMM itself.
        console_tail: String,
    },
}
