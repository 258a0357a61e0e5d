//! The protocol between host and agent, from the hello to the entrypoint's exit. Pure: messages in, actions out.

use std::collections::HashSet;

use dayfly_guest::environment::{NOTE_LENGTH_MAX, Suffix, parse_file_name};
use dayfly_guest::protocol::session::SessionOutput;
use dayfly_guest::protocol::{self, GuestMessage, Milestone, Source};
use dayfly_host::quantity::quantity;

use super::{StartedFrom, VmEvent};
use crate::console::one_line;

/// Most faults of one start that are told. The guest decides how many it sends, and each goes into the log of the runner and
/// to the terminal.
const FAULTS_MAX: u32 = 32;
/// Most bytes of a fault's text that are told.
const FAULT_BYTES_MAX: usize = 2 * 1024;
/// Most bytes of a line's text that are told: as many as an agent sends.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// Most files of one start that are written. An entrypoint writes each of its two files once; each costs the host a file and
/// a rename.
const FILES_MAX: u32 = 16;

/// An action that the supervisor should carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Send an event to the owner.
    Tell(VmEvent),
    /// Say hello.
    Greet {
        /// Number of this connection to the machine.
        epoch: u64,
        /// Number of the last line that was kept.
        lines_seen: u64,
    },
    /// Send a new identity.
    Identify,
    /// Send the time.
    SetClock,
    /// Send the environment, then start the entrypoint.
    Start,
    /// Write a file of the environment directory.
    WriteFile {
        /// The suffix of the file's name.
        suffix: Suffix,
        /// The file's whole content.
        content: String,
    },
    /// Pass a message of a session on.
    Session {
        /// Number of the session.
        session: u64,
        /// The message.
        output: SessionOutput,
    },
    /// Stop, because the guest speaks another version of the protocol, in which its messages may have another meaning.
    WrongVersion {
        /// The guest's version.
        version: u32,
    },
    /// Speak no more with the agent. The machine goes on, because a job may run in it.
    LetBe,
    /// Stop, because the process that died has started no entrypoint in the machine, and the settings for one died with it.
    NeverStarted,
}

/// The state of a machine when its start began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum InitialState {
    /// It does not exist yet.
    #[default]
    Boot,
    /// It was frozen after everything that any runner needs was ready.
    Fork,
    /// It was frozen in the same state, and has answered a host since.
    Spare,
    /// It runs, and the process that had started it has died.
    TakenOver {
        /// Number of this connection, which is larger than that of the process that died.
        epoch: u64,
        /// Number of the last line that the process that died has kept.
        lines_seen: u64,
    },
}

/// The number of the only connection of a machine that this process starts.
const FIRST_EPOCH: u64 = 1;

impl From<&StartedFrom> for InitialState {
    fn from(from: &StartedFrom) -> Self {
        match from {
            StartedFrom::Boot => Self::Boot,
            StartedFrom::Fork(_) => Self::Fork,
            StartedFrom::Spare(_) => Self::Spare,
        }
    }
}

/// The stage of the entrypoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum EntrypointStage {
    /// It waits for Docker, for the network and for the machine's identity.
    #[default]
    AwaitsDocker,
    /// It waits for the network and for the machine's identity. Docker answers, has failed, took too long, or is not in the
    /// image.
    AwaitsIdentity,
    /// It was started.
    Started,
    /// It has exited.
    Exited,
}

/// The progress of a machine's start.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    start: InitialState,
    /// True once the agent has said hello.
    greeted: bool,
    reached: HashSet<Milestone>,
    entrypoint: EntrypointStage,
    /// Number of faults that the guest has sent.
    faults: u32,
    /// Number of files that the guest has sent.
    files: u32,
    /// Number of the last line; none if the machine had lines before that no number is known of.
    last_line: Option<u64>,
}

impl Handshake {
    /// Returns the initial state. The entrypoint waits for Docker only if the image has Docker and the machine boots.
    pub(super) fn of(start: InitialState, has_docker: bool) -> Self {
        let entrypoint = match start {
            InitialState::Boot if has_docker => EntrypointStage::AwaitsDocker,
            InitialState::Boot | InitialState::Fork | InitialState::Spare => EntrypointStage::AwaitsIdentity,
            InitialState::TakenOver { .. } => EntrypointStage::Started,
        };
        let last_line = match start {
            InitialState::Boot | InitialState::Fork => Some(0),
            InitialState::Spare => None,
            InitialState::TakenOver { lines_seen, .. } => Some(lines_seen),
        };
        Self { start, entrypoint, last_line, ..Self::default() }
    }

