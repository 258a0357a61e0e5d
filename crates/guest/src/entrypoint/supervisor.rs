//! Waits for what runs and for those who want the end, in every phase of the entrypoint.

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

/// Beside the process that is waited for, only that one runs.
const ENGINE_ENDED: &str = "the container engine has ended";

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A process has ended and waits to be reaped.
    Ended(Pid),
    /// Somebody wants the end.
    Order(Order),
}

/// One per entrypoint: knows whether the end was asked for, and by whom.
pub(super) struct Supervisor {
    events: Receiver<Event>,
    stop: Stop,
    log: Arc<Log>,
    /// Tells the loop of the first signal; nothing before the loop's secret is known.
    on_signal: Box<dyn Fn()>,
}

impl Supervisor {
    pub(super) fn new(events: Receiver<Event>, log: Arc<Log>) -> Self {
        Self { events, stop: Stop::default(), log, on_signal: Box::new(|| {}) }
    }

    /// From now on the first signal is told.
    pub(super) fn tell_signals(&mut self, tell: impl Fn() + 'static) {
        self.on_signal = Box::new(tell);
    }

    /// Why everything is to end, if it is. For the time between two processes: it takes what has happened until now.
    pub(super) fn reason(&mut self) -> Option<Ending> {
        while let Ok(event) = self.events.try_recv() {
            self.note(event);
        }
        self.stop.reason()
    }

    /// What happens while no process is waited for.
    fn note(&mut self, event: Event) {
        match event {
            Event::Order(order) => drop(self.take(Some(order))),
            Event::Ended(_) => self.log.say(ENGINE_ENDED),
        }
    }

    /// Waits until a process has ended, which it is made to as soon as that is asked for.
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

    /// Waits so long, or until the end is asked for.
    pub(super) fn pause(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while self.reason().is_none() && Instant::now() < end {
            if let Some(event) = self.next(Some(end)) {
                self.note(event);
            }
        }
    }

    /// Ends something that runs beside the app: gently, within `grace`, or at once where a second signal has come or
    /// comes.
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
        // Its status is nobody's business.
        let _ = process.reap();
    }

    fn take(&mut self, order: Option<Order>) -> Action {
        if order == Some(Order::Signal) && self.stop.is_first_signal() {
            (self.on_signal)();
        }
        self.stop.handle(order, Instant::now())
    }

    /// The next event; `None` once the deadline has passed.
    fn next(&self, deadline: Option<Instant>) -> Option<Event> {
        let Some(deadline) = deadline else { return self.events.recv().ok() };
        // The thread that forwards signals holds a sender for ever, so an error is the deadline.
        self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }
}
