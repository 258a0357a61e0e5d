//! The limit for the rate of requests: a bucket of tokens. Pure: time is passed in.

use std::num::NonZeroU32;

use tokio::time::Instant;

/// Number of seconds whose requests may come at once. A matrix queues 256 jobs in one moment.
const BURST_SECONDS: f64 = 5.0;

/// A bucket that is full at first, gets tokens at a fixed rate, and gives one for each request.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    pub(super) fn new(per_second: NonZeroU32, now: Instant) -> Self {
        let per_second = f64::from(per_second.get());
        Self { per_second, tokens: per_second * BURST_SECONDS, filled: now }
    }

    /// Takes a token. Returns false if there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.per_second * BURST_SECONDS);
        self.filled = now;
        let has_one = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(has_one));
        has_one
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_taken_and_then_the_rate_holds() {
        let began = Instant::now();
        let mut bucket = Bucket::new(NonZeroU32::new(10).expect("not zero"), began);
        let taken =
            |bucket: &mut Bucket, after: Duration| (0..1000).filter(|_| bucket.take(began + after)).count();
        assert_eq!(taken(&mut bucket, Duration::ZERO), 50);
        assert_eq!(taken(&mut bucket, Duration::from_millis(1050)), 10);
        assert_eq!(taken(&mut bucket, Duration::from_secs(3600)), 50, "it holds no more than a burst");
        assert_eq!(taken(&mut bucket, Duration::from_secs(1)), 0, "a clock that goes back gives nothing");
    }
}
