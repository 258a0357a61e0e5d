//! The sign of life of an orchestrator's loop, for a watchdog: a loop that hangs gives none.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// Gives a sign of life at least once in each interval, as long as the loop turns.
pub struct Heartbeat {
    every: Duration,
    beat: Box<dyn Fn() + Send + Sync>,
    next: Option<Instant>,
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeat").field("every", &self.every).finish_non_exhaustive()
    }
}

impl Heartbeat {
    /// Creates a heartbeat. `beat` must not block, because the loop calls it.
    pub fn new(every: Duration, beat: impl Fn() + Send + Sync + 'static) -> Self {
        Self { every, beat: Box::new(beat), next: None }
    }

    /// Gives a sign of life if it is due, and returns the time of the next one.
    pub(super) fn beat(&mut self, now: Instant) -> Instant {
        match self.next {
            Some(next) if next > now => next,
            _ => {
                (self.beat)();
                *self.next.insert(now + self.every)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_turns_often_gives_one_sign_in_each_interval() {
        let count = Arc::<AtomicU32>::default();
        let counted = count.clone();
        let every = Duration::from_secs(10);
        let mut heartbeat = Heartbeat::new(every, move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let began = Instant::now();
        let mut beat = |second| heartbeat.beat(began + Duration::from_secs(second));
        for second in [0, 1, 9] {
            assert_eq!(beat(second), began + every);
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
        assert_eq!(
            beat(12),
            began + Duration::from_secs(22),
            "it was late, and the next one has its full time"
        );
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
}
