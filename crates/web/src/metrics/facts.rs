//! Counters and histograms: the fold of facts.

use std::collections::HashMap;

use dayfly_fleet::fact::{Fact, FactRecord, MemoryOwner, OverHow, SeenJob, StartKind};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::labels::{
    JobLabels, Labels, cause_word, conclusion_word, end_word, place_of, result_word, scale_set_name,
};
use crate::publish::Site;

/// Most runners that are remembered at a time. An orchestrator has at most 999 for each pool.
const RUNNERS_MAX: usize = 8192;
const US_PER_S: f64 = 1_000_000.0;

/// The buckets of Actions Runner Controller, because dashboards may name them.
const JOB_BUCKETS: [f64; 45] = [
    0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 15.0, 18.0, 20.0, 25.0,
    30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0, 110.0, 120.0, 150.0, 180.0, 210.0, 240.0, 300.0, 360.0,
    420.0, 480.0, 540.0, 600.0, 900.0, 1200.0, 1800.0, 2400.0, 3000.0, 3600.0,
];
/// From a fork with KVM to a boot under emulation.
const START_BUCKETS: [f64; 14] =
    [0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0];
const BUILD_BUCKETS: [f64; 9] = [5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 240.0, 480.0, 960.0];

type Counts = Family<Labels, Counter>;
type Durations = Family<Labels, Histogram, fn() -> Histogram>;

/// The counters of the process. They are shared with the registry; the memory of runners is not.
#[derive(Debug)]
pub(crate) struct FactCounters {
    counts: CountFamilies,
    durations: DurationFamilies,
    labels: JobLabels,
    runners: HashMap<String, Runner>,
}

#[derive(Debug, Default)]
struct CountFamilies {
    started_jobs: Counts,
    completed_jobs: Counts,
    starts: Counts,
    cold: Counts,
    ends: Counts,
    failures: Counts,
    loop_failures: Counts,
    taken_over: Counts,
    template_builds: Counts,
    out_of_memory: Counts,
    disk_failures: Counts,
    lines_dropped: Counts,
    unlimited: Counts,
    warnings: Counts,
}

#[derive(Debug)]
struct DurationFamilies {
    job_startup: Durations,
    job_execution: Durations,
    hello: Durations,
    up: Durations,
    template_build: Durations,
}

/// A runner whose end has not been told yet.
#[derive(Debug, Default)]
struct Runner {
    started: Option<(u64, StartKind)>,
    job: Option<SeenJob>,
    open: Option<OpenJob>,
}

/// A job whose end has not been counted yet.
#[derive(Debug)]
struct OpenJob {
    name: String,
    /// Its start, microseconds; none if another process has seen it.
    began_us: Option<u64>,
}

impl Default for FactCounters {
    fn default() -> Self {
        let durations = |make: fn() -> Histogram| Durations::new_with_constructor(make);
        Self {
            counts: CountFamilies::default(),
            durations: DurationFamilies {
                job_startup: durations(|| Histogram::new(JOB_BUCKETS)),
                job_execution: durations(|| Histogram::new(JOB_BUCKETS)),
                hello: durations(|| Histogram::new(START_BUCKETS)),
                up: durations(|| Histogram::new(START_BUCKETS)),
                template_build: durations(|| Histogram::new(BUILD_BUCKETS)),
            },
            labels: JobLabels::default(),
            runners: HashMap::new(),
        }
    }
}

