//! From a machine's needs to a machine that runs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::mpsc;

use super::handle::Supervising;
use super::initramfs::{self, InitramfsError};
use super::spawn::{Outputs, Recipe, RecipeDisks};
use super::supervisor::{Role, Supervisor};
use super::{Driver, QemuSettings, StartError, Vm, VmHost, VmSpec, disks, record};
use crate::accel::Accel;
use crate::driver::qemu::{self, Boot, Card, Needs, Whole};
use crate::environment::EnvironmentDir;
use crate::network::{self, Connection};
use crate::virtiofs::Shares;
use crate::{probe, tsc};

/// Events that wait for their owner; more of them hold the guest up.
const EVENTS_MAX: usize = 1024;

/// Starts a machine in a run folder that is there already. Returns as soon as its VMM runs; how the guest gets on is
/// told by its events. Nothing is left where it fails; a future that is dropped before may leave files, which
/// [`super::destroy_leftover`] removes.
///
/// # Errors
/// See [`StartError`].
pub async fn start(host: &VmHost, spec: VmSpec, run_dir: &Path) -> Result<Vm, StartError> {
    spec.check()?;
    let shares = Shares::check(&spec.mounts)?;
    let qemu = host.qemu()?;
    let Driver::Qemu(settings) = spec.machine.driver.clone();
    let accel = probe::resolve(host, settings.accel, &settings.image, &spec.machine.guest_binary).await?;
    let environment = EnvironmentDir::open(&spec.environment, &spec.runner_id).map_err(|error| {
        StartError::Io { what: "open", path: spec.environment.clone(), source: std::io::Error::other(error) }
    })?;
    let role = Role {
        hostname: spec.hostname(),
        runner_id: spec.runner_id.clone(),
        entrypoint: spec.entrypoint.clone(),
        shares: shares.as_ref().map(Shares::told).unwrap_or_default(),
        hello_limit: host.limits.hello(accel),
        docker_limit: host.limits.docker,
    };
    let launcher = host.launcher.clone();
    let folder = run_dir.to_owned();
    let prepared = tokio::task::spawn_blocking(move || {
        let parts = Parts { launcher, qemu, accel, shares, run_dir: folder };
        prepare(&spec, &settings, parts)
    });
    let prepared = prepared.await.unwrap_or_else(|error| {
        let source = std::io::Error::other(error);
        Err(StartError::Io { what: "prepare", path: run_dir.to_owned(), source })
    });
    let started = match prepared {
        Ok(recipe) => supervise(Arc::new(recipe), role, environment).await,
        Err(error) => Err(error),
    };
    if started.is_err()
        && let Err(left) = record::remove_files(run_dir).await
    {
        tracing::warn!("{left}");
    }
    started
}

struct Parts {
    launcher: crate::launch::Launcher,
    qemu: PathBuf,
    accel: Accel,
    shares: Option<Shares>,
    run_dir: PathBuf,
}

fn prepare(spec: &VmSpec, settings: &QemuSettings, parts: Parts) -> Result<Recipe, StartError> {
    let image_error = |path: &Path| {
        let (image, path) = (settings.image.id().to_owned(), path.to_owned());
        move |source| StartError::Image { image, path, source }
    };
    let kernel_path = settings.image.kernel();
    let kernel = File::open(&kernel_path).map_err(image_error(&kernel_path))?;
    let initramfs_path = settings.image.initramfs();
    let initramfs =
        initramfs::with_guest(&initramfs_path, &spec.machine.guest_binary).map_err(|error| match error {
            InitramfsError::Guest(source) => {
                StartError::GuestBinary { path: spec.machine.guest_binary.clone(), source }
            }
            InitramfsError::Image(source) | InitramfsError::Memory(source) => {
                image_error(&initramfs_path)(source)
            }
        })?;
    let root = settings.image.open_root().map_err(image_error(&settings.image.root()))?;
    let scratch = disks::make_scratch(&parts.run_dir.join(record::SCRATCH_DISK), settings.disk_mib)?;
    let connection = network::connect(&spec.network, &parts.run_dir)?;
    let card = if matches!(connection, Connection::Own(_)) { Card::Tap } else { Card::User };
    let shares = parts.shares.as_ref().map_or(0, |shares| shares.list.len());
    let needs = Needs {
        qemu: &parts.qemu,
        name: &spec.name,
        accel: parts.accel,
        tsc_khz: tsc::frequency_khz(),
        cpus: spec.machine.cpus,
        memory_mib: spec.machine.memory_mib,
        boot: Boot::Whole(Whole { card, dns: spec.network.dns, shares }),
        shell: spec.shell,
    };
    Ok(Recipe {
        invocation: qemu::plan(&needs),
        launcher: parts.launcher,
        accel: parts.accel,
        name: spec.name.clone(),
        run_dir: parts.run_dir,
        connection,
        shares: parts.shares,
        forward: spec.network.forward,
        kernel,
        initramfs,
        disks: Some(RecipeDisks { root, scratch }),
    })
}

async fn supervise(recipe: Arc<Recipe>, role: Role, environment: EnvironmentDir) -> Result<Vm, StartError> {
    let outputs = Outputs::new();
    let detached = Arc::new(AtomicBool::new(false));
    let run_dir = recipe.run_dir.clone();
    let vmm = recipe.spawn(&outputs, &detached).await?;
    let (event_sender, events) = mpsc::channel(EVENTS_MAX);
    let (orders, order_receiver) = mpsc::channel(4);
    let supervisor = Supervisor {
        recipe,
        role,
        environment,
        outputs: outputs.clone(),
        events: event_sender,
        orders: order_receiver,
        detached: Arc::clone(&detached),
    };
    let supervisor = Supervising::Running(tokio::spawn(supervisor.run(vmm)));
    Ok(Vm { events, orders, supervisor, outputs, run_dir, detached })
}
