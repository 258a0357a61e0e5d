//! `dayfly runs`, `dayfly usage`, `dayfly net`, `dayfly jobs` and `dayfly why`: questions to the history and to the processes
//! of this host.

use clap::{Args, Subcommand, ValueEnum};
use dayfly_fleet::history::{Outcome, UsageBy};

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

/// Arguments of `dayfly usage`.
#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    /// Property by which runs are added up
    #[arg(long, value_enum, default_value_t = UsageWord::Repository, value_name = "WHAT")]
    pub(crate) by: UsageWord,
    /// Only runs that ended in this time, e.g. 12h, 7d; the history goes back 90 days at most
    #[arg(long, value_name = "TIME", default_value = "30d")]
    pub(crate) since: Time,
    /// Only runs of this pool
    #[arg(long, value_name = "POOL", add = names::pools())]
    pub(crate) pool: Option<String>,
    /// Price of a minute of one virtual CPU of a hosted runner, in any currency: shows what the same machines would cost there
    #[arg(long, env = "DAYFLY_RATE", value_name = "PRICE", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Print comma-separated values instead of a table
    #[arg(long, conflicts_with = "json")]
    pub(crate) csv: bool,
    /// Print one JSON object per line instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// The property by which runs are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum UsageWord {
    /// Repository of the job
    Repository,
    /// Workflow of the job; only a source of jobs that describes single jobs knows it
    Workflow,
    /// Pool of the runner
    Pool,
}

impl UsageWord {
    /// Returns the property.
    pub(crate) fn by(self) -> UsageBy {
        match self {
            Self::Repository => UsageBy::Repository,
            Self::Workflow => UsageBy::Workflow,
            Self::Pool => UsageBy::Pool,
        }
    }
}

/// Parses a price.
fn rate(text: &str) -> Result<f64, String> {
    let price = text.parse::<f64>().ok().filter(|price| price.is_finite() && *price >= 0.0);
    price.ok_or_else(|| "expected a number such as 0.004".to_owned())
}

/// Arguments of `dayfly net`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct NetArgs {
    #[command(subcommand)]
    pub(crate) command: Option<NetCommand>,
    /// Id (e.g. 2-k3V9x0q) or name of the runner
    #[arg(value_name = "RUN", required = true, add = names::runners())]
    pub(crate) run: Option<String>,
    /// Print one JSON object per line instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// Commands of `dayfly net`.
#[derive(Debug, Subcommand)]
pub(crate) enum NetCommand {
    /// Print the list for a configuration file that allows what the last runs of a pool have reached
    Suggest(NetSuggestArgs),
}

/// Arguments of `dayfly net suggest`.
#[derive(Debug, Args)]
pub(crate) struct NetSuggestArgs {
    /// Name of the pool
    #[arg(add = names::pools())]
    pub(crate) pool: String,
    /// Most runs to read, the newest first
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) runs: u32,
    /// Print a JSON object instead of lines of a configuration file
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