impl FactCounters {
    /// Registers the families. Those of counters get the suffix `_total`.
    pub(super) fn register(&self, registry: &mut Registry) {
        let CountFamilies {
            started_jobs,
            completed_jobs,
            starts,
            cold,
            ends,
            failures,
            loop_failures,
            taken_over,
            template_builds,
            out_of_memory,
            disk_failures,
            lines_dropped,
            unlimited,
            warnings,
        } = &self.counts;
        for (name, help, family) in [
            ("gha_started_jobs", "Jobs that a runner app has started", started_jobs),
            ("gha_completed_jobs", "Jobs that have ended, by result", completed_jobs),
            ("dayfly_machine_starts", "Machines that were started, by the source of the machine", starts),
            ("dayfly_cold_starts", "Machines that were booted although they could be forked", cold),
            ("dayfly_runner_ends", "Runners that have ended, by the way in which they did", ends),
            (
                "dayfly_runner_failures",
                "Runners that could not be brought up, by the kind of the cause",
                failures,
            ),
            ("dayfly_loop_failures", "Loops that failed or tried again", loop_failures),
            (
                "dayfly_runners_taken_over",
                "Runners that were taken over from a process that died",
                taken_over,
            ),
            ("dayfly_template_builds", "Templates that were built, by result", template_builds),
            (
                "dayfly_out_of_memory",
                "Processes and machines that a kernel has killed for memory",
                out_of_memory,
            ),
            (
                "dayfly_disk_failures",
                "Writes to a machine's disk that this host could not make",
                disk_failures,
            ),
            (
                "dayfly_lines_dropped",
                "Lines of guests that were dropped because readers were too slow",
                lines_dropped,
            ),
            (
                "dayfly_machines_unlimited",
                "Machines without a limit that this host cannot enforce",
                unlimited,
            ),
            ("dayfly_warnings", "Warnings about runners and pools", warnings),
        ] {
            registry.register(name, help, family.clone());
        }
        let DurationFamilies { job_startup, job_execution, hello, up, template_build } = &self.durations;
        for (name, help, family) in [
            (
                "gha_job_startup_duration_seconds",
                "Time from the first word of a job until its runner app has it",
                job_startup,
            ),
            ("gha_job_execution_duration_seconds", "Time for which a job ran", job_execution),
            (
                "dayfly_machine_hello_seconds",
                "Time from the start of a machine until its agent answered",
                hello,
            ),
            (
                "dayfly_runner_up_seconds",
                "Time from the start of a machine until its runner app was about to start",
                up,
            ),
            ("dayfly_template_build_seconds", "Time that the build of a template took", template_build),
        ] {
            registry.register(name, help, family.clone());
        }
    }

    /// Counts a fact.
    pub(crate) fn take(&mut self, record: &FactRecord, site: &Site) {
        let pool = record.pool.as_deref().unwrap_or_default();
        let of_pool = || vec![("pool", pool.to_owned())];
        let also = |name, value: &str| vec![("pool", pool.to_owned()), (name, value.to_owned())];
        let counts = &self.counts;
        match &record.fact {
            Fact::Cold { .. } => add(&counts.cold, of_pool(), 1),
            Fact::LoopReplaced { .. } | Fact::Retrying { .. } | Fact::GaveUp { .. } => {
                add(&counts.loop_failures, of_pool(), 1);
            }
            Fact::TemplateBuilt { took_ms, .. } => {
                add(&counts.template_builds, also("result", "built"), 1);
                observe(&self.durations.template_build, of_pool(), *took_ms as f64 / 1000.0);
            }
            Fact::TemplateFailed { .. } => add(&counts.template_builds, also("result", "failed"), 1),
            Fact::OutOfMemory { .. } => add(&counts.out_of_memory, also("whose", "guest"), 1),
            Fact::VmmOutOfMemory { whose, .. } => {
                let whose = match whose {
                    MemoryOwner::Machine => "machine",
                    MemoryOwner::Host => "host",
                };
                add(&counts.out_of_memory, also("whose", whose), 1);
            }
            Fact::DiskFailed { .. } => add(&counts.disk_failures, of_pool(), 1),
            Fact::LinesDropped { count } => add(&counts.lines_dropped, of_pool(), *count),
            Fact::VmLimited { missing, .. } if !missing.is_empty() => add(&counts.unlimited, of_pool(), 1),
            Fact::Warning { .. } | Fact::SourceTrouble { .. } => add(&counts.warnings, of_pool(), 1),
            _ => self.take_of_runner(record, pool, site),
        }
    }

    /// Returns the number of runners whose end has not been told.
    #[cfg(test)]
    pub(crate) fn remembered(&self) -> usize {
        self.runners.len()
    }

    /// Counts a fact that depends on earlier ones of the same runner.
    fn take_of_runner(&mut self, record: &FactRecord, pool: &str, site: &Site) {
        let Some(id) = record.runner.as_ref().map(|runner| runner.id.as_str()) else { return };
        let known = self.runners.remove(id);
        let is_kept = known.is_some()
            || matches!(
                record.fact,
                Fact::VmmStarted { .. }
                    | Fact::VmTakenOver { .. }
                    | Fact::JobTaken { .. }
                    | Fact::JobStarted { .. }
            );
        let mut runner = known.unwrap_or_default();
        self.take_into(&mut runner, record, pool, site);
        let ends = matches!(record.fact, Fact::Ended | Fact::VmHandedOver);
        if is_kept && !ends && self.runners.len() < RUNNERS_MAX {
            self.runners.insert(id.to_owned(), runner);
        }
    }

