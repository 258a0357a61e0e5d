//! The table of a pool, `[pools.NAME]`, as it is written.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use dayfly_fleet::orchestrator;
use dayfly_fleet::pool::{DNS_DEFAULT, FetchSpec, GROUP_DEFAULT, MachineSpec, USER_DEFAULT};
use dayfly_vm::DriverKind;
use dayfly_vm::walls::Wall;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schedule::ScheduleEntry;
use super::value::{MaxAge, Size, Time};
use crate::cli::{Accel, ImageTools, NetworkWord, Pull, RegistrationWord};
use crate::defaults;

/// A pool: runners of one kind, at one place of a forge.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table with the keys of a pool")]
#[schemars(extend("required" = ["forge", "principal"]))]
pub(crate) struct PoolFile {
    /// Name of the forge: that of a table [forges.NAME].
    pub(crate) forge: String,
    /// Scope of the runners.
    pub(crate) scope: ScopeWord,
    /// Owner of the runners: OWNER/REPO, or the name of the organisation or enterprise.
    pub(crate) principal: String,
    /// Runner group, by name; a repository has only Default.
    pub(crate) group: String,
    /// Serve public repositories too, to which strangers bring jobs by pull requests.
    pub(crate) allow_public: bool,
    /// Labels beside self-hosted, Linux and the architecture (default: krun, the distribution, dayfly).
    pub(crate) labels: Vec<String>,
    /// Sources of the demand for runners: one word, or a list of several.
    pub(crate) demand: OneOrMany<DemandWord>,
    /// Name of the scale set at the forge, for the demand scale-set (default: the name of the pool).
    pub(crate) scale_set: Option<String>,
    /// Runners without a job that are kept ready, for every demand but static.
    #[schemars(range(min = 0, max = defaults::RUNNERS_MAX))]
    pub(crate) min_idle: u32,
    /// Most runners; with the demand static, their number.
    #[schemars(range(min = 1, max = defaults::RUNNERS_MAX))]
    pub(crate) max: u32,
    /// Times at which another min_idle holds. If several entries hold, the largest one counts.
    pub(crate) schedule: Vec<ScheduleEntry>,
    /// Share of this pool if the host has not enough for all: a pool of weight 2 gets twice as much as one of weight 1.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) weight: u32,
    /// Virtual CPUs of each machine.
    #[schemars(range(min = 1, max = defaults::CPUS_MAX))]
    pub(crate) cpus: u32,
    /// Memory of each machine.
    pub(crate) memory: Size,
    /// Scratch disk of each machine (sparse: only written blocks take space).
    pub(crate) disk: Size,
    /// Most space on the disk for the pool's runs, kept ones too; no machine starts that would exceed it.
    pub(crate) scratch: Option<Size>,
    /// Other sizes that a job may ask for by a label, with no other label beside it: dayfly-4cpu-8gb is 4 virtual CPUs and 8 GiB of memory.
    pub(crate) sizes: Vec<String>,
    /// Image to boot: any image name that docker or podman accept, or an id of `dayfly image ls` (default: the built-in image).
    pub(crate) image: Option<String>,
    /// When to ask the registry for a newer image.
    pub(crate) pull: Pull,
    /// Tools to add to an image from elsewhere.
    pub(crate) image_tools: ImageTools,
    /// Age at which an image that dayfly builds is built anew, in the background; never: it stays.
    pub(crate) max_age: MaxAge,
    /// Driver of the machines (default: the best that works on this host).
    #[schemars(with = "Option<String>", extend("enum" = DriverKind::ALL.map(DriverKind::as_str)))]
    pub(crate) driver: Option<DriverKind>,
    /// Accelerator of the machines.
    pub(crate) accel: Accel,
    /// Processor model of emulated machines, as QEMU names it (default: Nehalem-v1); host: jobs in machines with KVM may start
    /// machines of their own.
    pub(crate) cpu_model: Option<String>,
    /// Walls between machines and this host without which the pool does not start; `dayfly doctor --jail` lists them all.
    #[schemars(with = "Vec<String>", extend("items" = serde_json::json!({ "type": "string", "enum": Wall::ALL.map(Wall::as_str) })))]
    pub(crate) require: Vec<Wall>,
    /// Boot each machine instead of forking it from a template.
    pub(crate) cold: bool,
    /// Number of forks that are kept ready; each one saves time and costs memory.
    #[schemars(range(min = 0, max = defaults::SPARES_MAX))]
    pub(crate) spares: u32,
    /// Script that runs in the template before it is frozen, as the user of jobs, with network and without secrets.
    pub(crate) warm_up: Option<PathBuf>,
    /// Folders and files of this host that the machines see: HOST:VM or HOST:VM:OPTIONS.
    pub(crate) mounts: Vec<String>,
    /// DNS server of the machines.
    pub(crate) dns: IpAddr,
    /// Destinations that the machines reach beside the forge.
    pub(crate) network: NetworkWord,
    /// Destinations for network = "allow" and "audit": example.com, *.example.com, an address or a network, each with :PORT or :* behind it (default: 80 and 443), or github.
    pub(crate) allow: Vec<String>,
    /// User that jobs run as.
    pub(crate) user: String,
    /// Let the runner app update itself.
    pub(crate) update: bool,
    /// Path of the entrypoint in the machines (default: the one in dir, else the guest binary from this host).
    pub(crate) entrypoint: Option<PathBuf>,
    /// Arguments of the entrypoint, after those that name the runner.
    pub(crate) entrypoint_args: Vec<String>,
    /// Path at which the machines see this host's folder of guest programs; the entrypoint then runs from there.
    pub(crate) dir: Option<PathBuf>,
    /// Folder of guest programs on this host, for dir (default: the folder of the guest binary).
    pub(crate) guest_dir: Option<PathBuf>,
    /// Variables RUNNER_... for the entrypoint and the jobs.
    pub(crate) settings: BTreeMap<String, String>,
    /// Verbosity of the entrypoint: 0 warnings and errors, 1 info, 2 debug, 3 trace.
    #[schemars(range(min = 0, max = defaults::VERBOSITY_MAX))]
    pub(crate) verbosity: u8,
    /// Scripts of this host that run in the machine at the start and at the end of each job, with the official runner app.
    pub(crate) hooks: HooksFile,
    /// Run jobs of pull requests from forks; false: the official runner app ends them before their first step.
    pub(crate) allow_forks: bool,
    /// Name this host in the log of each job; false: no job learns its name (default: true, unless allow_public is).
    pub(crate) show_host: Option<bool>,
    /// How to register runners (default: jit, or token if ephemeral is false).
    pub(crate) registration: Option<RegistrationWord>,
    /// One job for each runner; false: one job after another in the same machine, with the demand static only.
    pub(crate) ephemeral: bool,
    /// Prefix of the names of machines and registrations.
    pub(crate) prefix: String,
    /// Limits of the phases of a runner.
    pub(crate) timeouts: TimeoutsFile,
    /// Longest life of a runner, even if it is busy; its place in the pool ends with it.
    pub(crate) lifetime: Option<Time>,
    /// Number of runners that each place of the pool creates, one after another, with the demand static (default: no limit).
    #[schemars(range(min = 1))]
    pub(crate) repeat: Option<u32>,
    /// Order in which the runners of the demand static start.
    pub(crate) start: StartFile,
    /// Leave the machines running after their jobs, for inspection.
    pub(crate) keep: bool,
    /// Time for which the machine of a job that has failed is kept, frozen to disk, for `dayfly thaw` (default: not at all).
    pub(crate) keep_failed: Option<Time>,
}

