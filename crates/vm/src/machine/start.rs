//! Starts machines.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::mpsc;

use super::handle::Supervising;
use super::mounted::Mounted;
use super::origin::{Origin, Parts, VmmOrigin};
use super::record::{Made, Record};
use super::spare::{HandedOver, Spare, Wish};
use super::spawn::{Outputs, Vmm};
use super::supervisor::{Role, Supervisor};
use super::tree::TreeRecipe;
use super::{
    Driver, Entrypoint, KrunSettings, Network, ProcessSettings, QemuSettings, StartError, Vm, VmHost, VmSpec,
    record,
};
use crate::driver::{krunvm, mounted, podman, process};
use crate::environment::{EnvironmentDir, EnvironmentError};
use crate::network::{self, Connection};
use crate::template::{self, Blueprint, Opened};
use crate::virtiofs::Shares;
use crate::vmm::probe;
use dayfly_host::tool;

/// Capacity of the queue of events. If the queue is full, the guest's messages wait.
const EVENTS_MAX: usize = 1024;
/// Longest time that a tool may take to create a machine from an image that was fetched.
const CREATE_LIMIT: std::time::Duration = std::time::Duration::from_secs(120);

/// Starts a machine in a run folder, which is created if it does not exist, and must not contain anything else. Returns as
/// soon as the machine's process runs. Events report the progress of the guest. If the start fails, what it has created is
/// removed again. If the future is dropped, files or a machine may be left, which [`super::destroy_leftover`] removes.
///
/// The image of a krun driver must have been fetched with [`crate::pull`].
///
/// # Errors
/// See [`StartError`].
pub async fn start(host: &VmHost, spec: VmSpec, run_dir: &Path) -> Result<Vm, StartError> {
    spec.check()?;
    std::fs::create_dir_all(run_dir).map_err(|source| StartError::Io {
        what: "make the folder",
        path: run_dir.to_owned(),
        source,
    })?;
    let environment = EnvironmentDir::open(&spec.environment, &spec.runner_id)
        .map_err(|error| environment_error(&spec, error))?;
    match spec.machine.driver.clone() {
        Driver::Qemu(settings) => start_qemu(host, spec, settings, environment, run_dir).await,
        Driver::Process(settings) => start_process(host, &spec, &settings, environment, run_dir).await,
        Driver::PodmanKrun(settings) => {
            let podman = podman::podman(host)?;
            let guest_dir = run_dir.join(record::GUEST_FOLDER);
            let plan = podman::plan(&podman, &needs(&spec, &settings, run_dir, &guest_dir, &spec.hostname()));
            let record = Record { name: spec.name.clone(), made: Made::Podman { podman } };
            start_mounted(host, &spec, Mounting { plan, record, lock: None }, environment, run_dir).await
        }
        Driver::Krunvm(settings) => {
            krunvm::check(&spec.mounts)?;
            let krunvm = krunvm::krunvm(host)?;
            let lock = host.state.join(krunvm::LOCK);
            let guest_dir = run_dir.join(record::GUEST_FOLDER);
            let plan = krunvm::plan(&krunvm, &needs(&spec, &settings, run_dir, &guest_dir, &spec.hostname()));
            let made = Made::Krunvm { krunvm, lock: lock.clone() };
            let record = Record { name: spec.name.clone(), made };
            start_mounted(host, &spec, Mounting { plan, record, lock: Some(lock) }, environment, run_dir)
                .await
        }
    }
}

fn environment_error(spec: &VmSpec, error: EnvironmentError) -> StartError {
    let source = std::io::Error::other(error);
    StartError::Io { what: "open", path: spec.environment.clone(), source }
}

fn needs<'a>(
    spec: &'a VmSpec,
    settings: &'a KrunSettings,
    run_dir: &'a Path,
    guest_dir: &'a Path,
    hostname: &'a str,
) -> mounted::Needs<'a> {
    mounted::Needs {
        name: &spec.name,
        hostname,
        runner_id: &spec.runner_id,
        run_dir,
        image: &settings.image,
        cpus: spec.machine.cpus,
        memory_mib: spec.machine.memory_mib,
        dns: spec.network.dns,
        reaches_host: spec.network.forward.is_some(),
        environment: &spec.environment,
        guest_dir,
        mounts: &spec.mounts,
        program: spec.entrypoint.program.as_deref(),
        args: &spec.entrypoint.args,
    }
}

/// Data to create a machine that shares its environment directory, and to find it again.
struct Mounting {
    plan: mounted::Plan,
    record: Record,
    /// The file that is locked while the machine is created.
    lock: Option<PathBuf>,
}

