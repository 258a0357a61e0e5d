//! The blueprint of a template: its id and everything that is needed to build or fork it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::key::{KeyParts, TemplateId};
use super::{WarmUp, key};
use crate::machine::StartError;
use crate::network;
use crate::spec::{Machine, Network, QemuSettings};
use crate::vm_host::VmHost;
use crate::vmm::{self, Boot, Platform, VmmNeeds};
use dayfly_host::digest::digest_of_program;
use dayfly_image::Image;

/// Everything that a template is built from. If two blueprints have the same id, a template of one also fits the machines of
/// the other.
#[derive(Debug, Clone)]
pub(crate) struct Blueprint {
    pub(crate) id: TemplateId,
    pub(crate) image: Image,
    pub(crate) guest_binary: PathBuf,
    pub(crate) platform: Platform,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
    pub(crate) disk_mib: u64,
    /// The user that runner apps run as.
    pub(crate) user: String,
    /// The network of the warm-up, which reaches no forge.
    pub(crate) network: Network,
    /// The DNS server of the warm-up.
    pub(crate) dns: Option<Ipv4Addr>,
    pub(crate) warm_up: Option<WarmUp>,
}

impl Blueprint {
    /// Returns the blueprint for machines of this kind on a host.
    pub(crate) fn of(
        host: &VmHost,
        machine: &Machine,
        settings: &QemuSettings,
        user: &str,
        warm_up: Option<WarmUp>,
        platform: Platform,
        network: &Network,
    ) -> Result<Self, StartError> {
        let card = network::card(network, &host.launcher);
        let digest = |path: &Path| {
            let io_error = |source| StartError::Io { what: "read", path: path.to_owned(), source };
            digest_of_program(path).map_err(io_error)
        };
        // The command line of a fork, without the parts that differ between two forks.
        let needs = VmmNeeds {
            platform: &platform,
            name: "",
            tsc_khz: 0,
            cpus: machine.cpus,
            memory_mib: machine.memory_mib,
            boot: Boot::Fork { card },
        };
        let id = key::id_of(&KeyParts {
            image: settings.image.manifest(),
            guest: &digest(&machine.guest_binary)?,
            vmm: &digest(platform.program())?,
            firmware: &platform.firmware_file().map_or(Ok(String::new()), |path| digest(&path))?,
            accel: platform.accel,
            cpus: machine.cpus,
            memory_mib: machine.memory_mib,
            disk_mib: settings.disk_mib,
            vmm_args: &vmm::plan(&needs).args,
            user,
            warm_up: warm_up.as_ref().map(|warm_up| (warm_up.script.as_str(), &network.egress)),
        });
        let network = Network { forward: None, allow: Vec::new(), names: Vec::new(), ..network.clone() };
        Ok(Self {
            id,
            image: settings.image.clone(),
            guest_binary: machine.guest_binary.clone(),
            platform,
            cpus: machine.cpus,
            memory_mib: machine.memory_mib,
            disk_mib: settings.disk_mib,
            user: user.to_owned(),
            dns: network::name_server(&network, &host.launcher),
            network,
            warm_up,
        })
    }
}
