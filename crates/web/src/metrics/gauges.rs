//! Gauges, which each scrape reads from the published status, the pools and the credentials. So the series of a pool that is
//! gone are gone too.

use std::fmt;
use std::sync::Arc;

use dayfly_fleet::state::Phase;
use dayfly_fleet::status::{PoolState, Status};
use dayfly_forge::{CallEnd, Importance};
use dayfly_traces::TraceCounts;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::watch;

use super::labels::{Labels, cause_word, scale_set_name, scope_of, shortened, wait_word};
use crate::pools_now::{PHASES, PoolNow, pools_now};
use crate::publish::{ForgeAccount, PoolEntry, Site};

const BYTES_PER_MIB: f64 = 1_048_576.0;
/// The values of a family, with their labels.
type Rows = Vec<(Labels, f64)>;

/// The collector.
#[derive(Debug)]
pub(super) struct Gauges {
    status: watch::Receiver<Arc<Status>>,
    site: watch::Receiver<Arc<Site>>,
    traces: Option<TraceCounts>,
}

impl Gauges {
    pub(super) fn new(
        status: watch::Receiver<Arc<Status>>,
        site: watch::Receiver<Arc<Site>>,
        traces: Option<TraceCounts>,
    ) -> Self {
        Self { status, site, traces }
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let (status, site) = (Arc::clone(&self.status.borrow()), Arc::clone(&self.site.borrow()));
        let pools = pools_now(&status, &site);
        let families = scale_set_families(&pools).into_iter();
        let families = families.chain(pool_families(&pools)).chain(host_families(&status, &site, &pools));
        for (name, help, rows) in families.chain(forge_families(&site.forges)) {
            gauges(&mut encoder, name, help, rows)?;
        }
        if let Some(counts) = &self.traces {
            traces(&mut encoder, counts)?;
        }
        calls(&mut encoder, &site.forges)
    }
}

fn gauges(encoder: &mut DescriptorEncoder, name: &str, help: &str, rows: Rows) -> Result<(), fmt::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    rows.iter().try_for_each(|(labels, value)| ConstGauge::new(*value).encode(family.encode_family(labels)?))
}

impl PoolNow<'_> {
    fn labels(&self) -> Labels {
        vec![("pool", self.name.to_owned())]
    }

    /// Returns the labels that Actions Runner Controller has, except the namespace, which there is none of.
    fn scale_set_labels(&self) -> Labels {
        let (enterprise, organization, repository) =
            self.entry.map(|entry| scope_of(&entry.scope)).unwrap_or_default();
        let name = scale_set_name(self.name, self.entry);
        let text = str::to_owned;
        vec![
            ("name", text(name)),
            ("enterprise", text(enterprise)),
            ("organization", text(organization)),
            ("repository", text(repository)),
        ]
    }
}

type FamilyRows = (&'static str, &'static str, Rows);

