//! The scratch space of this host in the decisions of an orchestrator.
//!
//! A task measures it beside the loop, because that takes time. Disks grow while machines run, so a machine counts with
//! the space that it is expected to have soon: as much as the largest of its pool's last machines, or what it has, if
//! that is more.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Orchestrator;
use super::budget::PoolScratch;
use crate::fact::Fact;
use crate::scratch::{self, MACHINE_MIN_MIB, ScratchKind, ScratchSummary, ScratchUse};

/// Shortest pause between two measurements.
const PACE: Duration = Duration::from_secs(3);
/// The pause as a multiple of the time that a measurement took, so that measuring takes a twentieth of a processor at
/// most.
const PART: u32 = 20;
/// Number of machines by which a pool's next one is estimated.
const MACHINES_MAX: usize = 32;

/// The scratch space of this host, which is measured again and again while something limits it.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    meter: Option<Meter>,
    /// The last fact about it.
    told: Option<ScratchSummary>,
}

#[derive(Debug)]
struct Meter {
    latest: watch::Receiver<Option<Arc<Measured>>>,
    /// Ends with the meter.
    _task: JoinSet<()>,
}

impl Scratch {
    /// Measures from now on if there is a limit, else not any more.
    fn measure_if(&mut self, is_limited: bool, state: &Path) {
        match (is_limited, &self.meter) {
            (false, _) => self.meter = None,
            (true, None) => self.meter = Some(Meter::start(state.to_owned())),
            (true, Some(_)) => {}
        }
    }

    /// Returns true until the end of the first measurement: it is not known whether there is room for any machine.
    pub(super) fn is_unknown(&self) -> bool {
        self.meter.is_some() && self.latest().is_none()
    }

    /// Returns the last measurement; none before the first one, and if nothing is limited.
    pub(super) fn latest(&self) -> Option<Arc<Measured>> {
        self.meter.as_ref()?.latest.borrow().clone()
    }

    /// Waits for the next measurement.
    pub(super) async fn measured(&mut self) {
        let is_new = match &mut self.meter {
            Some(meter) => meter.latest.changed().await.is_ok(),
            None => false,
        };
        if !is_new {
            std::future::pending::<()>().await;
        }
    }

    /// Returns the sum for readers if it has changed enough since the last call, and none in it if nothing is limited
    /// any more.
    fn news(&mut self, limit_mib: Option<u64>) -> Option<Option<ScratchSummary>> {
        let now = self.latest().map(|measured| ScratchSummary {
            used_mib: measured.total_mib,
            limit_mib,
            is_whole: measured.is_whole,
        });
        let is_news = match (&now, &self.told) {
            (Some(now), Some(before)) => now.is_news_after(before),
            (now, before) => now.is_some() != before.is_some(),
        };
        is_news.then(|| {
            self.told = now;
            now
        })
    }
}

impl Meter {
    fn start(state: PathBuf) -> Self {
        let (sender, latest) = watch::channel(None);
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let (began, of) = (std::time::Instant::now(), state.clone());
                let measured = tokio::task::spawn_blocking(move || Measured::from(&scratch::measure(&of)));
                if let Ok(measured) = measured.await {
                    sender.send_replace(Some(Arc::new(measured)));
                }
                tokio::time::sleep(pause_after(began.elapsed())).await;
            }
        });
        Self { latest, _task: task }
    }
}

fn pause_after(took: Duration) -> Duration {
    PACE.max(took.saturating_mul(PART))
}

impl Orchestrator {
    /// Measures the scratch space if the host or a pool has a limit of it.
    pub(super) fn measure_scratch(&mut self) {
        let mut specs = self.pools.iter().map(|pool| &pool.pool.spec);
        let is_limited = self.budget.scratch_mib.is_some() || specs.any(|spec| spec.scratch_mib.is_some());
        self.scratch.measure_if(is_limited, &self.host.state);
    }

    /// Tells the scratch space in use if it has changed enough, and the end of all limits.
    pub(super) async fn tell_scratch(&mut self) {
        if let Some(scratch) = self.scratch.news(self.budget.scratch_mib) {
            let first = self.pools.first().map_or(0, |pool| pool.first);
            self.facts.of_loop(first).tell(Fact::ScratchInUse { scratch }).await;
        }
    }
}

/// A measurement, by machine and by pool, MiB.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) total_mib: u64,
    machines: HashMap<String, u64>,
    pools: HashMap<String, u64>,
    is_whole: bool,
}

impl From<&ScratchUse> for Measured {
    fn from(all: &ScratchUse) -> Self {
        let mut measured = Self { total_mib: all.total_mib(), is_whole: all.is_whole, ..Self::default() };
        let add = |sums: &mut HashMap<String, u64>, name: &Option<String>, mib: u64| {
            let Some(name) = name else { return };
            let sum = sums.entry(name.clone()).or_default();
            *sum = sum.saturating_add(mib);
        };
        // A kept machine is no part of a pool's work, and says nothing about the next machine.
        for item in all.items.iter().filter(|item| item.kind != ScratchKind::Kept) {
            let mib = item.bytes.div_ceil(1 << 20);
            add(&mut measured.machines, &item.name, mib);
            add(&mut measured.pools, &item.pool, mib);
        }
        measured
    }
}

/// The space that a pool's next machine is expected to have soon: as much as the largest of its last ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Expectation {
    /// The machines by name, with the most space that each was seen to have, MiB.
    seen: VecDeque<(String, u64)>,
}

