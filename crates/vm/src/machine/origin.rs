//! Starts a machine from a spare or as a fork of its template if there is one, else from its kernel.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::spawn::{Outputs, Recipe, Vmm};
use super::tree::TreeRecipe;
use super::{StartError, VmHost, disks, record};
use crate::forward::Forward;
use crate::launch::Launcher;
use crate::network::Connection;
use crate::pace::Turn;
use crate::template::{Blueprint, Opened, StartedFrom, fork_failed};
use crate::virtiofs::Shares;
use crate::vmm::{self, Boot, DescriptorRole, NetworkCard, Platform, VmmFiles, VmmNeeds, overlay};
use dayfly_image::Image;

/// The origin of a machine, for all of its starts.
#[derive(Debug)]
pub(super) enum Origin {
    /// A VMM.
    Vmm(Box<VmmOrigin>),
    /// A tree of processes on this host.
    Tree(TreeRecipe),
}

/// One start of a machine whose process runs.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) vmm: Vmm,
    pub(super) from: StartedFrom,
    /// Held until the machine is up.
    pub(super) turn: Option<Turn>,
    /// Why the machine was booted, if it was to be forked.
    pub(super) cold: Option<String>,
}

impl Origin {
    /// Waits until the machine may start. Nothing exists of this start before, so the wait can be cancelled.
    pub(super) async fn turn(&self) -> Result<Option<Turn>, StartError> {
        match self {
            Self::Vmm(origin) if origin.spare.is_none() => Ok(Some(origin.host.pace.enter().await?)),
            Self::Vmm(_) | Self::Tree(_) => Ok(None),
        }
    }

    /// Starts the machine from a spare, else from its template, else from its kernel.
    pub(super) async fn spawn(
        &mut self,
        turn: Option<Turn>,
        outputs: &Outputs,
        detached: &Arc<AtomicBool>,
    ) -> Result<Started, StartError> {
        match self {
            Self::Vmm(origin) => origin.spawn(turn, outputs, detached).await,
            Self::Tree(recipe) => {
                let vmm = recipe.spawn(outputs, detached).await?;
                Ok(Started { vmm, from: StartedFrom::Boot, turn: None, cold: None })
            }
        }
    }

    /// Records that the last start is up.
    pub(super) fn has_come_up(&self) {
        if let Self::Vmm(origin) = self {
            origin.has_come_up();
        }
    }

    /// Records that a fork has failed. From now on the machine is booted.
    pub(super) fn give_up_fork(&mut self, reason: &str) {
        if let Self::Vmm(origin) = self {
            origin.give_up_fork(reason);
        }
    }
}

/// The origin of a machine that runs in a VMM.
#[derive(Debug)]
pub(super) struct VmmOrigin {
    parts: Arc<Parts>,
    host: VmHost,
    /// A spare, until the first start uses it.
    spare: Option<Vmm>,
    /// The template that the machine is forked from.
    template: Option<(Blueprint, Arc<Opened>)>,
    /// The recipe of a cold boot, once it was needed.
    cold: Option<Arc<Recipe>>,
    /// Why the machine is not forked, until the reason was reported.
    why_cold: Option<String>,
}

impl VmmOrigin {
    /// Creates an origin. `template` is the template to fork from, or the reason for a cold boot, if it has to be reported.
    pub(super) fn new(
        parts: Parts,
        host: VmHost,
        template: Result<(Blueprint, Arc<Opened>), Option<String>>,
        spare: Option<Vmm>,
    ) -> Self {
        let (template, why_cold) = match template {
            Ok(template) => (Some(template), None),
            Err(why) => (None, why),
        };
        Self { parts: Arc::new(parts), host, spare, template, cold: None, why_cold }
    }

