//! The ways in which machines end.

use std::io;
use std::time::Duration;

use dayfly_guest::protocol;

use crate::cgroup::MemoryKill;
use crate::process::Ending;
use crate::vmm::{self, ShutdownCause};

/// Longest time, after a VMM has exited, that is spent on reading what it printed and sent before.
pub(super) const LAST_WORDS_LIMIT: Duration = Duration::from_secs(1);

/// The end of a machine. One enum covers all endings.
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
    /// The machine goes on, and this process owns it no longer.
    LetGo,
    /// The machine was written to a file, and its VMM has exited.
    Frozen,
    /// The machine could not be written to a file. The VMM was killed.
    NotFrozen {
        /// The reason.
        reason: String,
    },
    /// The agent never said hello. The machine was killed each time.
    NoHello {
        /// The number of starts.
        attempts: u32,
        /// The time limit of each start.
        limit: Duration,
    },
    /// The guest did not answer any more: it hangs, or it was paused. The machine was killed.
    Silent {
        /// Time for which the guest had said nothing.
        limit: Duration,
    },
    /// The firmware found no kernel, because the VMM's program and its data files do not fit together. The VMM was killed.
    NoBootDevice,
    /// The VMM paused the machine, and nothing can resume it. The VMM was killed.
    Paused {
        /// The reason.
        reason: String,
    },
    /// The VMM could not be started again.
    NotStarted {
        /// The reason.
        reason: String,
    },
    /// The VMM's process could not be waited for, so its end is not known.
    Unobserved {
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
    /// The machine was taken over, and the process that died had started no runner in it. The machine was killed.
    NeverStarted,
    /// The VMM exited with an error.
    Failed {
        /// The VMM's exit status.
        code: i32,
    },
    /// The kernel of this host killed the VMM, or a server of its files, for memory.
    OutOfMemory(MemoryKill),
    /// Something else killed the VMM: a person, or the kernel of a host that is out of memory and has no control groups.
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
            Self::LetGo => f.write_str("the machine goes on without this process"),
            Self::Frozen => f.write_str("the machine was frozen to disk"),
            Self::NotFrozen { reason } => write!(f, "the machine could not be frozen to disk: {reason}"),
            Self::NoHello { attempts, limit } => write!(
                f,
                "the agent in the machine said no hello within {} s, {attempts} times; look at the console's last lines, \
                 or start with --accel tcg if KVM does not work",
                limit.as_secs()
            ),
            Self::Silent { limit } => write!(
                f,
                "the machine hung or was paused: its agent said nothing for {} s, so it was killed",
                limit.as_secs()
            ),
            Self::NoBootDevice => f.write_str(vmm::NO_KERNEL_FOUND),
            Self::Paused { reason } => write!(f, "the VMM paused the machine for good: {reason}"),
            Self::NotStarted { reason } => write!(f, "the VMM could not be started again: {reason}"),
            Self::Unobserved { reason } => write!(f, "the VMM's process cannot be waited for: {reason}"),
            Self::WrongVersion { guest, host } => write!(
                f,
                "the guest binary speaks version {guest} of the protocol, this program {host}; build both again"
            ),
            Self::NeverStarted => f.write_str(
                "an earlier process of dayfly died before it had started a runner in the machine, so it was killed",
            ),
            Self::OutOfMemory(MemoryKill::Limit(Some(mib))) => write!(
                f,
                "the kernel of this host killed the VMM, because the machine had used up the {mib} MiB that it may take \
                 from this host"
            ),
            Self::OutOfMemory(MemoryKill::Limit(None)) => f.write_str(
                "the kernel of this host killed the VMM, because the machine had used up the memory that it may take from \
                 this host",
            ),
            Self::OutOfMemory(MemoryKill::Host) => {
                f.write_str("the kernel of this host killed the VMM, because the host's memory was used up")
            }
            Self::Failed { code } => write!(f, "the VMM failed with exit status {code}"),
            Self::Signalled { signal } => write!(f, "the VMM was killed from outside by signal {signal}"),
        }
    }
}