    fn take_into(&mut self, runner: &mut Runner, record: &FactRecord, pool: &str, site: &Site) {
        let at_us = record.at.us();
        let labels = |kind: StartKind| vec![("pool", pool.to_owned()), ("start", kind.as_str().to_owned())];
        let since_start = || runner.started.map(|(us, kind)| (seconds(us, at_us), labels(kind)));
        match &record.fact {
            Fact::VmmStarted { from, .. } => {
                runner.started = Some((at_us, *from));
                add(&self.counts.starts, labels(*from), 1);
            }
            Fact::AgentHello => {
                if let Some((seconds, labels)) = since_start() {
                    observe(&self.durations.hello, labels, seconds);
                }
            }
            Fact::RunnerUp => {
                if let Some((seconds, labels)) = since_start() {
                    observe(&self.durations.up, labels, seconds);
                }
            }
            Fact::VmTakenOver { job, .. } => {
                add(&self.counts.taken_over, vec![("pool", pool.to_owned())], 1);
                runner.open = job.as_ref().map(|name| OpenJob { name: name.clone(), began_us: None });
            }
            Fact::JobTaken { job } => runner.job = Some(SeenJob::clone(job)),
            Fact::JobStarted { job } => self.start_job(runner, job, at_us, (pool, site)),
            Fact::JobFinished { result } => self.end_job(runner, result_word(*result), at_us, (pool, site)),
            Fact::JobConcluded { conclusion, .. } => {
                self.end_job(runner, conclusion_word(*conclusion), at_us, (pool, site));
            }
            Fact::Over { how, kind, .. } => {
                self.end_job(runner, "abandoned", at_us, (pool, site));
                let labels = vec![("pool", pool.to_owned()), ("how", end_word(*how).to_owned())];
                add(&self.counts.ends, labels, 1);
                if let Some(cause) = kind.filter(|_| *how == OverHow::NotUp) {
                    let labels = vec![("pool", pool.to_owned()), ("cause", cause_word(cause).to_owned())];
                    add(&self.counts.failures, labels, 1);
                }
            }
            _ => {}
        }
    }

    fn start_job(&mut self, runner: &mut Runner, name: &str, at_us: u64, (pool, site): (&str, &Site)) {
        let job = runner.job.as_ref();
        let entry = site.pools.iter().find(|entry| entry.name == pool);
        let (set, place) = (scale_set_name(pool, entry), place_of(job, entry));
        // The forge's name for a job, if a source has told it: the runner app may print a longer one.
        let name = job.and_then(|job| job.name.as_deref()).unwrap_or(name);
        add(&self.counts.started_jobs, self.labels.of_job(set, &place, name), 1);
        // This host's clock if possible, because the forge's may differ.
        let since_ms = job.and_then(|job| job.seen_ms.or(job.queued_ms));
        if let Some(since_ms) = since_ms {
            let seconds = seconds(since_ms.saturating_mul(1000), at_us);
            observe(&self.durations.job_startup, self.labels.of_place(set, &place), seconds);
        }
        runner.open = Some(OpenJob { name: name.to_owned(), began_us: Some(at_us) });
    }

    /// Counts the end of a job, unless it was counted already: the runner app and the forge both report it.
    fn end_job(
        &mut self,
        runner: &mut Runner,
        result: &'static str,
        at_us: u64,
        (pool, site): (&str, &Site),
    ) {
        let Some(OpenJob { name, began_us }) = runner.open.take() else { return };
        let entry = site.pools.iter().find(|entry| entry.name == pool);
        let (set, place) = (scale_set_name(pool, entry), place_of(runner.job.as_ref(), entry));
        let with_result = |mut labels: Labels| {
            labels.push(("job_result", result.to_owned()));
            labels
        };
        add(&self.counts.completed_jobs, with_result(self.labels.of_job(set, &place, &name)), 1);
        if let Some(began_us) = began_us {
            let labels = with_result(self.labels.of_place(set, &place));
            observe(&self.durations.job_execution, labels, seconds(began_us, at_us));
        }
    }
}

fn add(family: &Counts, labels: Labels, count: u64) {
    family.get_or_create_owned(&labels).inc_by(count);
}

fn observe(family: &Durations, labels: Labels, seconds: f64) {
    family.get_or_create_owned(&labels).observe(seconds);
}

fn seconds(from_us: u64, to_us: u64) -> f64 {
    to_us.saturating_sub(from_us) as f64 / US_PER_S
}
