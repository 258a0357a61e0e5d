//! Imports images: converts their layers once into an image that machines boot.
//!
//! ```text
//!   name ──> registry, archive, podman's store ──> layers ──> tree ──> + the host's additions ──tar──> mksquashfs
//!     └─ .names: the result of the last lookup                              └─ kernel, modules ──> initramfs
//! ```
//!
//! The id of an imported image is the digest of its layers' digests, of its run configuration, and of the host's additions.
//! Two names with the same layers and run configuration give one image. If the host has newer bundles (kernel, tools) than
//! those in an image, the next import of its name gives the next generation of that image.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::additions;
use super::build::digests_of;
use super::command::{Step, mortal};
use super::converter;
use super::error::{failed, is_full};
use super::generations::inputs_of;
use super::in_use::InUse;
use super::kernel::{self, KernelBundle};
use super::manifest::{Bundles, FORMAT, Manifest, Origin, RunnerAppManifest};
use super::names::{Known, Names};
use super::once::write_manifest;
use super::progress::Waiter;
use super::store::{INITRAMFS, KERNEL, LOG, ROOT};
use super::{BuildSettings, Image, ImageError, Progress, Store, modules, recipe, runner_app, tools};
use crate::oci::archive::{self, Opened};
use crate::oci::layer::{Content, Extract, LayerBlob, LayerError, Limits, Tree, emit, scan_all};
use crate::oci::media::Platform;
use crate::oci::registry::{self, Pull, RegistryError, Remote};
use crate::oci::{Digest, ImageName, RegistryAccess, RegistryName, RunConfig};
use dayfly_guest::os_release::OsRelease;
use dayfly_host::clock::now_s;
use dayfly_host::digest::{digest_of, id_of};
use dayfly_host::stage::{Claim, Stage, make_folder};
use dayfly_host::tool::{self, Invocation, Reach};

/// Version of the import. It is raised if a change here gives another image for the same layers.
const VERSION: &str = "5";
/// Memory of `mksquashfs`, beside its lists of files.
const SQUASH_MEMORY: &str = "48M";
/// Longest time that podman may take to report the id of an image.
const PODMAN_LIMIT: Duration = Duration::from_secs(60);
/// Capacity of the pipe from this process to `mksquashfs`, bytes.
const PIPE_LENGTH: usize = 1024 * 1024;

/// Decides whether a registry is asked for an image that the store already has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    /// Each time, with one request. If no registry answers, the import returns the stored image with a warning.
    #[default]
    Always,
    /// Only for images that the store does not have.
    Missing,
    /// Never. An image that the store does not have is an error.
    Never,
}

/// Settings of an import.
#[derive(Debug, Clone)]
pub struct ImportSettings {
    /// Settings shared with builds: state folder, the kernel's suite, Go, and the cancellation.
    pub build: BuildSettings,
    /// Access to registries.
    pub access: RegistryAccess,
    /// When registries are asked.
    pub policy: PullPolicy,
    /// True if the import adds the tools that jobs need and the image lacks (Docker's engine, git, sudo), from
    /// [`tools::tools`].
    pub add_tools: bool,
    /// Folders that may contain podman, best first.
    pub tool_folders: Vec<PathBuf>,
    /// Environment of podman.
    pub tool_env: Vec<(String, String)>,
}

/// An imported image, with warnings about the import.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The image.
    pub image: Image,
    /// Problems that did not stop the import, as shown to users.
    pub warnings: Vec<String>,
}

/// Returns the image of a name from the store, or imports it. Blocks, so it must be called on a thread that may block. Other
/// imports of the same image wait for this one. If the import stops early, its half-built files are removed.
///
/// # Errors
/// See [`ImageError`].
pub fn import(
    settings: &ImportSettings,
    name: &ImageName,
    progress: &mut dyn FnMut(Progress),
) -> Result<Imported, ImageError> {
    let store = Store::new(&settings.build.state);
    if let ImageName::Own(id) = name {
        return Ok(Imported { image: store.find(id)?, warnings: Vec::new() });
    }
    let tools = if settings.add_tools { tools::id(&settings.build) } else { String::new() };
    let options = digest_of(&[
        VERSION,
        recipe::BUILDER_VERSION,
        &runner_app::id(&settings.build),
        &kernel::id(&settings.build),
        &tools,
    ]);
    let names = Names::new(store.folder());
    let platform = Platform::of_host();
    let mut importer = Importer { settings, name, store, names, options, platform, progress };
    let imported = importer.run();
    let store = importer.store.folder().to_owned();
    imported.map_err(|error| explain(error, &store))
}

