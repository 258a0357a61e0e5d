//! The command line. Parsed arguments only; what they come to is decided in [`crate::commands`].

pub(crate) mod orchestrator;
mod parse;
pub(crate) mod runner;
pub(crate) mod short_help;
pub(crate) mod token;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use orchestrator::OrchestratorArgs;
pub(crate) use parse::{LoopOptions, Parsed, parse, parse_loop};
pub(crate) use runner::{LoopCommand, RegistrationWord, RunnerArgs};
pub(crate) use token::TokenArgs;

/// Every CI job in a machine of its own, for one job.
#[derive(Debug, Parser)]
#[command(name = "dayfly", version, about, propagate_version = true, disable_help_subcommand = true)]
#[command(after_help = "Exit status: 0 success, 1 the run did not succeed, 2 usage or a refused workflow, \
    3 this host or the forge cannot, 130/143 stopped by a signal.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Places and log")]
pub(crate) struct Common {
    /// Where images, runs and instances are kept [default: /var/lib/dayfly as root, else ~/.local/state/dayfly]
    #[arg(long, global = true, env = "DAYFLY_STATE", value_name = "DIR", hide_env_values = true)]
    pub(crate) state: Option<PathBuf>,
    /// The static binary that runs in the machines [default: dayfly-guest beside this program]
    #[arg(long, global = true, env = "DAYFLY_GUEST", value_name = "FILE", hide_env_values = true)]
    pub(crate) guest_binary: Option<PathBuf>,
    /// QEMU [default: qemu-system-x86_64 in the usual folders]
    #[arg(long, global = true, env = "DAYFLY_QEMU", value_name = "FILE", hide_env_values = true)]
    pub(crate) qemu: Option<PathBuf>,
    /// Mirrors, authorities and unencrypted registries, as JSON [default: registries.json in /etc/dayfly or
    /// ~/.config/dayfly, where it is there]
    #[arg(long, global = true, env = "DAYFLY_REGISTRIES", value_name = "FILE", hide_env_values = true)]
    pub(crate) registries: Option<PathBuf>,
    /// Tell more of what happens inside (-v info, -vv debug, -vvv trace), on standard error
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a workflow file in microVMs and show its log
    Demo(DemoArgs),
    /// Run several loops side by side, each of which makes one ephemeral runner after another
    Orchestrator(OrchestratorArgs),
    /// Make ephemeral runners, one after another: one loop alone
    Runner(Box<RunnerArgs>),
    /// Print a registration token of a forge
    Token(TokenArgs),
    /// List the loops, runners and machines of this host
    Ps(PsArgs),
    /// Show what a runner has said and done
    Logs(LogsArgs),
    /// Show where a runner's time went
    Trace(TraceArgs),
    /// The built-in forge
    #[command(subcommand)]
    Lab(LabCommand),
    /// What the machines boot
    #[command(subcommand)]
    Image(ImageCommand),
    /// The frozen machines that others are forked from
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Tell what this host can do, what not, and the command that mends it
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Start a VMM in its jail (internal)
    #[command(hide = true)]
    VmmLaunch {
        /// Descriptor that the plan is read from
        fd: i32,
    },
}

/// How VMs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accel {
    /// KVM where a probe machine really booted under it, else emulation
    Auto,
    /// KVM or nothing
    Kvm,
    /// Software emulation
    Tcg,
}

/// When a registry is asked for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pull {
    /// Before each runner; where it does not answer, the image that is here is taken
    Always,
    /// Only for an image that is not here
    Missing,
    /// Not at all
    Never,
}

/// What an image from elsewhere is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImageTools {
    /// What it lacks of Docker's engine, git, sudo, curl, tar, gzip, bash, certificate authorities
    Missing,
    /// Only a kernel, a runner app and a user, where it has none
    None,
}