impl Default for PoolFile {
    fn default() -> Self {
        Self {
            forge: String::new(),
            scope: ScopeWord::Repo,
            principal: String::new(),
            group: GROUP_DEFAULT.to_owned(),
            allow_public: false,
            labels: Vec::new(),
            demand: OneOrMany::One(DemandWord::Static),
            scale_set: None,
            min_idle: 0,
            max: defaults::RUNNERS,
            schedule: Vec::new(),
            weight: 1,
            cpus: defaults::CPUS,
            memory: Size::of_mib(u64::from(defaults::MEMORY_MIB)),
            disk: Size::of_gib(defaults::DISK_GIB),
            scratch: None,
            sizes: Vec::new(),
            image: None,
            pull: Pull::Always,
            image_tools: ImageTools::Missing,
            max_age: MaxAge(defaults::MAX_AGE.parse().map_or(None, |MaxAge(age)| age)),
            driver: None,
            accel: Accel::Auto,
            cpu_model: None,
            require: Vec::new(),
            cold: false,
            spares: defaults::SPARES,
            warm_up: None,
            mounts: Vec::new(),
            dns: DNS_DEFAULT,
            network: NetworkWord::Guarded,
            allow: Vec::new(),
            user: USER_DEFAULT.to_owned(),
            update: false,
            entrypoint: None,
            entrypoint_args: Vec::new(),
            dir: None,
            guest_dir: None,
            settings: BTreeMap::new(),
            verbosity: 0,
            hooks: HooksFile::default(),
            allow_forks: false,
            show_host: None,
            registration: None,
            ephemeral: true,
            prefix: defaults::PREFIX.to_owned(),
            timeouts: TimeoutsFile::default(),
            lifetime: None,
            repeat: None,
            start: StartFile::default(),
            keep: false,
            keep_failed: None,
        }
    }
}