    /// Returns true once the entrypoint was started.
    pub(super) fn has_started(&self) -> bool {
        matches!(self.entrypoint, EntrypointStage::Started | EntrypointStage::Exited)
    }

    /// Returns the actions that come first, whether or not the machine runs already. All other actions wait until the
    /// machine has its identity.
    pub(super) fn begin(&mut self) -> Vec<Action> {
        let greet = Action::Greet { epoch: FIRST_EPOCH, lines_seen: 0 };
        match self.start {
            InitialState::Boot => vec![greet],
            // In this order, the guest answers with its hello and `Identified` at once.
            InitialState::Fork => vec![Action::Identify, greet],
            InitialState::TakenOver { epoch, lines_seen } => vec![Action::Greet { epoch, lines_seen }],
            // Not greeted, because the agent answers a hello with its earlier milestones, and the `Identified` of the
            // spare's former identity would be among them.
            InitialState::Spare => vec![Action::Identify],
        }
    }

    /// Returns true if the machine has answered enough to count as up.
    pub(super) fn is_up(&self) -> bool {
        let is_identified = match self.start {
            InitialState::Boot | InitialState::TakenOver { .. } => true,
            InitialState::Fork | InitialState::Spare => self.reached.contains(&Milestone::Identified),
        };
        self.greeted && is_identified
    }

    /// Returns true if an earlier process has started the machine.
    pub(super) fn is_taken_over(&self) -> bool {
        matches!(self.start, InitialState::TakenOver { .. })
    }

    /// Returns true if the agent has said hello.
    pub(super) fn greeted(&self) -> bool {
        self.greeted
    }

    /// Returns true if the entrypoint waits only for Docker.
    pub(super) fn waits_for_docker(&self) -> bool {
        self.entrypoint == EntrypointStage::AwaitsDocker && self.is_identified()
    }

    fn is_identified(&self) -> bool {
        // A spare has reported its network before.
        let has_network = self.reached.contains(&Milestone::Network) || self.start == InitialState::Spare;
        has_network && self.reached.contains(&Milestone::Identified)
    }

    /// Stops waiting for Docker because it took too long. The entrypoint starts without it.
    pub(super) fn give_up_docker(&mut self) -> Vec<Action> {
        self.settle_docker();
        let reason = "Docker is not ready in time; the runner is started without it".to_owned();
        let mut actions = vec![Action::Tell(VmEvent::DockerFailed { reason })];
        actions.extend(self.start_if_ready());
        actions
    }

    /// Returns the actions that follow from a message of the guest. `id` is the runner's id.
    pub(super) fn take(&mut self, message: GuestMessage, id: &str) -> Vec<Action> {
        match self.start {
            InitialState::TakenOver { epoch, .. } if !self.greeted => self.take_first(&message, epoch),
            _ => self.take_next(message, id),
        }
    }

    /// Returns the actions that follow from a message before the hello of a machine that is taken over. Messages for the
    /// process that died may still be on the way; the agent repeats those that count.
    fn take_first(&mut self, message: &GuestMessage, expected: u64) -> Vec<Action> {
        let &GuestMessage::Hello { version, epoch, started, .. } = message else { return Vec::new() };
        if epoch != expected {
            return Vec::new();
        }
        self.greeted = true;
        if version != protocol::VERSION {
            let message = format!(
                "the machine speaks version {version} of the protocol, this program {}: it goes on without being watched \
                 until the forge reports that its runner is gone",
                protocol::VERSION
            );
            return vec![Action::Tell(VmEvent::Fault { message }), Action::LetBe];
        }
        if !started {
            return vec![Action::NeverStarted];
        }
        vec![Action::Tell(VmEvent::Hello), Action::SetClock]
    }