/// How an image comes from elsewhere.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct FetchArgs {
    /// Whether a registry is asked for an image that is here
    #[arg(long, env = "RUNNER_PULL", value_enum, default_value_t = Pull::Always, value_name = "WHEN")]
    pub(crate) pull: Pull,
    /// What of the tools that jobs use is added to an image from elsewhere
    #[arg(long, env = "RUNNER_IMAGE_TOOLS", value_enum, default_value_t = ImageTools::Missing, value_name = "WHICH")]
    pub(crate) image_tools: ImageTools,
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
    /// Scratch disk of each machine, GiB (sparse: only what is written takes room)
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub(crate) disk: u64,
    /// Image to boot: any name of an image, as docker and podman know them, or an id of `dayfly image ls`
    /// [default: the built-in one, built where it is missing]
    #[arg(short, long, env = "RUNNER_IMAGE", value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    #[command(flatten)]
    pub(crate) fetch: FetchArgs,
    /// How machines run
    #[arg(long, value_enum, default_value_t = Accel::Auto)]
    pub(crate) accel: Accel,
    /// Processor model of emulated machines, in QEMU's words (`qemu-system-x86_64 -cpu help`) [default: Nehalem-v1]
    #[arg(long, env = "RUNNER_CPU_MODEL", value_name = "MODEL", value_parser = parse_cpu_model)]
    pub(crate) cpu_model: Option<String>,
    /// Boot each machine; else they are forked from a template, a frozen machine with Docker and the runner app started
    #[arg(long, env = "RUNNER_COLD", value_parser = FalseyValueParser::new())]
    pub(crate) cold: bool,
    /// How many forks are kept ready, made and stopped: memory for time
    #[arg(long, env = "RUNNER_SPARE", default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=256))]
    pub(crate) spare: u32,
    /// Script that runs in the template before it is frozen, as the user of jobs, with network and without secrets
    #[arg(long = "warm-up", env = "RUNNER_WARMUP", value_name = "FILE")]
    pub(crate) warm_up: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// The workflow file to run
    #[arg(short, long, value_name = "FILE")]
    pub(crate) workflow: PathBuf,
    /// How many machines at once, at most
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) parallel: u32,
    /// One JSON object a line instead of text
    #[arg(long)]
    pub(crate) json: bool,
    /// Leave the machines running after their jobs, for a look
    #[arg(long)]
    pub(crate) keep: bool,
    /// An input of the workflow; may be given several times
    #[arg(long = "input", value_name = "KEY=VALUE", value_parser = parse_assignment)]
    pub(crate) inputs: Vec<(String, String)>,
    /// A variable of the repository (vars.KEY); may be given several times
    #[arg(long = "var", value_name = "KEY=VALUE", value_parser = parse_assignment)]
    pub(crate) vars: Vec<(String, String)>,
    /// A secret (secrets.NAME), its value taken from the environment variable NAME; may be given several times
    #[arg(long = "secret", value_name = "NAME")]
    pub(crate) secrets: Vec<String>,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// Serve the GitHub-compatible forge of this host
    Serve(LabServeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct LabServeArgs {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
    /// Where repositories, runs and logs are kept
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Address that goes into JIT configs [default: 10.0.2.2 and the port, as machines of this host see it]
    #[arg(long, value_name = "URL")]
    pub(crate) runner_url: Option<String>,
    /// JSON lines instead of text; the first one is {"event":"listening","url":..,"token":..}
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Build the built-in image from Debian packages; nothing to do if it is there
    Build(ImageBuildArgs),
    /// Fetch an image from a registry, an archive or podman's store, and make of it what machines boot
    Pull {
        /// Its name, e.g. ubuntu:24.04, ghcr.io/OWNER/NAME:TAG, oci-archive:FILE, containers-storage:NAME
        name: String,
        #[command(flatten)]
        fetch: FetchArgs,
        /// One JSON object a line instead of text
        #[arg(long)]
        json: bool,
    },
    /// List the images
    Ls {
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show what an image is made of, what was added to it, and what it lacks for jobs
    Inspect {
        /// Its id, the beginning of it, or a name that it was pulled by
        image: String,
        /// JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Boot an image, and tell what jobs, Docker and the runner app would miss in it; one that is of no use is refused then
    Check(ImageCheckArgs),
    /// Remove an image
    Rm {
        /// Its id, or the beginning of it
        id: String,
    },
    /// Remove pulled layers and images that were not used for the longest time; what machines use stays
    Gc {
        /// What all together may take, bytes
        #[arg(long, value_name = "N", default_value_t = 20 << 30)]
        keep_bytes: u64,
        /// JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Make the kernel for images that bring none; nothing to do where it is there
    Kernel {
        /// JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Make the tools for images that lack them (Docker, git, sudo); nothing to do where they are there
    Tools {
        /// JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Print the path of the runner app that is put into images, building it where it is missing (internal)
    #[command(hide = true)]
    RunnerApp,
}

#[derive(Debug, Args)]
pub(crate) struct ImageBuildArgs {
    /// Debian release to build from [default: the host's own on Debian, else bookworm]
    #[arg(long, value_name = "SUITE")]
    pub(crate) suite: Option<String>,
    /// Install the packages of this list instead of the built-in one: a name a line, `?name` if it may be missing
    #[arg(long, value_name = "FILE")]
    pub(crate) packages: Option<PathBuf>,
    /// One JSON object a line instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImageCheckArgs {
    /// Any name of an image, or an id of `dayfly image ls` [default: the built-in one]
    pub(crate) image: Option<String>,
    #[command(flatten)]
    pub(crate) fetch: FetchArgs,
    /// User that jobs run as
    #[arg(short, long, env = "RUNNER_USER", default_value = "runner")]
    pub(crate) user: String,
    /// Memory of its machine, MiB
    #[arg(short, long, env = "RUNNER_MEMORY", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(512..=1_048_576))]
    pub(crate) memory: u32,
    /// How its machine runs
    #[arg(long, value_enum, default_value_t = Accel::Auto)]
    pub(crate) accel: Accel,
    /// JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// The runner: its id, e.g. 2-k3V9x0q, or its name [default: the one that was heard of last]
    pub(crate) id: Option<String>,
    /// Write a trace for Perfetto or chrome://tracing to this file instead; - is standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) chrome: Option<PathBuf>,
    /// JSON instead of a chart
    #[arg(long, conflicts_with = "chrome")]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TemplateCommand {
    /// Build the template of such machines; nothing to do where it is there
    Build(Box<TemplateBuildArgs>),
    /// List the templates
    Ls {
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Remove templates
    Rm {
        /// Their ids, or the beginnings of them
        #[arg(required_unless_present = "all")]
        ids: Vec<String>,
        /// All that nobody uses
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
    /// Remove templates that nobody has needed for 14 days, or that take too much room
    Gc {
        /// What all together may take, bytes [default: 20 GiB]
        #[arg(long, value_name = "N")]
        keep_bytes: Option<u64>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TemplateBuildArgs {
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// DNS server of the machine, for its warm-up
    #[arg(short, long, env = "RUNNER_DNS", default_value = "1.1.1.1", value_name = "ADDRESS")]
    pub(crate) dns: std::net::IpAddr,
    /// User that jobs run as
    #[arg(short, long, env = "RUNNER_USER", default_value = "runner")]
    pub(crate) user: String,
    /// Build it anew even where it is there; runners go on with the old one until then
    #[arg(long)]
    pub(crate) again: bool,
    /// Build it anew again and again, e.g. 6h, until stopped
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) refresh_every: Option<std::time::Duration>,
    /// JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// A number and its unit: s, m, h or d.
fn parse_time(text: &str) -> Result<std::time::Duration, String> {
    let wrong = || format!("{text:?} is no time: a number and s, m, h or d, such as 6h");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().ok().filter(|&number| number > 0).ok_or_else(wrong)?;
    Ok(std::time::Duration::from_secs(number.checked_mul(seconds).ok_or_else(wrong)?))
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The runner: its id, e.g. 2-k3V9x0q, or its name
    pub(crate) id: String,
    /// Go on showing what comes, until the runner's end
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// One JSON object a line instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// A model and its features, e.g. `max,-smap`. Whether QEMU knows it shows when the probe guest boots.
fn parse_cpu_model(text: &str) -> Result<String, String> {
    let may_be = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ',' | '=' | '+');
    match text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(may_be) {
        true => Ok(text.to_owned()),
        false => Err("expected a model of `qemu-system-x86_64 -cpu help`, e.g. max or max,-smap".to_owned()),
    }
}

/// Prefix of the names of machines and registrations where no other is asked for.
const PREFIX_DEFAULT: &str = "GH-runner";

/// Longest prefix: with `-<loop, three digits at most>-<7 characters>` behind it a name must stay within 64.
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
