//! SIGINT and SIGTERM as values: the first asks for an orderly end, the second for one at once.

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::exit::{Failure, Result, Signal};

/// Both streams. Made before anything is started, so that no signal falls through.
pub(crate) struct Signals {
    interrupt: Stream,
    terminate: Stream,
}

impl Signals {
    /// Takes the two signals over from their default, which would end dayfly with its machines left behind.
    pub(crate) fn take_over() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(Failure::cannot)?,
            terminate: signal(SignalKind::terminate()).map_err(Failure::cannot)?,
        })
    }

    /// Waits for the next one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}
