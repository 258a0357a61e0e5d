//! `dayfly orchestrator`: its own options. All arguments after `--` are options of its loops.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use dayfly_web::ListenAddress;

use super::switch::Switch;
use crate::{defaults, rules};

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct OrchestratorArgs {
    /// Configuration file with the pools to run, in place of the options for one pool; `dayfly reload` and SIGHUP have it read
    /// again
    /// [default: /etc/dayfly/dayfly.toml, if it exists and no other option names the owner of runners]
    #[arg(long, env = "ORCHESTRATOR_CONFIG", value_name = "FILE", conflicts_with = "runner")]
    pub(crate) config: Option<PathBuf>,
    /// Number of loops, each of which creates one runner after another
    #[arg(short = 'n', long, env = "ORCHESTRATOR_RUNNERS", default_value_t = defaults::RUNNERS, value_parser = parse_loops)]
    pub(crate) runners: u32,
    /// Seconds between the starts of loops, if the loops are not isolated
    #[arg(short, long, env = "ORCHESTRATOR_SLEEP", default_value_t = 30, value_name = "SECONDS")]
    pub(crate) sleep: u64,
    /// Start loops at a fixed interval (--sleep), without waiting for the runner of the previous loop
    #[arg(short = 'I', long)]
    pub(crate) no_isolation: bool,
    /// When to start the next loop
    #[arg(
        long,
        env = "ORCHESTRATOR_ISOLATION",
        default_value = "1",
        value_parser = Switch {
            on: "When the previous one has a runner",
            off: "At a fixed interval, as with -I",
        },
        action = clap::ArgAction::Set,
        value_name = "0|1"
    )]
    pub(crate) isolation: bool,
    /// Prefix of the names of machines and registrations
    #[arg(
        short,
        long,
        env = "ORCHESTRATOR_PREFIX",
        default_value = defaults::PREFIX,
        value_parser = rules::prefix
    )]
    pub(crate) prefix: String,
    /// Driver of the machines: qemu, podman-krun, krunvm, process [default: the best that works on this host]
    #[arg(short = 'R', long, env = "ORCHESTRATOR_RUNTIME", value_name = "DRIVER")]
    pub(crate) runtime: Option<String>,
    /// Write log lines to this destination: a number is an open descriptor, anything else is a file
    #[arg(short, long, env = "ORCHESTRATOR_LOG", default_value = "2", value_name = "FD|FILE")]
    pub(crate) log: String,
    /// Set the verbosity of the log: 0 warnings and errors, 1 info, 2 debug, 3 trace; -v counts up from 0
    #[arg(long, env = "ORCHESTRATOR_VERBOSE", default_value_t = 0, value_name = "0..3")]
    pub(crate) verbosity: u8,
    /// Common environment directory of the loops [default: a folder of this process, removed at its end]
    #[arg(long, env = "ORCHESTRATOR_ENVIRONMENT", value_name = "DIR")]
    pub(crate) environment: Option<PathBuf>,
    /// Number of loops that may start at once
    #[arg(long, default_value_t = defaults::PARALLEL_START, value_parser = clap::value_parser!(u32).range(1..=i64::from(defaults::STARTS_MAX)), value_name = "N")]
    pub(crate) parallel_start: u32,
    /// Serve a page and metrics at this address, read-only; needs --listen-token unless only this host can connect
    #[arg(long, env = "ORCHESTRATOR_LISTEN", value_name = "ADDRESS:PORT|unix:PATH")]
    pub(crate) listen: Option<ListenAddress>,
    /// File with the token that clients of --listen need; only its owner may be able to read it (mode 0600)
    #[arg(long, env = "ORCHESTRATOR_LISTEN_TOKEN", value_name = "FILE", requires = "listen")]
    pub(crate) listen_token: Option<PathBuf>,
    /// Print each event on standard output, as one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
    /// Print a short help with each option's variable and its current value
    #[arg(short = 'h')]
    pub(crate) short_help: bool,
    /// Print the long help
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
    /// Options of the loops: those of `dayfly runner`
    #[arg(last = true, value_name = "RUNNER OPTIONS", allow_hyphen_values = true)]
    pub(crate) runner: Vec<OsString>,
}

fn parse_loops(text: &str) -> Result<u32, String> {
    let loops: i64 = text.parse().map_err(|error: std::num::ParseIntError| error.to_string())?;
    let allowed = u32::try_from(loops).ok().filter(|loops| (1..=defaults::RUNNERS_MAX).contains(loops));
    allowed.ok_or_else(|| {
        format!(
            "an orchestrator has 1 to {} loops, since their numbers have three digits; start several orchestrators for \
             more",
            defaults::RUNNERS_MAX
        )
    })
}

/// Variables of an orchestrator that have no option.
pub(crate) const VARIABLES: &[(&str, &str)] =
    &[("RUNNER_*", "options of the loops; see `dayfly runner -h`"), ("NO_COLOR", "no colours")];
