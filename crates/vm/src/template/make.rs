//! From a blueprint to a template that can be forked: opened where it is on the disk, else built.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::Preparing;
use super::blueprint::Blueprint;
use super::build::{self, BuildError};
use super::store::Opened;
use crate::machine::VmHost;

/// Why there is no template.
#[derive(Debug, thiserror::Error)]
pub(super) enum MakeError {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
}

pub(super) async fn ready(
    host: &VmHost,
    blueprint: &Blueprint,
    tell: &mut (dyn FnMut(Preparing) + Send),
) -> Result<Arc<Opened>, MakeError> {
    if let Some(opened) = host.templates.opened(&blueprint.id) {
        return Ok(opened);
    }
    let folder = folder(host, blueprint);
    if folder.exists() {
        return open(blueprint, folder);
    }
    anew(host, blueprint, tell).await
}
fn folder(host: &VmHost, blueprint: &Blueprint) -> PathBuf {
    host.state.join("templates").join(blueprint.id.to_string())
}
fn open(blueprint: &Blueprint, folder: PathBuf) -> Result<Arc<Opened>, MakeError> {
    Opened::open(&blueprint.id, &folder)
        .map(Arc::new)
        .map_err(|source| MakeError::Io { path: folder.display().to_string(), source })
}
pub(super) async fn anew(
    host: &VmHost,
    blueprint: &Blueprint,
    tell: &mut (dyn FnMut(Preparing) + Send),
) -> Result<Arc<Opened>, MakeError> {
    let stage = host.state.join("templates").join(".build").join(blueprint.id.to_string());
    let started = Instant::now();
    tell(Preparing::Building { template: blueprint.id.to_string() });
    build::build(host, blueprint, &stage, tell).await?;
    let folder = folder(host, blueprint);
    std::fs::rename(&stage, &folder).unwrap();
    tell(Preparing::Built {
        template: blueprint.id.to_string(),
        took_ms: started.elapsed().as_millis() as u64,
        bytes: 0,
    });
    open(blueprint, folder)
}
