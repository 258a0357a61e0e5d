//! The command line: parsed arguments only. [`crate::commands`] resolves them to settings.

mod app;
mod clear;
mod config;
mod history;
mod lab;
mod names;
pub(crate) mod orchestrator;
mod parse;
pub(crate) mod runner;
mod session;
pub(crate) mod short_help;
mod soak;
mod steer;
mod switch;
pub(crate) mod token;
mod uninstall;

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use dayfly_fleet::pool::{DNS_DEFAULT, FetchSpec, MachineSpec, USER_DEFAULT};
use dayfly_image::PullPolicy;
use dayfly_vm::{AccelChoice, DriverKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{MaxAge, Time};
use crate::{defaults, rules};

pub(crate) use app::{AppCommand, AppCreateArgs, AppScope};
pub(crate) use clear::{ClearArgs, DeletesArgs};
pub(crate) use config::{InitArgs, ReloadArgs, ValidateArgs};
pub(crate) use history::{
    JobsArgs, NetArgs, NetCommand, NetSuggestArgs, RunsArgs, UsageArgs, UsageWord, WhyArgs,
};
pub(crate) use lab::{FaultAddArgs, LabCommand, LabFaultArgs, LabFaultCommand, LabServeArgs};
pub(crate) use orchestrator::OrchestratorArgs;
pub(crate) use parse::{LoopOptions, Parsed, is_argument, parse, parse_loop};
pub(crate) use runner::{AccessArgs, LoopCommand, NetworkWord, RegistrationWord, RunnerArgs};
pub(crate) use session::{CpArgs, ExecArgs, SessionArgs, ShellArgs, ThawArgs};
pub(crate) use soak::{KillWord, LabSoakArgs, SoakDriver, Trouble};
pub(crate) use steer::{DrainArgs, PoolsArgs, ScaleArgs, TargetArgs};
pub(crate) use token::TokenArgs;
pub(crate) use uninstall::UninstallArgs;

/// Run each CI job in a machine of its own, for one job.
#[derive(Debug, Parser)]
#[command(name = "dayfly", version, propagate_version = true, disable_help_subcommand = true)]
#[command(after_help = "Exit status: 0 success, 1 the run did not succeed, 2 usage or a refused workflow, \
    3 this host or the forge cannot, 130/143 stopped by a signal.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Places and log")]
pub(crate) struct Common {
    /// Folder of images, runs and instances [default: /var/lib/dayfly as root, else ~/.local/state/dayfly]
    #[arg(long, global = true, env = "DAYFLY_STATE", value_name = "DIR", hide_env_values = true)]
    pub(crate) state: Option<PathBuf>,
    /// Static binary that runs in the machines [default: dayfly-guest beside this program]
    #[arg(long, global = true, env = "DAYFLY_GUEST", value_name = "FILE", hide_env_values = true)]
    pub(crate) guest_binary: Option<PathBuf>,
    /// QEMU's program [default: qemu-system-x86_64 in the usual folders]
    #[arg(long, global = true, env = "DAYFLY_QEMU", value_name = "FILE", hide_env_values = true)]
    pub(crate) qemu: Option<PathBuf>,
    /// JSON file of mirrors, authorities and unencrypted registries [default: registries.json in ~/.config/dayfly or
    /// /etc/dayfly, if it exists]
    #[arg(long, global = true, env = "DAYFLY_REGISTRIES", value_name = "FILE", hide_env_values = true)]
    pub(crate) registries: Option<PathBuf>,
    /// Log more (-v info, -vv debug, -vvv trace), on standard error
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a workflow file in microVMs and show its log
    Demo(DemoArgs),
    /// Run several loops side by side, each of which creates one ephemeral runner after another
    Orchestrator(OrchestratorArgs),
    /// Run one loop, which creates ephemeral runners one after another
    Runner(Box<RunnerArgs>),
    /// Print a registration token, for a runner that you start yourself
    Token(TokenArgs),
    /// Write a configuration file with one pool, from answers or options
    Init(Box<InitArgs>),
    /// Create the GitHub App that dayfly uses in place of a token
    #[command(subcommand)]
    App(AppCommand),
    /// Check a configuration file and show its pools
    Validate(ValidateArgs),
    /// Have the orchestrators of this host read their configuration file again, and show what has changed
    Reload(ReloadArgs),
    /// Start no runner in some pools until they are resumed; jobs that run go on
    Pause(PoolsArgs),
    /// Start runners again in pools that were paused or drained
    Resume(PoolsArgs),
    /// End some pools, or the whole orchestrator, each with its last job
    Drain(DrainArgs),
    /// Change how many runners a pool has, until the next reload or restart
    Scale(ScaleArgs),
    /// List the loops, runners and machines of this host
    Ps(PsArgs),
    /// Show pools and machines at the terminal as they change, with the CPU, memory, network and disk of each machine
    #[command(
        after_help = "It needs a terminal; `dayfly ps` prints the same once. The key ? lists the keys."
    )]
    Top,
    /// Show who uses the scratch space of this host: runs, spares and templates
    Disk(DiskArgs),
    /// List the jobs that wait and run on this host, and those that ended last
    Jobs(JobsArgs),
    /// List the runs that have ended, with their jobs and results, the newest first
    Runs(RunsArgs),
    /// Show what machines have used, how long jobs have waited, and which sizes would fit better
    Usage(UsageArgs),
    /// Show what a machine has reached in its network and what it was denied, or suggest a list for its pool
    Net(NetArgs),
    /// Remove what processes have left that have died and that no start follows
    Clear(Box<ClearArgs>),
    /// Remove everything that dayfly has left on this host, after showing it and asking
    Uninstall(Box<UninstallArgs>),
    /// Say why a job waits or how it ended, and what to do
    Why(WhyArgs),
    /// Print the log of a runner, also after its end
    Logs(LogsArgs),
    /// Run a program in the machine of a runner, beside its job, with input and output here
    Exec(ExecArgs),
    /// Open a shell in the machine of a runner, beside its job
    Shell(ShellArgs),
    /// Copy a file into the machine of a runner, or out of it
    Cp(CpArgs),
    /// Bring back the machine of a failed job that was kept, and open a shell in it; without a runner, list these machines
    Thaw(ThawArgs),
    /// Show how long each phase of a runner took
    Trace(TraceArgs),
    /// Run the built-in forge, order failures of it, and hold dayfly against them
    #[command(subcommand)]
    Lab(LabCommand),
    /// Manage the images that machines boot
    #[command(subcommand)]
    Image(ImageCommand),
    /// Manage the frozen machines that others are forked from
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Check what this host supports and print the commands that fix it
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    Completions {
        /// Name of the shell
        shell: clap_complete::Shell,
        /// Program that the script asks, for a script that is installed [default: this program]
        #[arg(long, value_name = "FILE")]
        program: Option<PathBuf>,
    },
    /// Write the man pages, one for each command, into a folder
    Man {
        /// Folder of the pages; it is created if it is missing
        folder: PathBuf,
    },
    /// Start a VMM in its jail (internal)
    #[command(hide = true)]
    VmmLaunch {
        /// Descriptor that the plan is read from
        fd: i32,
    },
}

