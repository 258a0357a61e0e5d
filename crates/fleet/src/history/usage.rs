//! The use of machines: a fold of the records of many runs, by what they have in common. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{MachineUsed, RunRecord};

/// Fewest measured runs from which advice follows. Fewer say little about the next one.
const RUNS_MIN: usize = 20;
/// Part of a machine's memory that 95 of 100 runs must leave unused before less is advised, percent. Guests fill memory with the
/// pages of files, which they give back, so a machine that seems full may have enough.
const MEMORY_SPARE_PERCENT: u64 = 40;
/// Memory above the use of 95 of 100 runs in the advice, percent.
const MEMORY_RESERVE_PERCENT: u64 = 25;
/// Step of advised memory, MiB.
const MEMORY_STEP_MIB: u64 = 256;
/// Least memory of a machine that is advised, MiB.
const MEMORY_MIN_MIB: u64 = 512;
/// Use of the virtual CPUs from which more of them would help, percent.
const BUSY_PERCENT: u64 = 90;

/// The property by which runs are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageBy {
    /// Repository of the job.
    Repository,
    /// Workflow of the job, after its repository.
    Workflow,
    /// Pool of the runner.
    Pool,
}

/// Two values of many: half of them are at most the first, and 95 of 100 at most the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Half of the values are at most this.
    pub p50: u64,
    /// 95 of 100 values are at most this.
    pub p95: u64,
}

/// The use of runs that have something in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// The value that they have in common; none for the runs in which it is not known.
    pub name: Option<String>,
    /// Number of runs.
    pub runs: u64,
    /// Number of jobs in them.
    pub jobs: u64,
    /// Time for which their machines lived, milliseconds.
    pub machine_ms: u64,
    /// The same time for each virtual CPU, of the machines whose size is known.
    pub vcpu_ms: u64,
    /// Processor time, milliseconds, of the machines for which it was counted; none if it was for none of them.
    pub cpu_ms: Option<u64>,
    /// Time that the jobs waited from the queue to the runner, milliseconds; none if it is known of none of them.
    pub wait_ms: Option<Spread>,
    /// Virtual CPUs of these machines in use on average, in hundredths.
    pub cpu_percent: Option<Spread>,
    /// Most memory of this host that a machine had at once, MiB.
    pub memory_peak_mib: Option<Spread>,
    /// Size of the largest of the machines.
    pub largest: Option<MachineSize>,
    /// Better sizes; empty if these are right, or too few runs were measured.
    pub advice: Vec<Advice>,
}

/// The size of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MachineSize {
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
}

/// A size that would fit better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Advice {
    /// So much memory is enough.
    LessMemory {
        /// Memory, MiB.
        memory_mib: u64,
    },
    /// Jobs ran out of memory.
    MoreMemory {
        /// Number of runs in which that happened.
        runs: u64,
    },
    /// So many virtual CPUs are enough.
    FewerCpus {
        /// Virtual CPUs.
        cpus: u64,
    },
    /// The virtual CPUs are busy all the time, so more of them may end jobs earlier.
    MoreCpus,
}

/// Returns the use of runs, the most machine time first. Runs without a machine count as runs.
pub fn usage_of(runs: &[RunRecord], by: UsageBy) -> Vec<Usage> {
    let mut groups: BTreeMap<Option<String>, Vec<&RunRecord>> = BTreeMap::new();
    for run in runs {
        groups.entry(name_of(run, by)).or_default().push(run);
    }
    let mut all: Vec<Usage> = groups.into_iter().map(|(name, runs)| sum(name, &runs)).collect();
    all.sort_by_key(|usage| std::cmp::Reverse(usage.machine_ms));
    all
}

fn name_of(run: &RunRecord, by: UsageBy) -> Option<String> {
    match by {
        UsageBy::Repository => run.repository.clone(),
        UsageBy::Pool => run.pool.clone(),
        UsageBy::Workflow => {
            let workflow = run.workflow.as_ref()?;
            let repository = run.repository.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
            Some(format!("{repository}{workflow}"))
        }
    }
}

