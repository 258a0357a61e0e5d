//! Limits how many machines start at once to what this host can bear.
//!
//! A start is work for a processor, so at most as many machines start at the same time as there are processors. Each is up
//! sooner than if all had started together. A machine starts only if memory is available, and if the machines of this host
//! are not much larger together than its memory. So a burst gets slower instead of causing the kernel to kill processes.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::vmm;

/// Memory that stays free for the host itself, MiB.
const RESERVE_MIB: u64 = 256;
/// Memory that a machine takes until it is up, MiB. Measured: a fork takes a third of it.
const START_MIB: u64 = 96;
/// Default of [`VmHost::limit_memory`](crate::VmHost::limit_memory). Jobs rarely use the whole size at the same time, and a
/// machine that waits for a job uses some 3 %.
pub const OVERCOMMIT: u64 = 3;
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

/// The turns for starting machines, and the limit of their memory. All clones share them, so that a new limit counts for all.
#[derive(Debug, Clone)]
pub(crate) struct Pace(Arc<Limits>);

#[derive(Debug)]
struct Limits {
    turns: Arc<Semaphore>,
    most: Mutex<MostTurns>,
    /// How many times as large as this host's memory its machines may be together.
    overcommit: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct MostTurns {
    count: usize,
    /// Turns that are taken and exceed a new, lower count. They are not given back.
    excess: usize,
}

/// The right to start a machine, until this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    permit: Option<OwnedSemaphorePermit>,
    limits: Arc<Limits>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut most = self.limits.most.lock().unwrap_or_else(PoisonError::into_inner);
        if most.excess > 0
            && let Some(permit) = self.permit.take()
        {
            most.excess -= 1;
            permit.forget();
        }
    }
}

/// Why there is no memory for one more machine. All sizes are MiB.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoMemory {
    /// Too little memory is available.
    #[error("no memory for a machine: {available_mib} MiB are free, {needed_mib} MiB are needed at least")]
    Available {
        /// Memory that is available.
        available_mib: u64,
        /// Memory that is required.
        needed_mib: u64,
    },
    /// The machines of this host could use too much memory.
    #[error(
        "no memory for a machine of {size_mib} MiB: the machines that run here have {committed_mib} MiB, and all of them may \
         have {limit_mib} MiB, {overcommit} times this host's memory; run fewer or smaller machines"
    )]
    Committed {
        /// Size of the machine.
        size_mib: u64,
        /// Sum of the sizes of the machines that run on this host.
        committed_mib: u64,
        /// Most that this sum may be.
        limit_mib: u64,
        /// The limit as a multiple of this host's memory.
        overcommit: u64,
    },
}

/// The memory of this host, MiB.
#[derive(Debug, Clone, Copy)]
struct HostMemory {
    total_mib: u64,
    /// Memory that is available without harm to other programs, as the kernel estimates it.
    available_mib: u64,
    /// Sum of the sizes of the machines that run here.
    committed_mib: u64,
}

impl HostMemory {
    /// Looks at this host; none if the kernel does not tell.
    fn look() -> Option<Self> {
        let text = fs::read_to_string("/proc/meminfo").ok()?;
        let (total_mib, available_mib) = (parse_mib(&text, "MemTotal:")?, parse_mib(&text, "MemAvailable:")?);
        Some(Self { total_mib, available_mib, committed_mib: vmm::committed_mib().ok()? })
    }

    /// Returns the reason if no machine of this size may start now. A host without machines runs one of any size, because
    /// a machine that fits nowhere else is better than none.
    fn refuses(self, size_mib: u64, overcommit: u64) -> Option<NoMemory> {
        let Self { total_mib, available_mib, committed_mib } = self;
        let share_mib = if committed_mib == 0 { 0 } else { size_mib / overcommit.max(1) };
        let needed_mib = RESERVE_MIB + START_MIB.max(share_mib);
        let limit_mib = total_mib.saturating_mul(overcommit);
        if available_mib < needed_mib {
            Some(NoMemory::Available { available_mib, needed_mib })
        } else if committed_mib > 0 && committed_mib + size_mib > limit_mib {
            Some(NoMemory::Committed { size_mib, committed_mib, limit_mib, overcommit })
        } else {
            None
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::of(processors())
    }
}

impl Pace {
    /// Returns so many turns; at least one.
    pub(crate) fn of(turns: usize) -> Self {
        let count = turns.max(1);
        Self(Arc::new(Limits {
            turns: Arc::new(Semaphore::new(count)),
            most: Mutex::new(MostTurns { count, excess: 0 }),
            overcommit: AtomicU64::new(OVERCOMMIT),
        }))
    }

