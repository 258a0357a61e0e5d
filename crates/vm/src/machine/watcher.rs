//! The task that holds a VMM's monitor: it waits for the greeting, tells why the machine ends, and asks it to end.

use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::qmp::{Event, Monitor};

/// A VMM's monitor.
#[derive(Debug)]
pub(crate) struct Watcher {
    events: mpsc::Receiver<Event>,
    quit: mpsc::Sender<()>,
    /// Ends with this.
    _task: JoinSet<()>,
}

impl Watcher {
    /// Takes a connection over.
    pub(crate) fn start(stream: UnixStream) -> Self {
        let (event_sender, events) = mpsc::channel(16);
        let (quit, quit_receiver) = mpsc::channel(1);
        let mut task = JoinSet::new();
        task.spawn(async move {
            if let Err(error) = watch(stream, event_sender, quit_receiver).await {
                tracing::debug!("the monitor of a VMM is gone: {error}");
            }
        });
        Self { events, quit, _task: task }
    }

    /// Asks the VMM to end at once. It may not be able to hear that yet, or any more.
    pub(crate) fn quit(&self) {
        let _ = self.quit.try_send(());
    }

    /// The next thing told; none once the monitor is gone. Safe to be cancelled.
    pub(crate) async fn next_event(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

async fn watch(
    stream: UnixStream,
    events: mpsc::Sender<Event>,
    mut quit: mpsc::Receiver<()>,
) -> std::io::Result<()> {
    let mut monitor = Monitor::open(stream).await?;
    loop {
        tokio::select! {
            event = monitor.next_event() => match event? {
                Event::Other(name) => tracing::trace!("the VMM tells {name}"),
                // The queue is longer than the number of such events in a machine's life.
                event => drop(events.try_send(event)),
            },
            Some(()) = quit.recv() => monitor.quit().await?,
        }
    }
}
