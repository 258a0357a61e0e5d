//! How a build tells what it does, and how it is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dayfly_host::stage::Maker;

/// What a build tells. Each phase lasts more than a second, or may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Somebody else builds the same; this waits for it.
    Waiting {
        /// What.
        what: String,
    },
    /// A registry is asked what the name leads to: one request, as a rule.
    Asking,
    /// A new phase.
    Phase {
        /// In words, e.g. `installing packages`.
        name: &'static str,
    },
    /// Layers come from a registry.
    Pulling {
        /// Layers that are there.
        layers_done: usize,
        /// Layers of the image.
        layers: usize,
        /// Bytes that are there.
        bytes_done: u64,
        /// Bytes of all layers.
        bytes: u64,
    },
    /// A line of the log.
    Line {
        /// The text.
        text: String,
    },
}

/// Waits for others who make the same, and says so.
pub(super) struct Waiter<'a> {
    pub(super) what: &'a str,
    pub(super) cancel: &'a Cancel,
    pub(super) progress: &'a mut dyn FnMut(Progress),
}

impl Maker for Waiter<'_> {
    fn waits(&mut self) {
        (self.progress)(Progress::Waiting { what: self.what.to_owned() });
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

/// Stops a build from another thread: its programs are killed, and what it has made is removed.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks for the stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
