//! The description of a pool: pure data from flags or a file, of which nothing was resolved or checked against a host.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use dayfly_forge::{ApiBase, RunnerScope};
use dayfly_image::PullPolicy;
use dayfly_vm::walls::Wall;
use dayfly_vm::{AccelChoice, DriverKind, Entrypoint, Mount, NetworkPolicy};
use serde::{Deserialize, Serialize};

use crate::demand::{Demand, StartOrder};

/// The default DNS server of machines.
pub const DNS_DEFAULT: IpAddr = IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1));
/// The default user that jobs run as.
pub const USER_DEFAULT: &str = "runner";
/// The runner group that every scope has.
pub const GROUP_DEFAULT: &str = "Default";

/// The description of a pool of runners. Secrets are not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSpec {
    /// Its name in the configuration file, or the prefix for the pool of an orchestrator without a file; none for the pool of
    /// `dayfly runner` and `dayfly demo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Name of the pool that it is a size of; none for a pool of its own. A pool and its sizes have one maximum and one weight
    /// together. The runners of a size have the labels of the size alone, without the three that every other runner has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_of: Option<String>,
    /// The forge's API.
    pub forge: ApiBase,
    /// Scope of the registrations.
    pub scope: RunnerScope,
    /// Name of the runner group of the registrations.
    pub group: String,
    /// True if strangers may bring jobs to its runners, by pull requests to public repositories.
    #[serde(default)]
    pub allow_public: bool,
    /// Labels after the three that every runner has; none: the default ones.
    pub labels: Option<Vec<String>>,
    /// The way in which runners are registered.
    pub registration: Registration,
    /// Prefix of the names of VMs and registrations.
    pub prefix: String,
    /// Number of runners that each slot creates, one after another; none: until the slot is stopped.
    pub repeat: Option<NonZeroU32>,
    /// Longest life of a runner, from the end of its pull. A slot ends with a runner that lived as long.
    pub lifetime: Option<Duration>,
    /// The demand for its runners.
    pub demand: Demand,
    /// The machine of each runner.
    pub machine: MachineSpec,
    /// DNS server of the machines.
    pub dns: IpAddr,
    /// The destinations that the machines reach beside the forge.
    #[serde(default)]
    pub network: NetworkPolicy,
    /// Folders and files of the host that the machines see.
    pub mounts: Vec<Mount>,
    /// The program that is started in the machines.
    pub entrypoint: Entrypoint,
    /// User that jobs run as in the VM.
    pub user: String,
    /// True if the runner app may update itself.
    pub update: bool,
    /// Verbosity of the entrypoint, 0 to 3.
    pub verbose: u8,
    /// Certificates of authorities that the machines trust beside those of their image, in PEM form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
    /// The user's own settings for the entrypoint and the jobs: `RUNNER_` variables that are not the host's.
    pub guest_settings: Vec<(String, String)>,
    /// Scripts that run at the start and at the end of each job.
    #[serde(default, skip_serializing_if = "HookFiles::is_empty")]
    pub hooks: HookFiles,
    /// True if jobs of pull requests from forks run. Otherwise a hook ends them.
    #[serde(default)]
    pub allow_forks: bool,
    /// True if the log of a job names this host; none: unless strangers may bring jobs and read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show_host: Option<bool>,
    /// True if the VM of a job that has ended stays, so that a person can inspect it.
    pub keep: bool,
    /// Time for which the machine of a job that has failed is kept, frozen to disk; none: it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_failed: Option<Duration>,
    /// Its weight if pools share a host that is too small for all of them.
    pub weight: u32,
    /// Most scratch space of its machines and of what they have left, MiB, together with its sizes; none: only the
    /// host's limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch_mib: Option<u64>,
}

/// Paths of scripts on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookFiles {
    /// The script before the first step of a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_started: Option<PathBuf>,
    /// The script after the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_completed: Option<PathBuf>,
}

