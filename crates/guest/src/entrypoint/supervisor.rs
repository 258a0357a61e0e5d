//! Waits for the running process and for orders to stop, in every phase of the entrypoint.

use super::log::Log;
use super::process::Process;
use super::stop::{Action, Order, Stop};
use dayfly_guest::runner_app::Ending;
use rustix::process::Pid;
use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// Message for the exit of any process but the awaited one: only the container engine runs beside it.
const ENGINE_ENDED: &str = "the container engine has ended";

/// An event that the supervisor handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A process has exited and must be reaped.
    Ended(Pid),
    /// An order to stop.
    Order(Order),
}

/// The receiver of all events, one per entrypoint. It knows whether a stop was ordered, and by whom.
pub(super) struct Supervisor {
    events: Receiver<Event>,
    stop: Stop,
    log: Arc<Log>,
    /// Reports the first signal to the loop. Does nothing until the loop's secret is known.
    on_signal: Box<dyn Fn()>,
}

impl Supervisor {
    pub(super) fn new(events: Receiver<Event>, log: Arc<Log>) -> Self {
        Self { events, stop: Stop::default(), log, on_signal: Box::new(|| {}) }
    }

    /// Sets the function that reports the first signal to the loop.
    pub(super) fn tell_signals(&mut self, tell: impl Fn() + 'static) {
        self.on_signal = Box::new(tell);
    }

    /// Handles all pending events, and returns the reason to stop if a stop was ordered. For use between two processes.
    pub(super) fn reason(&mut self) -> Option<Ending> {
        while let Ok(event) = self.events.try_recv() {
            self.note(event);
        }
        self.stop.reason()
    }

    /// Handles an event that arrives while no process is awaited.
    fn note(&mut self, event: Event) {
        match event {
            Event::Order(order) => drop(self.take(Some(order))),
            Event::Ended(_) => self.log.say(ENGINE_ENDED),
        }
    }

    /// Waits until a process has exited, and stops it as soon as a stop is ordered.
    pub(super) fn wait(&mut self, process: &mut Process, what: &str) -> io::Result<ExitStatus> {
        loop {
            match self.next(self.stop.deadline()) {
                Some(Event::Ended(pid)) if pid == process.pid() => return process.reap(),
                Some(Event::Ended(_)) => self.log.say(ENGINE_ENDED),
                Some(Event::Order(order)) => self.obey(Some(order), process, what),
                None => self.obey(None, process, what),
            }
        }
    }

    fn obey(&mut self, order: Option<Order>, process: &Process, what: &str) {
        match self.take(order) {
            Action::Wait => {}
            Action::Ask => {
                self.log.say(&format!("stopping {what}"));
                process.ask_to_end();
            }
            Action::Kill => {
                self.log.say(&format!("killing {what}"));
                process.kill();
            }
        }
    }

    /// Waits for `time`, or until a stop is ordered.
    pub(super) fn pause(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while self.reason().is_none() && Instant::now() < end {
            if let Some(event) = self.next(Some(end)) {
                self.note(event);
            }
        }
    }

    /// Stops a process that runs beside the app: with its stop signal, and by SIGKILL after `grace`. SIGKILL comes at once
    /// if the app had to be killed, or if a second signal has arrived or arrives.
    pub(super) fn end(&mut self, process: &mut Process, grace: Duration) {
        process.ask_to_end();
        let kill_at = Instant::now() + grace;
        while !self.stop.is_killing() && !process.has_ended() {
            match self.next(Some(kill_at)) {
                Some(Event::Order(order)) => drop(self.take(Some(order))),
                Some(Event::Ended(_)) => {}
                None => break,
            }
        }
        // The exit status does not matter.
        let _ = process.reap();
    }

    fn take(&mut self, order: Option<Order>) -> Action {
        if order == Some(Order::Signal) && self.stop.is_first_signal() {
            (self.on_signal)();
        }
        self.stop.handle(order, Instant::now())
    }

    /// Returns the next event, or `None` once the deadline has passed.
    fn next(&self, deadline: Option<Instant>) -> Option<Event> {
        let Some(deadline) = deadline else { return self.events.recv().ok() };
        // The thread that forwards signals holds a sender for ever, so an error can only be the deadline.
        self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }
}
