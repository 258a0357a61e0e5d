//! `dayfly orchestrator`: runs the slots of pools side by side. The pools come from a configuration file, or one static pool
//! from the options.

pub(crate) mod file;
mod flags;
mod reload;
mod steer;
mod traces;
mod waiting;
mod web;
mod webhook;

use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_fleet::orchestrator::{
    Budget, CHANGES_MAX, FailureRule, Heartbeat, Orchestration, PoolRun, orchestrate,
};
use dayfly_host::retry;
use tokio::sync::mpsc;

use super::machine;
use super::runner::prepare::{self, Prepared, PreparedPool};
use super::runner::pump::Pump;
use super::runner::refresh::Keepers;
use super::runner::request::PoolRequest;
use super::validate;
use crate::cli::{LoopOptions, OrchestratorArgs};
use crate::config::HostBudget;
use crate::control;
use crate::exit::{Failure, Outcome, Result};
use crate::service::Service;
use crate::settings::Places;
use crate::signals::Signals;
use file::{Clients, FileConfig};
pub(crate) use flags::hand_down;
use reload::{KnownPool, PoolText, RunningFile, RunningPools, Triggers};
use traces::Traces;
use waiting::WaitingPools;
use web::Web;
use webhook::Webhook;

/// Shortest time between two signs of life, whatever the service manager demands.
const BEAT_MIN: Duration = Duration::from_millis(10);

/// The pools to run, and their share of the host.
struct Plan {
    /// Each as an administrator and a reload know it, and its request.
    pools: Vec<(PoolText, PoolRequest)>,
    share: HostShare,
    /// The share of the host, as the file gives it.
    host_budget: HostBudget,
    /// The common environment directory; none: that of the instance.
    environment: Option<PathBuf>,
    /// The server for webhooks, if the file has one.
    webhook: Option<Webhook>,
    /// The server for the page and the metrics, if one is wanted.
    web: Option<Web>,
    /// The traces, if the file has a collector.
    traces: Option<Traces>,
    /// The file that the pools come from; none: options.
    file: Option<RunningFile>,
}

/// The share of this host that all pools together may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct HostShare {
    budget: Budget,
    /// How many times as large as this host's memory all machines may be; none: the default.
    memory_overcommit: Option<u64>,
    /// Space that stays free on the disk of the state folder, MiB; none: the default.
    disk_reserve_mib: Option<u64>,
    /// Most space of the machines that are kept after a failed job, MiB; none: the default.
    kept_mib: Option<u64>,
    /// Most machines that start at once; none: the number of processors.
    max_starts: Option<usize>,
}

