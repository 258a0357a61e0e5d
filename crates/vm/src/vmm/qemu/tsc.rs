//! Measures the frequency of this host's time stamp counter.
//!
//! An emulated guest reads the host's counter, and a microvm has only the PIT to calibrate it with. On a busy host the
//! calibration fails most of the time, and then the guest's kernel hangs without a message. So the host measures the
//! frequency and passes it to the guest's kernel (`tsc_early_khz=`).
#![expect(unsafe_code, reason = "the counter is read by an intrinsic")]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Duration of one measurement.
const WINDOW: Duration = Duration::from_millis(40);
/// Number of measurements. The median counts, because a measurement that the scheduler interrupted is far off.
const MEASUREMENTS: usize = 3;

/// Returns the counter's frequency in kHz. The first call in a process measures it, which takes 120 ms.
pub(crate) fn frequency_khz() -> u64 {
    static FREQUENCY: OnceLock<u64> = OnceLock::new();
    *FREQUENCY.get_or_init(|| {
        let mut measured: [u64; MEASUREMENTS] = std::array::from_fn(|_| measure_khz());
        measured.sort_unstable();
        measured[MEASUREMENTS / 2]
    })
}

fn measure_khz() -> u64 {
    let (start, start_ticks) = read_both();
    std::thread::sleep(WINDOW);
    let (end, end_ticks) = read_both();
    let nanoseconds = end.duration_since(start).as_nanos().max(1);
    let khz = u128::from(end_ticks.wrapping_sub(start_ticks)) * 1_000_000 / nanoseconds;
    u64::try_from(khz).unwrap_or(u64::MAX)
}

/// Reads clock and counter at the same moment. Of 16 tries, the one counts in which the least time passed around the
/// reading of the counter.
fn read_both() -> (Instant, u64) {
    let mut best = (Duration::MAX, Instant::now(), 0);
    for _ in 0..16 {
        let before = Instant::now();
        let ticks = read_counter();
        let gap = before.elapsed();
        if gap < best.0 {
            best = (gap, before, ticks);
        }
    }
    (best.1, best.2)
}

#[cfg(target_arch = "x86_64")]
fn read_counter() -> u64 {
    // SAFETY: RDTSC has no preconditions; every x86-64 processor has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree_within_half_a_percent() {
        let known = frequency_khz();
        let again = {
            let mut measured: [u64; 3] = std::array::from_fn(|_| measure_khz());
            measured.sort_unstable();
            measured[1]
        };
        assert!(known > 100_000, "{known} kHz is no processor of this century");
        assert!(known.abs_diff(again) < known / 200, "{known} and {again} kHz");
    }
}
