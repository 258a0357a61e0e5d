//! The handle of a running QEMU: pauses, resumes, freezes, restores and quits it, and reports what its monitor says.
//!
//! A task owns the connection: it waits for the greeting, translates QEMU's events and sends commands.

use std::io;
use std::os::fd::OwnedFd;

use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::qmp::{self, Command, Event};

/// Capacity of the queue of commands. A machine needs two or three in its life.
const COMMANDS_MAX: usize = 4;
/// The message if a machine is not frozen in time.
pub(crate) const NOT_FROZEN: &str = "QEMU did not freeze it";
/// The message if QEMU does not exit in time.
pub(crate) const NOT_EXITED: &str = "QEMU did not exit";

/// An event of a running VMM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MonitorEvent {
    /// The machine stops, and the VMM will exit.
    ShuttingDown(ShutdownCause),
    /// The virtual processors have stopped.
    Paused,
    /// A disk of the machine could not be read or written on this host, for this reason. Reported once for each VMM.
    DiskFailed(String),
    /// The state of the devices was written. The error is the VMM's word for what happened instead.
    Frozen(Result<(), String>),
    /// A command was refused, for this reason.
    Refused(String),
}

/// The cause of a machine's stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShutdownCause {
    /// The guest restarted, or its kernel panicked.
    GuestReset,
    /// The VMM was asked to quit, by its monitor or by a signal.
    Host,
    /// Any other cause; usually the guest powered itself off.
    Other,
}

/// Why a machine could not be frozen.
#[derive(Debug)]
pub(crate) enum FreezeError {
    /// The VMM began and gave up; its word for that.
    Failed(String),
    /// The VMM refused the command, for this reason.
    Refused(String),
    /// The monitor is gone.
    Gone,
}

/// The state that a VMM reads first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StateToRestore {
    /// Number of the inherited descriptor.
    pub(crate) descriptor: i32,
    /// True if the VMM gets the memory by another descriptor.
    pub(crate) has_memory: bool,
}

/// Handle of a VMM's monitor.
#[derive(Debug)]
pub(crate) struct Monitor {
    events: mpsc::Receiver<MonitorEvent>,
    commands: mpsc::Sender<Command>,
    /// The task, which is aborted when this is dropped.
    _task: JoinSet<()>,
}

