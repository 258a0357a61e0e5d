//! Limits how many machines start at once to what this host can bear.
//!
//! A start is work for a processor, so at most as many machines start at the same time as there are processors. Each is up
//! sooner than if all had started together. A machine starts only if its memory is available, so a burst gets slower
//! instead of causing the kernel to kill processes.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Memory that stays free for the host itself, MiB.
const RESERVE_MIB: u64 = 256;
/// Memory that a machine takes until it is up, MiB. Measured: a fork takes a third of it.
const START_MIB: u64 = 96;
/// Longest time that a start waits for memory.
const MEMORY_LIMIT: Duration = Duration::from_secs(60);
/// Longest time that work that can wait waits for a calm host.
const CALM_LIMIT: Duration = Duration::from_secs(20);
/// Time between two checks of the host.
const LOOK: Duration = Duration::from_millis(200);
/// Limit of the time that some work waits for a processor, percent. At this limit, work that can wait waits.
const CPU_PRESSURE_MAX: f64 = 60.0;
/// The same limit for memory.
const MEMORY_PRESSURE_MAX: f64 = 10.0;

/// The turns for starting machines. All clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    turns: Arc<Semaphore>,
}

/// The right to start a machine, until this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

/// There is no memory for one more machine.
#[derive(Debug, thiserror::Error)]
#[error("no memory for a machine: {available_mib} MiB are free, {needed_mib} MiB are needed at least")]
pub struct NoMemory {
    /// Memory that is available, MiB.
    pub available_mib: u64,
    /// Memory that is required, MiB.
    pub needed_mib: u64,
}

impl Default for Pace {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { turns: Arc::new(Semaphore::new(cores)) }
    }
}

impl Pace {
    /// Waits for a turn, and then for memory, for at most a minute.
    pub(crate) async fn enter(&self) -> Result<Turn, NoMemory> {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.turns).acquire_owned().await.ok();
        let end = Instant::now() + MEMORY_LIMIT;
        let needed_mib = RESERVE_MIB + START_MIB;
        loop {
            match available_mib() {
                Some(available_mib) if available_mib < needed_mib => {
                    if Instant::now() >= end {
                        return Err(NoMemory { available_mib, needed_mib });
                    }
                    tokio::time::sleep(LOOK).await;
                }
                Some(_) | None => return Ok(Turn { _permit: permit }),
            }
        }
    }

    /// Waits for a turn for work that can wait, until a turn is free and the host is calm. If the host does not become calm
    /// within 20 s, it waits for a turn nevertheless.
    pub(crate) async fn enter_when_calm(&self) -> Result<Turn, NoMemory> {
        let end = Instant::now() + CALM_LIMIT;
        while Instant::now() < end && (self.turns.available_permits() == 0 || !is_calm()) {
            tokio::time::sleep(LOOK).await;
        }
        self.enter().await
    }
}

/// Returns the memory that is available without harm to other programs, MiB, as the kernel estimates it.
fn available_mib() -> Option<u64> {
    parse_available_mib(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_available_mib(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? / 1024)
}

fn is_calm() -> bool {
    let pressure = |of: &str| fs::read_to_string(format!("/proc/pressure/{of}")).ok();
    match (pressure("cpu"), pressure("memory")) {
        (Some(cpu), Some(memory)) => {
            some_avg10(&cpu).is_none_or(|percent| percent < CPU_PRESSURE_MAX)
                && some_avg10(&memory).is_none_or(|percent| percent < MEMORY_PRESSURE_MAX)
        }
        // The kernel has no pressure figures. The load average says less, and changes later.
        _ => {
            let load = fs::read_to_string("/proc/loadavg").ok();
            let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
            load.and_then(|load| first_number(&load)).is_none_or(|load| load < 2.0 * cores + 1.0)
        }
    }
}

/// Parses the percentage of the last ten seconds from `some avg10=1.25 avg60=...`.
fn some_avg10(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    line.split(' ').find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

fn first_number(text: &str) -> Option<f64> {
    text.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_understood() {
        let pressure = "some avg10=12.50 avg60=1.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(some_avg10(pressure), Some(12.5));
        assert_eq!(some_avg10("full avg10=1.00\n"), None);
        assert_eq!(first_number("0.75 1.00 0.5 1/100 4242\n"), Some(0.75));
        let memory = "MemTotal:       24000000 kB\nMemAvailable:    2097152 kB\n";
        assert_eq!(parse_available_mib(memory), Some(2048));
        assert_eq!(parse_available_mib("MemTotal: 1 kB\n"), None);
    }

    #[tokio::test]
    async fn no_more_start_at_once_than_there_are_turns() {
        let pace = Pace { turns: Arc::new(Semaphore::new(2)) };
        let first = pace.enter().await.expect("memory");
        let _second = pace.enter().await.expect("memory");
        let third = tokio::time::timeout(Duration::from_millis(50), pace.enter()).await;
        assert!(third.is_err());
        drop(first);
        pace.enter().await.expect("memory");
    }
}
