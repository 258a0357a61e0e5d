//! Reports the state of the process to systemd, or to another service manager that speaks sd_notify(3). Without one, does
//! nothing.
//!
//! A thread of its own sends the messages, because a manager that does not read must not stop the process: its socket blocks
//! once its queue is full.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;

/// Most messages that wait. Further ones are dropped, because a manager that is so late cannot use them.
const QUEUE_LENGTH: usize = 64;
/// Longest wait for the last messages before the process ends.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// The sending end of messages to the service manager.
#[derive(Debug, Clone, Default)]
pub(crate) struct Service {
    /// None if there is no manager.
    queue: Option<SyncSender<Message>>,
}

/// Waits for the last messages.
#[derive(Debug)]
pub(crate) struct ServiceEnd(Option<Receiver<()>>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Message {
    Ready,
    Reloading,
    Stopping,
    Alive,
    Status(String),
}

impl Service {
    /// Starts the reports if the variable NOTIFY_SOCKET names a manager.
    pub(crate) fn start() -> (Self, ServiceEnd) {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return (Self::default(), ServiceEnd(None));
        }
        let (queue, messages) = sync_channel(QUEUE_LENGTH);
        let (until_sent, sent) = sync_channel(0);
        let sender = move || {
            send_all(&messages);
            drop(until_sent);
        };
        match thread::Builder::new().name("service".to_owned()).spawn(sender) {
            // It is not joined, because a manager that does not read keeps it.
            Ok(_) => (Self { queue: Some(queue) }, ServiceEnd(Some(sent))),
            Err(error) => {
                tracing::warn!("the service manager gets no reports: {error}");
                (Self::default(), ServiceEnd(None))
            }
        }
    }

    /// Returns the interval in which the manager expects a sign of life, if it does.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.queue.as_ref().and_then(|_| sd_notify::watchdog_enabled())
    }

    /// Reports that the start, or a reload, has ended.
    pub(crate) fn ready(&self) {
        self.send(Message::Ready);
    }

    /// Reports that the configuration is being read again. [`Service::ready`] follows.
    pub(crate) fn reloading(&self) {
        self.send(Message::Reloading);
    }

    /// Reports that the process stops. A drain is not reported, because the manager would limit its time as that of a stop.
    pub(crate) fn stopping(&self) {
        self.send(Message::Stopping);
    }

    /// Gives a sign of life.
    pub(crate) fn alive(&self) {
        self.send(Message::Alive);
    }

    /// Reports a line of text for people.
    pub(crate) fn status(&self, text: String) {
        self.send(Message::Status(text));
    }

    fn send(&self, message: Message) {
        if let Some(queue) = &self.queue {
            let _ = queue.try_send(message);
        }
    }
}

impl ServiceEnd {
    /// Waits until all messages are sent, or for two seconds. All senders must be dropped before.
    pub(crate) fn wait(self) {
        if let Some(sent) = self.0 {
            // Nothing is ever sent; the other end is dropped after the last message.
            let _ = sent.recv_timeout(FLUSH_LIMIT);
        }
    }
}

fn send_all(messages: &Receiver<Message>) {
    let mut is_told = false;
    for message in messages {
        if let Err(error) = send(&message)
            && !std::mem::replace(&mut is_told, true)
        {
            tracing::warn!("the service manager does not take a report: {error}");
        }
    }
}

fn send(message: &Message) -> std::io::Result<()> {
    match message {
        Message::Ready => sd_notify::notify(&[NotifyState::Ready]),
        // From version 253 on, systemd needs the time too (sd_notify(3)).
        Message::Reloading => {
            sd_notify::notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?])
        }
        Message::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        Message::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
        Message::Status(text) => sd_notify::notify(&[NotifyState::Status(text)]),
    }
}

#[cfg(test)]
mod tests;
