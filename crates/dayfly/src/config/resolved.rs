//! The configuration after all checks: what an orchestrator runs from. Secrets are not part of it.

use std::fmt::Display;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use dayfly_fleet::demand::{Demand, Scale};
use dayfly_fleet::pool::{MachineSpec, PoolSpec};
use dayfly_forge::ApiBase;
use dayfly_traces::Endpoint;
use dayfly_web::ListenAddress;
use indexmap::IndexMap;
use serde::Serialize;

use super::HostSize;
use super::pool_file::DemandWord;
use super::schedule::Schedule;
use super::size_label::SizeLabel;

/// A checked configuration.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Config {
    /// The forges, by name.
    pub(crate) forges: IndexMap<String, ForgeConfig>,
    /// The pools, in the order of the file. Each refers to a forge that is there.
    pub(crate) pools: Vec<PoolConfig>,
    /// The share of this host that all pools together may use.
    pub(crate) host: HostBudget,
    /// The server for webhooks; there is one if a pool has the source `webhook`.
    pub(crate) webhook: Option<WebhookConfig>,
    /// The server for the page and the metrics.
    pub(crate) web: Option<WebConfig>,
    /// The collector of traces.
    pub(crate) traces: Option<TracesConfig>,
}

/// A forge.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ForgeConfig {
    /// Its API.
    pub(crate) url: ApiBase,
    /// Where its credential is found. The credential itself is read at the start.
    pub(crate) credential: CredentialPlace,
    /// A file of certificate authorities that are trusted beside the system's. It is read at the start.
    pub(crate) ca_file: Option<PathBuf>,
}

/// The place of a forge's credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CredentialPlace {
    /// A file with a token, which only its owner may be able to read.
    TokenFile(PathBuf),
    /// The name of an environment variable with a token.
    TokenEnv(String),
    /// The name of a file with a token in `$CREDENTIALS_DIRECTORY` (systemd.exec(5)).
    #[serde(rename = "token_credential")]
    Systemd(String),
    /// A GitHub App.
    App {
        /// Its id.
        id: u64,
        /// The id of its installation; none: that of the pool's owner.
        installation: Option<u64>,
        /// A file with its private key, which only its owner may be able to read.
        key_file: PathBuf,
    },
}

/// The server for webhooks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct WebhookConfig {
    /// The address that it listens at.
    pub(crate) listen: SocketAddr,
    /// Path of the webhook's address.
    pub(crate) path: String,
    /// Where the secret of the webhook is found. The secret itself is read at the start.
    pub(crate) secret: SecretPlace,
    /// The certificate; none: the server speaks HTTP.
    pub(crate) certificate: Option<CertificatePlace>,
    /// Most requests a second in the long run.
    pub(crate) rate_limit: NonZeroU32,
}

/// The server for the page and the metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct WebConfig {
    /// The address that it listens at.
    #[serde(serialize_with = "as_text")]
    pub(crate) listen: ListenAddress,
    /// The file with its token; none: only this host can connect.
    pub(crate) token_file: Option<PathBuf>,
}

/// The collector of traces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TracesConfig {
    /// Its address.
    #[serde(serialize_with = "as_text")]
    pub(crate) endpoint: Endpoint,
    /// The file with the headers that it wants. It is read at the start.
    pub(crate) headers_file: Option<PathBuf>,
}

fn as_text<S: serde::Serializer>(address: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(address)
}

/// The place of a secret that is one text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SecretPlace {
    /// A file, which only its owner may be able to read.
    File(PathBuf),
    /// The name of an environment variable.
    Env(String),
    /// The name of a file in `$CREDENTIALS_DIRECTORY` (systemd.exec(5)).
    #[serde(rename = "credential")]
    Systemd(String),
}

/// The files of a server's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct CertificatePlace {
    /// The certificate with its chain.
    pub(crate) cert_file: PathBuf,
    /// Its private key, in a file that only its owner may be able to read.
    pub(crate) key_file: PathBuf,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PoolConfig {
    /// Its name.
    pub(crate) name: String,
    /// Name of its forge in [`Config::forges`].
    pub(crate) forge: String,
    /// The description of its runners. Its demand is [`dayfly_fleet::demand::Demand::Static`] only for the source `static`.
    pub(crate) spec: PoolSpec,
    /// The sources of its demand: at least one, each once, and `static` only alone.
    pub(crate) sources: Vec<DemandWord>,
    /// Name of its scale set; none without the source `scale-set`.
    pub(crate) scale_set: Option<String>,
    /// Idle runners that are kept ready, if no entry of the schedule holds; 0 for the source `static`.
    pub(crate) min_idle: u32,
    /// Most runners.
    pub(crate) max: u32,
    /// The times at which another minimum holds.
    pub(crate) schedule: Schedule,
    /// The limits of the phases of a runner.
    pub(crate) timeouts: Timeouts,
    /// The share of the pool if the host has not enough for all.
    pub(crate) weight: u32,
    /// Sizes that a job may ask for by label, beside the pool's own.
    pub(crate) sizes: Vec<SizeLabel>,
}