/// Turns an error into [`ImageError::NoSpace`] if the disk is full. The half-built files are removed by now, so that the
/// free space is the space that the import had.
fn explain(error: ImageError, store: &Path) -> ImageError {
    match dayfly_host::space::free_mib(store) {
        Ok(free_mib) if error.is_of_full_disk() => {
            ImageError::NoSpace { what: "an image", path: store.to_owned(), free_mib, needed_mib: None }
        }
        _ => error,
    }
}

struct Importer<'a> {
    settings: &'a ImportSettings,
    name: &'a ImageName,
    store: Store,
    names: Names,
    /// Digest of the inputs that are the same for all images that this program imports.
    options: String,
    platform: Platform,
    progress: &'a mut dyn FnMut(Progress),
}

impl Importer<'_> {
    fn run(&mut self) -> Result<Imported, ImageError> {
        let quietly = |image| Imported { image, warnings: Vec::new() };
        match self.name {
            ImageName::Registry(name) => self.registry(name),
            ImageName::Containers(name) => self.podman(name).map(quietly),
            _ => self.file(self.name).map(quietly),
        }
    }

    fn failed(&self, what: impl ToString) -> ImageError {
        ImageError::Origin { name: self.name.to_string(), what: what.to_string() }
    }

    /// Returns the image of the name's last lookup, if an import now would use the same options.
    fn known(&self) -> Result<Option<Image>, ImageError> {
        match self.names.get(&self.name.to_string()) {
            Some(known) if known.options == self.options => self.image_of(&known),
            _ => Ok(None),
        }
    }

    /// Returns the image of a digest, if a lookup of any name gave this digest.
    fn of_digest(&self, digest: &Digest) -> Result<Option<Image>, ImageError> {
        let fits = |known: &&Known| known.digest == *digest && known.options == self.options;
        match self.names.list().iter().find(fits) {
            Some(known) => self.image_of(known),
            None => Ok(None),
        }
    }

    /// Returns the image that a name led to, if it is still in the store.
    fn image_of(&self, known: &Known) -> Result<Option<Image>, ImageError> {
        let image = self.store.get(&known.image)?;
        // Names of earlier versions have no inputs.
        Ok(image.filter(|image| known.inputs.is_empty() || image.manifest().inputs == known.inputs))
    }

    fn remember(&self, digest: &Digest, image: &Image) -> Result<(), ImageError> {
        let known = Known {
            name: self.name.to_string(),
            digest: digest.clone(),
            options: self.options.clone(),
            image: image.id().to_owned(),
            inputs: image.manifest().inputs.clone(),
        };
        if self.names.get(&known.name).as_ref() == Some(&known) { Ok(()) } else { self.names.put(&known) }
    }

    fn registry(&mut self, name: &RegistryName) -> Result<Imported, ImageError> {
        let known = match name.digest() {
            // A digest always means the same image.
            Some(digest) => self.of_digest(digest)?,
            None => self.known()?,
        };
        let is_settled = name.digest().is_some() || self.settings.policy != PullPolicy::Always;
        let is_outdated = known.as_ref().map(|image| self.is_outdated(image)).transpose()?.unwrap_or(false);
        match known {
            Some(image) if self.settings.policy == PullPolicy::Never || (is_settled && !is_outdated) => {
                return Ok(Imported { image, warnings: Vec::new() });
            }
            None if self.settings.policy == PullPolicy::Never => {
                return Err(ImageError::NotPulled { name: name.to_string() });
            }
            _ => {}
        }
        match (self.pull(name), known) {
            (Ok(image), _) => Ok(Imported { image, warnings: Vec::new() }),
            (Err(error), Some(image)) if error.leaves_the_image(is_outdated) => {
                let why = match error {
                    PullError::Registry(error) => error.to_string(),
                    PullError::Image(error) => error.to_string(),
                };
                let warning = format!("{why}; the image {name} of an earlier pull is taken");
                Ok(Imported { image, warnings: vec![warning] })
            }
            (Err(error), _) => Err(self.of_pull(error)),
        }
    }

    /// Returns true if this host has newer bundles than those in an image.
    fn is_outdated(&self, image: &Image) -> Result<bool, ImageError> {
        let Some(bundles) = image.manifest().bundles() else { return Ok(false) };
        let build = &self.settings.build;
        let newest = Bundles {
            kernel_s: kernel::newest(build)?.map(|kernel| kernel.created_s),
            tools_s: tools::newest(build)?.map(|tools| tools.created_s),
        };
        Ok(bundles.are_older_than(newest))
    }

    /// Returns the image of a digest as [`Self::of_digest`] does, unless it is outdated.
    fn current_of_digest(&self, digest: &Digest) -> Result<Option<Image>, ImageError> {
        match self.of_digest(digest)? {
            Some(image) if !self.is_outdated(&image)? => Ok(Some(image)),
            _ => Ok(None),
        }
    }

    fn of_pull(&self, error: PullError) -> ImageError {
        match error {
            PullError::Image(error) => error,
            PullError::Registry(RegistryError::Cancelled) => ImageError::Cancelled,
            PullError::Registry(RegistryError::Io { what, path, source }) => {
                ImageError::Io { what, path, source }
            }
            PullError::Registry(RegistryError::NoSpace { path, free_mib, needed_mib }) => {
                ImageError::NoSpace { what: "its layers", path, free_mib, needed_mib: Some(needed_mib) }
            }
            PullError::Registry(error) => self.failed(error),
        }
    }

    fn pull(&mut self, name: &RegistryName) -> Result<Image, PullError> {
        (self.progress)(Progress::Asking);
        let runtime = self.runtime()?;
        let cancel = self.settings.build.cancel.clone();
        let look = registry::look(&self.settings.access, name);
        let remote: Remote = runtime.block_on(until_cancelled(look, &|| cancel.is_cancelled()))?;
        if let Some(image) = self.current_of_digest(&remote.digest)? {
            self.remember(&remote.digest, &image)?;
            return Ok(image);
        }
        (self.progress)(Progress::Phase { name: "pulling layers" });
        let blobs = self.store.blobs();
        // Held until the layers were read, so that a collection does not remove them.
        let _in_use = self.store.use_layers()?;
        let mut tell = |Pull { layers_done, layers, bytes_done, bytes }| {
            (self.progress)(Progress::Pulling { layers_done, layers, bytes_done, bytes });
        };
        let is_cancelled = || cancel.is_cancelled();
        let pulled = runtime.block_on(remote.pull(&blobs, &self.platform, &is_cancelled, &mut tell))?;
        let opened = Opened {
            digest: remote.digest,
            layers: pulled.layers,
            run: pulled.run,
            created_s: pulled.created_s,
        };
        Ok(self.convert(&opened)?)
    }

    /// Creates a runtime of its own, because imports run on threads that may block, inside or outside another runtime.
    fn runtime(&self) -> Result<Runtime, ImageError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| self.failed(error))
    }

    fn file(&mut self, name: &ImageName) -> Result<Image, ImageError> {
        match archive::open(name, &self.platform) {
            Some(Ok(opened)) => self.convert(&opened),
            Some(Err(error)) => Err(self.failed(error)),
            None => Err(self.failed("it is no file")),
        }
    }

    /// Returns podman's id of the image, which is the digest of its configuration, or none if podman does not know the
    /// image.
    fn podman_id(&self, program: &Path, name: &str) -> Result<Option<Digest>, ImageError> {
        let args = ["image", "inspect", "--format", "{{.Id}}", "--", name].map(str::to_owned).to_vec();
        let env = self.settings.tool_env.clone();
        let inspect = Invocation { program: program.to_owned(), args, env };
        let said = self.runtime()?.block_on(tool::run(&inspect, PODMAN_LIMIT));
        Ok(said.ok().and_then(|said| format!("sha256:{}", said.trim()).parse().ok()))
    }

    /// Imports an image from podman's store. podman saves it into an archive, which is removed after the layers were read.
    /// If podman reports the id of an image that was imported before, nothing is saved.
    fn podman(&mut self, name: &str) -> Result<Image, ImageError> {
        let program = tool::find(&self.settings.tool_folders, "podman");
        let program = program.ok_or(ImageError::NoProgram { program: "podman", package: "podman" })?;
        if let Some(digest) = self.podman_id(&program, name)?
            && let Some(image) = self.current_of_digest(&digest)?
        {
            self.remember(&digest, &image)?;
            return Ok(image);
        }
        let scratch = self.settings.build.state.join("podman-images");
        let mut waiter = Waiter {
            what: "an image of podman",
            cancel: &self.settings.build.cancel,
            progress: self.progress,
        };
        let claim = Claim::wait(&scratch, "saved", &mut waiter)?;
        let stage = claim.stage()?;
        let archive = stage.path().join("image.tar");
        let path = stage.path().join(LOG);
        let mut log = File::create(&path).map_err(failed("make", &path))?;
        let phase = "taking the image out of podman's store";
        (self.progress)(Progress::Phase { name: phase });
        let mut command = mortal(&program.to_string_lossy(), Reach::Host, false);
        command.args(["image", "save", "--quiet", "--format", "docker-archive", "--output"]).arg(&archive);
        command.arg("--").arg(name).env_clear().envs(self.settings.tool_env.iter().cloned());
        let cancel = &self.settings.build.cancel;
        let step = Step {
            program: "podman",
            package: "podman",
            phase,
            cancel,
            log: &mut log,
            progress: &mut *self.progress,
        };
        step.run(vec![command])?;
        self.file(&ImageName::DockerArchive { path: archive, name: None })
    }

    /// Returns the image of these layers from the store, or builds it.
    fn convert(&mut self, opened: &Opened) -> Result<Image, ImageError> {
        let run = serde_json::to_string(&opened.run).map_err(|error| self.failed(error))?;
        let mut parts = vec![self.options.as_str(), run.as_str()];
        parts.extend(opened.layers.iter().map(|layer| layer.diff_id.as_str()));
        let recipe = digest_of(&parts);
        let image = match self.store.generations(&recipe).into_iter().next() {
            Some(image) if !self.is_outdated(&image)? => image,
            older => {
                let next = older.map_or(0, |image| image.manifest().generation.saturating_add(1));
                self.make(opened, &recipe, next)?
            }
        };
        self.remember(&opened.digest, &image)?;
        Ok(image)
    }

    fn make(&mut self, opened: &Opened, recipe: &str, generation: u32) -> Result<Image, ImageError> {
        let inputs = inputs_of(recipe, generation);
        let id = id_of(&inputs);
        let what = format!("image {id}");
        let mut waiter = Waiter { what: &what, cancel: &self.settings.build.cancel, progress: self.progress };
        let claim = Claim::wait(self.store.folder(), &id, &mut waiter)?;
        if let Some(image) = self.store.get_of(&inputs)? {
            return Ok(image);
        }
        let stage = claim.stage()?;
        let conversion = self.layers(opened, &stage)?;
        self.describe(opened, &stage, (recipe, generation), conversion)?;
        stage.finish()?;
        self.store.remove_outlived_or_warn(recipe);
        self.store
            .get_of(&inputs)?
            .ok_or_else(|| ImageError::Unusable { what: "another process removed it".to_owned() })
    }

    fn of_layers(&self, error: LayerError) -> ImageError {
        match error {
            LayerError::Cancelled => ImageError::Cancelled,
            // The disk became full while the kernel was extracted.
            LayerError::Write { source, .. } if is_full(&source) => {
                ImageError::Io { what: "write to", path: self.store.folder().to_owned(), source }
            }
            error => self.failed(error),
        }
    }

    /// Writes root file system, kernel and initramfs.
    fn layers(&mut self, opened: &Opened, stage: &Stage) -> Result<Conversion, ImageError> {
        (self.progress)(Progress::Phase { name: "reading layers" });
        let (limits, cancel) = (Limits::default(), self.settings.build.cancel.clone());
        let mut tree = Tree::new(&limits);
        let scanned = scan_all(&opened.layers, &limits, &|| cancel.is_cancelled(), |layer, scanned| {
            tree.apply(layer, scanned)
        });
        scanned.map_err(|error| self.of_layers(error))?;
        let mut conversion = Conversion { suite: name_of_system(&tree), ..Conversion::default() };
        conversion.devices = tree.devices();
        let own = OwnKernel::find(&tree);
        let kernel = match own {
            Ok(own) => KernelOf::Image(own),
            Err(why) => {
                let bundle = kernel::kernel(&self.settings.build, self.progress)?;
                conversion.bundles.kernel_s = Some(bundle.manifest.created_s);
                conversion.in_use.push(bundle.in_use());
                conversion.added.push(format!("kernel {} ({why})", bundle.manifest.kernel));
                KernelOf::Host(bundle)
            }
        };
        self.add(&mut tree, &kernel, &opened.run.env, &mut conversion)?;
        conversion.lacks.extend(additions::lacks(&tree).into_iter().map(str::to_owned));
        let work = stage.path().join("work");
        make_folder(&work)?;
        let extracts = kernel.extracts(&work, &stage.path().join(KERNEL))?;
        self.squash(&tree, &opened.layers, &extracts, stage)?;
        conversion.kernel = kernel.finish(&work, stage.path())?;
        fs::remove_dir_all(&work).map_err(failed("remove", &work))?;
        Ok(conversion)
    }

    /// Adds the tools that the image lacks, and returns their names.
    fn add_tools(
        &mut self,
        tree: &mut Tree,
        conversion: &mut Conversion,
    ) -> Result<Vec<&'static str>, ImageError> {
        let names = if self.settings.add_tools { additions::tools_for(tree) } else { Vec::new() };
        if !names.is_empty() {
            let made = tools::tools(&self.settings.build, self.progress);
            let bundle = made.map_err(|error| match error {
                ImageError::Cancelled => error,
                error if error.is_of_full_disk() => error,
                error => ImageError::NoTools {
                    lacks: additions::shown(&names).join(", "),
                    source: Box::new(error),
                },
            })?;
            additions::add_tools(tree, &bundle, &names).map_err(refused(self.name))?;
            conversion.bundles.tools_s = Some(bundle.manifest.created_s);
            conversion.in_use.push(bundle.in_use());
            let shown = additions::shown(&names).join(", ");
            conversion.added.push(format!("{shown} (of Debian {})", bundle.manifest.suite));
        }
        Ok(names)
    }

    fn add(
        &mut self,
        tree: &mut Tree,
        kernel: &KernelOf,
        run_env: &[String],
        conversion: &mut Conversion,
    ) -> Result<(), ImageError> {
        let tools = self.add_tools(tree, conversion)?;
        let refused = || refused(self.name);
        additions::link_docker_socket(tree).map_err(refused())?;
        let (user, is_added) = additions::add_user(tree).map_err(refused())?;
        if is_added {
            conversion.added.push(format!("user runner ({user})"));
        }
        if (is_added || tools.contains(&"sudo")) && additions::add_sudo(tree).map_err(refused())? {
            conversion.added.push("sudo for it, without a password".to_owned());
        }
        if !additions::has_runner_app(tree) {
            let app = runner_app::runner_app(&self.settings.build, self.progress)?;
            additions::add_runner_app(tree, &app, user).map_err(refused())?;
            let RunnerAppManifest { name, version, .. } = &app.manifest;
            conversion.added.push(format!("runner app {name} {version}"));
            conversion.runner_app = Some(app.manifest);
            conversion.in_use.push(app.in_use);
        }
        let left_out = additions::add_environment(tree, run_env).map_err(refused())?;
        conversion.lacks.extend(left_out.into_iter().map(|name| format!("the variable {name}")));
        if let KernelOf::Host(bundle) = kernel {
            let path = format!("lib/modules/{}", bundle.manifest.kernel);
            additions::add_folder(tree, &bundle.modules(), &path).map_err(refused())?;
            additions::link_kernel_config(tree, &bundle.manifest.kernel).map_err(refused())?;
        }
        Ok(())
    }

    /// Writes the tree through a pipe to `mksquashfs`. No unpacked tree is stored in between.
    fn squash(
        &mut self,
        tree: &Tree,
        layers: &[LayerBlob],
        extracts: &[Extract],
        stage: &Stage,
    ) -> Result<(), ImageError> {
        const PHASE: &str = "converting layers";
        (self.progress)(Progress::Phase { name: PHASE });
        let path = stage.path().join(LOG);
        let mut log = File::create(&path).map_err(failed("make", &path))?;
        let (reader, writer) = io::pipe().map_err(failed("make a pipe for", stage.path()))?;
        // Errors are ignored, because a longer pipe only saves time.
        let _ = rustix::pipe::fcntl_setpipe_size(&writer, PIPE_LENGTH);
        let cancel = self.settings.build.cancel.clone();
        let root = stage.path().join(ROOT);
        let of_root = tree.attributes("").cloned().unwrap_or_default();
        let (mut command, squashfs) = converter::mksquashfs(&root, SQUASH_MEMORY, &of_root)?;
        // The root's time remains the time of the build, because mksquashfs 4.5.1 has no option for it that works with archives.
        command.args(["-mkfs-time", "0"]);
        let step = Step {
            program: "mksquashfs",
            package: "squashfs-tools",
            phase: PHASE,
            cancel: &self.settings.build.cancel,
            log: &mut log,
            progress: &mut *self.progress,
        };
        let (squashed, fed) = std::thread::scope(|scope| {
            let feeder = scope.spawn(|| {
                let to = io::BufWriter::with_capacity(PIPE_LENGTH / 4, writer);
                emit(tree, layers, extracts, &|| cancel.is_cancelled(), to)
            });
            let squashed = step.run_from(Stdio::from(OwnedFd::from(reader)), vec![command]);
            (squashed, feeder.join())
        });
        let fed = fed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (squashed, fed) {
            (Ok(()), Ok(emission)) => {
                squashfs.take_back().map_err(failed("take back", &root))?;
                let _ = writeln!(log, "{} entries, {} bytes of files", emission.entries, emission.bytes);
                Ok(())
            }
            // If `mksquashfs` exits early, the stream fails with a broken pipe. The error of `mksquashfs` is the cause.
            (Err(error), Ok(_)) => Err(error),
            (Err(error), Err(LayerError::Write { source, .. }))
                if source.kind() == io::ErrorKind::BrokenPipe =>
            {
                Err(error)
            }
            (_, Err(error)) => Err(self.of_layers(error)),
        }
    }

    fn describe(
        &mut self,
        opened: &Opened,
        stage: &Stage,
        (recipe, generation): (&str, u32),
        conversion: Conversion,
    ) -> Result<(), ImageError> {
        (self.progress)(Progress::Phase { name: "taking digests" });
        let runner_app = conversion.runner_app.unwrap_or_else(own_runner_app);
        let origin = Origin {
            name: self.name.to_string(),
            digest: opened.digest.clone(),
            layers: opened.layers.iter().map(|layer| layer.diff_id.clone()).collect(),
            run: RunConfig::clone(&opened.run),
            added: conversion.added,
            lacks: conversion.lacks,
            devices_left_out: conversion.devices,
            created_s: opened.created_s,
            bundles: Some(conversion.bundles),
        };
        let inputs = inputs_of(recipe, generation);
        let manifest = Manifest {
            format: FORMAT,
            id: id_of(&inputs),
            inputs,
            suite: conversion.suite,
            kernel: conversion.kernel,
            created_s: now_s(),
            runner_app,
            files: digests_of(stage.path())?,
            packages: Default::default(),
            origin: Some(origin),
            recipe: recipe.to_owned(),
            generation,
        };
        write_manifest(stage.path(), &manifest)
    }
}

