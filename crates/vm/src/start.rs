//! Starts machines of all drivers.

use std::path::Path;
use std::sync::Arc;

use crate::driver::{krunvm, mounted, podman, process};
use crate::environment::EnvironmentDir;
use crate::fork;
use crate::machine::spawn::Outputs;
use crate::machine::{
    MachineRecordKind, MachineRole, Mounting, StartError, TreeRecipe, Vm, record, start_mounted, supervise,
};
use crate::spec::{Driver, Entrypoint, KrunSettings, ProcessSettings, VmSpec};
use crate::vm_host::VmHost;
use dayfly_guest::environment::Suffix;
use secrecy::ExposeSecret as _;

/// Starts a machine in a run folder, which is created if it does not exist, and must not contain anything else. Returns as
/// soon as the machine's process runs. Events report the progress of the guest. If the start fails, what it has created is
/// removed again. If the future is dropped, files or a machine may be left, which [`crate::destroy_leftover`] removes.
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
    let environment = EnvironmentDir::open(&spec.environment, &spec.runner_id).map_err(|error| {
        let source = std::io::Error::other(error);
        StartError::Io { what: "open", path: spec.environment.clone(), source }
    })?;
    match spec.machine.driver.clone() {
        Driver::Qemu(settings) => fork::start(host, spec, settings, environment, run_dir).await,
        Driver::Process(settings) => start_process(host, &spec, &settings, environment, run_dir).await,
        Driver::PodmanKrun(settings) => {
            share_settings(&environment, &spec)?;
            let podman = podman::podman(host)?;
            let guest_dir = run_dir.join(record::GUEST_FOLDER);
            let plan = podman::plan(&podman, &needs(&spec, &settings, run_dir, &guest_dir, &spec.hostname()));
            let mounting = mounting(host, &spec, plan, MachineRecordKind::Podman { podman });
            start_mounted(mounting, environment, run_dir).await
        }
        Driver::Krunvm(settings) => {
            krunvm::check(&spec.mounts)?;
            share_settings(&environment, &spec)?;
            let krunvm = krunvm::krunvm(host)?;
            let lock = host.state.join(krunvm::LOCK);
            let guest_dir = run_dir.join(record::GUEST_FOLDER);
            let plan = krunvm::plan(&krunvm, &needs(&spec, &settings, run_dir, &guest_dir, &spec.hostname()));
            let mounting =
                mounting(host, &spec, plan, MachineRecordKind::Krunvm { krunvm, lock: lock.clone() });
            start_mounted(Mounting { lock: Some(lock), ..mounting }, environment, run_dir).await
        }
    }
}

/// Writes the entrypoint's settings into the environment directory that the machine shares. The entrypoint removes them.
fn share_settings(environment: &EnvironmentDir, spec: &VmSpec) -> Result<(), StartError> {
    environment.write(Suffix::Env, spec.settings.expose_secret()).map_err(|error| {
        let source = std::io::Error::other(error);
        StartError::Io { what: "write settings into", path: spec.environment.clone(), source }
    })
}

fn mounting(host: &VmHost, spec: &VmSpec, plan: mounted::Plan, kind: MachineRecordKind) -> Mounting {
    Mounting {
        name: spec.name.clone(),
        guest_binary: spec.machine.guest_binary.clone(),
        plan,
        kind,
        lock: None,
        hello_limit: spec.machine.boot_limit.unwrap_or(host.limits.hello_krun),
    }
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
    let role = MachineRole {
        hostname: spec.hostname(),
        runner_id: spec.runner_id.clone(),
        settings: spec.settings.clone(),
        entrypoint: Entrypoint { program, args },
        shares: Vec::new(),
        env: process::entrypoint_env(&folders),
        dns: None,
        shell: false,
        hello_limit: spec.machine.boot_limit.unwrap_or(host.limits.hello_kvm),
        fork_limit: host.limits.fork,
        docker_limit: None,
    };
    let recipe = TreeRecipe {
        name: spec.name.clone(),
        guest_binary: spec.machine.guest_binary.clone(),
        run_dir: run_dir.to_owned(),
    };
    let ears = (Outputs::new(), Arc::default());
    supervise(recipe, role, environment, run_dir.to_owned(), ears).await
}
