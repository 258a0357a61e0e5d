//! The queue of messages to the host. It is bounded even if no host is connected.
//!
//! The last lines are kept after they were sent. A host's process can die with lines that it has received and not written,
//! and the next one says in its hello which line is the last that was written. Lines are not acknowledged one by one, because
//! a host that keeps up loses no more than what is kept here.

use dayfly_guest::protocol::{GuestMessage, Milestone, Source, VERSION};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Most lines that are kept. If there are more, the oldest is dropped, and the host sees that its number is missing.
const LINES_MAX: usize = 1024;

/// Most bytes of lines that are kept.
const LINE_BYTES_MAX: usize = 512 * 1024;

/// Most facts that are stored to be repeated. A machine has about ten; only faults can exceed that.
const FACTS_MAX: usize = 64;

/// Most messages in one write. Messages are batched because each write is a trip to the host.
const BATCH_MAX: usize = 32;

/// Most answers in the queue, besides lines and facts.
const ANSWERS_MAX: usize = 64;

/// The queue between the threads that send messages and the one thread that writes them.
///
/// Until a host has said hello, only the agent's own first hello is sent. So no fact is sent twice on one connection.
#[derive(Default)]
pub(super) struct Outbox {
    state: Mutex<OutboxState>,
    changed: Condvar,
}

struct OutboxState {
    /// Epoch of a hello that is still to be sent.
    hello: Option<u64>,
    /// True once a host has said hello. The agent cannot know if that host is still connected; while no host is, the
    /// writing thread is blocked in its write.
    greeted: bool,
    /// True once the entrypoint was started, which the hello says.
    started: bool,
    facts: Vec<GuestMessage>,
    queue: VecDeque<Queued>,
    lines: Lines,
    /// True until the messages that were taken last are known to be written.
    in_flight: bool,
}

/// A message that waits to be sent.
enum Queued {
    Message(GuestMessage),
    /// A message of a session. The number of these is bounded by the window of each session.
    Session(GuestMessage),
    /// The line of this number, unless it was dropped meanwhile.
    Line(u64),
}

impl Default for OutboxState {
    fn default() -> Self {
        Self {
            hello: Some(0),
            greeted: false,
            started: false,
            facts: Vec::new(),
            queue: VecDeque::new(),
            lines: Lines::default(),
            in_flight: false,
        }
    }
}

/// The last lines, sent or not. The first line of a machine has number 1.
#[derive(Default)]
struct Lines {
    kept: VecDeque<(Source, String)>,
    bytes: usize,
    /// Number of lines that were dropped since the machine was frozen, or since it started.
    dropped: u64,
}

impl Lines {
    /// Adds a line, and returns its number.
    fn push(&mut self, source: Source, text: &str) -> u64 {
        self.bytes += text.len();
        self.kept.push_back((source, text.to_owned()));
        self.last()
    }

    /// Drops the oldest line if there are too many. Returns its number.
    fn drop_excess(&mut self) -> Option<u64> {
        if self.kept.len() <= LINES_MAX && self.bytes <= LINE_BYTES_MAX {
            return None;
        }
        self.bytes -= self.kept.pop_front()?.1.len();
        self.dropped += 1;
        Some(self.dropped)
    }

    /// Returns the number of the last line.
    fn last(&self) -> u64 {
        self.dropped + self.kept.len() as u64
    }

    /// Returns the numbers of the lines after this one that are kept.
    fn after(&self, seen: u64) -> std::ops::RangeInclusive<u64> {
        self.dropped.max(seen.min(self.last())) + 1..=self.last()
    }

    fn message(&self, number: u64) -> Option<GuestMessage> {
        let at = number.checked_sub(self.dropped + 1)?;
        let (source, text) = self.kept.get(usize::try_from(at).ok()?)?;
        Some(GuestMessage::Line { number, source: *source, text: text.clone() })
    }
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, OutboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a fact, which stays true: now, and again to each host that says hello. A milestone that is reached again
    /// replaces the earlier one.
    pub(super) fn fact(&self, message: GuestMessage) {
        let mut state = self.lock();
        if let GuestMessage::Milestone { milestone, .. } = &message {
            state.facts.retain(|fact| !is_step(fact, *milestone));
        }
        if state.facts.len() < FACTS_MAX {
            state.facts.push(message.clone());
            if state.greeted {
                state.queue.push_back(Queued::Message(message));
            }
        }
        self.changed.notify_all();
    }

    /// Removes a milestone that was undone, so that it is not sent to the next host.
    pub(super) fn retract(&self, step: Milestone) {
        self.lock().facts.retain(|fact| !is_step(fact, step));
    }

    /// Notes that the entrypoint was started, for the hello to the next host.
    pub(super) fn entrypoint_started(&self) {
        self.lock().started = true;
    }

