//! The settings that all starts of one machine share, and the recipes of its starts: a cold boot, a template, a fork.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::template::{Blueprint, Opened};
use crate::cgroup::{Cgroups, GroupSize};
use crate::forward::Forward;
use crate::launch::Launcher;
use crate::machine::spawn::Recipe;
use crate::machine::{StartError, disks, record};
use crate::network::{self, Connection};
use crate::spec::Network;
use crate::virtiofs::Shares;
use crate::vm_host::VmHost;
use crate::vmm::{self, Boot, DescriptorRole, NetworkCard, Platform, VmmFiles, VmmNeeds};
use dayfly_image::Image;

/// The settings that all starts of one machine share.
#[derive(Debug)]
pub(super) struct MachineParts {
    pub(super) launcher: Launcher,
    pub(super) cgroups: Cgroups,
    pub(super) platform: Platform,
    pub(super) name: String,
    pub(super) cpus: u32,
    pub(super) memory_mib: u32,
    pub(super) disk_mib: u64,
    /// Space that must be free on this host before the disk is created, MiB.
    pub(super) disk_reserve_mib: u64,
    pub(super) image: Image,
    pub(super) guest_binary: PathBuf,
    pub(super) run_dir: PathBuf,
    pub(super) connection: Arc<Connection>,
    pub(super) shares: Option<Shares>,
    pub(super) forward: Option<Forward>,
}

impl MachineParts {
    /// Returns the parts of a machine that a blueprint describes.
    pub(super) fn of_blueprint(
        host: &VmHost,
        blueprint: &Blueprint,
        name: String,
        run_dir: &Path,
        connection: Arc<Connection>,
        forward: Option<Forward>,
    ) -> Self {
        Self {
            launcher: host.launcher.clone(),
            cgroups: host.cgroups.clone(),
            platform: blueprint.platform.clone(),
            name,
            cpus: blueprint.cpus,
            memory_mib: blueprint.memory_mib,
            disk_mib: blueprint.disk_mib,
            disk_reserve_mib: host.disk_reserve_mib(),
            image: blueprint.image.clone(),
            guest_binary: blueprint.guest_binary.clone(),
            run_dir: run_dir.to_owned(),
            connection,
            shares: None,
            forward,
        }
    }

    /// Runs work with files on a blocking thread.
    pub(super) async fn blocking<T: Send + 'static>(
        parts: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, StartError> + Send + 'static,
    ) -> Result<T, StartError> {
        let parts = Arc::clone(parts);
        let path = parts.run_dir.clone();
        let done = tokio::task::spawn_blocking(move || work(&parts)).await;
        done.unwrap_or_else(|error| {
            Err(StartError::Io { what: "prepare", path, source: std::io::Error::other(error) })
        })
    }

    /// Returns what the network card is connected to.
    pub(super) fn card(&self) -> NetworkCard {
        if matches!(*self.connection, Connection::Own(_)) { NetworkCard::Tap } else { NetworkCard::User }
    }

    /// Returns the recipe of a cold boot, and creates an empty scratch disk.
    pub(super) fn cold(&self) -> Result<Recipe, StartError> {
        let scratch = disks::make_scratch(
            &self.run_dir.join(record::SCRATCH_DISK),
            self.disk_mib,
            self.disk_reserve_mib,
        )?;
        let files = VmmFiles::to_boot(&self.image, &self.guest_binary)?.with_root(&self.image)?;
        let shares = self.shares.as_ref().map_or(0, |shares| shares.list.len());
        let boot = Boot::Cold { card: self.card(), shares };
        self.recipe(boot, files.with(DescriptorRole::ScratchDisk, scratch))
    }

    /// Returns the recipe of the machine that becomes a template, and creates its scratch disk.
    pub(super) fn template(&self, disk: &Path, memory: VmmFiles) -> Result<Recipe, StartError> {
        let scratch = disks::make_scratch(disk, self.disk_mib, self.disk_reserve_mib)?;
        let boot = VmmFiles::to_boot(&self.image, &self.guest_binary)?.with_root(&self.image)?;
        let files = boot.with(DescriptorRole::ScratchDisk, scratch).and(memory);
        self.recipe(Boot::Template { card: self.card() }, files)
    }

    /// Returns the recipe of a fork, and creates its overlay. Kernel and initramfs are not opened, because the template's
    /// memory contains the booted kernel.
    pub(super) fn fork(&self, template: &Opened) -> Result<Recipe, StartError> {
        let of_template = |what: &'static str| {
            let path = template.folder().to_owned();
            move |source| StartError::Io { what, path, source }
        };
        let scratch = disks::make_overlay(
            &self.run_dir.join(record::SCRATCH_DISK),
            self.disk_mib,
            self.disk_reserve_mib,
        )?;
        let files = VmmFiles::default()
            .with_root(&self.image)?
            .with(
                DescriptorRole::Memory,
                template.memory().map_err(of_template("use the memory of the template"))?,
            )
            .with(
                DescriptorRole::State,
                template.state().map_err(of_template("use the state of the template"))?,
            )
            .with(
                DescriptorRole::BaseDisk,
                template.disk().map_err(of_template("use the disk of the template"))?,
            )
            .with(DescriptorRole::ScratchDisk, scratch);
        self.recipe(Boot::Fork { card: self.card() }, files)
    }

    fn recipe(&self, boot: Boot, files: VmmFiles) -> Result<Recipe, StartError> {
        let needs = VmmNeeds {
            platform: &self.platform,
            name: &self.name,
            tsc_khz: vmm::tsc_khz(),
            cpus: self.cpus,
            memory_mib: self.memory_mib,
            boot,
        };
        Ok(Recipe {
            command: vmm::plan(&needs),
            launcher: self.launcher.clone(),
            accel: self.platform.accel,
            cgroups: self.cgroups.clone(),
            size: GroupSize {
                memory_mib: self.memory_mib,
                cpus: self.cpus,
                accel: self.platform.accel,
                shares: self.shares.as_ref().map_or(0, |shares| shares.list.len()),
            },
            name: self.name.clone(),
            run_dir: self.run_dir.clone(),
            connection: Arc::clone(&self.connection),
            shares: self.shares.clone(),
            forward: self.forward,
            files: self.platform.with_firmware(files)?,
        })
    }
}

/// Creates the machine's network on a blocking thread, because the kernel takes a while.
pub(super) async fn connect(
    host: &VmHost,
    network: &Network,
    run_dir: &Path,
) -> Result<Connection, StartError> {
    let (network, launcher, folder) = (network.clone(), host.launcher.clone(), run_dir.to_owned());
    let connected = tokio::task::spawn_blocking(move || network::connect(&network, &launcher, &folder)).await;
    match connected {
        Ok(connected) => Ok(connected?),
        Err(error) => {
            let source = std::io::Error::other(error);
            Err(StartError::Io { what: "connect the machine of", path: run_dir.to_owned(), source })
        }
    }
}
