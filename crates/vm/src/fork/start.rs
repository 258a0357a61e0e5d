//! Starts a machine that may be forked.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::origin::{ForkBase, ForkOrigin, StartPlan};
use super::parts::{MachineParts, connect};
use super::spares::{ClaimedSpare, Spare, SpareRequest};
use super::template::{self, Forkable};
use crate::environment::EnvironmentDir;
use crate::machine::spawn::Outputs;
use crate::machine::{MachineRole, StartError, Vm, supervise};
use crate::network::{self, Connection};
use crate::spec::{QemuSettings, VmSpec};
use crate::virtiofs::Shares;
use crate::vm_host::VmHost;
use crate::vmm::probe;

/// Starts a machine from a spare or as a fork of its template if there is one, else from its kernel.
pub(crate) async fn start(
    host: &VmHost,
    spec: VmSpec,
    settings: QemuSettings,
    environment: EnvironmentDir,
    run_dir: &Path,
) -> Result<Vm, StartError> {
    let shares = Shares::check(&spec.mounts)?;
    network::look_for_obstacles(&host.launcher).await;
    let platform = probe::resolve(host, &settings, &spec.machine.guest_binary).await?;
    let limits = platform.limits(&host.limits);
    let role = MachineRole {
        hostname: spec.hostname(),
        runner_id: spec.runner_id.clone(),
        settings: spec.settings.clone(),
        entrypoint: spec.entrypoint.clone(),
        env: Vec::new(),
        shares: shares.as_ref().map(Shares::told).unwrap_or_default(),
        dns: network::name_server(&spec.network, &host.launcher),
        shell: spec.shell,
        hello_limit: spec.machine.boot_limit.unwrap_or_else(|| limits.hello(platform.accel)),
        fork_limit: limits.fork,
        docker_limit: settings.image.manifest().has_docker().then_some(limits.docker),
    };
    let plan = StartPlan::of(host, &spec).await?;
    let beginning = begin(host, plan, &settings, &spec, run_dir).await?;
    let parts = MachineParts {
        launcher: host.launcher.clone(),
        cgroups: host.cgroups.clone(),
        platform,
        name: spec.name.clone(),
        cpus: spec.machine.cpus,
        memory_mib: spec.machine.memory_mib,
        disk_mib: settings.disk_mib,
        disk_reserve_mib: host.disk_reserve_mib(),
        image: settings.image,
        guest_binary: spec.machine.guest_binary,
        run_dir: run_dir.to_owned(),
        connection: beginning.connection,
        shares,
        forward: spec.network.forward,
    };
    let has_shares = parts.shares.is_some();
    let origin = ForkOrigin::new(parts, host.clone(), beginning.plan);
    let last = origin.last_start();
    let outputs = (beginning.outputs, beginning.detached);
    let vm = supervise(origin, role, environment, run_dir.to_owned(), outputs).await?;
    // No snapshot has the state of the servers of shares.
    Ok(if has_shares { vm } else { vm.with_parts(last) })
}

impl StartPlan {
    /// Plans the start of a machine without a spare.
    async fn of(host: &VmHost, spec: &VmSpec) -> Result<Self, StartError> {
        let blueprints = match template::blueprints(host, &spec.machine, &spec.network, &spec.mounts).await? {
            Forkable::From(blueprints) => blueprints,
            // The reason was reported when machines of this kind were prepared.
            Forkable::Never { .. } => return Ok(Self::Boot { reason: None }),
        };
        let template = match host.templates.first_of(&blueprints) {
            Ok(template) => template,
            Err(reason) => return Ok(Self::Boot { reason: Some(reason) }),
        };
        let blueprint = blueprints.into_iter().find(|blueprint| blueprint.id == *template.id());
        Ok(match blueprint {
            Some(blueprint) => Self::Fork { base: Box::new(ForkBase { blueprint, template }) },
            None => Self::Boot { reason: None },
        })
    }
}

/// The parts of a machine that exist before its supervisor does.
struct PreparedStart {
    plan: StartPlan,
    outputs: Outputs,
    detached: Arc<AtomicBool>,
    connection: Arc<Connection>,
}

/// Takes a spare if the plan is a fork and one is ready, else creates the machine's network.
async fn begin(
    host: &VmHost,
    plan: StartPlan,
    settings: &QemuSettings,
    spec: &VmSpec,
    run_dir: &Path,
) -> Result<PreparedStart, StartError> {
    let plan = match plan {
        StartPlan::Fork { base } => match take_spare(host, &base, settings, spec) {
            Some(spare) => match spare.hand_over(run_dir) {
                Ok(ClaimedSpare { vmm, outputs, detached, connection }) => {
                    let plan = StartPlan::Spare { vmm: Box::new(vmm), base };
                    return Ok(PreparedStart { plan, outputs, detached, connection });
                }
                Err(error) => {
                    tracing::warn!("a spare machine is not used: {}: {error}", run_dir.display());
                    StartPlan::Fork { base }
                }
            },
            None => StartPlan::Fork { base },
        },
        plan => plan,
    };
    let connection = Arc::new(connect(host, &spec.network, run_dir).await?);
    Ok(PreparedStart { plan, outputs: Outputs::new(), detached: Arc::default(), connection })
}

fn take_spare(host: &VmHost, base: &ForkBase, settings: &QemuSettings, spec: &VmSpec) -> Option<Spare> {
    let request = SpareRequest {
        base: base.clone(),
        network: spec.network.clone(),
        count: settings.template.as_ref().map_or(0, |template| template.spares),
        folder: host.spare_folder.clone()?,
    };
    host.spares.take(host, request)
}
