//! SIGINT, SIGTERM and SIGHUP as values. The first signal requests an orderly stop, a second one an immediate stop.

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::exit::{Failure, Outcome, Result, Signal};

/// The streams of the signals. Create it before anything is started, so that no signal is missed.
pub(crate) struct Signals {
    interrupt: Stream,
    terminate: Stream,
    /// None if SIGHUP does not stop the command.
    hang_up: Option<Stream>,
    /// None if the command has no runners to hand over.
    hand_over: Option<Stream>,
}

/// The stream of SIGHUP of a command that reads its configuration again.
pub(crate) struct HangUps(Stream);

impl HangUps {
    /// Waits for the next SIGHUP. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

impl Signals {
    /// Replaces the default action of the signals, which would kill dayfly and leave its machines behind. SIGHUP comes when a
    /// terminal is closed. It stays ignored if it was (`nohup`).
    pub(crate) fn take_over() -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(Failure::cannot)?,
            terminate: signal(SignalKind::terminate()).map_err(Failure::cannot)?,
            hang_up: match ignores_hang_up(&status) {
                true => None,
                false => Some(signal(SignalKind::hangup()).map_err(Failure::cannot)?),
            },
            hand_over: None,
        })
    }

    /// Adds SIGUSR2, which ends the command and leaves its runners to its next start.
    pub(crate) fn with_hand_over(self) -> Result<Self> {
        let stream = signal(SignalKind::user_defined2()).map_err(Failure::cannot)?;
        Ok(Self { hand_over: Some(stream), ..self })
    }

    /// Takes SIGHUP out of the signals that stop the command, whether or not it was ignored.
    pub(crate) fn take_hang_ups(&mut self) -> Result<HangUps> {
        self.hang_up = None;
        signal(SignalKind::hangup()).map(HangUps).map_err(Failure::cannot)
    }

    /// Waits for the next signal. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
            _ = next_of(&mut self.hang_up) => Signal::HangUp,
            _ = next_of(&mut self.hand_over) => Signal::HandOver,
        }
    }
}

/// Waits for the next signal of a stream; for ever if there is none.
async fn next_of(stream: &mut Option<Stream>) -> Option<()> {
    match stream {
        Some(stream) => stream.recv().await,
        None => std::future::pending().await,
    }
}

/// Returns true if a process with this `/proc/<pid>/status` ignores SIGHUP, which is signal 1: the lowest bit of `SigIgn`.
fn ignores_hang_up(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hang_up_that_was_ignored_before_stays_ignored() {
        assert!(ignores_hang_up("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000000\n"));
        assert!(!ignores_hang_up("Name:\tx\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000000001\n"));
        assert!(!ignores_hang_up(""));
    }

    #[tokio::test]
    async fn a_closed_terminal_stops_in_an_orderly_way() {
        let hang_up = Some(signal(SignalKind::hangup()).expect("a stream"));
        let mut signals = Signals { hang_up, ..Signals::take_over().expect("taken over") };
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).expect("sent");
        assert_eq!(signals.next().await, Signal::HangUp);
        let mut reloads = signals.take_hang_ups().expect("a stream");
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).expect("sent");
        reloads.next().await;
        let stopped = tokio::time::timeout(std::time::Duration::from_millis(50), signals.next()).await;
        assert!(stopped.is_err(), "it no longer stops the command");
    }
}