/// The accelerator of machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Accel {
    /// KVM if a probe machine boots with it, else emulation
    Auto,
    /// KVM only; fails if it does not work
    Kvm,
    /// Software emulation
    Tcg,
}

impl Accel {
    /// Returns the accelerator that the option requests.
    pub(crate) fn choice(self) -> AccelChoice {
        match self {
            Self::Auto => AccelChoice::Auto,
            Self::Kvm => AccelChoice::Kvm,
            Self::Tcg => AccelChoice::Tcg,
        }
    }

    /// Returns the word on the command line and in a configuration file.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// When dayfly asks a registry for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Pull {
    /// Before each runner; if the registry does not answer, the local image is used
    Always,
    /// Only if there is no local image
    Missing,
    /// Never; fail if there is no local image
    Never,
}

impl Pull {
    /// Returns the rule that the word names.
    pub(crate) fn policy(self) -> PullPolicy {
        match self {
            Self::Always => PullPolicy::Always,
            Self::Missing => PullPolicy::Missing,
            Self::Never => PullPolicy::Never,
        }
    }
}

/// The parts that dayfly adds to an image from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ImageTools {
    /// Those of Docker's engine, git, sudo, curl, tar, gzip, bash and certificate authorities that it lacks
    Missing,
    /// Only a kernel, a runner app and a user, if it has none
    None,
}

