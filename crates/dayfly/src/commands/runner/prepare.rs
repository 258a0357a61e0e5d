//! Resolves the description of a pool: asks the forge, chooses a driver, removes the remains of earlier processes. Every
//! problem that can be known before anything is created is reported here, as one error.

use std::sync::Arc;

use dayfly_fleet::instance::{Instance, Serves};
use dayfly_fleet::pool::{Group, Limits, Pool, PoolSpec};
use dayfly_fleet::reaper::Leftovers;
use dayfly_fleet::recovery;
use dayfly_forge::{Forge, ForgeOptions};
use dayfly_vm::VmHost;

use super::request::PoolRequest;
use crate::commands::machine;
use crate::exit::{Failure, Result};
use crate::settings::Places;
use crate::{labels, proxy};

/// A pool that is ready to run on this host.
pub(crate) struct Prepared {
    pub(crate) host: VmHost,
    pub(crate) instance: Instance,
    pub(crate) pool: Pool,
}

/// Resolves a pool, and removes the remains of earlier processes.
///
/// # Errors
/// The forge or this host cannot do what is requested. No instance is created then.
pub(crate) async fn prepare(places: &Places, request: PoolRequest, quiet: bool) -> Result<Prepared> {
    let PoolRequest { spec, pat, secret, warnings } = request;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let options = ForgeOptions { proxy: proxy::of(spec.forge.url())?, ..ForgeOptions::default() };
    let forge = Forge::with_options(spec.forge.clone(), pat, &options).map_err(Failure::cannot)?;
    let is_lab = forge.prove_lab().await.map_err(Failure::cannot)?.is_some();
    let group = Group { id: group_id(&forge, &spec).await?, name: spec.group.clone() };
    // A token that may create a registration token may register runners in both ways, and creating one changes nothing.
    forge.registration_token(&spec.scope).await.map_err(Failure::cannot)?;
    let (mut host, made) = machine::choose(places, &spec, is_lab, quiet).await?;
    tracing::info!("machines: {}", made.explanation);
    let serves = Serves {
        forge: forge.base().url().to_string(),
        scope: spec.scope.clone(),
        prefix: spec.prefix.clone(),
        private_lab: false,
    };
    clear_up(places, &forge, &serves).await?;
    let instance = Instance::create(&places.state, serves).map_err(Failure::cannot)?;
    host.spare_folder = Some(instance.spares());
    if quiet {
        crate::printer::json(&serde_json::json!({ "event": "instance", "folder": instance.folder() }));
    }
    let pool = Pool {
        labels: labels::all(spec.labels.clone(), &made.machine),
        spec: Arc::new(spec),
        forge,
        is_lab,
        group,
        machine: made.machine,
        secret,
        runs: instance.runs(),
        leftovers: Leftovers::default(),
        limits: Limits::default(),
    };
    Ok(Prepared { host, instance, pool })
}

async fn group_id(forge: &Forge, spec: &PoolSpec) -> Result<u64> {
    use dayfly_forge::ForgeError::{RepositoryGroup, UnknownGroup};
    forge.group_id(&spec.scope, &spec.group).await.map_err(|error| match error {
        RepositoryGroup { .. } | UnknownGroup { .. } => Failure::usage(error),
        _ => Failure::cannot(error),
    })
}

/// Destroys the spares, and removes the instance's folder unless it holds something that a later start must remove.
pub(crate) async fn close(host: &VmHost, instance: Instance) -> Result<()> {
    host.spares.end().await;
    let folder = instance.folder().to_owned();
    if !instance.remove().map_err(Failure::cannot)? {
        tracing::warn!("{} is not removed yet; the next start removes it", folder.display());
    }
    Ok(())
}

async fn clear_up(places: &Places, forge: &Forge, serves: &Serves) -> Result<()> {
    let sweep = recovery::sweep(&places.state, Some((forge, serves))).await.map_err(Failure::cannot)?;
    for run in sweep.cleared {
        tracing::info!("removed the remains of an earlier process in {}", run.display());
    }
    for record in sweep.damaged {
        tracing::warn!(
            "{} could not be read, as after a power cut; it is removed with its run",
            record.display()
        );
    }
    for (run, why) in sweep.left {
        tracing::warn!("{} is not removed: {why}", run.display());
    }
    Ok(())
}
