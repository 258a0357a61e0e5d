//! `dayfly runner`: the options of a loop. The arguments of `dayfly orchestrator` after `--` are parsed as these, too.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, ValueEnum};
use dayfly_fleet::pool::{DNS_DEFAULT, GROUP_DEFAULT, USER_DEFAULT};
use dayfly_vm::{AllowEntry, NetworkPolicy};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::MachineArgs;
use super::switch::Switch;
use crate::config::MaxAge;
use crate::{defaults, rules};

/// The options of a loop, from its own command line or from that of an orchestrator.
#[derive(Debug, Clone, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct RunnerArgs {
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Driver of the machines: qemu, podman-krun, krunvm, process [default: the best that works on this host]
    #[arg(
        short = 'R',
        long = "runtime",
        visible_alias = "driver",
        env = "RUNNER_RUNTIME",
        value_name = "DRIVER",
        help_heading = "Machines"
    )]
    pub(crate) runtime: Option<String>,
    /// Age at which packages are built anew in the background: those of the built-in image, or the kernel and the tools that
    /// dayfly has added to an image from elsewhere; e.g. 12h, and 0 or never for not at all
    #[arg(
        long,
        env = "RUNNER_MAX_AGE",
        default_value = defaults::MAX_AGE,
        value_name = "TIME|never",
        help_heading = "Machines"
    )]
    pub(crate) max_age: MaxAge,
    #[command(flatten)]
    pub(crate) guest: GuestArgs,
    #[command(flatten)]
    pub(crate) forge: ForgeArgs,
    #[command(flatten)]
    pub(crate) looping: LoopArgs,
    /// Print a short help with each option's variable and its current value
    #[arg(short = 'h', exclusive = false)]
    pub(crate) short_help: bool,
    /// Print the long help
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
    /// Number of the loop [default: 0]
    #[arg(last = true, value_name = "LOOP", value_parser = clap::value_parser!(u32).range(0..=999))]
    pub(crate) index: Option<u32>,
}

/// The options for the inside of the machines.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Inside the machines")]
pub(crate) struct GuestArgs {
    /// DNS server of the machines
    #[arg(short, long, env = "RUNNER_DNS", default_value_t = DNS_DEFAULT, value_name = "ADDRESS")]
    pub(crate) dns: IpAddr,
    /// Destinations that the machines reach beside the forge
    #[arg(long, env = "RUNNER_NETWORK", value_enum, default_value = "guarded", value_name = "POLICY")]
    pub(crate) network: NetworkWord,
    /// Destination for --network allow and audit: a name, *.NAME, an address, a network, or github; may be given several times
    #[arg(long, env = "RUNNER_ALLOW", value_name = "DESTINATION[:PORT]", value_delimiter = ',')]
    pub(crate) allow: Vec<String>,
    /// Share a folder or file of this host with the machines; may be given several times (variable: one per line)
    #[arg(
        short = 'M',
        long = "mount",
        env = "RUNNER_MOUNT",
        value_name = "HOST:VM[:OPTIONS]",
        value_delimiter = '\n'
    )]
    pub(crate) mounts: Vec<String>,
    /// Mount this host's folder of guest programs at this path in the machines; the entrypoint then runs from there
    #[arg(short = 'D', long = "dir", env = "RUNNER_DIR", value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Folder of guest programs on this host, for -D [default: the folder of the guest binary]
    #[arg(long, value_name = "DIR")]
    pub(crate) guest_dir: Option<PathBuf>,
    /// Path of the entrypoint in the machines [default: the one in -D, else the guest binary from this host]
    #[arg(long, env = "RUNNER_ENTRYPOINT", value_name = "FILE")]
    pub(crate) entrypoint: Option<PathBuf>,
    /// User that jobs run as
    #[arg(short, long, env = "RUNNER_USER", default_value = USER_DEFAULT)]
    pub(crate) user: String,
    /// Let the runner app update itself
    #[arg(short = 'U', long, env = "RUNNER_UPDATE", value_parser = FalseyValueParser::new())]
    pub(crate) update: bool,
}

