//! How machines end.

use std::time::Duration;

use crate::process::Ending;

/// From a VMM's end until what it said before is given up.
pub(super) const LAST_WORDS_LIMIT: Duration = Duration::from_secs(1);

/// How a machine ended. One enum for all endings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// The guest powered itself off.
    PoweredOff,
    /// The guest restarted, which ends it.
    Reset,
    /// The guest's kernel panicked, as its console says.
    Panicked {
        /// Its words.
        message: String,
    },
    /// The VMM ended because it was asked to.
    Quit,
    /// It was killed, because the owner wanted it.
    Killed,
    /// The agent never said hello; it was killed each time.
    NoHello {
        /// How often it was started.
        attempts: u32,
        /// How long was waited each time.
        limit: Duration,
    },
    /// The firmware found no kernel: QEMU's program and its data files do not fit together. It was killed.
    NoBootDevice,
    /// The VMM could not be started again after the watchdog had ended it.
    NotStarted {
        /// Why.
        reason: String,
    },
    /// The guest binary in the machine is of another build; it was killed.
    WrongVersion {
        /// The protocol's version that the guest speaks.
        guest: u32,
        /// The one that is spoken here.
        host: u32,
    },
    /// The VMM failed by itself.
    Failed {
        /// Its exit status.
        code: i32,
    },
    /// The VMM was killed by somebody else: a person, or a host without memory.
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
            Self::Quit => f.write_str("the VMM was asked to end"),
            Self::Killed => f.write_str("the VMM was killed"),
            Self::NoHello { attempts, limit } => write!(
                f,
                "the agent in the machine said no hello within {} s, {attempts} times; look at the console's last lines, \
                 or start with --accel tcg where KVM does not work",
                limit.as_secs()
            ),
            Self::NoBootDevice => f.write_str(
                "the firmware found no kernel (\"No bootable device\"): QEMU's program and its data files do not fit \
                 together; install them anew (apt-get install --reinstall qemu-system-x86 qemu-system-data seabios), then \
                 `dayfly doctor` boots a guest and tells whether it works",
            ),
            Self::NotStarted { reason } => write!(f, "the VMM could not be started again: {reason}"),
            Self::WrongVersion { guest, host } => write!(
                f,
                "the guest binary speaks version {guest} of the protocol, this program {host}; build both anew"
            ),
            Self::Failed { code } => write!(f, "the VMM failed with exit status {code}"),
            Self::Signalled { signal } => write!(f, "the VMM was ended from outside by signal {signal}"),
        }
    }
}

/// What is known when a VMM has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Knowledge {
    /// It was killed by its supervisor.
    pub(super) killed: bool,
    /// It was asked to quit.
    pub(super) asked_to_quit: bool,
    /// The reason that its monitor told.
    pub(super) shutdown_reason: Option<String>,
    /// What the console says of a panic. A guest can print this itself; it then fools those who read, nobody else.
    pub(super) panic_message: Option<String>,
}

/// Makes an exit of a VMM's ending and what is known beside it.
pub(super) fn classify(ending: Ending, knowledge: &Knowledge) -> Exit {
    let panic = || knowledge.panic_message.clone().map(|message| Exit::Panicked { message });
    match ending {
        Ending::Signalled(_) if knowledge.killed => Exit::Killed,
        Ending::Signalled(signal) => Exit::Signalled { signal },
        Ending::Exited(0) => match knowledge.shutdown_reason.as_deref() {
            // Names of QEMU's ShutdownCause.
            Some("guest-reset" | "guest-panic") => panic().unwrap_or(Exit::Reset),
            Some("host-qmp-quit" | "host-signal") => Exit::Quit,
            None if knowledge.asked_to_quit => Exit::Quit,
            _ => Exit::PoweredOff,
        },
        Ending::Exited(code) => Exit::Failed { code },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_is_read_with_what_is_known_beside_it() {
        let told =
            |reason: &str| Knowledge { shutdown_reason: Some(reason.to_owned()), ..Knowledge::default() };
        let panicked = Knowledge { panic_message: Some("x".to_owned()), ..told("guest-reset") };
        let killed = Knowledge { killed: true, ..Knowledge::default() };
        let asked = Knowledge { asked_to_quit: true, ..Knowledge::default() };
        for (ending, knowledge, exit) in [
            (Ending::Exited(0), told("guest-shutdown"), Exit::PoweredOff),
            (Ending::Exited(0), Knowledge::default(), Exit::PoweredOff),
            (Ending::Exited(0), told("guest-reset"), Exit::Reset),
            (Ending::Exited(0), panicked, Exit::Panicked { message: "x".to_owned() }),
            (Ending::Exited(0), told("host-qmp-quit"), Exit::Quit),
            (Ending::Exited(0), asked, Exit::Quit),
            (Ending::Exited(1), Knowledge::default(), Exit::Failed { code: 1 }),
            (Ending::Signalled(9), killed, Exit::Killed),
            (Ending::Signalled(9), Knowledge::default(), Exit::Signalled { signal: 9 }),
        ] {
            assert_eq!(classify(ending, &knowledge), exit, "{ending:?} {knowledge:?}");
        }
    }
}