/// Why a supervisor ends a machine's process. The first reason counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndReason {
    /// The owner ordered it, or has dropped the machine.
    Ordered,
    /// The agent said no hello, or took on no identity, within the limit.
    HelloMissed,
    /// The agent has said nothing for this long, although it was asked.
    Silent(Duration),
    /// The firmware found no kernel.
    NoBootDevice,
    /// The VMM paused the machine, although it was not asked to.
    Paused,
    /// The guest speaks this other version of the protocol.
    WrongVersion(u32),
    /// The VMM refused to restore a fork, in which nothing ever runs then.
    NotRestored,
    /// The machine is taken over, and the process that died has started no entrypoint in it.
    NeverStarted,
    /// The owner ordered that the machine is written to a file.
    Freezing,
}

/// The supervisor's action to make the process exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum ExitDemand {
    /// Nothing, or only the guest was told to power off.
    #[default]
    None,
    /// The process was asked to quit.
    Quit,
    /// The process was killed.
    Kill,
    /// The process was asked to quit, and then killed.
    QuitThenKill,
}

impl ExitDemand {
    /// Returns the demand after a kill.
    pub(super) fn then_kill(self) -> Self {
        match self {
            Self::None | Self::Kill => Self::Kill,
            Self::Quit | Self::QuitThenKill => Self::QuitThenKill,
        }
    }

    /// Returns true if the process was killed.
    pub(super) fn is_kill(self) -> bool {
        matches!(self, Self::Kill | Self::QuitThenKill)
    }

    fn asks_to_quit(self) -> bool {
        matches!(self, Self::Quit | Self::QuitThenKill)
    }
}

/// The facts that are known when a VMM has exited, besides how its process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ExitEvidence {
    /// Why the supervisor ended the VMM, if it did.
    pub(super) reason: Option<EndReason>,
    /// The supervisor's action to make the VMM exit.
    pub(super) demand: ExitDemand,
    /// The cause that the monitor reported.
    pub(super) shutdown: Option<ShutdownCause>,
    /// Why a disk of the machine failed, if one did.
    pub(super) disk_failure: Option<String>,
    /// The way in which the writing of the machine to a file has ended, if it has.
    pub(super) frozen: Option<Result<(), String>>,
    /// Why the kernel of this host has killed a process of the machine for memory, if it has.
    pub(super) memory_kill: Option<MemoryKill>,
    /// The panic message on the console. A guest can print one itself, but this only misleads the people who read it.
    pub(super) panic_message: Option<String>,
}

impl ExitEvidence {
    /// Returns true if the VMM has ended otherwise than by its guest's or its owner's will. A machine also hangs if the kernel has
    /// killed a server of its files.
    fn is_unordered_end(&self, ending: &io::Result<Ending>) -> bool {
        match (self.reason, ending) {
            (Some(EndReason::Silent(_) | EndReason::HelloMissed), _) => true,
            (Some(_), _) | (None, Err(_) | Ok(Ending::Exited(0))) => false,
            (None, Ok(Ending::Unknown)) => self.shutdown.is_none(),
            (None, Ok(Ending::Exited(_) | Ending::Signalled(_))) => true,
        }
    }
}

