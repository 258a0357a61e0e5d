//! The clock of tests with real sockets.
//!
//! A paused clock of tokio jumps to the next timer as soon as all tasks wait, also if they wait for a socket: then each call
//! would reach its time limit. So a [`TestClock`] holds it, and [`while_time_goes_on`] moves it by small steps. The tasks run
//! between two steps, so a call on loopback takes a few steps on any host, however slow.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// Time between two steps, by the test's clock. A call may take 60 s, which are 300 steps.
const STEP: Duration = Duration::from_millis(200);
/// The same by the host's clock.
const STEP_TAKES: Duration = Duration::from_millis(2);

/// Keeps a paused clock from moving by itself, because tokio moves none while a blocking task runs.
#[derive(Clone)]
pub(super) struct TestClock {
    _end: Arc<Sender<()>>,
}

impl TestClock {
    pub(super) fn hold() -> Self {
        let (end, ended) = channel::<()>();
        tokio::task::spawn_blocking(move || {
            let _ = ended.recv();
        });
        Self { _end: Arc::new(end) }
    }
}

/// Waits for `work` while the paused clock moves.
pub(super) async fn while_time_goes_on<T>(work: impl Future<Output = T>) -> T {
    let time = async {
        loop {
            let _ = tokio::task::spawn_blocking(|| std::thread::sleep(STEP_TAKES)).await;
            tokio::time::advance(STEP).await;
        }
    };
    tokio::select! {
        biased;
        done = work => done,
        () = time => unreachable!("time does not end"),
    }
}
