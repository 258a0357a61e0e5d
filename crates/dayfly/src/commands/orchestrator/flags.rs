//! One static pool from the options of an orchestrator and of its loops, as the shell version has it.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_fleet::demand::{Demand, StartOrder};
use dayfly_fleet::orchestrator::UP_LIMIT;
use dayfly_fleet::pool::PoolSpec;

use super::reload::PoolText;
use super::{HostShare, Plan, web};
use crate::cli::{LoopOptions, OrchestratorArgs};
use crate::commands::runner::request::PoolRequest;
use crate::config::{DemandWord, HostBudget, PoolConfig, Schedule, Timeouts};
use crate::defaults;
use crate::exit::{Failure, Result};
use crate::settings::Places;

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

/// Returns the configuration file that the pools come from; none if they come from the options. Without `--config`, the usual
/// file counts if it is there and the options name no owner of runners.
pub(super) fn config_file(args: &OrchestratorArgs, options: &LoopOptions) -> Option<PathBuf> {
    let usual = Path::new(defaults::CONFIG_FILE);
    let is_usual = args.runner.is_empty() && !options.args.forge.access.names_owner() && usual.exists();
    args.config.clone().or_else(|| is_usual.then(|| usual.to_owned()))
}

/// Returns the pool of the options.
pub(super) fn read(places: &Places, args: &OrchestratorArgs, options: &LoopOptions) -> Result<Plan> {
    let mut request = PoolRequest::read(options, places)?;
    request.spec.demand = Demand::Static { runners: args.runners, start: start_order(args) };
    request.spec.name = Some(request.spec.prefix.clone());
    let config = pool_config(&request.spec, args.runners);
    Ok(Plan {
        pools: vec![(PoolText::read(config), request)],
        share: HostShare::default(),
        host_budget: HostBudget::default(),
        environment: args.environment.as_deref().map(make_environment).transpose()?,
        webhook: None,
        web: web::listen(args, None)?,
        traces: None,
        file: None,
    })
}

/// Returns the pool as a file would describe it, so that an administrator can give the same orders for it. Its name is the prefix.
fn pool_config(spec: &PoolSpec, runners: u32) -> PoolConfig {
    PoolConfig {
        name: spec.prefix.clone(),
        forge: String::new(),
        spec: spec.clone(),
        sources: vec![DemandWord::Static],
        scale_set: None,
        min_idle: 0,
        max: runners,
        schedule: Schedule::default(),
        timeouts: Timeouts::default(),
        weight: spec.weight,
        sizes: Vec::new(),
    }
}

fn start_order(args: &OrchestratorArgs) -> StartOrder {
    if args.isolation && !args.no_isolation {
        StartOrder::Isolated { parallel: args.parallel_start, limit: UP_LIMIT }
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
