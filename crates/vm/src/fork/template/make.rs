//! Provides a template that can be forked: opens it if it is on the disk, else builds it.

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
use crate::machine::{MachineMaker, blocking};
use crate::vm_host::VmHost;
use dayfly_host::clock::now_s;
use dayfly_host::scarcity::Scarcity;
use dayfly_host::stage::{Stage, StageError};

/// Time without use after which a template is removed.
pub const AGE_MAX: Duration = Duration::from_secs(14 * 24 * 3600);
/// Space that all templates together may take on the disk, bytes.
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

impl MakeError {
    /// Returns true if this host has run out of something that the template needs, which says nothing about its image.
    pub(super) fn is_of_host(&self) -> bool {
        let scarcity = match self {
            Self::Build(error) => error.scarcity(),
            Self::Template(_) | Self::Stage(_) => Scarcity::of(self),
        };
        scarcity.is_some()
    }
}

/// Returns the template that this process has opened or that is on the disk, else builds a new one.
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
        // The template was removed from the disk, but the opened one still works.
        (None, Some(opened)) => Ok(opened),
        (None, None) => make(host, blueprint, false, tell).await,
    }
}

/// Builds a new template, even if there is one.
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
    // Another builder, which was waited for, has built it.
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

/// Stops and removes what killed builders of templates have left.
///
/// # Errors
/// A file cannot be read or removed, or a machine cannot be stopped.
pub async fn sweep_templates(state: &Path) -> Result<(), TemplateError> {
    Ok(MachineMaker::sweep(TemplateStore::new(state).folder()).await?)
}

async fn open(template: Template) -> Result<Arc<Opened>, TemplateError> {
    let folder = template.folder().to_owned();
    let opened = tokio::task::spawn_blocking(move || Opened::open(&template)).await;
    opened.unwrap_or_else(|error| Err(failed("open", &folder)(io::Error::other(error)))).map(Arc::new)
}

/// Syncs the template to the disk, gives it its name, then opens it.
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

/// Removes templates that are too old or exceed the space limit. Called after each build.
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