/// Derives the exit from the end of the VMM's process and the other known facts.
pub(super) fn classify(ending: io::Result<Ending>, evidence: &ExitEvidence) -> Exit {
    if let Some(kill) = evidence.memory_kill.filter(|_| evidence.is_unordered_end(&ending)) {
        return Exit::OutOfMemory(kill);
    }
    match (evidence.reason, ending) {
        (Some(EndReason::WrongVersion(guest)), _) => Exit::WrongVersion { guest, host: protocol::VERSION },
        (_, Err(error)) => Exit::Unobserved { reason: error.to_string() },
        (Some(EndReason::NoBootDevice), Ok(_)) => Exit::NoBootDevice,
        (Some(EndReason::Paused), Ok(_)) => {
            let unknown = || "it reported no failed disk, so its accelerator may have failed".to_owned();
            Exit::Paused { reason: evidence.disk_failure.clone().unwrap_or_else(unknown) }
        }
        (Some(EndReason::Silent(limit)), Ok(_)) => Exit::Silent { limit },
        (Some(EndReason::NeverStarted), Ok(_)) => Exit::NeverStarted,
        (Some(EndReason::Freezing), Ok(_)) => match evidence.frozen.clone() {
            // Everything was written before the VMM was told to quit, so its end does not matter.
            Some(Ok(())) => Exit::Frozen,
            Some(Err(reason)) => Exit::NotFrozen { reason },
            None if evidence.demand.is_kill() => {
                Exit::NotFrozen { reason: "the VMM did not finish in time".to_owned() }
            }
            None => Exit::NotFrozen { reason: "the VMM ended before it had finished".to_owned() },
        },
        (_, Ok(Ending::Signalled(_))) if evidence.demand.is_kill() => Exit::Killed,
        (_, Ok(Ending::Signalled(signal))) => Exit::Signalled { signal },
        (_, Ok(Ending::Unknown)) if evidence.demand.is_kill() => Exit::Killed,
        (_, Ok(Ending::Unknown)) if evidence.shutdown.is_none() && !evidence.demand.asks_to_quit() => {
            Exit::Unobserved { reason: "an earlier process of dayfly has started it".to_owned() }
        }
        (_, Ok(Ending::Exited(0) | Ending::Unknown)) => match evidence.shutdown {
            Some(ShutdownCause::GuestReset) => match evidence.panic_message.clone() {
                Some(message) => Exit::Panicked { message },
                None => Exit::Reset,
            },
            Some(ShutdownCause::Host) => Exit::Quit,
            None if evidence.demand.asks_to_quit() => Exit::Quit,
            Some(ShutdownCause::Other) | None => Exit::PoweredOff,
        },
        (_, Ok(Ending::Exited(code))) => Exit::Failed { code },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_is_read_with_what_is_known_beside_it() {
        let told = |cause| ExitEvidence { shutdown: Some(cause), ..ExitEvidence::default() };
        let demand = |demand| ExitEvidence { demand, ..ExitEvidence::default() };
        let panicked =
            ExitEvidence { panic_message: Some("x".to_owned()), ..told(ShutdownCause::GuestReset) };
        for (ending, evidence, exit) in [
            (Ending::Exited(0), told(ShutdownCause::Other), Exit::PoweredOff),
            (Ending::Exited(0), ExitEvidence::default(), Exit::PoweredOff),
            (Ending::Exited(0), told(ShutdownCause::GuestReset), Exit::Reset),
            (Ending::Exited(0), panicked, Exit::Panicked { message: "x".to_owned() }),
            (Ending::Exited(0), told(ShutdownCause::Host), Exit::Quit),
            (Ending::Exited(0), demand(ExitDemand::Quit), Exit::Quit),
            (Ending::Exited(0), demand(ExitDemand::QuitThenKill), Exit::Quit),
            (Ending::Exited(0), demand(ExitDemand::Kill), Exit::PoweredOff),
            (Ending::Exited(1), ExitEvidence::default(), Exit::Failed { code: 1 }),
            (Ending::Unknown, told(ShutdownCause::Other), Exit::PoweredOff),
            (Ending::Unknown, demand(ExitDemand::Quit), Exit::Quit),
            (Ending::Unknown, demand(ExitDemand::Kill), Exit::Killed),
            (Ending::Signalled(9), demand(ExitDemand::Kill), Exit::Killed),
            (Ending::Signalled(9), demand(ExitDemand::QuitThenKill), Exit::Killed),
            (Ending::Signalled(9), demand(ExitDemand::Quit), Exit::Signalled { signal: 9 }),
            (Ending::Signalled(9), ExitEvidence::default(), Exit::Signalled { signal: 9 }),
        ] {
            assert_eq!(classify(Ok(ending), &evidence), exit, "{ending:?} {evidence:?}");
        }
    }

    #[test]
    fn the_reason_of_a_kill_counts_more_than_the_signal() {
        let killed = |reason| {
            let demand = ExitDemand::Kill;
            let evidence = ExitEvidence { reason: Some(reason), demand, ..ExitEvidence::default() };
            classify(Ok(Ending::Signalled(9)), &evidence)
        };
        let host = protocol::VERSION;
        assert_eq!(killed(EndReason::WrongVersion(3)), Exit::WrongVersion { guest: 3, host });
        assert_eq!(killed(EndReason::NeverStarted), Exit::NeverStarted);
        assert_eq!(killed(EndReason::NoBootDevice), Exit::NoBootDevice);
        insta::assert_snapshot!(killed(EndReason::Paused), @"the VMM paused the machine for good: it reported no failed disk, so its accelerator may have failed");
        let limit = Duration::from_secs(300);
        assert_eq!(killed(EndReason::Silent(limit)), Exit::Silent { limit });
        let frozen = |frozen| {
            let (demand, reason) = (ExitDemand::QuitThenKill, Some(EndReason::Freezing));
            let evidence = ExitEvidence { reason, demand, frozen, ..ExitEvidence::default() };
            classify(Ok(Ending::Signalled(9)), &evidence)
        };
        assert_eq!(frozen(Some(Ok(()))), Exit::Frozen);
        insta::assert_snapshot!(frozen(Some(Err("no space".to_owned()))), @"the machine could not be frozen to disk: no space");
        insta::assert_snapshot!(frozen(None), @"the machine could not be frozen to disk: the VMM did not finish in time");
        let reason = Some(EndReason::Freezing);
        let crashed =
            classify(Ok(Ending::Signalled(11)), &ExitEvidence { reason, ..ExitEvidence::default() });
        insta::assert_snapshot!(crashed, @"the machine could not be frozen to disk: the VMM ended before it had finished");
        for reason in [EndReason::Ordered, EndReason::HelloMissed, EndReason::NotRestored] {
            assert_eq!(killed(reason), Exit::Killed, "{reason:?}");
        }
    }

    #[test]
    fn a_machine_that_the_kernel_has_killed_for_memory_is_told_apart_from_one_that_ended_by_itself() {
        let kill = MemoryKill::Limit(Some(1344));
        let after = |reason: Option<EndReason>, shutdown, ending| {
            let demand = reason.map_or(ExitDemand::None, |_| ExitDemand::Kill);
            let memory_kill = Some(kill);
            let evidence = ExitEvidence { reason, demand, shutdown, memory_kill, ..ExitEvidence::default() };
            classify(Ok(ending), &evidence)
        };
        let silent = Some(EndReason::Silent(Duration::from_secs(300)));
        for (reason, ending) in [
            (None, Ending::Signalled(9)),
            (None, Ending::Unknown),
            (None, Ending::Exited(1)),
            (silent, Ending::Signalled(9)),
            (Some(EndReason::HelloMissed), Ending::Signalled(9)),
        ] {
            assert_eq!(after(reason, None, ending), Exit::OutOfMemory(kill), "{reason:?} {ending:?}");
        }
        // A server of files was killed before, and the machine went on.
        assert_eq!(after(None, Some(ShutdownCause::Other), Ending::Exited(0)), Exit::PoweredOff);
        assert_eq!(after(None, Some(ShutdownCause::Other), Ending::Unknown), Exit::PoweredOff);
        assert_eq!(after(Some(EndReason::Ordered), None, Ending::Signalled(9)), Exit::Killed);
        let kinds = [kill, MemoryKill::Limit(None), MemoryKill::Host];
        let said = kinds.map(|kill| Exit::OutOfMemory(kill).to_string());
        insta::assert_snapshot!(said.join("\n"), @r"
        the kernel of this host killed the VMM, because the machine had used up the 1344 MiB that it may take from this host
        the kernel of this host killed the VMM, because the machine had used up the memory that it may take from this host
        the kernel of this host killed the VMM, because the host's memory was used up
        ");
    }

    #[test]
    fn a_failed_wait_does_not_say_that_the_machine_did_not_start() {
        let exit = classify(Err(io::Error::other("x")), &ExitEvidence::default());
        insta::assert_snapshot!(exit, @"the VMM's process cannot be waited for: x");
    }
}