    async fn spawn(
        &mut self,
        turn: Option<Turn>,
        outputs: &Outputs,
        detached: &Arc<AtomicBool>,
    ) -> Result<Started, StartError> {
        if let (Some(vmm), Some((_, template))) = (self.spare.take(), &self.template) {
            let from = StartedFrom::Spare(template.id().to_string());
            return Ok(Started { vmm, from, turn: None, cold: None });
        }
        if let Some((_, template)) = &self.template {
            let (of, from) = (Arc::clone(template), StartedFrom::Fork(template.id().to_string()));
            match self.spawn_by(move |parts| parts.fork(&of).map(Arc::new), outputs, detached).await {
                Ok((_, vmm)) => return Ok(Started { vmm, from, turn, cold: None }),
                Err(error) => self.give_up_fork(&error.to_string()),
            }
        }
        let known = self.cold.clone();
        let recipe = move |parts: &Parts| known.map_or_else(|| parts.cold().map(Arc::new), Ok);
        let (recipe, vmm) = self.spawn_by(recipe, outputs, detached).await?;
        self.cold = Some(recipe);
        Ok(Started { vmm, from: StartedFrom::Boot, turn, cold: self.why_cold.take() })
    }

    async fn spawn_by(
        &self,
        recipe: impl FnOnce(&Parts) -> Result<Arc<Recipe>, StartError> + Send + 'static,
        outputs: &Outputs,
        detached: &Arc<AtomicBool>,
    ) -> Result<(Arc<Recipe>, Vmm), StartError> {
        let recipe = Parts::blocking(&self.parts, recipe).await?;
        let vmm = recipe.spawn(outputs, detached).await?;
        Ok((recipe, vmm))
    }

    fn has_come_up(&self) {
        if let Some((_, template)) = &self.template {
            self.host.templates.succeeded(template);
        }
    }

    /// Counts a failed fork of the template. The next start is a cold boot.
    fn give_up_fork(&mut self, reason: &str) {
        if let Some((blueprint, template)) = self.template.take() {
            fork_failed(&self.host, &blueprint, &template);
            self.why_cold = Some(format!("a fork of template {} failed: {reason}", template.id()));
        }
    }
}

/// The settings that all starts of one machine share.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) launcher: Launcher,
    pub(crate) platform: Platform,
    pub(crate) name: String,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
    pub(crate) disk_mib: u64,
    pub(crate) image: Image,
    pub(crate) guest_binary: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) connection: Arc<Connection>,
    pub(crate) shares: Option<Shares>,
    pub(crate) forward: Option<Forward>,
}

impl Parts {
    /// Returns the parts of a machine that a blueprint describes.
    pub(crate) fn of_blueprint(
        host: &VmHost,
        blueprint: &Blueprint,
        name: String,
        run_dir: &Path,
        connection: Arc<Connection>,
        forward: Option<Forward>,
    ) -> Self {
        Self {
            launcher: host.launcher.clone(),
            platform: blueprint.platform.clone(),
            name,
            cpus: blueprint.cpus,
            memory_mib: blueprint.memory_mib,
            disk_mib: blueprint.disk_mib,
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
    pub(crate) fn card(&self) -> NetworkCard {
        if matches!(*self.connection, Connection::Own(_)) { NetworkCard::Tap } else { NetworkCard::User }
    }

    /// Returns the recipe of a cold boot, and creates an empty scratch disk.
    fn cold(&self) -> Result<Recipe, StartError> {
        let scratch = disks::make_scratch(&self.run_dir.join(record::SCRATCH_DISK), self.disk_mib)?;
        let files = VmmFiles::to_boot(&self.image, &self.guest_binary)?.with_root(&self.image)?;
        let shares = self.shares.as_ref().map_or(0, |shares| shares.list.len());
        let boot = Boot::Cold { card: self.card(), shares };
        self.recipe(boot, files.with(DescriptorRole::ScratchDisk, scratch))
    }

    /// Returns the recipe of the machine that becomes a template, and creates its scratch disk.
    pub(crate) fn template(&self, disk: &Path, memory: VmmFiles) -> Result<Recipe, StartError> {
        let scratch = disks::make_scratch(disk, self.disk_mib)?;
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
        let path = self.run_dir.join(record::SCRATCH_DISK);
        let io_error = |source| StartError::Io { what: "make the overlay", path: path.clone(), source };
        let scratch = overlay::make(&path, self.disk_mib * 1024 * 1024).map_err(io_error)?;
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
            name: self.name.clone(),
            run_dir: self.run_dir.clone(),
            connection: Arc::clone(&self.connection),
            shares: self.shares.clone(),
            forward: self.forward,
            files: self.platform.with_firmware(files)?,
        })
    }
}
