//! The ways in which machines end.

use std::time::Duration;

use crate::process::Ending;
use crate::vmm::ShutdownCause;

/// Longest time, after a VMM has exited, that is spent on reading what it printed and sent before.
pub(super) const LAST_WORDS_LIMIT: Duration = Duration::from_secs(1);

/// How a machine ended. One enum covers all endings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// The guest powered itself off.
    PoweredOff,
    /// The guest rebooted, which ends the machine.
    Reset,
    /// The guest's kernel panicked, as its console shows.
    Panicked {
        /// The kernel's message.
        message: String,
    },
    /// The VMM exited because it was asked to.
    Quit,
    /// The VMM was killed on behalf of the owner.
    Killed,
    /// The agent never said hello. The machine was killed each time.
    NoHello {
        /// The number of starts.
        attempts: u32,
        /// The time limit of each start.
        limit: Duration,
    },
    /// The firmware found no kernel, because QEMU's program and its data files do not fit together. The VMM was killed.
    NoBootDevice,
    /// The VMM could not be started again, or its process could not be waited for.
    NotStarted {
        /// The reason.
        reason: String,
    },
    /// The guest binary in the machine speaks another version of the protocol. The machine was killed.
    WrongVersion {
        /// The protocol version of the guest.
        guest: u32,
        /// The protocol version of this program.
        host: u32,
    },
    /// The VMM exited with an error.
    Failed {
        /// The VMM's exit status.
        code: i32,
    },
    /// Something else killed the VMM: a person, or the kernel of a host that is out of memory.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PoweredOff => f.write_str("the machine powered off"),
            Self::Reset => f.write_str("the guest restarted"),
            Self::Panicked { message } => write!(f, "the guest's kernel panicked: {message}"),
            Self::Quit => f.write_str("the VMM was asked to quit"),
            Self::Killed => f.write_str("the VMM was killed"),
            Self::NoHello { attempts, limit } => write!(
                f,
                "the agent in the machine said no hello within {} s, {attempts} times; look at the console's last lines, \
                 or start with --accel tcg if KVM does not work",
                limit.as_secs()
            ),
            Self::NoBootDevice => f.write_str(
                "the firmware found no kernel (\"No bootable device\"): QEMU's program and its data files do not fit \
                 together; reinstall them (apt-get install --reinstall qemu-system-x86 qemu-system-data seabios), then \
                 `dayfly doctor` boots a guest and reports whether it works",
            ),
            Self::NotStarted { reason } => write!(f, "the VMM could not be started again: {reason}"),
            Self::WrongVersion { guest, host } => write!(
                f,
                "the guest binary speaks version {guest} of the protocol, this program {host}; build both again"
            ),
            Self::Failed { code } => write!(f, "the VMM failed with exit status {code}"),
            Self::Signalled { signal } => write!(f, "the VMM was killed from outside by signal {signal}"),
        }
    }
}

/// The facts that are known when a VMM has exited, besides how its process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Knowledge {
    /// True if the supervisor killed the VMM.
    pub(super) killed: bool,
    /// True if the VMM was asked to quit.
    pub(super) asked_to_quit: bool,
    /// The cause that the monitor reported.
    pub(super) shutdown: Option<ShutdownCause>,
    /// The panic message on the console. A guest can print one itself, but this only misleads the people who read it.
    pub(super) panic_message: Option<String>,
}

/// Derives the exit from the end of the VMM's process and the other known facts.
pub(super) fn classify(ending: Ending, knowledge: &Knowledge) -> Exit {
    let panic = || knowledge.panic_message.clone().map(|message| Exit::Panicked { message });
    match ending {
        Ending::Signalled(_) if knowledge.killed => Exit::Killed,
        Ending::Signalled(signal) => Exit::Signalled { signal },
        Ending::Exited(0) => match knowledge.shutdown {
            Some(ShutdownCause::GuestReset) => panic().unwrap_or(Exit::Reset),
            Some(ShutdownCause::Host) => Exit::Quit,
            None if knowledge.asked_to_quit => Exit::Quit,
            Some(ShutdownCause::Other) | None => Exit::PoweredOff,
        },
        Ending::Exited(code) => Exit::Failed { code },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_is_read_with_what_is_known_beside_it() {
        let told = |cause| Knowledge { shutdown: Some(cause), ..Knowledge::default() };
        let panicked = Knowledge { panic_message: Some("x".to_owned()), ..told(ShutdownCause::GuestReset) };
        let killed = Knowledge { killed: true, ..Knowledge::default() };
        let asked = Knowledge { asked_to_quit: true, ..Knowledge::default() };
        for (ending, knowledge, exit) in [
            (Ending::Exited(0), told(ShutdownCause::Other), Exit::PoweredOff),
            (Ending::Exited(0), Knowledge::default(), Exit::PoweredOff),
            (Ending::Exited(0), told(ShutdownCause::GuestReset), Exit::Reset),
            (Ending::Exited(0), panicked, Exit::Panicked { message: "x".to_owned() }),
            (Ending::Exited(0), told(ShutdownCause::Host), Exit::Quit),
            (Ending::Exited(0), asked, Exit::Quit),
            (Ending::Exited(1), Knowledge::default(), Exit::Failed { code: 1 }),
            (Ending::Signalled(9), killed, Exit::Killed),
            (Ending::Signalled(9), Knowledge::default(), Exit::Signalled { signal: 9 }),
        ] {
            assert_eq!(classify(ending, &knowledge), exit, "{ending:?} {knowledge:?}");
        }
    }
}