/// The options of registrations.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Registration")]
pub(crate) struct ForgeArgs {
    /// Forge of the runners: a host or a URL
    #[arg(
        short = 'g',
        long = "github",
        visible_alias = "forge",
        env = "RUNNER_GITHUB",
        default_value = defaults::FORGE_HOST,
        value_name = "FORGE"
    )]
    pub(crate) forge: String,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    /// Labels to add to self-hosted, Linux and the architecture, separated by commas
    /// [default: krun, the distribution, dayfly]
    #[arg(short = 'L', long, env = "RUNNER_LABELS", value_delimiter = ',', value_name = "LABELS")]
    pub(crate) labels: Vec<String>,
    /// How to register runners [default: jit, or token if RUNNER_EPHEMERAL is 0]
    #[arg(long, value_enum)]
    pub(crate) registration: Option<RegistrationWord>,
    /// Run one job or many in each machine
    #[arg(
        long,
        env = "RUNNER_EPHEMERAL",
        default_value = "1",
        value_parser = Switch {
            on: "Create one runner per job",
            off: "Run one job after another in the same machine, with --registration token",
        },
        action = clap::ArgAction::Set,
        value_name = "0|1"
    )]
    pub(crate) ephemeral: bool,
    /// Serve a public repository, or a group that public repositories may use: strangers bring jobs by pull requests
    #[arg(long, env = "RUNNER_ALLOW_PUBLIC", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) allow_public: bool,
    /// Run jobs of pull requests from forks; without it, the official runner app ends them before their first step
    #[arg(long, env = "RUNNER_ALLOW_FORKS", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) allow_forks: bool,
    /// Name this host in the log of each job [default: 1, or 0 with --allow-public]
    #[arg(
        long,
        env = "RUNNER_SHOW_HOST",
        value_parser = Switch {
            on: "Each job's log names the host",
            off: "No job learns the host's name",
        },
        action = clap::ArgAction::Set,
        value_name = "0|1"
    )]
    pub(crate) show_host: Option<bool>,
}

/// The owner of runners at a forge, and the credential for it.
#[derive(Debug, Clone, Args)]
pub(crate) struct AccessArgs {
    /// Scope of the runners: repo, org or enterprise (the first three letters suffice)
    #[arg(short, long, env = "RUNNER_SCOPE", default_value = "repo")]
    pub(crate) scope: String,
    /// Owner of the runners: OWNER/REPO, or the name of the organisation or enterprise
    #[arg(short, long, env = "RUNNER_PRINCIPAL", value_name = "NAME")]
    pub(crate) principal: Option<String>,
    /// Runner group, by name; a repository has only Default
    #[arg(short = 'G', long, env = "RUNNER_GROUP", default_value = GROUP_DEFAULT)]
    pub(crate) group: String,
    /// Token for the forge's API; prefer RUNNER_PAT or --pat-file, because every user of this host can read arguments
    #[arg(short = 'T', long = "pat", visible_alias = "token", env = "RUNNER_PAT", hide_env_values = true)]
    pub(crate) pat: Option<SecretString>,
    /// File that contains the token; only its owner may be able to read it
    #[arg(long, value_name = "FILE")]
    pub(crate) pat_file: Option<PathBuf>,
    /// GitHub App in place of a token: its app id or client id
    #[arg(long, env = "RUNNER_APP_ID", value_name = "ID")]
    pub(crate) app_id: Option<String>,
    /// Installation of the GitHub App [default: the one for the owner of the runners]
    #[arg(long, env = "RUNNER_APP_INSTALLATION", value_name = "ID")]
    pub(crate) app_installation: Option<u64>,
    /// File that contains the private key of the GitHub App; only its owner may be able to read it
    #[arg(long, env = "RUNNER_APP_KEY_FILE", value_name = "FILE")]
    pub(crate) app_key_file: Option<PathBuf>,
    /// File with certificates of authorities (PEM) that are trusted beside the system's, also in the machines
    #[arg(long, env = "RUNNER_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

impl AccessArgs {
    /// Returns true if the options name the owner of runners.
    pub(crate) fn names_owner(&self) -> bool {
        self.principal.as_deref().is_some_and(|principal| !principal.is_empty())
    }
}

/// The way in which runners are registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RegistrationWord {
    /// This host registers the runner; the machine gets an identity for one job
    Jit,
    /// The machine registers itself, with a registration token that is valid for an hour
    Token,
}

