//! The description of a kept machine.

use std::net::IpAddr;

use crate::machine::KeptVmm;
use crate::network::NetworkPolicy;
use crate::walls::Wall;
use serde::{Deserialize, Serialize};

/// Version of the format. Machines of another version cannot be thawed.
pub(super) const FORMAT: u32 = 1;

/// The runner and the job of a machine, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAbout {
    /// Id of the runner.
    pub runner: String,
    /// Name of the machine.
    pub name: String,
    /// Name of the pool, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Name of the job, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The walls between a VMM and the host that its pool requires.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<Wall>,
    /// The network policy of its pool.
    pub network: NetworkPolicy,
    /// The DNS server of its pool.
    pub dns: IpAddr,
    /// Time until which the machine is kept, seconds since 1970-01-01 UTC.
    pub until_s: i64,
}

/// The description of a kept machine, which is stored in its folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptManifest {
    /// Version of the format.
    pub format: u32,
    /// Its runner and its job.
    #[serde(flatten)]
    pub about: KeptAbout,
    /// Time at which it was frozen, seconds since 1970-01-01 UTC.
    pub kept_s: i64,
    /// The VMM.
    pub(crate) vmm: KeptVmm,
}

impl KeptManifest {
    /// Returns the memory of the machine, MiB.
    pub fn memory_mib(&self) -> u32 {
        self.vmm.memory_mib
    }
}
