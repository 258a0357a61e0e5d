//! One start of a machine: how far it has come, how its end proceeds, and what follows it.

use std::time::Duration;

use dayfly_guest::protocol::{GuestMessage, HostMessage};
use tokio::time::Instant;

use super::exit::{EndReason, Exit, ExitDemand};
use super::handshake::{Action, Handshake, InitialState};
use super::pulse::{Beat, ClockOffset, Pulse};
use super::spawn::Vmm;
use super::supervisor::{Freezing, MachineRole};
use super::{StartedFrom, unix_time_ns};
use crate::pace::Turn;
use crate::vmm::{MonitorEvent, ShutdownCause};

/// Number of boots after which a machine is given up.
const BOOTS: u32 = 2;
/// Time between asking the VMM to quit and killing it.
const QUIT_LIMIT: Duration = Duration::from_secs(3);
/// Longest time that a machine which is taken over may take to answer: as long as any guest may be silent.
const TAKE_OVER_LIMIT: Duration = Duration::from_secs(300);
/// Longest time that a killed VMM is waited for.
const KILL_LIMIT: Duration = Duration::from_secs(30);

/// The step of ending an attempt, with the time at which the next step follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndStep {
    PoweringOff(Instant),
    Quitting(Instant),
    Killed(Instant),
    /// The VMM writes the machine to a file.
    Freezing(Instant),
}

/// The end of an attempt, once the supervisor has begun it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BegunEnd {
    pub(super) reason: EndReason,
    pub(super) step: EndStep,
    pub(super) demand: ExitDemand,
}

/// One start of a machine.
pub(super) struct Attempt {
    pub(super) vmm: Vmm,
    phase: Phase,
    pub(super) handshake: Handshake,
    /// The origin of the start; none if another process has started the machine.
    pub(super) from: Option<StartedFrom>,
    started_at: Instant,
    pub(super) hello_limit: Duration,
    pub(super) end: Option<BegunEnd>,
    /// The cause that the monitor reported for the machine's stop.
    pub(super) shutdown: Option<ShutdownCause>,
    /// The reason that the monitor reported for the failure of a disk.
    pub(super) disk_failure: Option<String>,
    /// The way in which the writing of the machine to a file has ended, if it has.
    pub(super) frozen: Option<Result<(), String>>,
    /// Content of the last `.trm` that was carried.
    pub(super) trm_sent: Option<String>,
    pub(super) pulse: Pulse,
    /// True if the agent is not spoken with, so that its silence means nothing.
    pub(super) is_let_be: bool,
    /// The host's clock when the guest's clock was set last, or the pulse checked it.
    pub(super) clock: ClockOffset,
}

/// The stage of an attempt.
#[derive(Debug)]
enum Phase {
    /// The machine is not up. It holds its turn, because other machines wait for one.
    Starting { _turn: Option<Turn> },
    /// The machine was up while its VMM ran. Messages that are read after the VMM's end do not count.
    Up,
}

/// The step after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterAttempt {
    /// The machine has ended in the way of the attempt.
    Finished,
    /// The fork or spare was unusable. The next start is a boot, so that a template never makes things worse than a cold
    /// boot.
    BootInstead,
    /// The machine hung, or its kernel panicked, as an emulated one may. It is booted once more.
    BootAgain,
    /// It hung each time.
    GivenUp,
}

impl AfterAttempt {
    /// Decides what follows an attempt. `boots` is the number of boots so far, including this one.
    pub(super) fn of(
        start: InitialState,
        is_up: bool,
        reason: Option<EndReason>,
        exit: &Exit,
        boots: u32,
    ) -> Self {
        match (start, reason) {
            _ if is_up => Self::Finished,
            (_, Some(EndReason::Ordered)) => Self::Finished,
            // Another start of the machine needs no less. The template is not the cause.
            _ if matches!(exit, Exit::OutOfMemory(_)) => Self::Finished,
            (InitialState::Fork | InitialState::Spare, _) => Self::BootInstead,
            // A job may have run in it, so it is not started again.
            (InitialState::TakenOver { .. }, _) => Self::Finished,
            (InitialState::Boot, Some(EndReason::HelloMissed)) if boots < BOOTS => Self::BootAgain,
            (InitialState::Boot, Some(EndReason::HelloMissed)) => Self::GivenUp,
            (InitialState::Boot, None) if boots < BOOTS && matches!(exit, Exit::Panicked { .. }) => {
                Self::BootAgain
            }
            (InitialState::Boot, _) => Self::Finished,
        }
    }
}