impl Expectation {
    fn see(&mut self, machine: &str, mib: u64) {
        if let Some((_, most)) = self.seen.iter_mut().find(|(name, _)| name == machine) {
            *most = mib.max(*most);
            return;
        }
        self.seen.push_back((machine.to_owned(), mib));
        if self.seen.len() > MACHINES_MAX {
            self.seen.pop_front();
        }
    }

    /// Returns the expected space, MiB.
    pub(super) fn mib(&self) -> u64 {
        self.seen.iter().map(|(_, mib)| *mib).fold(MACHINE_MIN_MIB, u64::max)
    }

    /// Returns the space of a pool without its limit. `machines` are the names of the machines of its slots; none for
    /// one that has no name yet.
    pub(super) fn of_pool(
        &mut self,
        measured: &Measured,
        pool: Option<&str>,
        machines: &[Option<&str>],
    ) -> PoolScratch {
        let mut seen: Vec<u64> = Vec::with_capacity(machines.len());
        for name in machines {
            let found = name.and_then(|name| Some((name, *measured.machines.get(name)?)));
            found.iter().for_each(|(name, mib)| self.see(name, *mib));
            seen.push(found.map_or(0, |(_, mib)| mib));
        }
        let all_mib = pool.and_then(|pool| measured.pools.get(pool)).copied().unwrap_or(0);
        let seen_mib = seen.iter().copied().fold(0, u64::saturating_add);
        let each_mib = self.mib();
        PoolScratch {
            seen_mib,
            machines_mib: seen.iter().map(|mib| each_mib.max(*mib)).fold(0, u64::saturating_add),
            rest_mib: all_mib.saturating_sub(seen_mib),
            max_mib: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::ScratchItem;
    use crate::scratch::tests::filled;

    fn run(name: &str, pool: &str, mib: u64) -> ScratchItem {
        ScratchItem {
            kind: ScratchKind::Run,
            id: name.to_owned(),
            instance: Some("i".to_owned()),
            pool: Some(pool.to_owned()),
            name: Some(name.to_owned()),
            bytes: mib << 20,
        }
    }

    #[test]
    fn a_machine_counts_with_what_it_has_or_what_the_largest_of_the_last_ones_had() {
        let measured = |items| Measured::from(&ScratchUse { items, is_whole: true });
        let mut expectation = Expectation::default();
        assert_eq!(expectation.mib(), MACHINE_MIN_MIB);
        let one = measured(vec![run("a", "build", 10), run("b", "build", 700), run("c", "other", 5000)]);
        let scratch = expectation.of_pool(&one, Some("build"), &[Some("a"), None]);
        let of = |seen_mib, machines_mib, rest_mib| PoolScratch {
            seen_mib,
            machines_mib,
            rest_mib,
            max_mib: None,
        };
        assert_eq!(scratch, of(10, 2 * MACHINE_MIN_MIB, 700));
        let scratch = expectation.of_pool(&one, Some("build"), &[Some("a"), Some("b"), None]);
        assert_eq!(scratch, of(710, 3 * 700, 0));
        let grown = measured(vec![run("b", "build", 900)]);
        assert_eq!(expectation.of_pool(&grown, Some("build"), &[Some("b")]), of(900, 900, 0));
        let empty = measured(Vec::new());
        assert_eq!(expectation.of_pool(&empty, None, &[None]), of(0, 900, 0), "the last ones count");
        let kept = measured(vec![ScratchItem { kind: ScratchKind::Kept, ..run("b", "build", 4000) }]);
        assert_eq!(kept.total_mib, 4000, "the limit of the host counts it");
        assert_eq!(expectation.of_pool(&kept, Some("build"), &[Some("b")]), of(0, 900, 0));
    }

    #[test]
    fn machines_of_long_ago_do_not_count_for_ever() {
        let mut expectation = Expectation::default();
        expectation.see("large", 50_000);
        (0..MACHINES_MAX).for_each(|number| expectation.see(&number.to_string(), 100));
        assert_eq!(expectation.mib(), 100);
        assert_eq!(expectation.seen.len(), MACHINES_MAX);
    }

    #[test]
    fn measuring_takes_a_small_part_of_the_time() {
        assert_eq!(pause_after(Duration::from_millis(1)), PACE);
        assert_eq!(pause_after(Duration::from_secs(10)), Duration::from_secs(200));
    }

    #[tokio::test]
    async fn the_space_in_use_is_measured_and_told_while_there_is_a_limit() {
        let state = tempfile::tempdir().expect("folder");
        filled(&state.path().join("instances/a/runs/0-aaaaaaa"), 3);
        let mut scratch = Scratch::default();
        scratch.measure_if(false, state.path());
        assert!(!scratch.is_unknown(), "it does not matter");
        scratch.measure_if(true, state.path());
        assert!(scratch.is_unknown() && scratch.news(Some(9)).is_none());
        tokio::time::timeout(Duration::from_secs(60), scratch.measured()).await.expect("in time");
        let total_mib = scratch.latest().expect("measured").total_mib;
        assert!((3..=4).contains(&total_mib), "{total_mib}");
        let summary = ScratchSummary { used_mib: total_mib, limit_mib: Some(9), is_whole: true };
        assert_eq!(scratch.news(Some(9)), Some(Some(summary)));
        assert_eq!(scratch.news(Some(9)), None);
        scratch.measure_if(false, state.path());
        assert_eq!((scratch.news(None), scratch.news(None)), (Some(None), None));
    }
}
