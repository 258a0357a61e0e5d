//! Moments and choices by chance that can be had again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// The variable that says which chances are to come again.
const SEED: &str = "DAYFLY_TEST_SEED";

/// What chance decides in one test.
pub(crate) struct Dice(StdRng);

impl Dice {
    /// With a seed of its own, which a test that fails shows.
    #[expect(clippy::print_stderr, reason = "shown where the test fails")]
    pub(crate) fn new() -> Self {
        let given = std::env::var(SEED).ok().map(|seed| seed.parse().expect("a number as seed"));
        let seed = given.unwrap_or_else(|| {
            SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis() as u64
        });
        eprintln!("{SEED}={seed}");
        Self(StdRng::seed_from_u64(seed))
    }

    /// A time below this one.
    pub(crate) fn below(&mut self, limit: Duration) -> Duration {
        limit.mul_f64(self.0.random_range(0.0..1.0))
    }

    /// Yes, once in so many times.
    pub(crate) fn once_in(&mut self, times: u32) -> bool {
        self.0.random_range(0..times) == 0
    }
}