impl Attempt {
    pub(super) fn new(vmm: Vmm, turn: Option<Turn>, start: InitialState, role: &MachineRole) -> Self {
        Self {
            vmm,
            handshake: Handshake::of(start, role.docker_limit.is_some()),
            from: None,
            phase: Phase::Starting { _turn: turn },
            started_at: Instant::now(),
            hello_limit: match start {
                InitialState::Boot => role.hello_limit,
                InitialState::Fork | InitialState::Spare => role.fork_limit,
                InitialState::TakenOver { .. } => TAKE_OVER_LIMIT,
            },
            end: None,
            shutdown: None,
            disk_failure: None,
            frozen: None,
            trm_sent: None,
            pulse: Pulse::new(role.hello_limit, Instant::now()),
            is_let_be: false,
            clock: ClockOffset::now(),
        }
    }

    /// Returns true if the machine was up while its VMM ran.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up)
    }

    /// Returns the actions that follow from a message of the guest, and whether the machine is up because of it.
    pub(super) fn take(&mut self, message: GuestMessage, id: &str) -> (Vec<Action>, bool) {
        self.pulse.heard();
        let actions = self.handshake.take(message, id);
        let has_come_up = !self.is_up() && self.handshake.is_up();
        if has_come_up {
            self.phase = Phase::Up;
        }
        (actions, has_come_up)
    }

    /// Returns why the supervisor ends the attempt, once it does.
    pub(super) fn reason(&self) -> Option<EndReason> {
        self.end.map(|end| end.reason)
    }

    pub(super) fn is_killed(&self) -> bool {
        matches!(self.end, Some(BegunEnd { step: EndStep::Killed(_), .. }))
    }

    /// Goes on to the next step of the end. A reason that was there before stays.
    pub(super) fn end_by(&mut self, reason: EndReason, step: EndStep, demand: ExitDemand) {
        self.end = Some(BegunEnd { reason: self.reason().unwrap_or(reason), step, demand });
    }

    pub(super) fn send(&mut self, message: &HostMessage) {
        if let Some(link) = &mut self.vmm.link
            && let Err(error) = link.send(message)
        {
            tracing::warn!("cannot send a message to a guest: {error}");
        }
    }

    /// Returns why the machine can have no new session, if it cannot.
    pub(super) fn refusal_of_sessions(&self) -> Option<&'static str> {
        match () {
            () if self.end.is_some() || self.shutdown.is_some() => Some("the machine is being stopped"),
            () if self.is_let_be => {
                Some("another version of dayfly has started the machine, so its agent is not spoken with")
            }
            () if !self.is_up() => Some("the machine is still starting; try again in a moment"),
            () if self.vmm.link.is_none() => Some("the machine's agent has closed its connection"),
            () => None,
        }
    }

    /// Returns true if an earlier process has started the machine.
    pub(super) fn is_taken_over(&self) -> bool {
        self.handshake.is_taken_over()
    }

    /// Speaks no more with the agent.
    pub(super) fn let_be(&mut self) {
        self.vmm.link = None;
        self.is_let_be = true;
    }

    pub(super) fn kill(&mut self, reason: EndReason) {
        self.vmm.process.kill();
        let demand = self.end.map_or(ExitDemand::None, |end| end.demand).then_kill();
        self.end_by(reason, EndStep::Killed(Instant::now() + KILL_LIMIT), demand);
    }

    pub(super) fn quit(&mut self, reason: EndReason) {
        let Some(monitor) = &self.vmm.monitor else { return self.kill(reason) };
        monitor.quit();
        self.end_by(reason, EndStep::Quitting(Instant::now() + QUIT_LIMIT), ExitDemand::Quit);
    }

    /// Stops the machine as its owner has ordered. Does nothing if its end has begun already.
    pub(super) fn stop(&mut self, grace: Duration) {
        if self.end.is_some() {
            return;
        }
        if !self.handshake.greeted() || self.vmm.link.is_none() {
            return self.quit(EndReason::Ordered);
        }
        self.send(&HostMessage::PowerOff);
        let step = EndStep::PoweringOff(Instant::now() + grace);
        self.end_by(EndReason::Ordered, step, ExitDemand::None);
    }

    /// Has the VMM write the machine to a file, and then quit.
    pub(super) fn freeze(&mut self, Freezing { state, limit }: Freezing) {
        if self.end.is_some() {
            return;
        }
        let Some(monitor) = &self.vmm.monitor else { return self.kill(EndReason::Freezing) };
        monitor.keep(state);
        self.end_by(EndReason::Freezing, EndStep::Freezing(Instant::now() + limit), ExitDemand::None);
    }

    /// Takes the result of the writing of the machine from the VMM, if that was ordered.
    fn take_frozen(&mut self, frozen: Result<(), String>) {
        if !matches!(self.end, Some(BegunEnd { step: EndStep::Freezing(_), .. })) {
            return;
        }
        let is_whole = frozen.is_ok();
        self.frozen = Some(frozen);
        if is_whole { self.quit(EndReason::Freezing) } else { self.kill(EndReason::Freezing) }
    }

    /// Returns the time until which the next step must have happened.
    pub(super) fn deadline(&self, role: &MachineRole) -> Option<Instant> {
        match self.end.map(|end| end.step) {
            Some(
                EndStep::PoweringOff(at)
                | EndStep::Quitting(at)
                | EndStep::Killed(at)
                | EndStep::Freezing(at),
            ) => Some(at),
            None if self.is_let_be => None,
            None if !self.handshake.is_up() => Some(self.started_at + self.hello_limit),
            None if self.handshake.waits_for_docker() => {
                role.docker_limit.map(|docker| self.started_at + self.hello_limit + docker)
            }
            None => Some(self.pulse.next()),
        }
    }

    /// Asks the guest whether it lives, and sets its clock if the host's has jumped. Kills a guest that is silent for too
    /// long. `listens` is false if no message of the guest is read.
    pub(super) fn beat(&mut self, listens: bool) {
        match self.pulse.beat(listens, Instant::now()) {
            Beat::Wait => {}
            Beat::Ping(number) => self.send(&HostMessage::Ping { number }),
            Beat::Silent(limit) => return self.kill(EndReason::Silent(limit)),
        }
        let clock = ClockOffset::now();
        if self.clock.has_jumped(&clock) {
            tracing::info!("the host's clock has jumped, so the guest's clock is set");
            self.send(&HostMessage::Clock { unix_time_ns: unix_time_ns() });
        }
        self.clock = clock;
    }

    /// Takes what the monitor reports.
    pub(super) fn note(&mut self, event: MonitorEvent) {
        match event {
            MonitorEvent::ShuttingDown(cause) => self.shutdown = Some(cause),
            MonitorEvent::Refused(reason) => {
                tracing::warn!("the monitor refused a command: {reason}");
                // Only the commands that restore a fork can be refused. Nothing ever runs in that fork then.
                if !self.handshake.greeted() {
                    self.kill(EndReason::NotRestored);
                }
                self.take_frozen(Err(reason));
            }
            MonitorEvent::DiskFailed(reason) => self.disk_failure = Some(reason),
            // Only spares and templates are paused on purpose, which they are before they become a machine.
            MonitorEvent::Paused if self.end.is_none() && self.shutdown.is_none() => {
                self.kill(EndReason::Paused);
            }
            MonitorEvent::Frozen(frozen) => self.take_frozen(frozen),
            MonitorEvent::Paused => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_fails_is_followed_by_a_boot_and_a_boot_that_hangs_by_one_more() {
        use AfterAttempt::{BootAgain, BootInstead, Finished, GivenUp};
        let hung = Some(EndReason::HelloMissed);
        for (start, is_up, reason, boots, expected) in [
            (InitialState::Fork, false, hung, 0, BootInstead),
            (InitialState::Spare, false, Some(EndReason::NotRestored), 0, BootInstead),
            (InitialState::Fork, false, None, 0, BootInstead),
            (InitialState::Fork, false, Some(EndReason::Ordered), 0, Finished),
            (InitialState::Fork, true, None, 0, Finished),
            (InitialState::Boot, false, hung, 1, BootAgain),
            (InitialState::Boot, false, hung, BOOTS, GivenUp),
            (InitialState::Boot, false, None, 1, Finished),
            (InitialState::Boot, false, Some(EndReason::NoBootDevice), 1, Finished),
            (InitialState::Boot, false, Some(EndReason::WrongVersion(3)), 1, Finished),
            (InitialState::Boot, false, Some(EndReason::Paused), 1, Finished),
            (InitialState::Fork, false, Some(EndReason::Paused), 0, BootInstead),
            (InitialState::Boot, true, Some(EndReason::Ordered), 1, Finished),
            (InitialState::TakenOver { epoch: 2, lines_seen: 0 }, false, hung, 0, Finished),
            (InitialState::TakenOver { epoch: 2, lines_seen: 0 }, false, None, 0, Finished),
        ] {
            let after = AfterAttempt::of(start, is_up, reason, &Exit::PoweredOff, boots);
            assert_eq!(after, expected, "{start:?} {reason:?} {boots}");
        }
    }

    #[test]
    fn a_machine_that_was_killed_for_memory_does_not_count_against_its_template() {
        let exit = Exit::OutOfMemory(crate::cgroup::MemoryKill::Host);
        for start in [InitialState::Fork, InitialState::Spare, InitialState::Boot] {
            for reason in [None, Some(EndReason::HelloMissed)] {
                assert_eq!(AfterAttempt::of(start, false, reason, &exit, 1), AfterAttempt::Finished);
            }
        }
    }

    #[test]
    fn a_boot_whose_kernel_panics_before_the_machine_is_up_is_followed_by_one_more() {
        use AfterAttempt::{BootAgain, Finished};
        let panicked = Exit::Panicked { message: "x".to_owned() };
        for (is_up, boots, expected) in [(false, 1, BootAgain), (false, BOOTS, Finished), (true, 1, Finished)]
        {
            let after = AfterAttempt::of(InitialState::Boot, is_up, None, &panicked, boots);
            assert_eq!(after, expected, "{is_up} {boots}");
        }
    }
}