    /// Queues an answer. Only the current host gets it.
    pub(super) fn answer(&self, message: GuestMessage) {
        let mut state = self.lock();
        let others = state.queue.iter().filter(|queued| matches!(queued, Queued::Message(_))).count();
        if others < ANSWERS_MAX + FACTS_MAX {
            state.queue.push_back(Queued::Message(message));
        }
        self.changed.notify_all();
    }

    /// Queues a message of a session. Only the current host gets it.
    pub(super) fn session(&self, message: GuestMessage) {
        self.lock().queue.push_back(Queued::Session(message));
        self.changed.notify_all();
    }

    /// Queues a line of output.
    pub(super) fn line(&self, source: Source, text: &str) {
        let mut state = self.lock();
        let number = state.lines.push(source, text);
        state.queue.push_back(Queued::Line(number));
        while let Some(dropped) = state.lines.drop_excess() {
            // An unsent line is before all other lines in the queue.
            let is_line = |queued: &Queued| matches!(queued, Queued::Line(_));
            if let Some(at) = state.queue.iter().position(is_line)
                && matches!(state.queue[at], Queued::Line(number) if number <= dropped)
            {
                state.queue.remove(at);
            }
        }
        self.changed.notify_all();
    }

    /// Answers a host's hello: queues the agent's hello, then all facts, then the lines after the last one that a host has
    /// kept. The entrypoint's exit comes after its last lines.
    pub(super) fn greet(&self, epoch: u64, lines_seen: u64) {
        let mut state = self.lock();
        state.hello = Some(epoch);
        state.greeted = true;
        let is_end = |fact: &GuestMessage| matches!(fact, GuestMessage::EntrypointExited { .. });
        let (ends, others): (Vec<_>, Vec<_>) = state.facts.iter().cloned().partition(is_end);
        let lines = state.lines.after(lines_seen).map(Queued::Line);
        let others = others.into_iter().map(Queued::Message);
        state.queue = others.chain(lines).chain(ends.into_iter().map(Queued::Message)).collect();
        self.changed.notify_all();
    }

