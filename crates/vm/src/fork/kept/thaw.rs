//! Thaws a kept machine: starts it as it was when its job had failed.

use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{BASE, DISK, LockedMachine, ROOT, STATE};
use crate::cgroup::GroupSize;
use crate::driver::DriverKind;
use crate::fork::parts;
use crate::machine::spawn::Recipe;
use crate::machine::{KeptVmm, StartError, Vm, disks, record, restore};
use crate::network::{self, NetworkPolicy};
use crate::spec::{Egress, Network};
use crate::vm_host::VmHost;
use crate::vmm::{self, Boot, DescriptorRole, NetworkCard, Platform, VmmFiles, VmmNeeds};
use crate::walls::{self, WallsMissing};
use dayfly_host::digest::digest_of_program;

/// Name of the folder that takes the place of the environment directory. No runner is in it.
const ENVIRONMENT: &str = "environment";

/// Why a machine could not be thawed. It stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum ThawError {
    /// It was frozen by another VMM, whose states differ.
    #[error(
        "{} has changed since the machine was frozen, so that it cannot be thawed any more; if the former one is still \
         there, name it with --qemu", path.display()
    )]
    OtherVmm {
        /// The VMM's program.
        path: PathBuf,
    },
    /// Its network card is of another kind than this process gives machines.
    #[error(
        "the machine had {card}, and only a dayfly that gives machines such a one can thaw it (dayfly doctor)"
    )]
    OtherCard {
        /// The network that it had.
        card: &'static str,
    },
    /// Its pool requires walls that this host cannot put up any more.
    #[error(transparent)]
    Walls(#[from] WallsMissing),
    /// It cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
}

fn card_of(card: NetworkCard) -> &'static str {
    match card {
        NetworkCard::Tap => "a network of its own",
        NetworkCard::User => "the network of its host",
    }
}

/// Starts a kept machine. Nothing is registered. Its network card is cut off, and leads into an empty network; if `has_network` is
/// true, it leads into one with the policy of the machine's pool, and [`Vm::connect`] connects the card once the agent has said
/// hello. The machine writes to an overlay in the folder that [`LockedMachine::clear`] removes.
///
/// # Errors
/// See [`ThawError`].
pub async fn thaw(host: &VmHost, kept: &LockedMachine, has_network: bool) -> Result<Vm, ThawError> {
    let (machine, run_dir) = (kept.machine(), kept.run_dir());
    let (about, vmm) = (&machine.manifest().about, &machine.manifest().vmm);
    let platform = platform(host.qemu.as_deref(), vmm)?;
    network::look_for_obstacles(&host.launcher).await;
    let policy = if has_network { about.network.clone() } else { NetworkPolicy::None };
    let of_network = Some((&policy, &host.launcher));
    walls::require(Some(platform.program()), DriverKind::Qemu, &about.require, of_network)?;
    let network = Network::new(policy, about.dns);
    let network = match vmm.card {
        // Nothing is shut more than the VMM's own network in an empty namespace.
        NetworkCard::User if !has_network => Network { egress: Egress::Shut, ..network },
        NetworkCard::User | NetworkCard::Tap => network,
    };
    // The guest has agreed with a card of this kind on offloading.
    if network::card(&network, &host.launcher) != vmm.card {
        return Err(ThawError::OtherCard { card: card_of(vmm.card) });
    }
    let io_error = |what, path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| StartError::Io { what, path, source }
    };
    let _turn = host.pace.enter(vmm.memory_mib).await.map_err(StartError::from)?;
    let environment = run_dir.join(ENVIRONMENT);
    make_folder(&environment).map_err(io_error("make the folder", &environment))?;
    let connection = parts::connect(host, &network, &run_dir).await?;
    let scratch =
        disks::make_overlay(&run_dir.join(record::SCRATCH_DISK), vmm.disk_mib, host.disk_reserve_mib())?;
    let open = |name: &str| {
        let path = machine.folder().join(name);
        File::open(&path).map_err(io_error("open", &path))
    };
    let mut files = VmmFiles::default()
        .with(DescriptorRole::RootDisk, open(ROOT)?)
        .with(DescriptorRole::State, open(STATE)?)
        .with(DescriptorRole::KeptDisk, open(DISK)?)
        .with(DescriptorRole::ScratchDisk, scratch);
    if vmm.is_fork {
        files = files.with(DescriptorRole::BaseDisk, open(BASE)?);
    }
    let name = format!("thawed-{}", about.name);
    let needs = VmmNeeds {
        platform: &platform,
        name: &name,
        tsc_khz: vmm::tsc_khz(),
        cpus: vmm.cpus,
        memory_mib: vmm.memory_mib,
        boot: Boot::Thaw { card: vmm.card, is_fork: vmm.is_fork },
    };
    let recipe = Recipe {
        command: vmm::plan(&needs),
        launcher: host.launcher.clone(),
        accel: platform.accel,
        cgroups: host.cgroups.clone(),
        size: GroupSize { memory_mib: vmm.memory_mib, cpus: vmm.cpus, accel: platform.accel, shares: 0 },
        name: name.clone(),
        run_dir: run_dir.clone(),
        connection: Arc::new(connection),
        shares: None,
        forward: None,
        files: platform.with_firmware(files)?,
    };
    Ok(restore(recipe, &about.runner, &environment).await?)
}

/// Returns the platform with the program that has frozen the machine: the one that the user has chosen, or the one that it was.
fn platform(chosen: Option<&Path>, vmm: &KeptVmm) -> Result<Platform, ThawError> {
    let former = vmm.platform.program();
    let is_same = |path: &&Path| digest_of_program(path).is_ok_and(|digest| digest == vmm.program);
    match chosen.into_iter().chain([former]).find(is_same) {
        Some(program) => Ok(vmm.platform.clone().with_program(program.to_owned())),
        None => Err(ThawError::OtherVmm { path: former.to_owned() }),
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fork::kept::tests::vmm;

    #[test]
    fn a_machine_is_thawed_by_the_program_that_froze_it_wherever_that_is_now() {
        let folder = tempfile::tempdir().expect("a folder");
        let [former, other, moved] = ["qemu", "other", "moved"].map(|name| folder.path().join(name));
        std::fs::write(&former, "one version").expect("written");
        std::fs::write(&other, "another version, and longer").expect("written");
        let vmm = vmm(&former);
        let chosen = |path| platform(path, &vmm).map(|platform| platform.program().to_owned());
        assert_eq!(chosen(None).expect("the same"), former);
        assert_eq!(chosen(Some(&other)).expect("the former one is there"), former);
        std::fs::rename(&former, &moved).expect("moved");
        std::fs::copy(&other, &former).expect("an upgrade");
        assert!(matches!(chosen(None), Err(ThawError::OtherVmm { path }) if path == former));
        assert!(chosen(Some(&other)).is_err());
        assert_eq!(chosen(Some(&moved)).expect("the same"), moved);
    }
}
