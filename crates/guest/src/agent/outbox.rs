//! The queue of messages to the host. It is bounded even if no host is connected.

use dayfly_guest::protocol::{GuestMessage, Milestone, Source, VERSION};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Most lines in the queue. If there are more, the oldest is dropped and counted.
const LINES_MAX: usize = 1024;

/// Most bytes of lines in the queue.
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
    facts: Vec<GuestMessage>,
    queue: VecDeque<GuestMessage>,
    lines: usize,
    line_bytes: usize,
    dropped: u64,
    /// True until the messages that were taken last are known to be written.
    in_flight: bool,
}

impl Default for OutboxState {
    fn default() -> Self {
        Self {
            hello: Some(0),
            greeted: false,
            facts: Vec::new(),
            queue: VecDeque::new(),
            lines: 0,
            line_bytes: 0,
            dropped: 0,
            in_flight: false,
        }
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
                state.queue.push_back(message);
            }
        }
        self.changed.notify_all();
    }

    /// Removes a milestone that was undone, so that it is not sent to the next host.
    pub(super) fn retract(&self, step: Milestone) {
        self.lock().facts.retain(|fact| !is_step(fact, step));
    }

    /// Queues an answer. Only the current host gets it.
    pub(super) fn answer(&self, message: GuestMessage) {
        let mut state = self.lock();
        if state.queue.len() < state.lines + ANSWERS_MAX + FACTS_MAX {
            state.queue.push_back(message);
        }
        self.changed.notify_all();
    }

    /// Queues a line of output.
    pub(super) fn line(&self, source: Source, text: &str) {
        let mut state = self.lock();
        state.lines += 1;
        state.line_bytes += text.len();
        state.queue.push_back(GuestMessage::Line { source, text: text.to_owned() });
        while state.lines > LINES_MAX || state.line_bytes > LINE_BYTES_MAX {
            state.drop_oldest_line();
        }
        self.changed.notify_all();
    }

    /// Answers a host's hello: queues the agent's hello, then all facts, then the lines that are still queued. The
    /// entrypoint's exit comes after its last lines.
    pub(super) fn greet(&self, epoch: u64) {
        let mut state = self.lock();
        state.hello = Some(epoch);
        state.greeted = true;
        state.queue.retain(is_line);
        let facts = state.facts.clone();
        let is_end = |fact: &GuestMessage| matches!(fact, GuestMessage::EntrypointExited { .. });
        let (ends, others): (Vec<_>, Vec<_>) = facts.into_iter().partition(is_end);
        for fact in others.into_iter().rev() {
            state.queue.push_front(fact);
        }
        state.queue.extend(ends);
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

    /// Drops the queued lines, because they are of no interest to the hosts of this machine's forks.
    pub(super) fn forget_lines(&self) {
        let mut state = self.lock();
        state.queue.retain(|message| !is_line(message));
        (state.lines, state.line_bytes, state.dropped) = (0, 0, 0);
    }
}

impl OutboxState {
    fn take(&mut self) -> Option<GuestMessage> {
        if let Some(epoch) = self.hello.take() {
            let build = crate::BUILD.to_owned();
            return Some(GuestMessage::Hello { version: VERSION, epoch, build });
        }
        if !self.greeted {
            return None;
        }
        if self.dropped > 0 && self.queue.front().is_none_or(is_line) {
            return Some(GuestMessage::LinesDropped { count: std::mem::take(&mut self.dropped) });
        }
        let message = self.queue.pop_front()?;
        self.forget_line(&message);
        Some(message)
    }

    fn forget_line(&mut self, message: &GuestMessage) {
        if let GuestMessage::Line { text, .. } = message {
            self.lines -= 1;
            self.line_bytes -= text.len();
        }
    }

    fn drop_oldest_line(&mut self) {
        let Some(oldest) = self.queue.iter().position(is_line).and_then(|index| self.queue.remove(index))
        else {
            return;
        };
        self.forget_line(&oldest);
        self.dropped += 1;
    }
}

fn is_step(message: &GuestMessage, step: Milestone) -> bool {
    matches!(message, GuestMessage::Milestone { milestone, .. } if *milestone == step)
}

fn is_line(message: &GuestMessage) -> bool {
    matches!(message, GuestMessage::Line { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> GuestMessage {
        GuestMessage::Line { source: Source::Agent, text: text.to_owned() }
    }

    fn milestone() -> GuestMessage {
        GuestMessage::Milestone { milestone: Milestone::Mounts, uptime_ms: 1 }
    }

    fn drain(outbox: &Outbox) -> Vec<GuestMessage> {
        std::iter::from_fn(|| outbox.lock().take()).collect()
    }

    fn hello(epoch: u64) -> GuestMessage {
        GuestMessage::Hello { version: VERSION, epoch, build: crate::BUILD.to_owned() }
    }

    #[test]
    fn nothing_but_the_first_hello_goes_out_before_a_host_has_spoken() {
        let outbox = Outbox::default();
        outbox.fact(milestone());
        outbox.line(Source::Agent, "early");
        assert_eq!(drain(&outbox), [hello(0)]);
        assert!(outbox.is_empty());
        outbox.greet(1);
        assert_eq!(drain(&outbox), [hello(1), milestone(), line("early")]);
    }

    #[test]
    fn facts_are_said_again_to_the_next_host_and_the_end_comes_after_the_lines() {
        let outbox = Outbox::default();
        let end = GuestMessage::EntrypointExited { code: Some(0), signal: None };
        outbox.greet(1);
        outbox.fact(milestone());
        assert_eq!(drain(&outbox), [hello(1), milestone()]);
        outbox.line(Source::Agent, "meanwhile");
        outbox.fact(end.clone());
        outbox.greet(2);
        assert_eq!(drain(&outbox), [hello(2), milestone(), line("meanwhile"), end]);
    }

    #[test]
    fn a_step_that_is_done_again_is_said_once_to_the_next_host() {
        let outbox = Outbox::default();
        outbox.fact(milestone());
        let again = GuestMessage::Milestone { milestone: Milestone::Mounts, uptime_ms: 9 };
        outbox.fact(again.clone());
        outbox.line(Source::Agent, "of the template");
        outbox.forget_lines();
        outbox.greet(1);
        assert_eq!(drain(&outbox), [hello(1), again]);
    }

    #[test]
    fn a_step_that_was_undone_is_not_said_to_the_next_host() {
        let outbox = Outbox::default();
        outbox.fact(milestone());
        outbox.retract(Milestone::Mounts);
        outbox.greet(1);
        assert_eq!(drain(&outbox), [hello(1)]);
    }

    #[test]
    fn the_oldest_lines_are_dropped_and_counted() {
        let outbox = Outbox::default();
        for number in 0..LINES_MAX + 3 {
            outbox.line(Source::Docker, &number.to_string());
        }
        outbox.greet(1);
        let messages = drain(&outbox);
        assert_eq!(messages[1], GuestMessage::LinesDropped { count: 3 });
        assert_eq!(messages[2], GuestMessage::Line { source: Source::Docker, text: "3".to_owned() });
        assert_eq!(messages.len(), LINES_MAX + 2);
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
        assert!(state.line_bytes <= LINE_BYTES_MAX && state.facts.len() == FACTS_MAX);
        assert!(state.queue.len() <= state.lines + ANSWERS_MAX + FACTS_MAX);
    }
}