/// Creates the machine, then starts it. The record is written before the machine can exist.
async fn start_mounted(
    host: &VmHost,
    spec: &VmSpec,
    mounting: Mounting,
    environment: EnvironmentDir,
    run_dir: &Path,
) -> Result<Vm, StartError> {
    environment.watch_removals().map_err(|error| environment_error(spec, error))?;
    let (event_sender, events) = mpsc::channel(EVENTS_MAX);
    let (orders, order_receiver) = mpsc::channel(4);
    let detached = Arc::new(AtomicBool::new(false));
    let outputs = Outputs::new();
    let owner = Mounted {
        plan: mounting.plan.clone(),
        run_dir: run_dir.to_owned(),
        hello_limit: host.limits.hello_krun,
        environment,
        outputs: outputs.clone(),
        events: event_sender,
        orders: order_receiver,
        detached: Arc::clone(&detached),
    };
    let made = make_mounted(spec, mounting, run_dir).await;
    let running = match made.and_then(|()| owner.start()) {
        Ok(running) => running,
        Err(error) => {
            if let Err(left) = record::destroy_leftover(run_dir).await {
                tracing::warn!("{left}");
            }
            return Err(error);
        }
    };
    let supervisor = Supervising::Running(tokio::spawn(owner.run(running)));
    Ok(Vm { events, orders, supervisor, outputs, run_dir: run_dir.to_owned(), detached })
}

async fn make_mounted(spec: &VmSpec, mounting: Mounting, run_dir: &Path) -> Result<(), StartError> {
    let (guest, to) = (spec.machine.guest_binary.clone(), run_dir.join(record::GUEST_FOLDER));
    // A copy, so that the machine's label and its changes affect only its own file.
    std::fs::create_dir_all(&to)
        .and_then(|()| std::fs::copy(&guest, to.join(mounted::GUEST_NAME)))
        .map_err(|source| StartError::GuestBinary { path: guest, source })?;
    let _lock = match &mounting.lock {
        Some(lock) => Some(record::lock_file(lock).await.map_err(|error| StartError::Io {
            what: "take turns with",
            path: lock.clone(),
            source: std::io::Error::other(error),
        })?),
        None => None,
    };
    if let Made::Krunvm { krunvm, .. } = &mounting.record.made {
        // krunvm identifies machines by name alone, so an existing machine of this name is not ours.
        let list = tool::run(&krunvm::list(krunvm), CREATE_LIMIT).await?;
        if krunvm::is_listed(&list, &spec.name) {
            return Err(StartError::Taken { name: spec.name.clone(), tool: "krunvm" });
        }
    }
    mounting.record.write(run_dir).map_err(|source| StartError::Io {
        what: "write the record in",
        path: run_dir.to_owned(),
        source,
    })?;
    tool::run(&mounting.plan.create, CREATE_LIMIT).await?;
    Ok(())
}

async fn start_process(
    host: &VmHost,
    spec: &VmSpec,
    settings: &ProcessSettings,
    environment: EnvironmentDir,
    run_dir: &Path,
) -> Result<Vm, StartError> {
    let folders = process::Folders::below(&run_dir.join(record::GUEST_FOLDER));
    let mut args = process::entrypoint_args(&folders, &settings.app);
    args.extend(spec.entrypoint.args.iter().cloned());
    let program = process::program(spec.entrypoint.program.as_deref(), &spec.mounts)?;
    let role = Role {
        hostname: spec.hostname(),
        runner_id: spec.runner_id.clone(),
        entrypoint: Entrypoint { program, args },
        shares: Vec::new(),
        env: process::entrypoint_env(&folders),
        dns: None,
        shell: false,
        hello_limit: host.limits.hello_kvm,
        fork_limit: host.limits.fork,
        docker_limit: None,
    };
    let recipe = TreeRecipe {
        name: spec.name.clone(),
        guest_binary: spec.machine.guest_binary.clone(),
        run_dir: run_dir.to_owned(),
    };
    let ears = (Outputs::new(), Arc::default());
    supervise(Origin::Tree(recipe), role, environment, run_dir.to_owned(), ears).await
}

async fn start_qemu(
    host: &VmHost,
    spec: VmSpec,
    settings: QemuSettings,
    environment: EnvironmentDir,
    run_dir: &Path,
) -> Result<Vm, StartError> {
    let shares = Shares::check(&spec.mounts)?;
    let platform = probe::resolve(host, &settings, &spec.machine.guest_binary).await?;
    let limits = platform.limits(&host.limits);
    let role = Role {
        hostname: spec.hostname(),
        runner_id: spec.runner_id.clone(),
        entrypoint: spec.entrypoint.clone(),
        env: Vec::new(),
        shares: shares.as_ref().map(Shares::told).unwrap_or_default(),
        dns: network::name_server(&spec.network),
        shell: spec.shell,
        hello_limit: limits.hello(platform.accel),
        fork_limit: limits.fork,
        docker_limit: settings.image.manifest().has_docker().then_some(limits.docker),
    };
    let template = forked_from(host, &spec).await?;
    let spare = template.as_ref().ok().and_then(|template| take_spare(host, template, &settings, &spec));
    let beginning = begin(spare, &spec.network, run_dir).await?;
    let parts = Parts {
        launcher: host.launcher.clone(),
        platform,
        name: spec.name.clone(),
        cpus: spec.machine.cpus,
        memory_mib: spec.machine.memory_mib,
        disk_mib: settings.disk_mib,
        image: settings.image,
        guest_binary: spec.machine.guest_binary,
        run_dir: run_dir.to_owned(),
        connection: beginning.connection,
        shares,
        forward: spec.network.forward,
    };
    let origin = VmmOrigin::new(parts, host.clone(), template, beginning.vmm);
    let ears = (beginning.outputs, beginning.detached);
    supervise(Origin::Vmm(Box::new(origin)), role, environment, run_dir.to_owned(), ears).await
}

