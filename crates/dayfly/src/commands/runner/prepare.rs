//! From what is asked for to what can be run: the forge is asked, a driver chosen, what earlier starts have left cleared
//! up. All that can be known before anything is made is found out here, and told as one error.

use dayfly_fleet::instance::{Instance, Serves};
use dayfly_fleet::recovery;
use dayfly_fleet::settings::{Group, Limits, LoopSettings};
use dayfly_forge::{Forge, ForgeOptions};
use dayfly_vm::VmHost;

use super::request::LoopRequest;
use crate::commands::machine;
use crate::exit::{Failure, Result};
use crate::settings::Places;
use crate::{labels, proxy};

/// All that loops need.
pub(crate) struct Prepared {
    pub(crate) host: VmHost,
    pub(crate) forge: Forge,
    pub(crate) instance: Instance,
    /// Of loop 0, in the instance's environment directory.
    pub(crate) settings: LoopSettings,
}

/// Prepares loops.
///
/// # Errors
/// The forge or this host cannot do what is asked for; nothing is left then.
pub(crate) async fn prepare(places: &Places, request: LoopRequest, quiet: bool) -> Result<Prepared> {
    for warning in &request.warnings {
        tracing::warn!("{warning}");
    }
    let options = ForgeOptions { proxy: proxy::of(request.forge.url())?, ..ForgeOptions::default() };
    let forge =
        Forge::with_options(request.forge.clone(), request.pat.clone(), &options).map_err(Failure::cannot)?;
    let lab = forge.prove_lab().await.map_err(Failure::cannot)?.is_some();
    let group = Group { id: group_id(&forge, &request).await?, name: request.group.clone() };
    // Whoever may make a registration token may register runners in either way, and to make one changes nothing.
    forge.registration_token(&request.scope).await.map_err(Failure::cannot)?;
    let (mut host, made) = machine::choose(places, &request, lab, quiet).await?;
    tracing::info!("machines: {}", made.explanation);
    let serves = Serves {
        forge: forge.base().url().to_string(),
        scope: request.scope.clone(),
        prefix: request.prefix.clone(),
        private_lab: false,
    };
    clear_up(places, &forge, &serves).await?;
    let instance = Instance::create(&places.state, serves).map_err(Failure::cannot)?;
    host.spare_folder = Some(instance.spares());
    if quiet {
        crate::printer::json(&serde_json::json!({ "event": "instance", "folder": instance.folder() }));
    }
    let settings = LoopSettings {
        index: 0,
        prefix: request.prefix,
        scope: request.scope,
        lab,
        group,
        registration: request.registration,
        labels: labels::all(request.labels, &made.machine),
        repeat: request.repeat,
        lifetime: request.lifetime,
        secret: request.secret,
        user: request.user,
        update: request.update,
        verbose: request.verbose,
        guest_settings: request.guest_settings,
        machine: made.machine,
        dns: request.dns,
        mounts: request.mounts,
        entrypoint: request.entrypoint,
        limits: Limits::default(),
        runs: instance.runs(),
        environment: instance.environment(),
        leave_tkn: false,
        patient: false,
        keep: false,
    };
    Ok(Prepared { host, forge, instance, settings })
}

async fn group_id(forge: &Forge, request: &LoopRequest) -> Result<u64> {
    use dayfly_forge::ForgeError::{RepositoryGroup, UnknownGroup};
    forge.group_id(&request.scope, &request.group).await.map_err(|error| match error {
        RepositoryGroup { .. } | UnknownGroup { .. } => Failure::usage(error),
        _ => Failure::cannot(error),
    })
}

/// Ends what waits for runners, and removes the instance's folder, where nothing is left in it that a later start must
/// look after.
pub(crate) async fn close(host: &VmHost, instance: Instance) -> Result<()> {
    host.spares.end().await;
    let folder = instance.folder().to_owned();
    if !instance.remove().map_err(Failure::cannot)? {
        tracing::warn!("{} is left for the next start to clear up", folder.display());
    }
    Ok(())
}

async fn clear_up(places: &Places, forge: &Forge, serves: &Serves) -> Result<()> {
    let sweep = recovery::sweep(&places.state, Some((forge, serves))).await.map_err(Failure::cannot)?;
    for run in sweep.cleared {
        tracing::info!("cleared up what an earlier start had left in {}", run.display());
    }
    for (run, why) in sweep.left {
        tracing::warn!("{} is left as it is: {why}", run.display());
    }
    Ok(())
}