/// Returns a function that describes why one of the host's additions cannot be put into an image.
fn refused(image: &ImageName) -> impl FnOnce(String) -> ImageError {
    let name = image.to_string();
    |what| ImageError::Origin { name, what: format!("the host's additions cannot be put into it: {what}") }
}

/// An error of a pull.
enum PullError {
    Registry(RegistryError),
    Image(ImageError),
}

impl PullError {
    /// Returns true if the image of an earlier pull can be used in place of a new one: the registry does not answer, or the
    /// image would only get newer bundles.
    fn leaves_the_image(&self, is_outdated: bool) -> bool {
        match self {
            Self::Registry(RegistryError::Cancelled) | Self::Image(ImageError::Cancelled) => false,
            Self::Registry(error) => is_outdated || error.is_of_registry(),
            Self::Image(_) => is_outdated,
        }
    }
}

impl From<RegistryError> for PullError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

impl From<ImageError> for PullError {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

async fn until_cancelled<T>(
    work: impl Future<Output = Result<T, RegistryError>>,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<T, RegistryError> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(dayfly_host::stage::LOOK) => {}
        }
        if is_cancelled() {
            return Err(RegistryError::Cancelled);
        }
    }
}

/// The result of converting layers.
#[derive(Debug, Default)]
struct Conversion {
    suite: String,
    kernel: String,
    /// The runner app that was added; none if the image has its own.
    runner_app: Option<RunnerAppManifest>,
    devices: u64,
    bundles: Bundles,
    /// Keeps the bundles whose files are read until all of them are in the image.
    in_use: Vec<InUse>,
    added: Vec<String>,
    lacks: Vec<String>,
}