/// The scope of a pool's runners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ScopeWord {
    /// One repository
    Repo,
    /// All repositories of an organisation
    Org,
    /// All organisations of an enterprise
    Enterprise,
}

impl ScopeWord {
    /// Returns the word as the file has it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Repo => "repo",
            Self::Org => "org",
            Self::Enterprise => "enterprise",
        }
    }
}

/// A source of demand for runners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DemandWord {
    /// A fixed number of runners, whether there are jobs or not
    Static,
    /// A runner for each job that the forge assigns to a scale set; needs no open port
    ScaleSet,
    /// A runner for each queued job that the forge reports by a webhook
    Webhook,
    /// A runner for each queued job that the forge lists when it is asked
    Poll,
}

impl DemandWord {
    /// Returns the word as the file has it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::ScaleSet => "scale-set",
            Self::Webhook => "webhook",
            Self::Poll => "poll",
        }
    }
}

/// One value, or a list of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum OneOrMany<T> {
    /// The value alone.
    One(T),
    /// The list.
    Many(Vec<T>),
}

impl<T: Copy> OneOrMany<T> {
    /// Returns the values.
    pub(crate) fn to_vec(&self) -> Vec<T> {
        match self {
            Self::One(value) => vec![*value],
            Self::Many(values) => values.clone(),
        }
    }
}

/// Reads a list if there is one, else the value. serde's own `untagged` would not say what is wrong with either.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Either<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a word or a list of words")
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Self::Value, E> {
                T::deserialize(serde::de::value::StrDeserializer::new(word)).map(OneOrMany::One)
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(serde::de::value::SeqAccessDeserializer::new(list)).map(OneOrMany::Many)
            }
        }
        deserializer.deserialize_any(Either(std::marker::PhantomData))
    }
}

/// Scripts of this host for the moments of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table with the keys of hooks")]
pub(crate) struct HooksFile {
    /// Before the first step; the job fails if it fails.
    pub(crate) job_started: Option<PathBuf>,
    /// After the last step; the job fails if it fails.
    pub(crate) job_completed: Option<PathBuf>,
}

/// Limits of the phases of a runner. A phase that exceeds its limit ends the runner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table with the keys of timeouts")]
pub(crate) struct TimeoutsFile {
    /// From the start of the machine until its agent answers (default: it follows from the speed of this host).
    pub(crate) boot: Option<Time>,
    /// From the agent's answer until the runner app is about to start (default: 3m).
    pub(crate) registration: Option<Time>,
    /// Without a job that needs it, above the minimum (default: 10m). With the demand static, a fresh runner then takes its place (default: never). The registration is removed first.
    pub(crate) idle: Option<Time>,
    /// Of a job (default: 121h, an hour more than GitHub's own limit).
    pub(crate) job: Option<Time>,
}

/// The order in which the runners of a static demand start: one after another is up, or at fixed times.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table with the keys of the start order")]
pub(crate) struct StartFile {
    /// Number of runners that start at once; the next one starts when one of them is up.
    #[schemars(range(min = 1, max = defaults::STARTS_MAX))]
    pub(crate) parallel: u32,
    /// Longest wait for a runner to be up before the next one starts.
    pub(crate) limit: Time,
    /// Start the next runner after this time, whether earlier ones are up or not; excludes parallel and limit.
    pub(crate) pause: Option<Time>,
}

impl Default for StartFile {
    fn default() -> Self {
        Self { parallel: defaults::PARALLEL_START, limit: Time(orchestrator::UP_LIMIT), pause: None }
    }
}

impl PoolFile {
    /// Returns the description of its machines, with the sizes that were checked.
    pub(crate) fn machine(&self, memory_mib: u32, disk_gib: u64) -> MachineSpec {
        MachineSpec {
            driver: self.driver,
            image: self.image.clone(),
            fetch: FetchSpec { pull: self.pull.policy(), add_tools: self.image_tools == ImageTools::Missing },
            cpus: self.cpus,
            memory_mib,
            disk_gib,
            boot_limit: self.timeouts.boot.map(|Time(limit)| limit),
            accel: self.accel.choice(),
            cpu_model: self.cpu_model.clone(),
            require: self.require.clone(),
            cold: self.cold,
            spares: self.spares,
            warm_up: self.warm_up.clone(),
            max_age: self.max_age.0,
        }
    }
}