/// How an image from elsewhere is fetched.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct FetchArgs {
    /// When to ask the registry for a newer image
    #[arg(long, env = "RUNNER_PULL", value_enum, default_value_t = Pull::Always, value_name = "WHEN")]
    pub(crate) pull: Pull,
    /// Tools to add to an image from elsewhere
    #[arg(long, env = "RUNNER_IMAGE_TOOLS", value_enum, default_value_t = ImageTools::Missing, value_name = "WHICH")]
    pub(crate) image_tools: ImageTools,
}

impl FetchArgs {
    /// Returns the rules that the options describe.
    pub(crate) fn spec(self) -> FetchSpec {
        FetchSpec { pull: self.pull.policy(), add_tools: self.image_tools == ImageTools::Missing }
    }
}

/// The machine of a job.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Machines")]
pub(crate) struct MachineArgs {
    /// Virtual CPUs of each machine
    #[arg(short, long, env = "RUNNER_CPUS", default_value_t = defaults::CPUS, value_parser = clap::value_parser!(u32).range(1..=i64::from(defaults::CPUS_MAX)))]
    pub(crate) cpus: u32,
    /// Memory of each machine, MiB
    #[arg(short, long, env = "RUNNER_MEMORY", default_value_t = defaults::MEMORY_MIB, value_parser = clap::value_parser!(u32).range(1..=i64::from(defaults::MEMORY_MIB_MAX)))]
    pub(crate) memory: u32,
    /// Scratch disk of each machine, GiB (sparse: only written blocks take space)
    #[arg(long, default_value_t = defaults::DISK_GIB, value_parser = clap::value_parser!(u64).range(1..=defaults::DISK_GIB_MAX))]
    pub(crate) disk: u64,
    /// Image to boot: any image name that docker or podman accept, or an id of `dayfly image ls`
    /// [default: the built-in image, built if it is missing]
    #[arg(short, long, env = "RUNNER_IMAGE", value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    #[command(flatten)]
    pub(crate) fetch: FetchArgs,
    /// Accelerator of the machines
    #[arg(long, value_enum, default_value_t = Accel::Auto)]
    pub(crate) accel: Accel,
    /// Processor model of emulated machines, as QEMU names it (`qemu-system-x86_64 -cpu help`) [default: Nehalem-v1]
    ///
    /// `host` lets jobs in machines with KVM start machines of their own.
    #[arg(long, env = "RUNNER_CPU_MODEL", value_name = "MODEL", value_parser = rules::cpu_model)]
    pub(crate) cpu_model: Option<String>,
    /// Boot each machine; without it, machines are forked from a template, a frozen machine in which Docker and the runner
    /// app already run
    #[arg(long, env = "RUNNER_COLD", value_parser = FalseyValueParser::new())]
    pub(crate) cold: bool,
    /// Number of forks that are kept ready; each one saves time and costs memory
    #[arg(long, env = "RUNNER_SPARE", default_value_t = defaults::SPARES, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=i64::from(defaults::SPARES_MAX)))]
    pub(crate) spare: u32,
    /// Script that runs in the template before it is frozen, as the user of jobs, with network and without secrets
    #[arg(long = "warm-up", env = "RUNNER_WARMUP", value_name = "FILE")]
    pub(crate) warm_up: Option<PathBuf>,
}