fn own_runner_app() -> RunnerAppManifest {
    RunnerAppManifest {
        name: "the image's own".to_owned(),
        version: String::new(),
        sha256: String::new(),
        toolchain: String::new(),
    }
}

/// Returns an image's own name and release, e.g. `ubuntu noble`.
fn name_of_system(tree: &Tree) -> String {
    let text = tree.text("etc/os-release").or_else(|| tree.text("usr/lib/os-release")).unwrap_or_default();
    let system = OsRelease::parse(&String::from_utf8_lossy(text));
    let words = [system.id, system.codename];
    let shown =
        |word: &String| !word.is_empty() && word.len() < 40 && word.chars().all(|c| c.is_ascii_graphic());
    let words: Vec<String> = words.into_iter().filter(shown).collect();
    if words.is_empty() { "unknown".to_owned() } else { words.join(" ") }
}

/// The kernel that an image boots with.
enum KernelOf {
    Image(OwnKernel),
    Host(KernelBundle),
}

/// The image's own kernel, in `/boot` or beside its modules, as Fedora has it.
struct OwnKernel {
    release: String,
    kernel: String,
    /// Files of modules, relative to the kernel's folder.
    modules: Vec<String>,
    dependencies: Vec<u8>,
    built_in: Vec<u8>,
}