pub(crate) async fn run(places: &Places, args: OrchestratorArgs, options: LoopOptions) -> Result<Outcome> {
    let mut signals = Signals::take_over()?.with_hand_over()?;
    let json = args.json || options.args.looping.json;
    let (service, service_end) = Service::start();
    let (plan, hang_ups) = match flags::config_file(&args, &options) {
        Some(path) => {
            // Before the file is read, so that no change of it is missed.
            let hang_ups = signals.take_hang_ups()?;
            (plan_of(places, &path, &args)?, Some(hang_ups))
        }
        None => (flags::read(places, &args, &options)?, None),
    };
    // Both serve at once, because the first machines take their time: a delivery is sent once, and a reader need not wait.
    let serving = plan.webhook.map(Webhook::start);
    let trace_counts = plan.traces.as_ref().map(Traces::counts);
    let (showing, feed) = plan.web.map(|web| web.start(&places.state, trace_counts)).unzip();
    let (exporting, traced) = plan.traces.map(Traces::start).unzip();
    let host = machine::unchecked_host(places);
    let resolving = async {
        let asked = prepare::ask_patiently(plan.pools, &service).await?;
        let (texts, answered): (Vec<_>, Vec<_>) = asked.known.into_iter().unzip();
        let resolved = prepare::resolve(places, &host, answered, json).await?;
        Ok::<_, Failure>((texts, resolved, asked.waiting))
    };
    let (texts, resolved, waiting) = tokio::select! {
        resolved = resolving => resolved?,
        signal = signals.next() => return Ok(Outcome::StoppedBy(signal)),
    };
    let Prepared { host, mut instance, pools } = prepare::prepare(places, host, resolved, None, json).await?;
    host.limit_starts(plan.share.max_starts);
    host.limit_memory(plan.share.memory_overcommit);
    host.reserve_disk(plan.share.disk_reserve_mib);
    host.limit_kept(plan.share.kept_mib);
    let pump = Pump::open(&places.state, &instance, json)?.reporting_to(service.clone());
    let (publisher, site) = feed.map(|feed| (feed.publisher, feed.site)).unzip();
    let (tracer, repositories) = traced.map(|feed| (feed.writer, feed.repositories)).unzip();
    let pump = pump.naming_pools(plan.file.is_some()).publishing_to(publisher);
    let mut pump = pump.tracing_to(tracer);
    let (facts, stream) = dayfly_fleet::stream::channel();
    let (sender, stop) = dayfly_fleet::stop::channel();
    let resolved: Vec<_> = pools.iter().map(|prepared| prepared.pool.clone()).collect();
    let keepers = Keepers::of(&resolved, json);
    let (pools, controls): (Vec<_>, Vec<_>) = pools.into_iter().map(run_of).unzip();
    let (changes_sender, changes) = mpsc::channel(CHANGES_MAX);
    let orchestration = Orchestration {
        pools,
        budget: plan.share.budget,
        environment: plan.environment.unwrap_or_else(|| instance.environment()),
        changes: Some(changes),
        ends_with_demand: plan.file.is_none(),
        heartbeat: heartbeat(&service),
    };
    let running = orchestrate(orchestration, &host, &facts, None, stop);
    let running = webhook::beside(serving, &facts, running);
    // Boxed, because a caller's future has room for each future that it gets, and again for that which it awaits. Together they
    // took a megabyte of the stack, which stays with the process.
    let running = Box::pin(web::beside(showing, running));
    let (asks, served) = control::serve(instance.folder())?;
    let known = texts.into_iter().zip(resolved).zip(controls);
    let known = known.map(|((text, pool), controls)| KnownPool { text, pool, controls, is_paused: false });
    let pools = RunningPools {
        file: plan.file,
        pools: known.collect(),
        drained: Vec::new(),
        waiting: WaitingPools::after_the_start(waiting, &facts),
        is_ending: false,
        host_budget: plan.host_budget,
        budget: plan.share.budget,
        site,
        repositories,
        places,
        json,
        host: &host,
        instance: &mut instance,
        keepers,
        changes: changes_sender,
        service: service.clone(),
    };
    let answering = Box::pin(pools.serve(Triggers { hang_ups, asks }));
    let running = async {
        tokio::select! {
            () = running => {}
            never = answering => match never {},
            never = served => match never {},
        }
    };
    service.ready();
    let (_, stopped_by) =
        super::runner::follow(running, &host, &mut signals, &sender, stream, &mut pump).await;
    prepare::close(&host, instance, stopped_by).await?;
    drop((service, pump));
    if let Some(exporting) = exporting {
        exporting.close().await;
    }
    service_end.wait();
    Ok(stopped_by.map_or(Outcome::Success, Outcome::StoppedBy))
}

/// Returns the sign of life for the service manager's watchdog, twice in each of its intervals.
fn heartbeat(service: &Service) -> Option<Heartbeat> {
    let (interval, service) = (service.watchdog()?, service.clone());
    Some(Heartbeat::new((interval / 2).max(BEAT_MIN), move || service.alive()))
}

/// Reads the pools of a file, and prints its problems.
fn plan_of(places: &Places, path: &Path, args: &OrchestratorArgs) -> Result<Plan> {
    let FileConfig { config, share } = file::read(places, path, validate::show)?;
    // Also if no pool takes webhooks yet, because a reload may bring one.
    let webhook = config.webhook.as_ref().map(webhook::listen).transpose()?;
    let web = web::listen(args, config.web.as_ref())?;
    let traces = traces::open(config.traces.as_ref(), &places.state)?;
    let mut clients = Clients::new(&config, webhook.as_ref().map(Webhook::subscriber))?;
    let mut request = |pool| {
        let request = file::request(&pool, &mut clients)?;
        Ok((PoolText::read(pool), request))
    };
    let pools = config.pools.into_iter().map(&mut request).collect::<Result<_>>()?;
    let path = std::path::absolute(path).map_err(Failure::cannot)?;
    Ok(Plan {
        pools,
        share,
        host_budget: config.host,
        environment: None,
        webhook,
        web,
        traces,
        file: Some(RunningFile {
            path,
            clients,
            webhook: config.webhook,
            web: config.web,
            traces: config.traces,
        }),
    })
}

/// Returns what an orchestrator gets of a pool, and what a reload needs of it.
fn run_of(prepared: PreparedPool) -> (PoolRun, prepare::Controls) {
    let rule = FailureRule { retry: retry::RUNNER, is_strict: false };
    let PreparedPool { pool, sources, controls, inherited } = prepared;
    (PoolRun { pool, rule, sources, inherited }, controls)
}
