//! The task that owns the connection to a VMM's monitor: it waits for the greeting, forwards events and sends commands.

use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::qmp::{Command, Event, Monitor};

/// Capacity of the queue of commands. A machine needs two or three in its life.
const COMMANDS_MAX: usize = 4;

/// Handle of a VMM's monitor.
#[derive(Debug)]
pub(crate) struct Watcher {
    events: mpsc::Receiver<Event>,
    commands: mpsc::Sender<Command>,
    /// The task, which is aborted when this is dropped.
    _task: JoinSet<()>,
}

impl Watcher {
    /// Starts the task on a connection. The command `first` is sent before all others.
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

    /// Sends a command to the VMM. The command is lost if the monitor is gone or the queue is full.
    pub(crate) fn ask(&self, command: Command) {
        let _ = self.commands.try_send(command);
    }

    /// Returns the next event, or `None` once the monitor is gone. Safe to be cancelled.
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
                // The queue has room for all events of this kind in a machine's life.
                event => drop(events.try_send(event)),
            },
            Some(command) = commands.recv() => monitor.send(command).await?,
        }
    }
}