fn sum(name: Option<String>, runs: &[&RunRecord]) -> Usage {
    let measured: Vec<(MachineUsed, u64)> =
        runs.iter().filter_map(|run| Some((run.used?, machine_ms(run)))).collect();
    let cpu_ms: Vec<u64> = measured.iter().filter_map(|(used, _)| used.cpu_ms).collect();
    let cpu_percent: Vec<u64> =
        measured.iter().filter_map(|(used, ms)| used.cpu_ms.map(|cpu| cpu * 100 / (*ms).max(1))).collect();
    let peaks: Vec<u64> = measured.iter().filter_map(|(used, _)| used.memory_peak_mib).collect();
    let largest = largest(measured.iter().map(|(used, _)| used));
    let out_of_memory = runs.iter().filter(|run| run.out_of_memory.is_some()).count() as u64;
    Usage {
        name,
        runs: runs.len() as u64,
        jobs: runs.iter().map(|run| u64::from(run.jobs)).sum(),
        machine_ms: runs.iter().map(|run| machine_ms(run)).sum(),
        vcpu_ms: measured.iter().map(|(used, ms)| u64::from(used.cpus).saturating_mul(*ms)).sum(),
        cpu_ms: (!cpu_ms.is_empty()).then(|| cpu_ms.iter().sum()),
        wait_ms: spread(runs.iter().filter_map(|run| wait_ms(run)).collect()),
        advice: advice(largest, &cpu_percent, &peaks, out_of_memory),
        cpu_percent: spread(cpu_percent),
        memory_peak_mib: spread(peaks),
        largest,
    }
}

/// Returns the time for which the machine of a run lived.
fn machine_ms(run: &RunRecord) -> u64 {
    let times = &run.times;
    let end = times.gone.or(times.over).or_else(|| times.last());
    times.started.zip(end).map_or(0, |(start, end)| end.saturating_sub(start))
}

/// Returns the time from the queue to the runner. The forge's clock may be ahead of this host's.
fn wait_ms(run: &RunRecord) -> Option<u64> {
    let times = &run.times;
    Some(times.acquired?.saturating_sub(times.queued.or(times.seen)?))
}

fn largest<'a>(all: impl Iterator<Item = &'a MachineUsed>) -> Option<MachineSize> {
    all.map(|used| MachineSize { cpus: used.cpus, memory_mib: used.memory_mib })
        .max_by_key(|size| (size.memory_mib, size.cpus))
}

/// Returns the value that this part of the sorted values does not exceed (nearest rank).
fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

fn spread(mut values: Vec<u64>) -> Option<Spread> {
    values.sort_unstable();
    Some(Spread { p50: percentile(&values, 50)?, p95: percentile(&values, 95)? })
}

/// Returns better sizes for machines of this size, of which these were measured.
fn advice(size: Option<MachineSize>, cpu_percent: &[u64], peaks: &[u64], out_of_memory: u64) -> Vec<Advice> {
    let Some(size) = size else { return Vec::new() };
    let mut advice = Vec::new();
    if out_of_memory > 0 {
        advice.push(Advice::MoreMemory { runs: out_of_memory });
    } else if peaks.len() >= RUNS_MIN {
        advice.extend(spread(peaks.to_vec()).and_then(|peak| less_memory(size, peak.p95)));
    }
    if cpu_percent.len() >= RUNS_MIN
        && let Some(used) = spread(cpu_percent.to_vec())
    {
        advice.extend(better_cpus(size, used));
    }
    advice
}

fn less_memory(size: MachineSize, peak_mib: u64) -> Option<Advice> {
    let has_spare = peak_mib * 100 <= u64::from(size.memory_mib) * (100 - MEMORY_SPARE_PERCENT);
    let enough = (peak_mib * (100 + MEMORY_RESERVE_PERCENT) / 100).next_multiple_of(MEMORY_STEP_MIB);
    let memory_mib = enough.max(MEMORY_MIN_MIB);
    (has_spare && memory_mib < u64::from(size.memory_mib)).then_some(Advice::LessMemory { memory_mib })
}