/// The parts of a machine that exist before its VMM is started.
struct Beginning {
    /// The VMM of a spare, if the machine is one.
    vmm: Option<Vmm>,
    outputs: Outputs,
    detached: Arc<AtomicBool>,
    connection: Arc<Connection>,
}

async fn begin(spare: Option<Spare>, network: &Network, run_dir: &Path) -> Result<Beginning, StartError> {
    if let Some(spare) = spare {
        match spare.hand_over(run_dir) {
            Ok(HandedOver { vmm, outputs, detached, connection }) => {
                return Ok(Beginning { vmm: Some(vmm), outputs, detached, connection });
            }
            Err(error) => tracing::warn!("a spare machine is not used: {}: {error}", run_dir.display()),
        }
    }
    let connection = Arc::new(connect(network, run_dir).await?);
    Ok(Beginning { vmm: None, outputs: Outputs::new(), detached: Arc::default(), connection })
}

fn take_spare(
    host: &VmHost,
    (blueprint, template): &(Blueprint, Arc<Opened>),
    settings: &QemuSettings,
    spec: &VmSpec,
) -> Option<Spare> {
    let wish = Wish {
        blueprint: blueprint.clone(),
        template: Arc::clone(template),
        network: spec.network.clone(),
        count: settings.template.as_ref().map_or(0, |template| template.spares),
        folder: host.spare_folder.clone()?,
    };
    host.spares.take(host, wish)
}

/// Returns the template that the machine is forked from. The inner error is the reason for a cold boot, if it has to be
/// reported.
async fn forked_from(
    host: &VmHost,
    spec: &VmSpec,
) -> Result<Result<(Blueprint, Arc<Opened>), Option<String>>, StartError> {
    let blueprints = match template::blueprints(host, &spec.machine, &spec.network, &spec.mounts).await? {
        Ok(blueprints) => blueprints,
        // The reason was reported when machines of this kind were prepared.
        Err(_) => return Ok(Err(None)),
    };
    let opened = match host.templates.first_of(&blueprints) {
        Ok(opened) => opened,
        Err(reason) => return Ok(Err(Some(reason))),
    };
    let blueprint = blueprints.into_iter().find(|blueprint| blueprint.id == *opened.id());
    Ok(blueprint.map(|blueprint| (blueprint, opened)).ok_or(None))
}

/// Creates the machine's network on a blocking thread, because the kernel takes a while.
pub(crate) async fn connect(network: &Network, run_dir: &Path) -> Result<Connection, StartError> {
    let (network, folder) = (network.clone(), run_dir.to_owned());
    let connected = tokio::task::spawn_blocking(move || network::connect(&network, &folder)).await;
    match connected {
        Ok(connected) => Ok(connected?),
        Err(error) => {
            let source = std::io::Error::other(error);
            Err(StartError::Io { what: "connect the machine of", path: run_dir.to_owned(), source })
        }
    }
}

async fn supervise(
    mut origin: Origin,
    role: Role,
    environment: EnvironmentDir,
    run_dir: PathBuf,
    (outputs, detached): (Outputs, Arc<AtomicBool>),
) -> Result<Vm, StartError> {
    let started = match origin.turn().await {
        Ok(turn) => origin.spawn(turn, &outputs, &detached).await,
        Err(error) => Err(error),
    };
    let started = match started {
        Ok(started) => started,
        Err(error) => {
            if let Err(left) = record::destroy_leftover(&run_dir).await {
                tracing::warn!("{left}");
            }
            return Err(error);
        }
    };
    let (event_sender, events) = mpsc::channel(EVENTS_MAX);
    let (orders, order_receiver) = mpsc::channel(4);
    let supervisor = Supervisor {
        origin,
        role,
        environment,
        outputs: outputs.clone(),
        events: event_sender,
        orders: order_receiver,
        detached: Arc::clone(&detached),
        env: None,
    };
    let supervisor = Supervising::Running(tokio::spawn(supervisor.run(started)));
    Ok(Vm { events, orders, supervisor, outputs, run_dir, detached })
}
