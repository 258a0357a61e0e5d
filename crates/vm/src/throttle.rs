//! Limits the rate at which a guest's stream is read, so that a flood waits in the guest and does not keep a processor of the
//! host busy.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes per second that are read of one stream in the long run. An agent sends some KiB for a job, and a kernel prints some
/// hundred KiB in all.
const BYTES_PER_S: u32 = 1024 * 1024;
/// Time for which a stream that was silent before is read without a limit: 8 MiB.
const BURST: Duration = Duration::from_secs(8);

/// The limit of one stream. Pure: time is passed in.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// Time at which everything that was read so far has been paid for.
    paid_until: Instant,
}

impl Throttle {
    /// Returns the limit of a stream that begins now.
    pub(crate) fn new(now: Instant) -> Self {
        Self { paid_until: now.checked_sub(BURST).unwrap_or(now) }
    }

    /// Notes that this many bytes were read.
    pub(crate) fn took(&mut self, bytes: usize, now: Instant) {
        let oldest = now.checked_sub(BURST).unwrap_or(now);
        self.paid_until = self.paid_until.max(oldest) + cost(bytes);
    }

    /// Notes that this many of the bytes that were read do not count, because the guest could not send them unasked.
    pub(crate) fn gave_back(&mut self, bytes: usize) {
        self.paid_until = self.paid_until.checked_sub(cost(bytes)).unwrap_or(self.paid_until);
    }

    /// Waits until more may be read. Cancel-safe.
    pub(crate) async fn ready(&self) {
        if self.paid_until > Instant::now() {
            tokio::time::sleep_until(self.paid_until).await;
        }
    }
}

/// Returns the time in which so many bytes may be read.
fn cost(bytes: usize) -> Duration {
    Duration::from_secs(1).saturating_mul(u32::try_from(bytes).unwrap_or(u32::MAX)) / BYTES_PER_S
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_a_flood_is_read_at_the_rate() {
        let begin = Instant::now();
        let mut throttle = Throttle::new(begin);
        let mut after = async |mib: usize| {
            for _ in 0..mib * 16 {
                throttle.ready().await;
                throttle.took(64 * 1024, Instant::now());
            }
            begin.elapsed().as_secs()
        };
        assert_eq!(after(8).await, 0);
        assert_eq!(after(20).await, 19, "one more second for each MiB");
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(after(8).await, 3619, "silence earns one burst, not an hour of it");
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_were_asked_for_do_not_count_and_earn_nothing() {
        let begin = Instant::now();
        let mut throttle = Throttle::new(begin);
        for _ in 0..100 {
            throttle.ready().await;
            throttle.took(1 << 20, Instant::now());
            throttle.gave_back(1 << 20);
        }
        assert_eq!(begin.elapsed().as_secs(), 0);
        throttle.gave_back(1 << 30);
        throttle.took(9 << 20, Instant::now());
        throttle.ready().await;
        assert_eq!(begin.elapsed().as_secs(), 1, "the burst is no longer than before");
    }
}