impl HookFiles {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The way in which runners are registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Registration {
    /// The host registers the runner, and the VM gets a JIT config: an identity for one job.
    Jit,
    /// The VM gets a registration token that lives an hour, and registers itself.
    Token {
        /// True for one job; false for one job after another in the same VM.
        ephemeral: bool,
    },
}

/// The description of a machine: names and sizes. [`dayfly_vm::Machine`] is what is resolved from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// The driver; none: the best that this host can use.
    pub driver: Option<DriverKind>,
    /// Name of the image; none: the driver's default.
    pub image: Option<String>,
    /// Rules for fetching the image.
    pub fetch: FetchSpec,
    /// Age at which this host builds the image, or its parts, anew in the background; none: never.
    pub max_age: Option<Duration>,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Scratch disk, GiB.
    pub disk_gib: u64,
    /// Longest time from the start of a boot until the agent's hello; none: it follows from the speed of this host.
    pub boot_limit: Option<Duration>,
    /// The requested accelerator.
    pub accel: AccelChoice,
    /// Processor model of emulated machines, as QEMU names it; none: a model that QEMU emulates correctly.
    pub cpu_model: Option<String>,
    /// The walls between a VMM and the host without which the pool does not start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<Wall>,
    /// True if each machine is booted, false if machines are forked from a template.
    pub cold: bool,
    /// Number of forks that are created before they are needed.
    pub spares: u32,
    /// Path of a script that runs in the template before it is frozen.
    pub warm_up: Option<PathBuf>,
}

/// Rules for fetching an image from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchSpec {
    /// The rule for asking a registry for a newer image.
    pub pull: PullPolicy,
    /// True if the tools that jobs need and the image lacks are added.
    pub add_tools: bool,
}

impl PoolSpec {
    /// Returns the description of a pool of one runner, with defaults for everything but the arguments.
    pub fn new(forge: ApiBase, scope: RunnerScope, machine: MachineSpec) -> Self {
        Self {
            name: None,
            size_of: None,
            forge,
            scope,
            group: GROUP_DEFAULT.to_owned(),
            allow_public: false,
            labels: None,
            registration: Registration::Jit,
            prefix: "GH-runner".to_owned(),
            repeat: None,
            lifetime: None,
            demand: Demand::Static { runners: 1, start: StartOrder::Paused(Duration::ZERO) },
            machine,
            dns: DNS_DEFAULT,
            network: NetworkPolicy::default(),
            mounts: Vec::new(),
            entrypoint: Entrypoint::default(),
            user: USER_DEFAULT.to_owned(),
            update: false,
            verbose: 0,
            authorities: None,
            guest_settings: Vec::new(),
            hooks: HookFiles::default(),
            allow_forks: false,
            show_host: None,
            keep: false,
            keep_failed: None,
            weight: 1,
            scratch_mib: None,
        }
    }

    /// Returns true if the log of a job names this host.
    pub fn shows_host(&self) -> bool {
        self.show_host.unwrap_or(!self.allow_public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> PoolSpec {
        let machine = MachineSpec {
            driver: Some(DriverKind::PodmanKrun),
            image: Some("ubuntu:24.04".into()),
            fetch: FetchSpec { pull: PullPolicy::Missing, add_tools: true },
            max_age: Some(Duration::from_secs(86400)),
            cpus: 2,
            memory_mib: 1024,
            disk_gib: 32,
            boot_limit: Some(Duration::from_secs(120)),
            accel: AccelChoice::Auto,
            cpu_model: None,
            require: vec![Wall::Landlock],
            cold: false,
            spares: 1,
            warm_up: Some("/w.sh".into()),
        };
        let forge = ApiBase::from_host_or_url("ghes.example").expect("an address");
        let scope = RunnerScope::Organization("acme".into());
        PoolSpec {
            mounts: vec!["/a:/b:ro".parse().expect("a mount")],
            registration: Registration::Token { ephemeral: true },
            lifetime: Some(Duration::from_secs(40)),
            ..PoolSpec::new(forge, scope, machine)
        }
    }

    #[test]
    fn a_pool_is_plain_data_that_reads_back_as_itself() {
        let pool = pool();
        let text = serde_json::to_string_pretty(&pool).expect("json");
        assert_eq!(serde_json::from_str::<PoolSpec>(&text).expect("a pool"), pool);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn logs_that_strangers_read_name_the_host_only_if_the_pool_says_so() {
        let shows = |show_host, allow_public| PoolSpec { show_host, allow_public, ..pool() }.shows_host();
        assert!(shows(None, false) && !shows(None, true));
        assert!(shows(Some(true), true) && !shows(Some(false), false));
    }
}
