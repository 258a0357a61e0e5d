//! From a blueprint to a template that can be forked: opened where it is on the disk, else built.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Preparing;
use super::blueprint::Blueprint;
use super::build::{self, BuildError};
use super::key::FORMAT;
use super::manifest::TemplateManifest;
use super::store::{MANIFEST, Opened, STATE, Template, TemplateError, TemplateStore, failed};
use crate::machine::{MachineMaker, VmHost, blocking};
use dayfly_host::clock::now_s;
use dayfly_host::stage::{Stage, StageError};

/// How long a template is kept that nobody needs.
pub const AGE_MAX: Duration = Duration::from_secs(14 * 24 * 3600);
/// What all templates may take on the disk, bytes.
pub const BYTES_MAX: u64 = 20 << 30;

/// Why there is no template.
#[derive(Debug, thiserror::Error)]
pub(super) enum MakeError {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Stage(#[from] StageError),
}

/// The template that this process or the disk has, else a new one.
pub(super) async fn ready(
    host: &VmHost,
    blueprint: &Blueprint,
    tell: &mut (dyn FnMut(Preparing) + Send),
) -> Result<Arc<Opened>, MakeError> {
    let known = host.templates.opened(&blueprint.id);
    if let Some(opened) = known.as_ref().filter(|opened| opened.is_current()) {
        return Ok(Arc::clone(opened));
    }
    match (TemplateStore::new(&host.state).get(&blueprint.id), known) {
        (Some(template), known) => match (open(template).await, known) {
            (Ok(opened), _) | (Err(_), Some(opened)) => Ok(opened),
            (Err(error), None) => {
                tracing::warn!("{error}; it is built again");
                make(host, blueprint, true, tell).await
            }
        },
        // Removed from the disk, and as good as before.
        (None, Some(opened)) => Ok(opened),
        (None, None) => make(host, blueprint, false, tell).await,
    }
}

/// A new one, whatever there is.
pub(super) async fn anew(
    host: &VmHost,
    blueprint: &Blueprint,
    tell: &mut (dyn FnMut(Preparing) + Send),
) -> Result<Arc<Opened>, MakeError> {
    make(host, blueprint, true, tell).await
}

async fn make(
    host: &VmHost,
    blueprint: &Blueprint,
    anew: bool,
    tell: &mut (dyn FnMut(Preparing) + Send),
) -> Result<Arc<Opened>, MakeError> {
    let store = TemplateStore::new(&host.state);
    let mut waited = false;
    let claim = MachineMaker::claim(store.folder(), blueprint.id.as_str(), || {
        waited = true;
        tell(Preparing::Waiting { template: blueprint.id.to_string() });
    })
    .await?;
    // Whoever was waited for has made it.
    if (!anew || waited)
        && let Some(template) = store.get(&blueprint.id)
    {
        return Ok(open(template).await?);
    }
    let (started, template) = (Instant::now(), blueprint.id.to_string());
    tell(Preparing::Building { template: template.clone() });
    let stage = claim.stage()?;
    build::build(host, blueprint, stage.path(), tell).await?;
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    describe(blueprint, stage.path(), took_ms)?;
    store.carry_counts(&blueprint.id, stage.path())?;
    let opened = finish(stage, store.clone(), blueprint).await?;
    tell(Preparing::Built { template, took_ms, bytes: opened.bytes() });
    drop(claim);
    collect(store).await;
    Ok(opened)
}

/// Ends and removes what builders of templates have left that were killed.
///
/// # Errors
/// A file cannot be read or removed, or a machine not be ended.
pub async fn sweep_templates(state: &Path) -> Result<(), TemplateError> {
    Ok(MachineMaker::sweep(TemplateStore::new(state).folder()).await?)
}

async fn open(template: Template) -> Result<Arc<Opened>, TemplateError> {
    let folder = template.folder().to_owned();
    let opened = tokio::task::spawn_blocking(move || Opened::open(&template)).await;
    opened.unwrap_or_else(|error| Err(failed("open", &folder)(io::Error::other(error)))).map(Arc::new)
}

/// On the disk, then under its name, then opened.
async fn finish(stage: Stage, store: TemplateStore, blueprint: &Blueprint) -> Result<Arc<Opened>, MakeError> {
    blocking(move || stage.finish()).await?;
    let gone = || failed("find", store.folder())(io::ErrorKind::NotFound.into());
    Ok(open(store.get(&blueprint.id).ok_or_else(gone)?).await?)
}

fn describe(blueprint: &Blueprint, folder: &Path, took_ms: u64) -> Result<(), TemplateError> {
    let state = folder.join(STATE);
    let manifest = TemplateManifest {
        format: FORMAT,
        id: blueprint.id.clone(),
        image: blueprint.image.id().to_owned(),
        accel: blueprint.platform.accel,
        cpus: blueprint.cpus,
        memory_mib: blueprint.memory_mib,
        disk_mib: blueprint.disk_mib,
        warm_up: blueprint.warm_up.as_ref().map(|warm_up| warm_up.path.display().to_string()),
        created_s: now_s(),
        took_ms,
        state_bytes: std::fs::metadata(&state).map_err(failed("look at", &state))?.len(),
    };
    let path = folder.join(MANIFEST);
    let text = serde_json::to_vec_pretty(&manifest).map_err(io::Error::from);
    text.and_then(|text| std::fs::write(&path, text)).map_err(failed("write", &path))
}

/// What is too old or too much goes, whenever something new has come.
async fn collect(store: TemplateStore) {
    let collected = tokio::task::spawn_blocking(move || store.collect(AGE_MAX, BYTES_MAX)).await;
    match collected {
        Ok(Ok(gone)) => {
            gone.iter().for_each(|id| tracing::info!("template {id} is removed: old, or too much"))
        }
        Ok(Err(error)) => tracing::warn!("{error}"),
        Err(error) => tracing::warn!("{error}"),
    }
}
