//! Asks a running guest again and again whether it lives, and notices that this host's clock has jumped.

use std::time::Duration;

use tokio::time::Instant;

use super::unix_time_ns;

/// Shortest time between two pings.
const INTERVAL_MIN: Duration = Duration::from_secs(30);
/// Number of pings in a row without any message of the guest after which the guest counts as hung or paused.
const UNANSWERED_MAX: u32 = 10;
/// Change of the wall clock against the monotonic clock between two pings that counts as a jump: a step of the clock, or a
/// suspend of the host. An adjustment by NTP is a hundred times slower.
const JUMP: Duration = Duration::from_secs(2);

/// The pings of one machine. Pure, except for [`ClockOffset::now`].
#[derive(Debug)]
pub(super) struct Pulse {
    interval: Duration,
    next: Instant,
    sent: u64,
    /// Pings since the last message of the guest. Counted rather than measured, so that time in which this process itself
    /// stood still does not count against the guest.
    unanswered: u32,
}

/// The step that follows when the time of the next ping has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    /// Send a ping with this number.
    Ping(u64),
    /// Send nothing, because no answer could be heard.
    Wait,
    /// The guest has said nothing for this long.
    Silent(Duration),
}

impl Pulse {
    /// Returns the pings of a machine that starts now. The interval grows with the limit of the guest's hello, which is
    /// stretched for a slow or busy host.
    pub(super) fn new(hello_limit: Duration, now: Instant) -> Self {
        let interval = INTERVAL_MIN.max(hello_limit / 4);
        Self { interval, next: now + interval, sent: 0, unanswered: 0 }
    }

    /// Returns the time of the next ping.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Notes that the guest has said something.
    pub(super) fn heard(&mut self) {
        self.unanswered = 0;
    }

    /// Returns the next step, at the time of the next ping. `listens` is false if this host does not read the guest's
    /// messages.
    pub(super) fn beat(&mut self, listens: bool, now: Instant) -> Beat {
        if !listens {
            self.unanswered = 0;
            self.next = now + self.interval;
            return Beat::Wait;
        }
        if self.unanswered >= UNANSWERED_MAX {
            return Beat::Silent(self.interval * UNANSWERED_MAX);
        }
        self.next = now + self.interval;
        self.unanswered += 1;
        self.sent += 1;
        Beat::Ping(self.sent)
    }
}

/// The wall clock against the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClockOffset {
    wall_ns: u64,
    monotonic: std::time::Instant,
}

impl ClockOffset {
    pub(super) fn now() -> Self {
        Self { wall_ns: unix_time_ns(), monotonic: std::time::Instant::now() }
    }

    /// Returns true if the wall clock has jumped between this and a later reading.
    pub(super) fn has_jumped(&self, later: &Self) -> bool {
        let wall_ns = i128::from(later.wall_ns) - i128::from(self.wall_ns);
        let monotonic = later.monotonic.saturating_duration_since(self.monotonic);
        (wall_ns - i128::try_from(monotonic.as_nanos()).unwrap_or(i128::MAX)).unsigned_abs() > JUMP.as_nanos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_guest_is_silent_after_ten_pings_and_any_message_counts() {
        let mut pulse = Pulse::new(Duration::from_secs(60), Instant::now());
        let begin = Instant::now();
        for number in 1..=10 {
            tokio::time::sleep_until(pulse.next()).await;
            assert_eq!(pulse.beat(true, Instant::now()), Beat::Ping(number));
        }
        pulse.heard();
        for number in 11..=20 {
            tokio::time::sleep_until(pulse.next()).await;
            assert_eq!(pulse.beat(true, Instant::now()), Beat::Ping(number));
        }
        tokio::time::sleep_until(pulse.next()).await;
        assert_eq!(pulse.beat(true, Instant::now()), Beat::Silent(Duration::from_secs(300)));
        assert_eq!(begin.elapsed(), Duration::from_secs(21 * 30));
        let slow = Pulse::new(Duration::from_secs(600), Instant::now());
        assert_eq!(slow.next() - Instant::now(), Duration::from_secs(150), "a slow host has more patience");
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_is_not_listened_to_is_not_silent() {
        let mut pulse = Pulse::new(Duration::from_secs(60), Instant::now());
        for _ in 0..100 {
            tokio::time::sleep_until(pulse.next()).await;
            assert_eq!(pulse.beat(false, Instant::now()), Beat::Wait);
        }
        tokio::time::sleep_until(pulse.next()).await;
        assert_eq!(pulse.beat(true, Instant::now()), Beat::Ping(1));
    }

    #[test]
    fn a_jump_of_the_clock_is_told_from_its_course() {
        let begin = ClockOffset { wall_ns: 1_000_000_000_000, monotonic: std::time::Instant::now() };
        let later = |wall_s: f64, monotonic_s: u64| ClockOffset {
            wall_ns: begin.wall_ns.saturating_add_signed((wall_s * 1e9) as i64),
            monotonic: begin.monotonic + Duration::from_secs(monotonic_s),
        };
        assert!(!begin.has_jumped(&later(30.1, 30)));
        assert!(begin.has_jumped(&later(3600.0, 30)), "the host was suspended");
        assert!(begin.has_jumped(&later(-500.0, 30)), "its clock was set back");
    }
}