impl Monitor {
    /// Starts the task on a connection. If `state` is given, the VMM is a fork, which first reads the state of its devices
    /// from this inherited descriptor and does nothing before.
    pub(crate) fn start(stream: UnixStream, state: Option<StateToRestore>) -> Self {
        let (event_sender, events) = mpsc::channel(16);
        let (commands, command_receiver) = mpsc::channel(COMMANDS_MAX);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let first = state.map(|StateToRestore { descriptor: state, has_memory }| Command::Restore {
                state,
                has_memory,
            });
            if let Err(error) = watch(stream, first, event_sender, command_receiver).await {
                tracing::debug!("the monitor of a VMM is gone: {error}");
            }
        });
        Self { events, commands, _task: task }
    }

    /// Tells the VMM to exit at once, without asking the guest.
    pub(crate) fn quit(&self) {
        self.send(Command::Quit);
    }

    /// Tells the VMM to resume the virtual processors.
    pub(crate) fn resume(&self) {
        self.send(Command::Continue);
    }

    /// Has the VMM cut the network card off and write the whole machine to a file. [`MonitorEvent::Frozen`] or
    /// [`MonitorEvent::Refused`] follows.
    pub(crate) fn keep(&self, state: OwnedFd) {
        self.send(Command::Keep(state));
    }

    /// Connects the network card of a machine that was kept.
    pub(crate) fn connect(&self) {
        self.send(Command::Connect);
    }

    /// Stops the virtual processors, and waits until they have stopped. Skips other events.
    pub(crate) async fn pause(&mut self) -> io::Result<()> {
        self.send(Command::Stop);
        loop {
            match self.next_event().await {
                Some(MonitorEvent::Paused) => return Ok(()),
                Some(_) => {}
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// Has the VMM write the state of its devices, and waits until it is written. Then the virtual processors stand still,
    /// and the memory stays as it was at that moment.
    pub(crate) async fn freeze(&mut self, state: OwnedFd) -> Result<(), FreezeError> {
        self.send(Command::Freeze(state));
        loop {
            match self.next_event().await {
                Some(MonitorEvent::Frozen(Ok(()))) => return Ok(()),
                Some(MonitorEvent::Frozen(Err(status))) => return Err(FreezeError::Failed(status)),
                Some(MonitorEvent::Refused(reason)) => return Err(FreezeError::Refused(reason)),
                Some(MonitorEvent::ShuttingDown(_) | MonitorEvent::Paused | MonitorEvent::DiskFailed(_)) => {}
                None => return Err(FreezeError::Gone),
            }
        }
    }

    /// Sends a command to the VMM. The command is lost if the monitor is gone or the queue is full.
    fn send(&self, command: Command) {
        let _ = self.commands.try_send(command);
    }

    /// Returns the next event, or `None` once the monitor is gone. Safe to be cancelled.
    pub(crate) async fn next_event(&mut self) -> Option<MonitorEvent> {
        self.events.recv().await
    }
}

async fn watch(
    stream: UnixStream,
    first: Option<Command>,
    events: mpsc::Sender<MonitorEvent>,
    mut commands: mpsc::Receiver<Command>,
) -> io::Result<()> {
    let mut monitor = qmp::Client::open(stream, first).await?;
    let mut has_failed_disk = false;
    loop {
        tokio::select! {
            event = monitor.next_event() => if let Some(event) = translate(event?) {
                // A guest can cause one with each write.
                let is_failed_disk = matches!(event, MonitorEvent::DiskFailed(_));
                if is_failed_disk && std::mem::replace(&mut has_failed_disk, true) {
                    continue;
                }
                // The queue has room for all events of this kind in a machine's life.
                drop(events.try_send(event));
            },
            Some(command) = commands.recv() => monitor.send(command).await?,
        }
    }
}

/// Returns what QEMU's event means for a machine; none if it means nothing.
fn translate(event: Event) -> Option<MonitorEvent> {
    Some(match event {
        // The words are names of QEMU's ShutdownCause.
        Event::Shutdown(reason) => MonitorEvent::ShuttingDown(match reason.as_str() {
            "guest-reset" | "guest-panic" => ShutdownCause::GuestReset,
            "host-qmp-quit" | "host-signal" => ShutdownCause::Host,
            _ => ShutdownCause::Other,
        }),
        Event::GuestPanicked => MonitorEvent::ShuttingDown(ShutdownCause::GuestReset),
        Event::Stopped => MonitorEvent::Paused,
        Event::DiskFailed(reason) => MonitorEvent::DiskFailed(reason),
        Event::Migration(status) => match status.as_str() {
            "completed" => MonitorEvent::Frozen(Ok(())),
            "failed" | "cancelled" => MonitorEvent::Frozen(Err(status)),
            _ => return None,
        },
        Event::Refused(reason) => MonitorEvent::Refused(reason),
        Event::Resumed => return None,
        Event::Other(name) => {
            tracing::trace!("the VMM tells {name}");
            return None;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn a_disk_that_fails_with_each_write_is_reported_once_and_hides_nothing() {
        let (ours, mut theirs) = UnixStream::pair().expect("pair");
        let mut monitor = Monitor::start(ours, None);
        theirs.write_all(b"{\"QMP\": {}}\n").await.expect("greet");
        theirs.read_u8().await.expect("asked");
        theirs.write_all(b"{\"return\": {}}\n").await.expect("answer");
        let failure =
            "{\"event\": \"BLOCK_IO_ERROR\", \"data\": {\"reason\": \"No space left on device\"}}\n";
        theirs.write_all(failure.repeat(100).as_bytes()).await.expect("events");
        theirs.write_all(b"{\"event\": \"STOP\"}\n").await.expect("event");
        let reason = "No space left on device".to_owned();
        assert_eq!(monitor.next_event().await, Some(MonitorEvent::DiskFailed(reason)));
        assert_eq!(monitor.next_event().await, Some(MonitorEvent::Paused));
    }

    #[test]
    fn qemus_words_mean_what_a_machine_needs_to_know() {
        let shutdown = |reason: &str| translate(Event::Shutdown(reason.to_owned()));
        let because = |cause| Some(MonitorEvent::ShuttingDown(cause));
        for (reason, cause) in [
            ("guest-shutdown", ShutdownCause::Other),
            ("guest-reset", ShutdownCause::GuestReset),
            ("guest-panic", ShutdownCause::GuestReset),
            ("host-qmp-quit", ShutdownCause::Host),
            ("host-signal", ShutdownCause::Host),
            ("a word of a later QEMU", ShutdownCause::Other),
        ] {
            assert_eq!(shutdown(reason), because(cause), "{reason}");
        }
        let migration = |status: &str| translate(Event::Migration(status.to_owned()));
        assert_eq!(migration("active"), None);
        assert_eq!(migration("completed"), Some(MonitorEvent::Frozen(Ok(()))));
        assert_eq!(migration("failed"), Some(MonitorEvent::Frozen(Err("failed".to_owned()))));
    }
}
