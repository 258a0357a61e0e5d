//! SIGINT and SIGTERM as values. The first signal requests an orderly stop, a second one an immediate stop.

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::exit::{Failure, Outcome, Result, Signal};

/// The streams of both signals. Create it before anything is started, so that no signal is missed.
pub(crate) struct Signals {
    interrupt: Stream,
    terminate: Stream,
}

impl Signals {
    /// Replaces the default action of both signals, which would kill dayfly and leave its machines behind.
    pub(crate) fn take_over() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(Failure::cannot)?,
            terminate: signal(SignalKind::terminate()).map_err(Failure::cannot)?,
        })
    }

    /// Waits for the next signal. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}

/// Runs a command until it ends or a signal arrives. A signal drops the command, which cancels its builds, kills its
/// machines and removes their files.
pub(crate) async fn unless_stopped(command: impl Future<Output = Result<Outcome>>) -> Result<Outcome> {
    let mut signals = Signals::take_over()?;
    tokio::select! {
        outcome = command => outcome,
        signal = signals.next() => Ok(Outcome::StoppedBy(signal)),
    }
}
