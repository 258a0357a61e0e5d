//! `dayfly orchestrator`: runs the slots of a static pool side by side.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_fleet::demand::{Demand, StartOrder};
use dayfly_fleet::orchestrator::{self, Budget, FailureRule, Orchestration, PoolRun, orchestrate};
use dayfly_host::retry;

use super::runner::prepare::{self, Prepared};
use super::runner::pump::Pump;
use super::runner::refresh;
use super::runner::request::PoolRequest;
use crate::cli::{LoopOptions, OrchestratorArgs};
use crate::exit::{Failure, Outcome, Result};
use crate::settings::Places;
use crate::signals::Signals;

/// Passes the orchestrator's options on to its loops, unless their own options say otherwise.
pub(crate) fn hand_down(args: &OrchestratorArgs, verbose: u8, options: &mut LoopOptions) {
    if options.verbose == 0 && !options.is_argument("verbosity") {
        options.verbose = verbose;
        options.args.looping.verbosity = options.args.looping.verbosity.max(args.verbosity);
    }
    if !options.is_argument("log") {
        options.args.looping.log.clone_from(&args.log);
    }
    if !options.is_argument("prefix") {
        options.args.looping.prefix.clone_from(&args.prefix);
    }
    if !options.is_argument("runtime") && args.runtime.is_some() {
        options.args.runtime.clone_from(&args.runtime);
    }
}

pub(crate) async fn run(places: &Places, args: OrchestratorArgs, options: LoopOptions) -> Result<Outcome> {
    let mut signals = Signals::take_over()?;
    let mut request = PoolRequest::read(&options, places)?;
    request.spec.demand = Demand::Static { runners: args.runners, start: start_order(&args) };
    let json = args.json || options.args.looping.json;
    let Prepared { host, instance, pools } = prepare::prepare(places, vec![request], json).await?;
    let environment = match args.environment.as_deref() {
        Some(folder) => make_environment(folder)?,
        None => instance.environment(),
    };
    let mut pump = Pump::open(&places.state, &instance, json)?;
    let (facts, stream) = dayfly_fleet::stream::channel();
    let (sender, stop) = dayfly_fleet::stop::channel();
    let rule = FailureRule { retry: retry::RUNNER, is_strict: false };
    let runs = pools.iter().map(|pool| PoolRun { pool: pool.clone(), rule }).collect();
    let orchestration = Orchestration { pools: runs, budget: Budget::default(), environment };
    let running = orchestrate(orchestration, &host, &facts, None, stop);
    let running = refresh::beside(&pools, json, running);
    let ((), stopped_by) = super::runner::follow(running, &mut signals, &sender, stream, &mut pump).await;
    prepare::close(&host, instance).await?;
    Ok(stopped_by.map_or(Outcome::Success, Outcome::StoppedBy))
}

fn start_order(args: &OrchestratorArgs) -> StartOrder {
    if args.isolation && !args.no_isolation {
        StartOrder::Isolated { parallel: args.parallel_start, limit: orchestrator::UP_LIMIT }
    } else {
        StartOrder::Paused(Duration::from_secs(args.sleep))
    }
}

/// Creates the common environment directory of the user's choice. It stays; only the files of the loops are removed.
fn make_environment(folder: &Path) -> Result<PathBuf> {
    let failed = |error| Failure::usage(format!("ORCHESTRATOR_ENVIRONMENT {}: {error}", folder.display()));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    std::fs::canonicalize(folder).map_err(failed)
}