fn better_cpus(size: MachineSize, used: Spread) -> Option<Advice> {
    let all = u64::from(size.cpus) * 100;
    if used.p50 * 100 >= all * BUSY_PERCENT {
        return Some(Advice::MoreCpus);
    }
    // Twice the average, because a job has moments with more work.
    let cpus = (used.p95 * 2).div_ceil(100).max(1);
    (cpus < u64::from(size.cpus)).then_some(Advice::FewerCpus { cpus })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::history::Times;

    /// Returns a run of a repository whose machine of 4 CPUs and 4096 MiB lived for so many seconds.
    fn run(repository: &str, seconds: u64, cpu_ms: Option<u64>, peak: Option<u64>) -> RunRecord {
        let used = MachineUsed { cpus: 4, memory_mib: 4096, cpu_ms, memory_peak_mib: peak };
        let times = Times {
            queued: Some(1000),
            started: Some(2000),
            acquired: Some(4000),
            gone: Some(2000 + seconds * 1000),
            ..Times::default()
        };
        RunRecord {
            repository: Some(repository.to_owned()),
            workflow: Some("ci".to_owned()),
            pool: Some("build".to_owned()),
            jobs: 1,
            used: Some(used),
            times,
            ..RunRecord::default()
        }
    }

    fn many(count: usize, cpu_ms: u64, peak: u64) -> Vec<RunRecord> {
        (0..count).map(|_| run("o/r", 60, Some(cpu_ms), Some(peak))).collect()
    }

    fn advice_of(runs: &[RunRecord]) -> Vec<Advice> {
        usage_of(runs, UsageBy::Pool).remove(0).advice
    }

    #[test]
    fn runs_are_added_up_by_what_they_have_in_common_and_the_largest_use_comes_first() {
        let mut runs = vec![run("o/small", 10, None, None), run("o/large", 60, Some(30_000), Some(700))];
        runs.push(run("o/large", 60, Some(90_000), Some(900)));
        runs.push(RunRecord::default());
        let by = |by| usage_of(&runs, by);
        let repositories = by(UsageBy::Repository);
        let names: Vec<_> = repositories.iter().map(|usage| usage.name.as_deref()).collect();
        assert_eq!(names, [Some("o/large"), Some("o/small"), None]);
        let large = &repositories[0];
        assert_eq!((large.runs, large.jobs, large.machine_ms, large.vcpu_ms), (2, 2, 120_000, 480_000));
        assert_eq!((large.cpu_ms, large.wait_ms), (Some(120_000), Some(Spread { p50: 3000, p95: 3000 })));
        assert_eq!(large.memory_peak_mib, Some(Spread { p50: 700, p95: 900 }));
        assert_eq!(large.cpu_percent, Some(Spread { p50: 50, p95: 150 }));
        let small = &repositories[1];
        assert_eq!((small.cpu_ms, small.memory_peak_mib), (None, None), "unknown is not zero");
        assert_eq!(by(UsageBy::Workflow)[0].name.as_deref(), Some("o/large: ci"));
        assert_eq!(by(UsageBy::Pool)[0].runs, 3);
    }

    #[test]
    fn a_size_that_runs_do_not_need_is_advised_against_once_enough_of_them_were_measured() {
        assert_eq!(advice_of(&many(19, 30_000, 700)), []);
        let less = [Advice::LessMemory { memory_mib: 1024 }, Advice::FewerCpus { cpus: 1 }];
        assert_eq!(advice_of(&many(20, 30_000, 700)), less);
        assert_eq!(advice_of(&many(20, 120_000, 3000)), [], "a machine that is used well");
        assert_eq!(advice_of(&many(20, 230_000, 3000)), [Advice::MoreCpus]);
        assert_eq!(advice_of(&many(20, 100_000, 10)), [Advice::LessMemory { memory_mib: 512 }]);
    }

    #[test]
    fn a_job_that_ran_out_of_memory_needs_more_however_little_others_use() {
        let mut runs = many(30, 120_000, 700);
        runs[3].out_of_memory = Some("cc1".to_owned());
        assert_eq!(advice_of(&runs), [Advice::MoreMemory { runs: 1 }]);
    }

    proptest! {
        /// Advice never asks for more of what is to be less, and no run is lost or counted twice.
        #[test]
        fn sums_are_whole_and_advice_has_a_direction(
            figures in proptest::collection::vec((0_u64..4000, 0_u64..1_000_000, 0_u64..5000), 1..60),
        ) {
            let of = |(seconds, cpu, peak): &(u64, u64, u64)| run("o/r", *seconds, Some(*cpu), Some(*peak));
            let runs: Vec<RunRecord> = figures.iter().map(of).collect();
            let all = usage_of(&runs, UsageBy::Repository);
            prop_assert_eq!(all.iter().map(|usage| usage.runs).sum::<u64>(), runs.len() as u64);
            for usage in all {
                let spread = usage.memory_peak_mib.expect("measured");
                prop_assert!(spread.p50 <= spread.p95);
                for advice in usage.advice {
                    match advice {
                        Advice::LessMemory { memory_mib } => prop_assert!((512..4096).contains(&memory_mib)),
                        Advice::FewerCpus { cpus } => prop_assert!((1..4).contains(&cpus)),
                        Advice::MoreCpus | Advice::MoreMemory { .. } => {}
                    }
                }
            }
        }
    }
}