impl PoolConfig {
    /// Returns the pool with its own size, and a pool for each other size: a machine, a template and a scale set have one size.
    pub(crate) fn by_size(&self) -> Vec<Self> {
        let own = Self { sizes: Vec::new(), ..self.clone() };
        let others = self.sizes.iter().map(|&size| own.of_size(size));
        std::iter::once(own.clone()).chain(others).collect()
    }

    /// Returns the name by which a job asks for a size of this pool, while other pools may have the size too. It is the name
    /// of the size's scale set.
    pub(crate) fn name_of_size(&self, size: SizeLabel) -> String {
        format!("{}-{size}", self.scale_set.as_deref().unwrap_or(&self.name))
    }

    /// Returns the pool for a size. A forge gives a runner, or a scale set, each job whose labels are among its own. So it has
    /// none but those that name the size, and a job that asks for no size fits only the pool itself.
    fn of_size(&self, size: SizeLabel) -> Self {
        let (name, own) = (format!("{} ({size})", self.name), self.name_of_size(size));
        let demand = match self.spec.demand {
            Demand::Scaled(scale) => Demand::Scaled(Scale { min_idle: 0, ..scale }),
            other => other,
        };
        let SizeLabel { cpus, memory_mib } = size;
        let spec = PoolSpec {
            name: Some(name.clone()),
            size_of: Some(self.name.clone()),
            labels: Some(vec![own.clone(), size.to_string()]),
            machine: MachineSpec { cpus, memory_mib, spares: 0, ..self.spec.machine.clone() },
            demand,
            ..self.spec.clone()
        };
        Self {
            name,
            spec,
            scale_set: self.scale_set.is_some().then_some(own),
            min_idle: 0,
            schedule: Schedule::default(),
            ..self.clone()
        }
    }
}

/// The limits of the phases of a runner, except for the boot, which the description has; none: the default, see
/// [`super::pool_file::TimeoutsFile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Timeouts {
    /// From the agent's hello until the runner app is about to start.
    pub(crate) registration: Option<Duration>,
    /// Without a job. A runner of the source `static` then makes room for a fresh one.
    pub(crate) idle: Option<Duration>,
    /// Of a job.
    pub(crate) job: Option<Duration>,
}

impl HostBudget {
    /// Returns the most virtual CPUs of all machines on a host of this size; none: no limit.
    pub(crate) fn vcpus(&self, size: HostSize) -> Option<u64> {
        self.vcpu_overcommit.map(|factor| times(size.cpus.into(), factor))
    }

    /// Returns the most memory of all machines on a host of this size, MiB.
    pub(crate) fn memory_mib(&self, size: HostSize) -> u64 {
        times(size.memory_mib, self.memory_factor())
    }

    /// Returns the memory of all machines as a multiple of the host's memory.
    pub(crate) fn memory_factor(&self) -> f64 {
        self.memory_overcommit.unwrap_or(dayfly_vm::OVERCOMMIT as f64)
    }
}

/// Multiplies, rounded down. Sizes of hosts are far from the numbers that a float cannot hold.
fn times(number: u64, factor: f64) -> u64 {
    (number as f64 * factor) as u64
}

/// The share of this host that all pools together may use; none: no such limit.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(crate) struct HostBudget {
    /// Virtual CPUs of all machines for each processor of the host.
    pub(crate) vcpu_overcommit: Option<f64>,
    /// Memory of all machines, as a multiple of the host's memory.
    pub(crate) memory_overcommit: Option<f64>,
    /// Most machines.
    pub(crate) max_machines: Option<u32>,
    /// Most machines that start at once.
    pub(crate) max_starts: Option<u32>,
    /// Space that stays free on the disk of the state folder, MiB.
    pub(crate) disk_reserve_mib: Option<u64>,
    /// Most scratch space of all machines, and of what ended ones have left, MiB.
    pub(crate) scratch_mib: Option<u64>,
    /// Most space of the machines that are kept after a failed job, MiB.
    pub(crate) kept_mib: Option<u64>,
}
