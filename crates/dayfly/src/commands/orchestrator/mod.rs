//! `dayfly orchestrator`: runs the slots of pools side by side. The pools come from a configuration file, or one static pool
//! from the options.

pub(crate) mod file;
mod flags;

use std::path::PathBuf;

use dayfly_fleet::orchestrator::{Budget, FailureRule, Orchestration, PoolRun, orchestrate};
use dayfly_host::retry;

use super::runner::prepare::{self, Prepared};
use super::runner::pump::Pump;
use super::runner::refresh;
use super::runner::request::PoolRequest;
use crate::cli::{LoopOptions, OrchestratorArgs};
use crate::exit::{Outcome, Result};
use crate::settings::Places;
use crate::signals::Signals;
pub(crate) use flags::hand_down;

/// The pools to run, and their share of the host.
struct Plan {
    pools: Vec<PoolRequest>,
    budget: Budget,
    /// How many times as large as this host's memory all machines may be; none: the default.
    memory_overcommit: Option<u64>,
    /// Space that stays free on the disk of the state folder, MiB; none: the default.
    disk_reserve_mib: Option<u64>,
    /// Most machines that start at once; none: the number of processors.
    max_starts: Option<usize>,
    /// The common environment directory; none: that of the instance.
    environment: Option<PathBuf>,
}

pub(crate) async fn run(places: &Places, args: OrchestratorArgs, options: LoopOptions) -> Result<Outcome> {
    let mut signals = Signals::take_over()?;
    let json = args.json || options.args.looping.json;
    let plan = match flags::config_file(&args, &options) {
        Some(file) => file::read(places, &file)?,
        None => flags::read(places, &args, &options)?,
    };
    let Prepared { host, instance, pools } = prepare::prepare(places, plan.pools, json).await?;
    host.limit_starts(plan.max_starts);
    host.limit_memory(plan.memory_overcommit);
    host.reserve_disk(plan.disk_reserve_mib);
    let mut pump = Pump::open(&places.state, &instance, json)?;
    let (facts, stream) = dayfly_fleet::stream::channel();
    let (sender, stop) = dayfly_fleet::stop::channel();
    let rule = FailureRule { retry: retry::RUNNER, is_strict: false };
    let resolved: Vec<_> = pools.iter().map(|prepared| prepared.pool.clone()).collect();
    let runs = pools.into_iter().map(|one| PoolRun { pool: one.pool, rule, sources: one.sources });
    let orchestration = Orchestration {
        pools: runs.collect(),
        budget: plan.budget,
        environment: plan.environment.unwrap_or_else(|| instance.environment()),
    };
    let running = orchestrate(orchestration, &host, &facts, None, stop);
    let running = refresh::beside(&resolved, json, running);
    let ((), stopped_by) = super::runner::follow(running, &mut signals, &sender, stream, &mut pump).await;
    prepare::close(&host, instance).await?;
    Ok(stopped_by.map_or(Outcome::Success, Outcome::StoppedBy))
}
