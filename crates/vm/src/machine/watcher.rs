//! The task that holds a VMM's monitor: it waits for the greeting, tells why the machine ends, and asks it to end.

use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::qmp::{Command, Event, Monitor};

/// Commands that wait for the monitor: a machine needs two or three in its life.
const COMMANDS_MAX: usize = 4;

/// A VMM's monitor.
#[derive(Debug)]
pub(crate) struct Watcher {
    events: mpsc::Receiver<Event>,
    commands: mpsc::Sender<Command>,
    /// Ends with this.
    _task: JoinSet<()>,
}

impl Watcher {
    /// Takes a connection over, and asks for something first.
    pub(crate) fn start(stream: UnixStream, first: Option<Command>) -> Self {
        let (event_sender, events) = mpsc::channel(16);
        let (commands, command_receiver) = mpsc::channel(COMMANDS_MAX);
        let mut task = JoinSet::new();
        task.spawn(async move {
            if let Err(error) = watch(stream, first, event_sender, command_receiver).await {
                tracing::debug!("the monitor of a VMM is gone: {error}");
            }
        });
        Self { events, commands, _task: task }
    }

    /// Asks the VMM for something. It may not be able to hear that yet, or any more.
    pub(crate) fn ask(&self, command: Command) {
        let _ = self.commands.try_send(command);
    }

    /// The next thing told; none once the monitor is gone. Safe to be cancelled.
    pub(crate) async fn next_event(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

async fn watch(
    stream: UnixStream,
    first: Option<Command>,
    events: mpsc::Sender<Event>,
    mut commands: mpsc::Receiver<Command>,
) -> std::io::Result<()> {
    let mut monitor = Monitor::open(stream, first).await?;
    loop {
        tokio::select! {
            event = monitor.next_event() => match event? {
                Event::Other(name) => tracing::trace!("the VMM tells {name}"),
                // The queue is longer than the number of such events in a machine's life.
                event => drop(events.try_send(event)),
            },
            Some(command) = commands.recv() => monitor.send(command).await?,
        }
    }
}