    fn take_next(&mut self, message: GuestMessage, id: &str) -> Vec<Action> {
        match message {
            GuestMessage::Hello { version, .. } if version != protocol::VERSION => {
                vec![Action::WrongVersion { version }]
            }
            GuestMessage::Hello { .. } if self.greeted => Vec::new(),
            GuestMessage::Hello { .. } => {
                self.greeted = true;
                // A fork has its identity already, but the time in it is as old as the wait in the queue.
                let next = match self.start {
                    InitialState::Boot => Action::Identify,
                    InitialState::Fork | InitialState::Spare | InitialState::TakenOver { .. } => {
                        Action::SetClock
                    }
                };
                vec![Action::Tell(VmEvent::Hello), next]
            }
            GuestMessage::Milestone { milestone, uptime_ms } => self.take_milestone(milestone, uptime_ms),
            GuestMessage::File { name, content } => self.take_file(&name, content, id).into_iter().collect(),
            GuestMessage::Line { number, source, text } => self.take_line(number, source, text),
            GuestMessage::EntrypointExited { .. } if self.entrypoint != EntrypointStage::Started => {
                Vec::new()
            }
            GuestMessage::EntrypointExited { code, signal } => {
                self.entrypoint = EntrypointStage::Exited;
                vec![Action::Tell(VmEvent::EntrypointExited { code, signal })]
            }
            GuestMessage::Session { session, output } => vec![Action::Session { session, output }],
            GuestMessage::Prepared { .. } | GuestMessage::Pong { .. } => Vec::new(),
            GuestMessage::DockerFailed { reason } => {
                self.settle_docker();
                let told =
                    self.take_fault(reason).map(|reason| Action::Tell(VmEvent::DockerFailed { reason }));
                told.into_iter().chain(self.start_if_ready()).collect()
            }
            GuestMessage::OutOfMemory { process, used_mib, memory_mib } => {
                let told = self.take_fault(process);
                let event = |process| VmEvent::OutOfMemory { process, used_mib, memory_mib };
                told.map(|process| Action::Tell(event(process))).into_iter().collect()
            }
            GuestMessage::Fault { message } => {
                let told = self.take_fault(message).map(|message| Action::Tell(VmEvent::Fault { message }));
                told.into_iter().collect()
            }
        }
    }

    /// Returns the events for a line. Missing numbers are lines that the guest has dropped.
    fn take_line(&mut self, number: u64, source: Source, text: String) -> Vec<Action> {
        let missing = self.last_line.map_or(0, |last| number.saturating_sub(last.saturating_add(1)));
        let gap = (missing > 0).then(|| VmEvent::Line {
            number: number - 1,
            source: Source::Agent,
            text: format!("({} not kept)", quantity(missing, "line was", "lines were")),
        });
        self.last_line = Some(number);
        let text = one_line(&cut(text, LINE_BYTES_MAX));
        gap.into_iter().chain([VmEvent::Line { number, source, text }]).map(Action::Tell).collect()
    }

    /// Returns the text of a fault, bounded, unless the guest has sent too many of them.
    fn take_fault(&mut self, message: String) -> Option<String> {
        self.faults = self.faults.saturating_add(1);
        match self.faults {
            // Further lines are indented, so that none of them looks like the beginning of a line of the log.
            count if count < FAULTS_MAX => {
                Some(cut(message, FAULT_BYTES_MAX).replace('\r', "").replace('\n', "\n    "))
            }
            FAULTS_MAX => {
                Some(format!("the guest has reported {FAULTS_MAX} faults; further ones are ignored"))
            }
            _ => None,
        }
    }

    /// Returns the action for a file, unless the guest may not send it or has sent too many of them.
    fn take_file(&mut self, name: &str, content: String, id: &str) -> Option<Action> {
        let action = file(name, content, id)?;
        self.files = self.files.saturating_add(1);
        (self.files <= FILES_MAX).then_some(action)
    }

    fn take_milestone(&mut self, milestone: Milestone, uptime_ms: u64) -> Vec<Action> {
        // A machine that is taken over repeats the milestones of its start.
        if self.is_taken_over() || !self.reached.insert(milestone) {
            return Vec::new();
        }
        if milestone == Milestone::DockerReady {
            self.settle_docker();
        }
        let mut actions = Vec::new();
        if self.start == InitialState::Spare && !std::mem::replace(&mut self.greeted, true) {
            actions.push(Action::Tell(VmEvent::Hello));
        }
        actions.push(Action::Tell(VmEvent::Milestone { milestone, uptime_ms }));
        actions.extend(self.start_if_ready());
        actions
    }