    /// Returns true if nothing is left to be sent, and all messages that were taken have been written.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.lock();
        !state.in_flight && state.hello.is_none() && (state.queue.is_empty() || !state.greeted)
    }

    /// Waits for the next messages, and returns up to [`BATCH_MAX`] of them. The messages returned before count as written.
    pub(super) fn next(&self) -> Vec<GuestMessage> {
        let mut state = self.lock();
        state.in_flight = false;
        loop {
            let messages: Vec<_> = std::iter::from_fn(|| state.take()).take(BATCH_MAX).collect();
            if !messages.is_empty() {
                state.in_flight = true;
                return messages;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Drops all lines, because they are of no interest to the hosts of this machine's forks, and counts from 1 again.
    pub(super) fn forget_lines(&self) {
        let mut state = self.lock();
        state.queue.retain(|queued| !matches!(queued, Queued::Line(_)));
        state.lines = Lines::default();
    }
}

impl OutboxState {
    fn take(&mut self) -> Option<GuestMessage> {
        if let Some(epoch) = self.hello.take() {
            let (build, started) = (crate::BUILD.to_owned(), self.started);
            return Some(GuestMessage::Hello { version: VERSION, epoch, build, started });
        }
        if !self.greeted {
            return None;
        }
        loop {
            match self.queue.pop_front()? {
                Queued::Message(message) | Queued::Session(message) => return Some(message),
                Queued::Line(number) => {
                    if let Some(line) = self.lines.message(number) {
                        return Some(line);
                    }
                }
            }
        }
    }
}

fn is_step(message: &GuestMessage, step: Milestone) -> bool {
    matches!(message, GuestMessage::Milestone { milestone, .. } if *milestone == step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64, text: &str) -> GuestMessage {
        GuestMessage::Line { number, source: Source::Agent, text: text.to_owned() }
    }

    fn milestone() -> GuestMessage {
        GuestMessage::Milestone { milestone: Milestone::Mounts, uptime_ms: 1 }
    }

    fn drain(outbox: &Outbox) -> Vec<GuestMessage> {
        std::iter::from_fn(|| outbox.lock().take()).collect()
    }

    fn hello(epoch: u64) -> GuestMessage {
        GuestMessage::Hello { version: VERSION, epoch, build: crate::BUILD.to_owned(), started: false }
    }

    #[test]
    fn nothing_but_the_first_hello_goes_out_before_a_host_has_spoken() {
        let outbox = Outbox::default();
        outbox.fact(milestone());
        outbox.line(Source::Agent, "early");
        assert_eq!(drain(&outbox), [hello(0)]);
        assert!(outbox.is_empty());
        outbox.greet(1, 0);
        assert_eq!(drain(&outbox), [hello(1), milestone(), line(1, "early")]);
    }

    #[test]
    fn facts_are_said_again_to_the_next_host_and_the_end_comes_after_the_lines() {
        let outbox = Outbox::default();
        let end = GuestMessage::EntrypointExited { code: Some(0), signal: None };
        outbox.greet(1, 0);
        outbox.fact(milestone());
        assert_eq!(drain(&outbox), [hello(1), milestone()]);
        outbox.line(Source::Agent, "meanwhile");
        outbox.fact(end.clone());
        outbox.greet(2, 0);
        assert_eq!(drain(&outbox), [hello(2), milestone(), line(1, "meanwhile"), end]);
    }

    #[test]
    fn a_step_that_is_done_again_is_said_once_to_the_next_host() {
        let outbox = Outbox::default();
        outbox.fact(milestone());
        let again = GuestMessage::Milestone { milestone: Milestone::Mounts, uptime_ms: 9 };
        outbox.fact(again.clone());
        outbox.line(Source::Agent, "of the template");
        outbox.forget_lines();
        outbox.greet(1, 0);
        assert_eq!(drain(&outbox), [hello(1), again]);
    }

    #[test]
    fn a_step_that_was_undone_is_not_said_to_the_next_host() {
        let outbox = Outbox::default();
        outbox.fact(milestone());
        outbox.retract(Milestone::Mounts);
        outbox.greet(1, 0);
        assert_eq!(drain(&outbox), [hello(1)]);
    }

    #[test]
    fn the_oldest_lines_are_dropped_and_their_numbers_are_missing() {
        let outbox = Outbox::default();
        for number in 0..LINES_MAX + 3 {
            outbox.line(Source::Docker, &number.to_string());
        }
        outbox.greet(1, 0);
        let messages = drain(&outbox);
        let first = GuestMessage::Line { number: 4, source: Source::Docker, text: "3".to_owned() };
        assert_eq!(messages[1], first);
        assert_eq!(messages.len(), LINES_MAX + 1);
    }

    #[test]
    fn lines_are_bounded_in_bytes_and_facts_in_number() {
        let outbox = Outbox::default();
        for _ in 0..1000 {
            outbox.line(Source::Docker, &"x".repeat(8192));
            outbox.fact(GuestMessage::Fault { message: "again".to_owned() });
            outbox.answer(GuestMessage::Prepared { failure: None });
        }
        let state = outbox.lock();
        assert!(state.lines.bytes <= LINE_BYTES_MAX && state.facts.len() == FACTS_MAX);
        assert!(state.queue.len() <= state.lines.kept.len() + ANSWERS_MAX + FACTS_MAX);
    }

    fn numbers(messages: &[GuestMessage]) -> Vec<u64> {
        let number = |message: &GuestMessage| match message {
            GuestMessage::Line { number, .. } => Some(*number),
            _ => None,
        };
        messages.iter().filter_map(number).collect()
    }

    #[test]
    fn the_next_host_gets_the_lines_that_the_last_one_has_received_and_not_written() {
        let outbox = Outbox::default();
        outbox.greet(1, 0);
        (1..=5).for_each(|number| outbox.line(Source::Agent, &format!("line {number}")));
        assert_eq!(numbers(&drain(&outbox)), [1, 2, 3, 4, 5]);
        outbox.line(Source::Agent, "while no host was there");
        outbox.greet(2, 3);
        assert_eq!(numbers(&drain(&outbox)), [4, 5, 6]);
        // A host that knows more lines than there are gets none, and later ones as they come.
        outbox.greet(3, u64::MAX);
        assert_eq!(numbers(&drain(&outbox)), [0_u64; 0]);
        outbox.line(Source::Agent, "later");
        assert_eq!(numbers(&drain(&outbox)), [7]);
    }

    #[test]
    fn lines_that_were_dropped_before_they_were_sent_leave_nothing_in_the_queue() {
        let outbox = Outbox::default();
        outbox.greet(1, 0);
        for number in 0..3 * LINES_MAX {
            outbox.line(Source::Docker, &number.to_string());
        }
        assert_eq!(outbox.lock().queue.len(), LINES_MAX);
        assert_eq!(numbers(&drain(&outbox)).first(), Some(&(2 * LINES_MAX as u64 + 1)));
    }

    #[test]
    fn a_fork_counts_its_lines_from_1() {
        let outbox = Outbox::default();
        outbox.greet(1, 0);
        outbox.line(Source::Agent, "of the template");
        outbox.forget_lines();
        outbox.line(Source::Agent, "of the fork");
        outbox.greet(1, 0);
        assert_eq!(drain(&outbox), [hello(1), line(1, "of the fork")]);
    }

    #[test]
    fn the_hello_says_if_the_entrypoint_was_started() {
        let outbox = Outbox::default();
        outbox.entrypoint_started();
        assert!(matches!(drain(&outbox)[..], [GuestMessage::Hello { started: true, .. }]));
    }
}
