//! What a machine should be.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::StartError;
use crate::accel::AccelChoice;
use crate::driver::{DriverKind, podman};
use crate::forward::Forward;
use crate::mount::Mount;
use crate::template::TemplateSettings;
use dayfly_image::{Image, ImageResolver};

/// Size and make of a machine: what many machines have in common.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// The static guest binary, given to the machine at its start.
    pub guest_binary: PathBuf,
    /// How it is made, and what only that way of making needs.
    pub driver: Driver,
}

/// How a machine is made.
#[derive(Debug, Clone)]
pub enum Driver {
    /// A VMM of this host, with KVM or in software emulation.
    Qemu(QemuSettings),
    /// A container of podman's in a machine of its own.
    PodmanKrun(KrunSettings),
    /// A machine of krunvm's.
    Krunvm(KrunSettings),
    /// Plain processes of this host. They hold nobody in: whoever uses this makes sure that the forge is the lab.
    Process(ProcessSettings),
}

impl Driver {
    /// Which one it is.
    #[must_use]
    pub fn kind(&self) -> DriverKind {
        match self {
            Self::Qemu(_) => DriverKind::Qemu,
            Self::PodmanKrun(_) => DriverKind::PodmanKrun,
            Self::Krunvm(_) => DriverKind::Krunvm,
            Self::Process(_) => DriverKind::Process,
        }
    }
}

/// What the krun drivers need to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KrunSettings {
    /// The image, as podman or buildah call it: any reference. [`crate::pull`] fetches it.
    pub image: String,
}

/// What the `process` driver needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSettings {
    /// The runner app's program on this host.
    pub app: PathBuf,
}

/// What the `qemu` driver needs to know.
#[derive(Debug, Clone)]
pub struct QemuSettings {
    /// Scratch disk, MiB: its size in the guest. On the host it takes what is written.
    pub disk_mib: u64,
    /// What it boots.
    pub image: Image,
    /// Where [`crate::pull`] looks for a newer one; none: it is always this one.
    pub source: Option<ImageResolver>,
    /// What runs its instructions.
    pub accel: AccelChoice,
    /// Processor model if it is emulated, in QEMU's words; none: one that all of QEMU's emulations are sound with.
    pub cpu_model: Option<String>,
    /// How it is forked; none: it is booted.
    pub template: Option<TemplateSettings>,
}

/// Whether a machine reaches anything but its forge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Egress {
    /// The internet; as root without this host and private networks.
    #[default]
    Open,
    /// Nothing but the forwarded port.
    Shut,
}

/// What a machine may reach. It has IPv4 only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Whether it reaches the internet.
    pub egress: Egress,
    /// Its DNS server, which is let through although it may be private or this host itself (not its loopback).
    pub dns: IpAddr,
    /// The one port of the host's loopback that works from the guest: a forge on this host.
    pub forward: Option<Forward>,
    /// Addresses that are let through although they are private or the host's own: the forge's. TCP; those of IPv6 and
    /// of a loopback cannot work and are passed over.
    pub allow: Vec<SocketAddr>,
}

/// What is started in the machine once it is up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entrypoint {
    /// Its path in the machine, where it is not the guest binary that the host gave.
    pub program: Option<PathBuf>,
    /// Its arguments, after those that name the runner. No secret is ever among them.
    pub args: Vec<String>,
}

/// Everything about one machine.
#[derive(Debug, Clone)]
pub struct VmSpec {
    /// Its name: host name in the guest, and shown in the list of processes.
    pub name: String,
    /// The runner that lives in it; names the files of the environment directory.
    pub runner_id: String,
    /// Its size and make.
    pub machine: Machine,
    /// What it may reach.
    pub network: Network,
    /// The loop's environment directory on the host.
    pub environment: PathBuf,
    /// What is started in it.
    pub entrypoint: Entrypoint,
    /// Folders and files of the host that it sees.
    pub mounts: Vec<Mount>,
    /// Offer a root shell on the console (`console.sock` in the run folder), for a person who wants a look.
    pub shell: bool,
}

impl VmSpec {
    /// Refuses what a driver or the guest could not work with.
    pub(super) fn check(&self) -> Result<(), StartError> {
        let size = |what, value: u64, least, most| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(StartError::Size { what, value, least, most })
            }
        };
        size("CPUs", self.machine.cpus.into(), 1, 255)?;
        // Init, Docker and a runner app fit into no less.
        size("MiB of memory", self.machine.memory_mib.into(), 256, 1024 * 1024)?;
        match &self.machine.driver {
            Driver::Qemu(qemu) => size("MiB of disk", qemu.disk_mib, 256, 16 * 1024 * 1024),
            Driver::PodmanKrun(_) | Driver::Krunvm(_) => {
                size("CPUs with krun", self.machine.cpus.into(), 1, podman::CPUS_MAX.into())
            }
            Driver::Process(_) => Ok(()),
        }
    }

    /// Its name as the host name of the guest: letters, digits and inner hyphens, 63 at most.
    pub(super) fn hostname(&self) -> String {
        let plain: String =
            self.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
        let plain = plain.trim_matches('-');
        if plain.is_empty() { "dayfly".to_owned() } else { plain.to_owned() }
    }
}
