//! The gate that lets pieces of output pass, as many as the host has room for.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use dayfly_guest::protocol::session::WINDOW;

/// The gate of one session, for all threads that read its output.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug)]
struct GateState {
    /// Number of pieces that may pass.
    room: usize,
    /// Number of threads that wait.
    waiting: usize,
    /// Number of pieces that have passed.
    passed: u64,
    /// True if no host wants the output any more.
    is_closed: bool,
}

/// The progress of the output, as a gate shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// True if some output waits for room.
    pub(super) waits: bool,
    /// Number of pieces that have passed.
    pub(super) passed: u64,
}

impl Gate {
    pub(super) fn new() -> Self {
        let state = GateState { room: WINDOW, waiting: 0, passed: 0, is_closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one piece may pass. Returns false if no host wants it any more.
    pub(super) fn pass(&self) -> bool {
        let mut state = self.lock();
        state.waiting += 1;
        while state.room == 0 && !state.is_closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        if state.is_closed {
            return false;
        }
        state.room -= 1;
        state.passed += 1;
        true
    }

    /// Lets one more piece pass, because the host has written one.
    pub(super) fn give(&self) {
        let mut state = self.lock();
        state.room = (state.room + 1).min(WINDOW);
        self.changed.notify_all();
    }

    /// Lets nothing pass from now on.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Returns how far the output has come.
    pub(super) fn progress(&self) -> Progress {
        let state = self.lock();
        Progress { waits: state.waiting > 0 && state.room == 0 && !state.is_closed, passed: state.passed }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_window_passes_and_the_next_piece_waits_for_room_or_for_the_end() {
        let gate = Arc::new(Gate::new());
        assert!((0..WINDOW).all(|_| gate.pass()));
        let waiting = Arc::clone(&gate);
        let waiter = std::thread::spawn(move || [waiting.pass(), waiting.pass()]);
        while !gate.progress().waits {
            std::thread::yield_now();
        }
        gate.give();
        while gate.progress() != (Progress { waits: true, passed: WINDOW as u64 + 1 }) {
            std::thread::yield_now();
        }
        gate.close();
        assert_eq!(waiter.join().expect("no panic"), [true, false]);
        assert!(!gate.progress().waits, "nothing waits at a closed gate");
    }

    #[test]
    fn a_host_that_gives_too_much_room_gets_no_more_than_a_window() {
        let gate = Gate::new();
        (0..3 * WINDOW).for_each(|_| gate.give());
        assert_eq!(gate.lock().room, WINDOW);
    }
}
