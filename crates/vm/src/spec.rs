//! The description of a machine that is to be started.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::accel::AccelChoice;
use crate::driver::{DriverKind, podman};
use crate::fork::template::TemplateSettings;
use crate::forward::Forward;
use crate::machine::StartError;
use crate::mount::Mount;
use crate::network::NetworkPolicy;
use dayfly_image::{Image, ImageResolver, InUse};
use secrecy::SecretString;

/// The size and the driver of a machine: the settings that many machines share.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Longest time from the start of a boot until the agent's hello; none: it follows from the speed of this host.
    pub boot_limit: Option<Duration>,
    /// The static guest binary, which the machine gets at its start.
    pub guest_binary: PathBuf,
    /// The driver that creates the machine, and that driver's settings.
    pub driver: Driver,
}

/// The way a machine is created.
#[derive(Debug, Clone)]
pub enum Driver {
    /// By QEMU on this host, with KVM or in software emulation.
    Qemu(QemuSettings),
    /// By podman, as a container in a VM of its own.
    PodmanKrun(KrunSettings),
    /// By krunvm.
    Krunvm(KrunSettings),
    /// As plain processes of this host, which isolate nothing. The caller must make sure that the forge is the lab.
    Process(ProcessSettings),
}

impl Driver {
    /// Returns the driver's kind, without its settings.
    #[must_use]
    pub fn kind(&self) -> DriverKind {
        match self {
            Self::Qemu(_) => DriverKind::Qemu,
            Self::PodmanKrun(_) => DriverKind::PodmanKrun,
            Self::Krunvm(_) => DriverKind::Krunvm,
            Self::Process(_) => DriverKind::Process,
        }
    }

    /// Returns true if the machine itself writes the environment directory, because the driver's tool shares it.
    #[must_use]
    pub fn shares_environment(&self) -> bool {
        match self {
            Self::PodmanKrun(_) | Self::Krunvm(_) => true,
            Self::Qemu(_) | Self::Process(_) => false,
        }
    }
}

/// The settings of the krun drivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KrunSettings {
    /// The image: any reference that podman or buildah accepts. [`crate::pull`] fetches it.
    pub image: String,
}

/// The settings of the `process` driver.
#[derive(Debug, Clone)]
pub struct ProcessSettings {
    /// Path of the runner app's program on this host.
    pub app: PathBuf,
    /// Keeps the program from being removed as long as machines may start it; none if it is no program of the state folder.
    pub in_use: Option<InUse>,
}

/// The settings of the `qemu` driver.
#[derive(Debug, Clone)]
pub struct QemuSettings {
    /// Size of the scratch disk in the guest, MiB. On the host the disk takes only as much space as was written to it.
    pub disk_mib: u64,
    /// The image that the machine boots.
    pub image: Image,
    /// The source in which [`crate::pull`] looks for a newer image. If it is `None`, `image` is always used.
    pub source: Option<ImageResolver>,
    /// The accelerator that runs the guest's instructions.
    pub accel: AccelChoice,
    /// Processor model of an emulated machine, as QEMU names it. The default (`None`) is a model that QEMU emulates
    /// correctly. `host` gives a machine with KVM the host's virtualisation.
    pub cpu_model: Option<String>,
    /// The settings for forks. If it is `None`, the machine is booted.
    pub template: Option<TemplateSettings>,
}

/// The networks that a machine reaches besides its forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Egress {
    /// Those of its pool's policy, with the driver `qemu`. If this process does not run as root, and this host allows no network
    /// namespaces, lists are refused, and the others reach all that this host reaches.
    Policy(NetworkPolicy),
    /// Nothing but the forwarded port, by the VMM's own network, for a machine that runs no job.
    Shut,
}

impl Default for Egress {
    fn default() -> Self {
        Self::Policy(NetworkPolicy::default())
    }
}

/// The addresses that a machine may reach. Machines have IPv4 only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The networks besides the forge.
    pub egress: Egress,
    /// The DNS server. It is allowed even if it is a private address or this host itself, but not the host's loopback.
    pub dns: IpAddr,
    /// The one port of the host's loopback that the guest can reach, for a forge on this host.
    pub forward: Option<Forward>,
    /// The forge's addresses, which are allowed (TCP) even if they are private or the host's own. IPv6 and loopback
    /// addresses are skipped because they cannot work.
    pub allow: Vec<SocketAddr>,
    /// The forge's host names, which are resolved whatever the policy is.
    pub names: Vec<String>,
}

impl Network {
    /// Returns a network without a forge.
    pub fn new(policy: NetworkPolicy, dns: IpAddr) -> Self {
        Self { egress: Egress::Policy(policy), dns, forward: None, allow: Vec::new(), names: Vec::new() }
    }
}

/// The program that is started in the machine once the machine is up.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Entrypoint {
    /// The program's path in the machine. If it is `None`, the guest binary from the host is started.
    pub program: Option<PathBuf>,
    /// The arguments that follow those that name the runner. They never contain a secret.
    pub args: Vec<String>,
}

/// The complete description of one machine.
#[derive(Debug, Clone)]
pub struct VmSpec {
    /// The machine's name: the host name in the guest, also shown in the list of processes.
    pub name: String,
    /// Id of the runner in the machine. The names of the files in the environment directory begin with it.
    pub runner_id: String,
    /// The machine's size and driver.
    pub machine: Machine,
    /// The addresses that the machine may reach.
    pub network: Network,
    /// The loop's environment directory on the host.
    pub environment: PathBuf,
    /// The settings of the entrypoint, the content of its `<id>.env`. They contain secrets: the agent of a machine gets them
    /// over its port. They are written to the environment directory only for a driver that shares the directory.
    pub settings: SecretString,
    /// The program that is started in the machine.
    pub entrypoint: Entrypoint,
    /// Folders and files of the host that the machine sees.
    pub mounts: Vec<Mount>,
    /// True if the console (`console.sock` in the run folder) offers a root shell, so that a person can inspect the machine.
    pub shell: bool,
}

impl VmSpec {
    /// Returns an error if the driver or the guest could not work with one of the sizes.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        let size = |what, value: u64, least, most| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(StartError::Size { what, value, least, most })
            }
        };
        size("CPUs", self.machine.cpus.into(), 1, 255)?;
        // Init, Docker and a runner app do not fit into less.
        size("MiB of memory", self.machine.memory_mib.into(), 256, 1024 * 1024)?;
        match &self.machine.driver {
            Driver::Qemu(qemu) => return size("MiB of disk", qemu.disk_mib, 256, 16 * 1024 * 1024),
            Driver::PodmanKrun(_) | Driver::Krunvm(_) => {
                size("CPUs with krun", self.machine.cpus.into(), 1, podman::CPUS_MAX.into())?;
            }
            Driver::Process(_) => {}
        }
        match &self.network.egress {
            Egress::Policy(policy) if policy.has_list() => {
                Err(StartError::NoPolicy { policy: policy.as_str(), driver: self.machine.driver.kind() })
            }
            Egress::Policy(_) | Egress::Shut => Ok(()),
        }
    }

    /// Returns the machine's name as a host name: letters, digits and inner hyphens, at most 63 characters.
    pub(crate) fn hostname(&self) -> String {
        let plain: String =
            self.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
        let plain = plain.trim_matches('-');
        if plain.is_empty() { "dayfly".to_owned() } else { plain.to_owned() }
    }
}
