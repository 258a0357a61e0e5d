//! What a template is made of.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::key::{KeyParts, TemplateId};
use super::{WarmUp, key};
use crate::accel::Accel;
use crate::driver::qemu::{self, Boot, Card, Needs};
use crate::image::Image;
use crate::machine::{Machine, Network, QemuSettings, StartError, VmHost};
use crate::network;

/// User that runner apps run as, where nobody names one.
const USER: &str = "runner";

/// What a template is made of. Two with the same id can be forked into each other's machines.
#[derive(Debug, Clone)]
pub(crate) struct Blueprint {
    pub(crate) id: TemplateId,
    pub(crate) image: Image,
    pub(crate) guest_binary: PathBuf,
    pub(crate) qemu: PathBuf,
    pub(crate) accel: Accel,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
    pub(crate) disk_mib: u64,
    pub(crate) card: Card,
    /// What its warm-up reaches: the internet, no forge.
    pub(crate) network: Network,
    pub(crate) warm_up: Option<WarmUp>,
}

impl Blueprint {
    /// The blueprint for machines of this kind.
    pub(crate) fn of(
        host: &VmHost,
        machine: &Machine,
        settings: &QemuSettings,
        warm_up: Option<WarmUp>,
        accel: Accel,
        network: &Network,
    ) -> Result<Self, StartError> {
        let network = Network { forward: None, allow: Vec::new(), ..network.clone() };
        let mut blueprint = Self {
            id: TemplateId::default(),
            image: settings.image.clone(),
            guest_binary: machine.guest_binary.clone(),
            qemu: host.qemu()?,
            accel,
            cpus: machine.cpus,
            memory_mib: machine.memory_mib,
            disk_mib: settings.disk_mib,
            card: network::card(&network),
            network,
            warm_up,
        };
        blueprint.id = blueprint.key()?;
        Ok(blueprint)
    }

    fn key(&self) -> Result<TemplateId, StartError> {
        let digest = |path: &PathBuf| {
            let io_error = |source| StartError::Io { what: "read", path: path.clone(), source };
            key::digest_of_program(path).map_err(io_error)
        };
        // The command line of a fork, without what differs between two of them.
        let needs = Needs {
            qemu: &self.qemu,
            name: "",
            accel: self.accel,
            tsc_khz: 0,
            cpus: self.cpus,
            memory_mib: self.memory_mib,
            boot: Boot::Fork { card: self.card },
        };
        let invocation = qemu::plan(&needs);
        Ok(key::id_of(&KeyParts {
            image: self.image.manifest(),
            guest: &digest(&self.guest_binary)?,
            vmm: &digest(&self.qemu)?,
            accel: self.accel,
            cpus: self.cpus,
            memory_mib: self.memory_mib,
            disk_mib: self.disk_mib,
            vmm_args: &invocation.args,
            user: self.user(),
            warm_up: self.warm_up.as_ref().map(|warm_up| warm_up.script.as_str()),
        }))
    }

    /// User that runner apps run as.
    pub(crate) fn user(&self) -> &str {
        self.warm_up.as_ref().map_or(USER, |warm_up| &warm_up.user)
    }

    /// DNS server of its warm-up.
    pub(crate) fn dns(&self) -> Option<Ipv4Addr> {
        network::name_server(&self.network)
    }
}