impl OwnKernel {
    /// Returns the last kernel that can boot here, or the reason why none can.
    fn find(tree: &Tree) -> Result<Self, String> {
        let mut why = "the image has none".to_owned();
        for release in tree.names("lib/modules").into_iter().rev() {
            match Self::of_release(tree, &release) {
                Ok(kernel) => return Ok(kernel),
                Err(error) => why = format!("the image's own, {release}, will not do: {error}"),
            }
        }
        Err(why)
    }

    fn of_release(tree: &Tree, release: &str) -> Result<Self, String> {
        let folder = format!("lib/modules/{release}");
        let places = [format!("boot/vmlinuz-{release}"), format!("{folder}/vmlinuz")];
        let is_file = |place: &String| matches!(tree.content(place), Some(Content::Layer { .. }));
        let kernel = places.into_iter().find(is_file).ok_or("there is no vmlinuz of it")?;
        let text = |name: &str| {
            tree.text(&format!("{folder}/{name}")).ok_or_else(|| format!("its modules have no {name}"))
        };
        let (dependencies, built_in) = (text("modules.dep")?.to_vec(), text("modules.builtin")?.to_vec());
        let modules =
            modules::needed(&String::from_utf8_lossy(&dependencies), &String::from_utf8_lossy(&built_in));
        let modules = modules.map_err(|error| match error {
            ImageError::Unusable { what } => what,
            error => error.to_string(),
        })?;
        Ok(Self { release: release.to_owned(), kernel, modules, dependencies, built_in })
    }
}