/// The network policy of machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NetworkWord {
    /// The forge alone
    None,
    /// The internet and the forge; neither this host nor private networks
    Guarded,
    /// The destinations of a list, and the forge
    Allow,
    /// As open, but with names from dayfly's resolver; records what guarded and a list would deny (dayfly net)
    Audit,
    /// Everything that this host reaches, and this host itself; no other machine
    Open,
}

impl NetworkWord {
    /// Returns the policy that the word names, with this list.
    pub(crate) fn policy(self, allow: Vec<AllowEntry>) -> NetworkPolicy {
        match self {
            Self::None => NetworkPolicy::None,
            Self::Guarded => NetworkPolicy::Guarded,
            Self::Allow => NetworkPolicy::Allow(allow),
            Self::Audit => NetworkPolicy::Audit(allow),
            Self::Open => NetworkPolicy::Open,
        }
    }
}

/// The options of the loop itself.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The loop")]
pub(crate) struct LoopArgs {
    /// Number of runners to create, one after another; 0 or less: until stopped
    #[arg(
        short,
        long,
        env = "RUNNER_REPEAT",
        default_value_t = -1,
        allow_negative_numbers = true,
        value_name = "N"
    )]
    pub(crate) repeat: i64,
    /// Stop a runner after this many seconds, even if it is busy; the loop ends with it
    #[arg(short = 'k', long = "terminate", env = "RUNNER_TERMINATE", value_name = "SECONDS")]
    pub(crate) terminate: Option<u64>,
    /// Secret of the handshake between loop and entrypoint [default: a random one for each runner]
    #[arg(short = 'S', long, env = "RUNNER_SECRET", hide_env_values = true)]
    pub(crate) secret: Option<String>,
    /// Prefix of the names of machines and registrations
    #[arg(long, env = "RUNNER_PREFIX", default_value = defaults::PREFIX, value_parser = rules::prefix)]
    pub(crate) prefix: String,
    /// Environment directory of the loop [default: a folder of this process, removed at its end]
    #[arg(long, env = "RUNNER_ENVIRONMENT", value_name = "DIR")]
    pub(crate) environment: Option<PathBuf>,
    /// Write log lines to this destination: a number is an open descriptor, anything else is a file
    #[arg(short, long, env = "RUNNER_LOG", default_value = "2", value_name = "FD|FILE")]
    pub(crate) log: String,
    /// Set the verbosity of the log: 0 warnings and errors, 1 info, 2 debug, 3 trace; -v counts up from 0
    #[arg(long, env = "RUNNER_VERBOSE", default_value_t = 0, value_name = "0..3")]
    pub(crate) verbosity: u8,
    /// Print each event on standard output, as one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
}

// The arguments of an orchestrator after `--`.
#[derive(Debug, Parser)]
#[command(
    name = "dayfly runner",
    about = "Create ephemeral runners, one after another: the options of an orchestrator's loops",
    disable_help_flag = true,
    no_binary_name = true
)]
pub(crate) struct LoopCommand {
    /// Log more (-v info, -vv debug, -vvv trace)
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(flatten)]
    pub(crate) args: RunnerArgs,
}

/// Variables of a loop that have no option.
pub(crate) const VARIABLES: &[(&str, &str)] = &[
    ("RUNNER_*", "all others go to the entrypoint and its jobs, except those of this host and secrets"),
    ("NO_COLOR", "no colours"),
    ("HTTPS_PROXY", "a proxy for the forge, also as https_proxy; NO_PROXY lists hosts without one"),
];
