//! `dayfly runs`, `dayfly jobs` and `dayfly why`: questions to the history and to the processes of this host.

use clap::Args;
use dayfly_fleet::history::Outcome;

use super::names;
use crate::config::Time;

/// Arguments of `dayfly runs`.
#[derive(Debug, Args)]
pub(crate) struct RunsArgs {
    /// Only runs of this pool
    #[arg(long, value_name = "POOL", add = names::pools())]
    pub(crate) pool: Option<String>,
    /// Only runs with a job of this repository
    #[arg(long, value_name = "OWNER/NAME")]
    pub(crate) repository: Option<String>,
    /// Only runs with this result: success, failure, cancelled, skipped, lost (a job without a result), no-job, not-up
    #[arg(long, value_name = "RESULT")]
    pub(crate) conclusion: Option<Outcome>,
    /// Only runs that ended in this time, e.g. 2h, 7d
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Time>,
    /// Most runs to list
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
    /// Print one JSON object per line instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `dayfly jobs`.
#[derive(Debug, Args)]
pub(crate) struct JobsArgs {
    /// Only jobs of this pool
    #[arg(long, value_name = "POOL", add = names::pools())]
    pub(crate) pool: Option<String>,
    /// Most jobs that have ended to list, after those that wait and run
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) ended: u32,
    /// Print one JSON object per line instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `dayfly why`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("asked").required(true))]
pub(crate) struct WhyArgs {
    /// Name of a pool; id or name of a job; id or name of a runner
    #[arg(value_name = "JOB|POOL|RUN", group = "asked", add = names::subjects())]
    pub(crate) subject: Option<String>,
    /// Labels of a job that no process of this host knows: which pool has them, or is nearest
    #[arg(long, value_name = "LABEL,...", value_delimiter = ',', group = "asked")]
    pub(crate) labels: Vec<String>,
    /// Print one JSON object per line instead of text
    #[arg(long)]
    pub(crate) json: bool,
}