impl KernelOf {
    /// Returns the files to extract while the image's files are streamed.
    fn extracts(&self, work: &Path, kernel: &Path) -> Result<Vec<Extract>, ImageError> {
        let Self::Image(own) = self else { return Ok(Vec::new()) };
        let folder = work.join(&own.release);
        let mut extracts = vec![Extract { path: own.kernel.clone(), to: kernel.to_owned() }];
        make_folder(&folder)?;
        for module in &own.modules {
            let to = folder.join(module);
            if let Some(folder) = to.parent() {
                make_folder(folder)?;
            }
            extracts.push(Extract { path: format!("lib/modules/{}/{module}", own.release), to });
        }
        for (name, text) in [("modules.dep", &own.dependencies), ("modules.builtin", &own.built_in)] {
            let path = folder.join(name);
            fs::write(&path, text).map_err(failed("write", &path))?;
        }
        Ok(extracts)
    }

    /// Completes kernel and initramfs in the image's folder, and returns the kernel's release.
    fn finish(&self, work: &Path, image: &Path) -> Result<String, ImageError> {
        match self {
            Self::Image(_) => modules::write_initramfs(work, &image.join(INITRAMFS)),
            Self::Host(bundle) => {
                for (from, name) in [(bundle.kernel(), KERNEL), (bundle.initramfs(), INITRAMFS)] {
                    let to = image.join(name);
                    fs::copy(&from, &to).map_err(failed("copy the kernel's file to", &to))?;
                }
                Ok(bundle.manifest.kernel.clone())
            }
        }
    }
}
