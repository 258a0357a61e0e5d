//! Random moments and choices that can be repeated.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// The variable with the seed whose choices are to be repeated.
const SEED: &str = "DAYFLY_TEST_SEED";

/// The random numbers of one test.
pub(crate) struct Dice(StdRng);

impl Dice {
    /// Creates a generator with the seed of the variable, or else with a new one. A test that fails shows its seed.
    #[expect(clippy::print_stderr, reason = "shown if the test fails")]
    pub(crate) fn new() -> Self {
        let given = std::env::var(SEED).ok().map(|seed| seed.parse().expect("a number as seed"));
        let seed = given.unwrap_or_else(|| {
            SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis() as u64
        });
        eprintln!("{SEED}={seed}");
        Self(StdRng::seed_from_u64(seed))
    }

    /// Returns a random duration below this one.
    pub(crate) fn below(&mut self, limit: Duration) -> Duration {
        limit.mul_f64(self.0.random_range(0.0..1.0))
    }

    /// Returns true once in `times` calls on average.
    pub(crate) fn once_in(&mut self, times: u32) -> bool {
        self.0.random_range(0..times) == 0
    }
}
