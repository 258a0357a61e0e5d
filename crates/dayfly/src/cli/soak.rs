//! `dayfly lab soak`: its options.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use dayfly_lab::fault::Fault;

use super::Accel;
use crate::config::Time;
use crate::defaults;

#[derive(Debug, Args)]
pub(crate) struct LabSoakArgs {
    /// Number of jobs
    #[arg(long, default_value_t = 40, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) jobs: u32,
    /// Seed of the plan: which faults and kills happen when; the same seed is the same plan [default: a random one]
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Faults of the forge: all, none, or names that docs/lab.md lists, separated by commas
    #[arg(long, default_value = "all", value_name = "all|none|LIST")]
    pub(crate) faults: FaultList,
    /// Processes to kill (kill -9): all, none, or orchestrator, loop and vm, separated by commas
    #[arg(long, default_value = "all", value_name = "all|none|LIST")]
    pub(crate) kill: KillList,
    /// Troubles of the host: all (without root, those that need none), none, or names that docs/lab.md lists, separated by commas
    #[arg(long, default_value = "all", value_name = "all|none|LIST")]
    pub(crate) host: TroubleList,
    /// Mean time between two kills, from the end of the first job on [default: 5s with the driver process, else 60s]; a trouble of
    /// the host comes with every second one
    #[arg(long, value_name = "TIME")]
    pub(crate) kill_every: Option<Time>,
    /// How runners run: in machines, or as processes of this host, which take far less
    #[arg(long, value_enum, default_value_t = SoakDriver::Qemu)]
    pub(crate) driver: SoakDriver,
    /// Most runners of the pool with the scale set; two other pools and the loops have half as many each
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) parallel: u32,
    /// Time after which a job that has not ended is lost
    #[arg(long, default_value = "1h", value_name = "TIME")]
    pub(crate) limit: Time,
    /// Folder of a runner app to use with the driver process, as its archive unpacks [default: that of the images]
    #[arg(long, value_name = "DIR")]
    pub(crate) runner_app: Option<PathBuf>,
    /// Image of the machines [default: the built-in image]
    #[arg(short, long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// Accelerator of the machines
    #[arg(long, value_enum, default_value_t = Accel::Auto)]
    pub(crate) accel: Accel,
    /// Virtual CPUs of each machine
    #[arg(short, long, default_value_t = defaults::CPUS, value_parser = clap::value_parser!(u32).range(1..=i64::from(defaults::CPUS_MAX)))]
    pub(crate) cpus: u32,
    /// Memory of each machine, MiB
    #[arg(short, long, default_value_t = defaults::MEMORY_MIB, value_parser = clap::value_parser!(u32).range(1..=i64::from(defaults::MEMORY_MIB_MAX)))]
    pub(crate) memory: u32,
    /// Keep the folder of the soak, with the lab and all logs, also if all was well
    #[arg(long)]
    pub(crate) keep: bool,
    /// Print one JSON object per line instead of text; the last line is the verdict
    #[arg(long)]
    pub(crate) json: bool,
}

impl LabSoakArgs {
    /// Returns the mean time between two kills. A machine has to start within it, or no job would ever run.
    pub(crate) fn kill_pause(&self) -> Duration {
        match (self.kill_every, self.driver) {
            (Some(Time(pause)), _) => pause,
            (None, SoakDriver::Process) => Duration::from_secs(5),
            (None, SoakDriver::Qemu) => Duration::from_secs(60),
        }
    }
}

/// How the runners of a soak run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SoakDriver {
    /// Each in a microVM
    Qemu,
    /// As processes of this host
    Process,
}

impl SoakDriver {
    /// Returns the driver's name in a configuration file.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Process => "process",
        }
    }
}

/// A kind of process that a soak kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KillWord {
    /// The orchestrator.
    Orchestrator,
    /// A `dayfly runner`.
    Loop,
    /// The machine of a runner: its VMM, or with the driver `process` the keeper of its processes.
    Vm,
}

