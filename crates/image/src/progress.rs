//! Progress reports of builds, and their cancellation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dayfly_host::stage::Maker;

/// A progress report of a build. Each phase may last more than a second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Another build creates the same; this one waits for it.
    Waiting {
        /// The thing that is being built.
        what: String,
    },
    /// The name is looked up in a registry, usually with one request.
    Asking,
    /// A new phase begins.
    Phase {
        /// Its name, e.g. `installing packages`.
        name: &'static str,
    },
    /// Layers are being pulled from a registry.
    Pulling {
        /// Layers that are complete.
        layers_done: usize,
        /// Layers of the image.
        layers: usize,
        /// Bytes that have arrived.
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

/// A maker that reports when it waits for another build of the same.
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

/// Stops a build from another thread. The build kills its programs and removes its files.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Requests the stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns true if the stop was requested.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