fn scale_set_families(pools: &[PoolNow<'_>]) -> Vec<FamilyRows> {
    let rows = |value: fn(&PoolNow<'_>) -> Option<u32>| {
        pools
            .iter()
            .filter_map(|pool| Some((pool.scale_set_labels(), f64::from(value(pool)?))))
            .collect::<Rows>()
    };
    let loops = |pool: &PoolNow<'_>| pool.phases.iter().sum::<u32>() - pool.in_phase(Phase::Ended);
    vec![
        (
            "gha_assigned_jobs",
            "Jobs that wait for a runner of the pool or have one",
            rows(|pool| Some(pool.waiting().saturating_add(pool.busy))),
        ),
        ("gha_running_jobs", "Jobs that have a runner", rows(|pool| Some(pool.busy))),
        ("gha_registered_runners", "Runners with a registration", rows(|pool| Some(pool.registered))),
        ("gha_busy_runners", "Runners with a job", rows(|pool| Some(pool.busy))),
        ("gha_idle_runners", "Runners that wait for a job", rows(|pool| Some(pool.in_phase(Phase::Idle)))),
        (
            "gha_desired_runners",
            "Runners that the pool wants",
            pools.iter().map(|pool| (pool.scale_set_labels(), f64::from(loops(pool)))).collect(),
        ),
        (
            "gha_min_runners",
            "Idle runners that are kept ready",
            rows(|pool| pool.entry.map(|pool| pool.min_idle)),
        ),
        ("gha_max_runners", "Most runners of the pool", rows(|pool| pool.entry.map(|pool| pool.max))),
    ]
}

fn pool_families(pools: &[PoolNow<'_>]) -> Vec<FamilyRows> {
    let with = |pool: &PoolNow<'_>, name, value: &str| {
        let mut labels = pool.labels();
        labels.push((name, value.to_owned()));
        labels
    };
    let phases = pools.iter().flat_map(|pool| {
        let phases = PHASES.iter().zip(pool.phases);
        phases.map(|(phase, count)| (with(pool, "phase", phase.as_str()), f64::from(count)))
    });
    let waits = pools.iter().filter_map(|pool| Some((pool, pool.status?.wait?)));
    let states = pools.iter().map(|pool| {
        let state = match pool.status.map(|status| status.state).unwrap_or_default() {
            PoolState::Running => "running",
            PoolState::Paused => "paused",
            PoolState::Draining => "draining",
            PoolState::GivenUp => "given_up",
        };
        (with(pool, "state", state), 1.0)
    });
    let oldest = pools.iter().filter_map(|pool| {
        let jobs = pool.status?.jobs.values();
        let first_ms = jobs.filter_map(|job| job.seen_ms.or(job.queued_ms)).min()?;
        Some((pool.labels(), first_ms as f64 / 1000.0))
    });
    let troubles = pools.iter().flat_map(|pool| {
        let troubles = pool.status.into_iter().flat_map(|status| status.forge.values());
        troubles.map(|trouble| {
            let mut labels = with(pool, "source", &trouble.source);
            labels.push(("cause", cause_word(trouble.cause).to_owned()));
            (labels, 1.0)
        })
    });
    vec![
        (
            "dayfly_waiting_jobs",
            "Jobs that wait for a runner",
            pools.iter().map(|pool| (pool.labels(), f64::from(pool.waiting()))).collect(),
        ),
        (
            "dayfly_wait_reason",
            "The reason why jobs of the pool wait",
            waits.map(|(pool, wait)| (with(pool, "reason", wait_word(wait)), 1.0)).collect(),
        ),
        (
            "dayfly_oldest_waiting_job_timestamp_seconds",
            "Time since which the oldest job waits that a source has told of",
            oldest.collect(),
        ),
        ("dayfly_runners", "Runners and loops, by phase", phases.collect()),
        ("dayfly_pool_state", "The treatment of the pool's jobs", states.collect()),
        ("dayfly_forge_trouble", "Sources of demand that cannot use the forge", troubles.collect()),
    ]
}

fn host_families(status: &Status, site: &Site, pools: &[PoolNow<'_>]) -> Vec<FamilyRows> {
    let one = |value: Option<f64>| value.map(|value| (Labels::new(), value)).into_iter().collect::<Rows>();
    let sum = |size: fn(&PoolEntry) -> f64| {
        pools.iter().filter_map(|pool| Some(f64::from(pool.machines) * size(pool.entry?))).sum::<f64>()
    };
    let machines = pools.iter().map(|pool| f64::from(pool.machines)).sum::<f64>();
    let mib = |mib: u64| mib as f64 * BYTES_PER_MIB;
    let budget = site.budget;
    let scratch = status.scratch;
    vec![
        (
            "process_start_time_seconds",
            "Start of the process since the unix epoch in seconds",
            one(Some(status.began_ms as f64 / 1000.0)),
        ),
        ("dayfly_machines", "Machines of this process", one(Some(machines))),
        ("dayfly_machines_max", "Most machines of this process", one(budget.machines.map(f64::from))),
        (
            "dayfly_machine_vcpus",
            "Virtual CPUs of the machines of this process",
            one(Some(sum(|entry| f64::from(entry.vcpus)))),
        ),
        (
            "dayfly_machine_vcpus_max",
            "Most virtual CPUs of all machines of this host",
            one(budget.vcpus.map(f64::from)),
        ),
        (
            "dayfly_machine_memory_bytes",
            "Memory of the machines of this process",
            one(Some(sum(|entry| f64::from(entry.memory_mib) * BYTES_PER_MIB))),
        ),
        (
            "dayfly_machine_memory_max_bytes",
            "Most memory of all machines of this host",
            one(budget.memory_mib.map(mib)),
        ),
        (
            "dayfly_scratch_bytes",
            "Scratch space in use on this host, if it is limited",
            one(scratch.map(|scratch| mib(scratch.used_mib))),
        ),
        (
            "dayfly_scratch_max_bytes",
            "Most scratch space of this host",
            one(scratch.and_then(|scratch| scratch.limit_mib).map(mib)),
        ),
    ]
}

fn forge_families(forges: &[ForgeAccount]) -> Vec<FamilyRows> {
    let (mut limits, mut remaining, mut resets, mut blocked) = (vec![], vec![], vec![], vec![]);
    for forge in forges {
        let usage = forge.credential.usage();
        let name = || ("forge", forge.name.clone());
        for limit in &usage.limits {
            let labels = vec![name(), ("resource", shortened(&limit.resource))];
            limits.push((labels.clone(), limit.limit as f64));
            remaining.push((labels.clone(), limit.remaining as f64));
            resets.push((labels, limit.resets_in.as_secs_f64()));
        }
        blocked.push((vec![name()], usage.blocked_for.unwrap_or_default().as_secs_f64()));
    }
    vec![
        ("dayfly_forge_rate_limit", "Calls that the forge allows an hour", limits),
        ("dayfly_forge_rate_limit_remaining", "Calls that are left until the reset", remaining),
        ("dayfly_forge_rate_limit_reset_seconds", "Time until the reset", resets),
        ("dayfly_forge_blocked_seconds", "Time until the forge takes calls again", blocked),
    ]
}

/// Writes the numbers of traces, which their exporter counts.
fn traces(encoder: &mut DescriptorEncoder, counts: &TraceCounts) -> Result<(), fmt::Error> {
    for (name, help, count) in [
        ("dayfly_traces_sent", "Traces that the collector has taken", counts.sent()),
        (
            "dayfly_traces_lost",
            "Traces that were not sent, or that the collector has not taken",
            counts.lost(),
        ),
    ] {
        let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(count).encode(family)?;
    }
    Ok(())
}

/// Writes the number of calls of each forge, which its credential counts.
fn calls(encoder: &mut DescriptorEncoder, forges: &[ForgeAccount]) -> Result<(), fmt::Error> {
    let rows: Vec<(Labels, u64)> = forges.iter().flat_map(calls_of).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let help = "Calls of the forge, by importance and end";
    let mut family = encoder.encode_descriptor("dayfly_forge_calls", help, None, MetricType::Counter)?;
    rows.iter()
        .try_for_each(|(labels, count)| ConstCounter::new(*count).encode(family.encode_family(labels)?))
}

fn calls_of(forge: &ForgeAccount) -> Vec<(Labels, u64)> {
    let counts = forge.credential.usage().calls;
    let kinds =
        Importance::ALL.into_iter().flat_map(|one| CallEnd::ALL.into_iter().map(move |end| (one, end)));
    let counted = kinds.map(|(importance, end)| (importance, end, counts.of(importance, end)));
    let labels = |importance, end| {
        vec![
            ("forge", forge.name.clone()),
            ("importance", importance_word(importance).to_owned()),
            ("end", end_word(end).to_owned()),
        ]
    };
    counted.filter(|(.., count)| *count > 0).map(|(one, end, count)| (labels(one, end), count)).collect()
}

fn importance_word(importance: Importance) -> &'static str {
    match importance {
        Importance::Poll => "poll",
        Importance::Look => "look",
        Importance::Register => "register",
        Importance::Essential => "essential",
    }
}

fn end_word(end: CallEnd) -> &'static str {
    match end {
        CallEnd::Success => "success",
        CallEnd::NotModified => "not_modified",
        CallEnd::Redirected => "redirected",
        CallEnd::Unauthorized => "unauthorized",
        CallEnd::Refused => "refused",
        CallEnd::Limited => "limited",
        CallEnd::Failed => "failed",
        CallEnd::Lost => "lost",
        CallEnd::Shed => "shed",
    }
}