impl KillWord {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Orchestrator, Self::Loop, Self::Vm];

    /// Returns the name on the command line and in the events.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Orchestrator => "orchestrator",
            Self::Loop => "loop",
            Self::Vm => "vm",
        }
    }
}

/// The kinds of processes to kill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KillList(pub(crate) Vec<KillWord>);

impl FromStr for KillList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |name: &str| {
            let found = KillWord::ALL.into_iter().find(|word| word.name() == name);
            found.ok_or_else(|| format!("{name:?} is none of all, none, orchestrator, loop and vm"))
        };
        list(text, &KillWord::ALL, parse).map(Self)
    }
}

/// A trouble of the host that a soak makes for some seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// A process of dayfly is stopped (`kill -STOP`).
    Stop,
    /// A process of dayfly can open no further file.
    Descriptors,
    /// The disk of the state folder is full.
    Disk,
    /// The kernel says that no memory is available.
    Memory,
}

impl Trouble {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Stop, Self::Descriptors, Self::Disk, Self::Memory];

    /// Returns the name on the command line and in the events.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Descriptors => "descriptors",
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
    }

    /// Returns true if it needs a mount that only dayfly sees, which only root can make.
    pub(crate) fn needs_mounts(self) -> bool {
        matches!(self, Self::Disk | Self::Memory)
    }
}

/// The troubles of the host that a soak makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TroubleList(pub(crate) Vec<Trouble>);

impl FromStr for TroubleList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |name: &str| {
            let found = Trouble::ALL.into_iter().find(|trouble| trouble.name() == name);
            found.ok_or_else(|| format!("{name:?} is none of all, none, stop, descriptors, disk and memory"))
        };
        list(text, &Trouble::ALL, parse).map(Self)
    }
}

/// The faults that a soak plays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FaultList(pub(crate) Vec<Fault>);

impl FromStr for FaultList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        list(text, &Fault::ALL, |name| Fault::parse(name).map_err(|error| error.to_string())).map(Self)
    }
}

/// Parses `all`, `none`, or names that are separated by commas. A name that comes twice counts once.
fn list<T: Copy + PartialEq>(
    text: &str,
    all: &[T],
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    match text {
        "all" => return Ok(all.to_vec()),
        "none" => return Ok(Vec::new()),
        _ => {}
    }
    let mut found = Vec::new();
    for name in text.split(',').map(str::trim) {
        let item = parse(name)?;
        if !found.contains(&item) {
            found.push(item);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_all_none_or_names() {
        assert_eq!("all".parse(), Ok(KillList(KillWord::ALL.to_vec())));
        assert_eq!("none".parse(), Ok(KillList(Vec::new())));
        assert_eq!("vm, loop,vm".parse(), Ok(KillList(vec![KillWord::Vm, KillWord::Loop])));
        assert_eq!("all".parse(), Ok(TroubleList(Trouble::ALL.to_vec())));
        assert_eq!("disk,stop".parse(), Ok(TroubleList(vec![Trouble::Disk, Trouble::Stop])));
        assert_eq!("all".parse(), Ok(FaultList(Fault::ALL.to_vec())));
        assert_eq!("requeue,drop-reply".parse(), Ok(FaultList(vec![Fault::Requeue, Fault::DropReply])));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = "vm,vmm".parse::<KillList>().expect_err("unknown");
        assert_eq!(error, "\"vmm\" is none of all, none, orchestrator, loop and vm");
        let error = "clock".parse::<TroubleList>().expect_err("unknown");
        assert_eq!(error, "\"clock\" is none of all, none, stop, descriptors, disk and memory");
        let error = "drop-relpy".parse::<FaultList>().expect_err("unknown");
        assert!(error.contains("did you mean \"drop-reply\"?"), "{error}");
        assert!("".parse::<KillList>().is_err());
    }
}