    /// Sets the number of turns; none: that of the processors. Turns that are taken stay taken.
    pub(crate) fn limit_turns(&self, turns: Option<usize>) {
        let count = turns.unwrap_or_else(processors).max(1);
        let mut most = self.0.most.lock().unwrap_or_else(PoisonError::into_inner);
        if count > most.count {
            let more = count - most.count;
            let kept = more.min(most.excess);
            most.excess -= kept;
            self.0.turns.add_permits(more - kept);
        } else {
            let fewer = most.count - count;
            most.excess += fewer - self.0.turns.forget_permits(fewer);
        }
        most.count = count;
    }

    /// Sets how many times as large as this host's memory its machines may be together; none: three times.
    pub(crate) fn limit_memory(&self, overcommit: Option<u64>) {
        self.0.overcommit.store(overcommit.unwrap_or(OVERCOMMIT), Ordering::Relaxed);
    }

    /// Waits for a turn, and then for memory for a machine of this size, for at most a minute. Machines that other turns
    /// start at the same moment are not counted yet, so the limit can be exceeded by as many as there are turns.
    pub(crate) async fn enter(&self, size_mib: u32) -> Result<Turn, NoMemory> {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.0.turns).acquire_owned().await.ok();
        let turn = Turn { permit, limits: Arc::clone(&self.0) };
        let end = Instant::now() + MEMORY_LIMIT;
        loop {
            // This reads a file of each process, which can block.
            let memory = tokio::task::spawn_blocking(HostMemory::look).await.ok().flatten();
            let overcommit = self.0.overcommit.load(Ordering::Relaxed);
            let Some(reason) = memory.and_then(|memory| memory.refuses(size_mib.into(), overcommit)) else {
                return Ok(turn);
            };
            if Instant::now() >= end {
                return Err(reason);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for a turn for work that can wait, until a turn is free and the host is calm. If the host does not become calm
    /// within 20 s, it waits for a turn nevertheless.
    pub(crate) async fn enter_when_calm(&self, size_mib: u32) -> Result<Turn, NoMemory> {
        let end = Instant::now() + CALM_LIMIT;
        while Instant::now() < end && (self.0.turns.available_permits() == 0 || !is_calm()) {
            tokio::time::sleep(LOOK).await;
        }
        self.enter(size_mib).await
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Parses a size of `/proc/meminfo`, in MiB.
fn parse_mib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
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
        assert_eq!(parse_mib(memory, "MemAvailable:"), Some(2048));
        assert_eq!(parse_mib("MemTotal: 1 kB\n", "MemAvailable:"), None);
    }

    fn refused(total_mib: u64, available_mib: u64, committed_mib: u64, size_mib: u64) -> Option<String> {
        let memory = HostMemory { total_mib, available_mib, committed_mib };
        memory.refuses(size_mib, OVERCOMMIT).map(|reason| reason.to_string())
    }

    #[test]
    fn a_machine_starts_if_its_share_is_free_and_the_machines_are_not_much_larger_than_the_host() {
        assert_eq!(refused(24_000, 23_000, 0, 2048), None);
        assert_eq!(refused(24_000, 8_000, 33 * 2048, 2048), None, "forks that wait take little");
        insta::assert_snapshot!(refused(24_000, 20_000, 36 * 2048, 2048).expect("refused"), @"no memory for a machine of 2048 MiB: the machines that run here have 73728 MiB, and all of them may have 72000 MiB, 3 times this host's memory; run fewer or smaller machines");
        insta::assert_snapshot!(refused(16_000, 1_024, 8_192, 8_192).expect("refused"), @"no memory for a machine: 1024 MiB are free, 2986 MiB are needed at least");
    }

    #[test]
    fn a_host_with_little_memory_runs_one_machine_and_none_if_it_has_no_memory_at_all() {
        assert_eq!(refused(1_000, 400, 0, 4_096), None);
        assert!(refused(1_000, 400, 1_024, 1_024).is_some());
        insta::assert_snapshot!(refused(1_000, 300, 0, 512).expect("refused"), @"no memory for a machine: 300 MiB are free, 352 MiB are needed at least");
    }

    #[tokio::test]
    async fn no_more_start_at_once_than_there_are_turns() {
        let pace = Pace::of(2);
        let first = pace.enter(1).await.expect("memory");
        let _second = pace.enter(1).await.expect("memory");
        let third = tokio::time::timeout(Duration::from_millis(50), pace.enter(1)).await;
        assert!(third.is_err());
        drop(first);
        pace.enter(1).await.expect("memory");
    }

    #[tokio::test]
    async fn a_new_number_of_turns_counts_also_for_those_that_are_taken() {
        let pace = Pace::of(3);
        let free = || pace.0.turns.available_permits();
        let (first, second) = (pace.enter(1).await.expect("memory"), pace.enter(1).await.expect("memory"));
        pace.clone().limit_turns(Some(1));
        assert_eq!(free(), 0);
        drop(first);
        assert_eq!(free(), 0, "one is still taken");
        pace.limit_turns(Some(2));
        assert_eq!(free(), 1);
        pace.limit_turns(Some(1));
        drop(second);
        assert_eq!(free(), 1);
    }
}