    fn start_if_ready(&mut self) -> Option<Action> {
        let ready = self.entrypoint == EntrypointStage::AwaitsIdentity && self.is_identified();
        ready.then(|| {
            self.entrypoint = EntrypointStage::Started;
            Action::Start
        })
    }

    /// Records that Docker need not be waited for any longer.
    fn settle_docker(&mut self) {
        if self.entrypoint == EntrypointStage::AwaitsDocker {
            self.entrypoint = EntrypointStage::AwaitsIdentity;
        }
    }
}

/// Shortens a text to this many bytes, and says so.
fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or_default());
        text.push_str(" (cut)");
    }
    text
}

/// Returns the action that writes a file from the guest, if the guest may send this file.
fn file(name: &str, content: String, id: &str) -> Option<Action> {
    let (owner, suffix) = parse_file_name(name)?;
    let may_come =
        owner == id && matches!(suffix, Suffix::Tkn | Suffix::Brk) && content.len() <= NOTE_LENGTH_MAX;
    may_come.then_some(Action::WriteFile { suffix, content })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> GuestMessage {
        GuestMessage::Hello { version: protocol::VERSION, epoch: 1, build: "x".to_owned(), started: false }
    }

    fn reached(milestone: Milestone) -> GuestMessage {
        GuestMessage::Milestone { milestone, uptime_ms: 5 }
    }

    fn fault(message: &str) -> GuestMessage {
        GuestMessage::Fault { message: message.to_owned() }
    }

    /// Returns the actions without the events for the owner.
    fn acts(handshake: &mut Handshake, message: GuestMessage) -> Vec<Action> {
        let mut actions = handshake.take(message, "0-a");
        actions.retain(|action| !matches!(action, Action::Tell(_)));
        actions
    }

    #[test]
    fn the_entrypoint_starts_once_network_identity_and_docker_are_there_in_any_order() {
        let steps = [Milestone::Network, Milestone::Identified, Milestone::DockerReady];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut handshake = Handshake::default();
            assert_eq!(acts(&mut handshake, hello()), [Action::Identify]);
            assert_eq!(acts(&mut handshake, reached(steps[order[0]])), []);
            assert_eq!(acts(&mut handshake, reached(steps[order[1]])), []);
            assert_eq!(acts(&mut handshake, reached(steps[order[2]])), [Action::Start], "{order:?}");
            assert_eq!(acts(&mut handshake, reached(steps[order[2]])), []);
            assert_eq!(acts(&mut handshake, hello()), []);
        }
    }

    #[test]
    fn a_fork_is_told_who_it_is_at_once_and_starts_nothing_before_it_has_taken_that_on() {
        let mut handshake = Handshake::of(InitialState::Fork, true);
        let greet = Action::Greet { epoch: 1, lines_seen: 0 };
        assert_eq!(handshake.begin(), [Action::Identify, greet.clone()]);
        assert!(!handshake.waits_for_docker());
        assert_eq!(acts(&mut handshake, hello()), [Action::SetClock]);
        for milestone in [Milestone::Network, Milestone::DockerReady] {
            assert_eq!(acts(&mut handshake, reached(milestone)), []);
        }
        assert!(handshake.greeted() && !handshake.is_up());
        assert_eq!(acts(&mut handshake, reached(Milestone::Identified)), [Action::Start]);
        assert!(handshake.is_up());
        assert_eq!(Handshake::default().begin(), [greet]);
    }

    #[test]
    fn a_spare_is_up_when_it_has_taken_its_new_identity_on() {
        let mut handshake = Handshake::of(InitialState::Spare, true);
        assert_eq!(handshake.begin(), [Action::Identify]);
        assert!(!handshake.is_up());
        let actions = handshake.take(reached(Milestone::Identified), "0-a");
        assert_eq!(actions[0], Action::Tell(VmEvent::Hello));
        assert_eq!(actions[2..], [Action::Start]);
        assert!(handshake.is_up());
    }

    #[test]
    fn a_docker_daemon_that_fails_or_takes_too_long_does_not_hold_up_the_runner() {
        let mut handshake = Handshake::default();
        acts(&mut handshake, hello());
        acts(&mut handshake, reached(Milestone::Network));
        acts(&mut handshake, reached(Milestone::Identified));
        assert!(handshake.waits_for_docker());
        // Only the message counts, whatever a fault's text says.
        assert_eq!(acts(&mut handshake, fault("cannot set ulimit of dockerd")), []);
        let reason = "/usr/bin/dockerd ended (exit status: 1)".to_owned();
        let actions = handshake.take(GuestMessage::DockerFailed { reason: reason.clone() }, "0-a");
        assert_eq!(actions, [Action::Tell(VmEvent::DockerFailed { reason }), Action::Start]);
        assert!(!handshake.waits_for_docker());

        let mut handshake = Handshake::default();
        acts(&mut handshake, reached(Milestone::Network));
        acts(&mut handshake, reached(Milestone::Identified));
        let actions = handshake.give_up_docker();
        assert_eq!(actions.last(), Some(&Action::Start));
        assert_eq!(acts(&mut handshake, reached(Milestone::DockerReady)), []);
    }

    #[test]
    fn nobody_waits_for_a_docker_that_the_image_does_not_have() {
        let mut handshake = Handshake::of(InitialState::Boot, false);
        acts(&mut handshake, hello());
        acts(&mut handshake, reached(Milestone::Network));
        assert_eq!(acts(&mut handshake, reached(Milestone::Identified)), [Action::Start]);
    }

    #[test]
    fn only_two_kinds_of_files_of_this_runner_come_from_a_guest() {
        let mut handshake = Handshake::default();
        let mut send = |name: &str, length: usize| {
            let message = GuestMessage::File { name: name.to_owned(), content: "x".repeat(length) };
            acts(&mut handshake, message).len()
        };
        assert_eq!(send("0-a.tkn", 4096), 1);
        assert_eq!(send("0-a.brk", 0), 1);
        for name in
            ["0-a.env", "0-a.trm", "0-b.tkn", "0-a.tkn.", "x0-a.tkn", "0-a.tkn/..", "../0-a.tkn", "0-a", ""]
        {
            assert_eq!(send(name, 1), 0, "{name}");
        }
        assert_eq!(send("0-a.tkn", 4097), 0);
    }

    #[test]
    fn a_guest_that_floods_its_host_with_faults_is_told_short_and_not_for_ever() {
        let mut handshake = Handshake::default();
        let told: Vec<Action> =
            (0..1000).flat_map(|_| handshake.take(fault(&"\u{e9}".repeat(100_000)), "0-a")).collect();
        assert_eq!(told.len(), 32);
        for action in &told {
            let Action::Tell(VmEvent::Fault { message }) = action else { panic!("{action:?}") };
            assert!(message.len() <= 2100, "{}", message.len());
        }
        // A Docker that fails again and again is a flood too.
        let failed = GuestMessage::DockerFailed { reason: "x".to_owned() };
        assert_eq!(handshake.take(failed, "0-a"), []);
    }

    #[test]
    fn a_guest_cannot_make_its_host_write_files_for_ever() {
        let mut handshake = Handshake::default();
        let brk = || GuestMessage::File { name: "0-a.brk".to_owned(), content: "x".to_owned() };
        assert_eq!((0..1000).flat_map(|_| handshake.take(brk(), "0-a")).count(), 16);
    }

    #[test]
    fn text_from_a_guest_cannot_pretend_to_be_a_line_of_the_log() {
        let forged = "x\r\n2026-01-01T00:00:00Z  INFO the job has ended";
        let told = |message| match &Handshake::default().take(message, "0-a")[..] {
            [Action::Tell(VmEvent::Line { text, .. } | VmEvent::Fault { message: text })] => text.clone(),
            actions => panic!("{actions:?}"),
        };
        let line = told(GuestMessage::Line { number: 1, source: Source::Agent, text: forged.to_owned() });
        assert_eq!(line, "x\u{240d}\u{240a}2026-01-01T00:00:00Z  INFO the job has ended");
        assert_eq!(told(fault(forged)), "x\n    2026-01-01T00:00:00Z  INFO the job has ended");
    }

    #[test]
    fn a_line_that_no_agent_sends_is_cut() {
        let line = GuestMessage::Line { number: 1, source: Source::Agent, text: "x".repeat(100_000) };
        let actions = Handshake::default().take(line, "0-a");
        let [Action::Tell(VmEvent::Line { text, .. })] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!((text.len(), text.ends_with("x (cut)")), (8 * 1024 + 6, true));
    }

    fn line(number: u64) -> GuestMessage {
        GuestMessage::Line { number, source: Source::Docker, text: format!("line {number}") }
    }

    fn texts(actions: &[Action]) -> Vec<String> {
        let text = |action: &Action| match action {
            Action::Tell(VmEvent::Line { number, text, .. }) => Some(format!("{number}: {text}")),
            _ => None,
        };
        actions.iter().filter_map(text).collect()
    }

    #[test]
    fn missing_numbers_of_lines_are_lines_that_were_dropped() {
        let mut handshake = Handshake::of(InitialState::Fork, false);
        assert_eq!(texts(&handshake.take(line(1), "0-a")), ["1: line 1"]);
        let told = texts(&handshake.take(line(5), "0-a"));
        assert_eq!(told, ["4: (3 lines were not kept)", "5: line 5"]);
        // A spare had lines before it became this machine.
        let mut spare = Handshake::of(InitialState::Spare, false);
        assert_eq!(texts(&spare.take(line(9), "0-a")), ["9: line 9"]);
        // A guest may number its lines as it likes.
        for number in [0, u64::MAX, 1, u64::MAX] {
            assert!(!texts(&handshake.take(line(number), "0-a")).is_empty());
        }
    }

    fn hello_again(version: u32, epoch: u64, started: bool) -> GuestMessage {
        GuestMessage::Hello { version, epoch, build: "x".to_owned(), started }
    }

    #[test]
    fn a_machine_that_is_taken_over_goes_on_with_the_line_after_the_last_one_that_was_kept() {
        let mut handshake = Handshake::of(InitialState::TakenOver { epoch: 7, lines_seen: 3 }, true);
        assert_eq!(handshake.begin(), [Action::Greet { epoch: 7, lines_seen: 3 }]);
        assert!(handshake.has_started() && !handshake.is_up() && !handshake.waits_for_docker());
        // These were sent to the process that died.
        for late in [line(6), reached(Milestone::DockerReady), hello_again(protocol::VERSION, 1, true)] {
            assert_eq!(handshake.take(late, "0-a"), []);
        }
        let told = handshake.take(hello_again(protocol::VERSION, 7, true), "0-a");
        assert_eq!(told, [Action::Tell(VmEvent::Hello), Action::SetClock]);
        assert!(handshake.is_up());
        assert_eq!(handshake.take(reached(Milestone::Identified), "0-a"), [], "it starts nothing again");
        assert_eq!(texts(&handshake.take(line(4), "0-a")), ["4: line 4"]);
        let exited = GuestMessage::EntrypointExited { code: Some(0), signal: None };
        assert_eq!(handshake.take(exited, "0-a").len(), 1);
    }

    #[test]
    fn a_machine_that_is_taken_over_before_its_entrypoint_was_started_is_stopped() {
        let mut handshake = Handshake::of(InitialState::TakenOver { epoch: 7, lines_seen: 0 }, false);
        let told = handshake.take(hello_again(protocol::VERSION, 7, false), "0-a");
        assert_eq!(told, [Action::NeverStarted]);
    }

    #[test]
    fn a_machine_that_an_earlier_version_has_started_is_not_stopped() {
        let mut handshake = Handshake::of(InitialState::TakenOver { epoch: 7, lines_seen: 0 }, false);
        let told = handshake.take(hello_again(protocol::VERSION - 1, 7, false), "0-a");
        assert!(matches!(told[..], [Action::Tell(VmEvent::Fault { .. }), Action::LetBe]), "{told:?}");
    }

    #[test]
    fn an_end_of_an_entrypoint_that_was_not_started_is_not_believed() {
        let mut handshake = Handshake::default();
        let exited = GuestMessage::EntrypointExited { code: Some(0), signal: None };
        assert_eq!(handshake.take(exited.clone(), "0-a"), []);
        acts(&mut handshake, hello());
        for milestone in [Milestone::Network, Milestone::Identified, Milestone::DockerReady] {
            acts(&mut handshake, reached(milestone));
        }
        assert_eq!(handshake.take(exited.clone(), "0-a").len(), 1);
        assert_eq!(handshake.take(exited, "0-a"), []);
    }

    #[test]
    fn a_guest_of_another_build_is_not_served() {
        let message = GuestMessage::Hello { version: 999, epoch: 0, build: String::new(), started: false };
        assert_eq!(Handshake::default().take(message, "x"), [Action::WrongVersion { version: 999 }]);
    }
}
