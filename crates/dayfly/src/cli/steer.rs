//! `dayfly pause`, `resume`, `drain` and `scale`: orders for the pools of an orchestrator.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::names;
use crate::config::Time;
use crate::defaults;

/// The orchestrator that an order is for.
#[derive(Debug, Clone, Args)]
pub(crate) struct TargetArgs {
    /// The orchestrator that runs from this file [default: the only orchestrator of this host]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The orchestrator of this instance: its name in `dayfly ps`, or the beginning of that
    #[arg(long, value_name = "NAME", conflicts_with = "config", add = names::instances())]
    pub(crate) instance: Option<String>,
    /// Print one JSON object per line instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `dayfly pause` and `dayfly resume`.
#[derive(Debug, Args)]
pub(crate) struct PoolsArgs {
    /// Names of the pools; without a file, the prefix is the name of the only one [default: all of the orchestrator]
    #[arg(value_name = "POOL", add = names::pools())]
    pub(crate) pools: Vec<String>,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}

/// Arguments of `dayfly drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Names of the pools [default: all, and the orchestrator ends with the last runner]
    #[arg(value_name = "POOL", add = names::pools())]
    pub(crate) pools: Vec<String>,
    /// Wait until no runner is left, and show how many jobs still run
    #[arg(long)]
    pub(crate) wait: bool,
    /// Wait no longer than this, e.g. 30m; the exit status is 1 then, and the drain goes on
    #[arg(long, value_name = "TIME", requires = "wait")]
    pub(crate) timeout: Option<Time>,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}

/// Arguments of `dayfly scale`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("numbers").required(true).multiple(true))]
pub(crate) struct ScaleArgs {
    /// Name of the pool
    #[arg(add = names::pools())]
    pub(crate) pool: String,
    /// Most runners; with the demand static, their number
    #[arg(long, visible_alias = "runners", value_name = "N", group = "numbers", value_parser = clap::value_parser!(u32).range(1..=i64::from(defaults::RUNNERS_MAX)))]
    pub(crate) max: Option<u32>,
    /// Runners without a job that are kept ready, for every demand but static
    #[arg(long, value_name = "N", group = "numbers", value_parser = clap::value_parser!(u32).range(0..=i64::from(defaults::RUNNERS_MAX)))]
    pub(crate) min_idle: Option<u32>,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}