impl MachineArgs {
    /// Returns the description of a machine that the options give, for any driver, with an image of any age.
    pub(crate) fn spec(&self) -> MachineSpec {
        MachineSpec {
            driver: None,
            image: self.image.clone(),
            fetch: self.fetch.spec(),
            max_age: None,
            cpus: self.cpus,
            memory_mib: self.memory,
            disk_gib: self.disk,
            boot_limit: None,
            accel: self.accel.choice(),
            cpu_model: self.cpu_model.clone(),
            require: Vec::new(),
            cold: self.cold,
            spares: self.spare,
            warm_up: self.warm_up.clone(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Workflow file to run
    #[arg(short, long, value_name = "FILE")]
    pub(crate) workflow: PathBuf,
    /// Most machines that run at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) parallel: u32,
    /// Print one JSON object per line instead of text
    #[arg(long)]
    pub(crate) json: bool,
    /// Leave the machines running after their jobs, for inspection
    #[arg(long)]
    pub(crate) keep: bool,
    /// Input of the workflow; may be given several times
    #[arg(long = "input", value_name = "KEY=VALUE", value_parser = parse_assignment)]
    pub(crate) inputs: Vec<(String, String)>,
    /// Variable of the repository (vars.KEY); may be given several times
    #[arg(long = "var", value_name = "KEY=VALUE", value_parser = parse_assignment)]
    pub(crate) vars: Vec<(String, String)>,
    /// Secret (secrets.NAME) with the value of the environment variable NAME; may be given several times
    #[arg(long = "secret", value_name = "NAME")]
    pub(crate) secrets: Vec<String>,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Build the built-in image from Debian packages, unless it exists and is young enough
    Build(ImageBuildArgs),
    /// Fetch an image from a registry, an archive or podman's store, and convert it for machines
    Pull {
        /// Name of the image, e.g. ubuntu:24.04, ghcr.io/OWNER/NAME:TAG, oci-archive:FILE, containers-storage:NAME
        name: String,
        #[command(flatten)]
        fetch: FetchArgs,
        /// Print one JSON object per line instead of text
        #[arg(long)]
        json: bool,
    },
    /// List the images, and how old their packages are
    Ls {
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show the parts of an image, the tools that were added to it, and those that it lacks
    Inspect {
        /// Id of the image, the beginning of the id, or a name that it was pulled by
        image: String,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Boot an image and report what jobs, Docker and the runner app lack in it; runners then refuse an unusable image
    Check(ImageCheckArgs),
    /// Remove an image
    Rm {
        /// Id of the image, or the beginning of the id
        id: String,
    },
    /// Remove pulled layers, then the images, tools, kernels and runner apps that were unused for the longest time; those that
    /// a process uses stay
    Gc {
        /// Bytes that all of them may take together
        #[arg(long, value_name = "N", default_value_t = 20 << 30)]
        keep_bytes: u64,
        /// Print what would be removed, and remove nothing
        #[arg(long)]
        dry_run: bool,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Build the kernel for images that have none, unless it exists and is young enough
    Kernel(BundleArgs),
    /// Build the tools for images that lack them (Docker, git, sudo), unless they exist and are young enough
    Tools(BundleArgs),
    /// Print the path of the runner app for images, and build it if it is missing (internal)
    #[command(hide = true)]
    RunnerApp,
}

#[derive(Debug, Args)]
pub(crate) struct BundleArgs {
    #[command(flatten)]
    pub(crate) again: AgainArgs,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// When something that exists is built anew.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct AgainArgs {
    /// Build it anew if it is at least this old, e.g. 7d, 12h; never: only if it is missing
    #[arg(long, default_value = "never", value_name = "TIME|never")]
    pub(crate) max_age: MaxAge,
}

#[derive(Debug, Args)]
pub(crate) struct ImageBuildArgs {
    /// Debian release to build from [default: trixie, which is Debian 13]
    #[arg(long, value_name = "SUITE")]
    pub(crate) suite: Option<String>,
    /// File with the packages to install instead of the built-in list: one name per line, `?name` for an optional package
    #[arg(long, value_name = "FILE")]
    pub(crate) packages: Option<PathBuf>,
    /// Also install the languages of `images/debian/extra.txt`: Java, Go, PHP, Ruby, Rust, clang, Fortran
    #[arg(long)]
    pub(crate) extra: bool,
    #[command(flatten)]
    pub(crate) again: AgainArgs,
    /// Print one JSON object per line instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImageCheckArgs {
    /// Any image name, or an id of `dayfly image ls` [default: the built-in image]
    pub(crate) image: Option<String>,
    #[command(flatten)]
    pub(crate) fetch: FetchArgs,
    /// User that jobs run as
    #[arg(short, long, env = "RUNNER_USER", default_value = USER_DEFAULT)]
    pub(crate) user: String,
    /// Memory of the machine, MiB
    #[arg(short, long, env = "RUNNER_MEMORY", default_value_t = defaults::MEMORY_MIB, value_parser = clap::value_parser!(u32).range(i64::from(defaults::QEMU_MEMORY_MIB_MIN)..=i64::from(defaults::MEMORY_MIB_MAX)))]
    pub(crate) memory: u32,
    /// Accelerator of the machine
    #[arg(long, value_enum, default_value_t = Accel::Auto)]
    pub(crate) accel: Accel,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// Id (e.g. 2-k3V9x0q) or name of the runner [default: the runner with the newest log entry]
    #[arg(add = names::runners())]
    pub(crate) id: Option<String>,
    /// Write a trace for Perfetto or chrome://tracing to this file; - is standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) chrome: Option<PathBuf>,
    /// Print JSON instead of a chart
    #[arg(long, conflicts_with = "chrome")]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TemplateCommand {
    /// Build the template of the machines that the options describe, unless it exists
    Build(Box<TemplateBuildArgs>),
    /// List the templates
    Ls {
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Remove templates
    Rm {
        /// Ids of the templates, or the beginnings of ids
        #[arg(required_unless_present = "all")]
        ids: Vec<String>,
        /// Remove all templates that are not in use
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
    /// Remove templates that were unused for 14 days, and the least recently used ones that take too much space
    Gc {
        /// Bytes that templates may take together [default: 20 GiB]
        #[arg(long, value_name = "N")]
        keep_bytes: Option<u64>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TemplateBuildArgs {
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// DNS server of the machine during the warm-up
    #[arg(short, long, env = "RUNNER_DNS", default_value_t = DNS_DEFAULT, value_name = "ADDRESS")]
    pub(crate) dns: std::net::IpAddr,
    /// Destinations that the machine reaches during the warm-up
    #[arg(long, env = "RUNNER_NETWORK", value_enum, default_value = "guarded", value_name = "POLICY")]
    pub(crate) network: NetworkWord,
    /// Destination for --network allow and audit: a name, *.NAME, an address, a network, or github; may be given several times
    #[arg(long, env = "RUNNER_ALLOW", value_name = "DESTINATION[:PORT]", value_delimiter = ',')]
    pub(crate) allow: Vec<String>,
    /// User that jobs run as
    #[arg(short, long, env = "RUNNER_USER", default_value = USER_DEFAULT)]
    pub(crate) user: String,
    /// Build the template even if it exists; runners use the old one until the new one is complete
    #[arg(long)]
    pub(crate) again: bool,
    /// Rebuild the template at this interval, e.g. 6h, until stopped
    #[arg(long, value_name = "TIME")]
    pub(crate) refresh_every: Option<Time>,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DiskArgs {
    /// Print JSON instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Id (e.g. 2-k3V9x0q) or name of the runner
    #[arg(add = names::runners())]
    pub(crate) id: String,
    /// Continue to print new lines until the runner's end
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Print one JSON object per line instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Driver to check for: qemu, podman-krun, krunvm, process; missing tools of other drivers are no warnings
    #[arg(
        short = 'R',
        long = "runtime",
        visible_alias = "driver",
        env = "RUNNER_RUNTIME",
        value_name = "DRIVER"
    )]
    pub(crate) driver: Option<DriverKind>,
    /// Age of the built-in image, the kernel and the tools from which on to warn; never: not at all
    #[arg(long, env = "RUNNER_MAX_AGE", default_value = "7d", value_name = "TIME|never")]
    pub(crate) max_age: MaxAge,
    /// Check the forges and their credentials in place of this host: which permission is missing for which use. Nothing is
    /// created there
    #[arg(id = "at_forge", long = "forge", help_heading = AT_FORGE)]
    pub(crate) at_forge: bool,
    /// Configuration file whose forges and pools to check
    /// [default: /etc/dayfly/dayfly.toml, if it exists and no other option names the owner of runners]
    #[arg(long, requires = "at_forge", value_name = "FILE", help_heading = AT_FORGE)]
    pub(crate) config: Option<PathBuf>,
    /// Forge to check without a configuration file: a host or a URL
    #[arg(short = 'g', long = "github", env = "RUNNER_GITHUB", default_value = defaults::FORGE_HOST, value_name = "FORGE", help_heading = AT_FORGE)]
    pub(crate) address: String,
    #[command(flatten, next_help_heading = AT_FORGE)]
    pub(crate) access: AccessArgs,
    /// Show which walls between machines and this host are up, and why others cannot be
    #[arg(long, conflicts_with = "at_forge")]
    pub(crate) jail: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// The heading of the options for the check of forges.
const AT_FORGE: &str = "Forges";

fn parse_assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory as _;
    use dayfly_guest::variables::is_for_guest;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_of_a_switch_says_what_both_values_mean() {
        let mut whole = Cli::command();
        let mut help = |name: &str| {
            let command = whole.find_subcommand_mut(name).expect("a command");
            command.render_long_help().to_string()
        };
        let (runner, orchestrator) = (help("runner"), help("orchestrator"));
        assert!(!format!("{runner}{orchestrator}").contains("true"), "{runner}{orchestrator}");
        for meaning in
            ["- 1: Create one runner per job", "- 0: Run one job after another in the same machine"]
        {
            assert!(runner.contains(meaning), "{runner}");
        }
        for meaning in ["- 1: When the previous one has a runner", "- 0: At a fixed interval"] {
            assert!(orchestrator.contains(meaning), "{orchestrator}");
        }
    }

    /// Returns the names of all `RUNNER_` variables that options of a command and of its subcommands take.
    fn runner_variables(command: &clap::Command) -> BTreeSet<String> {
        let own = command.get_arguments().filter_map(|option| option.get_env()?.to_str());
        let own = own.filter(|name| name.starts_with("RUNNER_")).map(str::to_owned);
        own.chain(command.get_subcommands().flat_map(runner_variables)).collect()
    }

    #[test]
    fn only_the_variables_that_the_entrypoint_takes_reach_jobs() {
        let taken =
            ["EPHEMERAL", "GITHUB", "GROUP", "LABELS", "PRINCIPAL", "SCOPE", "UPDATE", "USER", "VERBOSE"]
                .map(|name| format!("RUNNER_{name}"));
        let all = runner_variables(&Cli::command());
        let reach_jobs: Vec<&String> = all.iter().filter(|name| is_for_guest(name, "1")).collect();
        assert_eq!(reach_jobs, taken.iter().collect::<Vec<_>>(), "the rest is the host's (guest::variables)");
    }

    #[test]
    fn an_assignment_needs_a_key() {
        assert_eq!(parse_assignment("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(parse_assignment("a="), Ok(("a".to_owned(), String::new())));
        assert!(parse_assignment("=b").is_err());
        assert!(parse_assignment("a").is_err());
    }
}
