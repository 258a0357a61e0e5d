//! The command line: parsed arguments only. [`crate::commands`] resolves them to settings.

pub(crate) mod orchestrator;
mod parse;
pub(crate) mod runner;
pub(crate) mod short_help;
mod switch;
mod time;
pub(crate) mod token;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use dayfly_fleet::pool::{FetchSpec, MachineSpec};
use dayfly_image::PullPolicy;
use dayfly_vm::{AccelChoice, DriverKind};

pub(crate) use orchestrator::OrchestratorArgs;
pub(crate) use parse::{LoopOptions, Parsed, is_argument, parse, parse_loop};
pub(crate) use runner::{LoopCommand, RegistrationWord, RunnerArgs};
pub(crate) use time::MaxAge;
pub(crate) use token::TokenArgs;

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
    /// List the loops, runners and machines of this host
    Ps(PsArgs),
    /// Print the log of a runner, also after its end
    Logs(LogsArgs),
    /// Show how long each phase of a runner took
    Trace(TraceArgs),
    /// Run the built-in forge
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
    },
    /// Start a VMM in its jail (internal)
    #[command(hide = true)]
    VmmLaunch {
        /// Descriptor that the plan is read from
        fd: i32,
    },
}

/// The accelerator of machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
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
}

/// When dayfly asks a registry for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pull {
    /// Before each runner; if the registry does not answer, the local image is used
    Always,
    /// Only if there is no local image
    Missing,
    /// Never; fail if there is no local image
    Never,
}

/// The parts that dayfly adds to an image from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
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
        let pull = match self.pull {
            Pull::Always => PullPolicy::Always,
            Pull::Missing => PullPolicy::Missing,
            Pull::Never => PullPolicy::Never,
        };
        FetchSpec { pull, add_tools: self.image_tools == ImageTools::Missing }
    }
}

/// The machine of a job.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Machines")]
pub(crate) struct MachineArgs {
    /// Virtual CPUs of each machine
    #[arg(short, long, env = "RUNNER_CPUS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) cpus: u32,
    /// Memory of each machine, MiB
    #[arg(short, long, env = "RUNNER_MEMORY", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub(crate) memory: u32,
    /// Scratch disk of each machine, GiB (sparse: only written blocks take space)
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=4096))]
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
    #[arg(long, env = "RUNNER_CPU_MODEL", value_name = "MODEL", value_parser = parse_cpu_model)]
    pub(crate) cpu_model: Option<String>,
    /// Boot each machine; without it, machines are forked from a template, a frozen machine in which Docker and the runner
    /// app already run
    #[arg(long, env = "RUNNER_COLD", value_parser = FalseyValueParser::new())]
    pub(crate) cold: bool,
    /// Number of forks that are kept ready; each one saves time and costs memory
    #[arg(long, env = "RUNNER_SPARE", default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=256))]
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
            accel: self.accel.choice(),
            cpu_model: self.cpu_model.clone(),
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
pub(crate) enum LabCommand {
    /// Serve a GitHub-compatible forge on this host
    Serve(LabServeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct LabServeArgs {
    /// Address and port to listen on; port 0 chooses a free port
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
    /// Folder of repositories, runs and logs
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Address to write into JIT configs [default: 10.0.2.2 and the port, at which machines of this host reach it]
    #[arg(long, value_name = "URL")]
    pub(crate) runner_url: Option<String>,
    /// Print JSON lines instead of text; the first one is {"event":"listening","url":..,"token":..}
    #[arg(long)]
    pub(crate) json: bool,
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
    /// Also install the languages of `images/debian/extra.txt`: Java, Go, PHP, Ruby, Rust, clang
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
    #[arg(short, long, env = "RUNNER_USER", default_value = "runner")]
    pub(crate) user: String,
    /// Memory of the machine, MiB
    #[arg(short, long, env = "RUNNER_MEMORY", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(512..=1_048_576))]
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
    #[arg(short, long, env = "RUNNER_DNS", default_value = "1.1.1.1", value_name = "ADDRESS")]
    pub(crate) dns: std::net::IpAddr,
    /// User that jobs run as
    #[arg(short, long, env = "RUNNER_USER", default_value = "runner")]
    pub(crate) user: String,
    /// Build the template even if it exists; runners use the old one until the new one is complete
    #[arg(long)]
    pub(crate) again: bool,
    /// Rebuild the template at this interval, e.g. 6h, until stopped
    #[arg(long, value_name = "TIME", value_parser = time::parse_time)]
    pub(crate) refresh_every: Option<std::time::Duration>,
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
pub(crate) struct LogsArgs {
    /// Id (e.g. 2-k3V9x0q) or name of the runner
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
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// Parses a processor model with features, e.g. `max,-smap`. QEMU rejects an unknown model when the probe guest boots.
fn parse_cpu_model(text: &str) -> Result<String, String> {
    let may_be = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ',' | '=' | '+');
    match text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(may_be) {
        true => Ok(text.to_owned()),
        false => Err("expected a model of `qemu-system-x86_64 -cpu help`, e.g. max or max,-smap".to_owned()),
    }
}

/// The default prefix of the names of machines and registrations.
const PREFIX_DEFAULT: &str = "GH-runner";

/// Longest prefix: a name is the prefix and `-<loop, at most three digits>-<7 characters>`, and has at most 64 characters.
const PREFIX_LENGTH_MAX: usize = 52;

fn parse_prefix(text: &str) -> Result<String, String> {
    let valid = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if text.is_empty() || text.len() > PREFIX_LENGTH_MAX || !valid || text.starts_with(['-', '.']) {
        return Err(format!(
            "expected 1 to {PREFIX_LENGTH_MAX} letters, digits, -, _ or ., beginning with a letter or digit"
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

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

    #[test]
    fn an_assignment_needs_a_key() {
        assert_eq!(parse_assignment("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(parse_assignment("a="), Ok(("a".to_owned(), String::new())));
        assert!(parse_assignment("=b").is_err());
        assert!(parse_assignment("a").is_err());
    }

    #[test]
    fn a_prefix_that_makes_a_bad_host_name_is_refused() {
        for text in ["", "-a", "a b", "a/b", &"a".repeat(53)] {
            assert!(parse_prefix(text).is_err(), "{text}");
        }
        assert!(parse_prefix("GH-runner").is_ok());
    }
}
