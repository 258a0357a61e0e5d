//! Pulls an image from a registry: resolves its name, then fetches each blob once, even if several processes need it.
//!
//! ```text
//!   <state>/blobs/<digits of the digest>/blob         complete, or absent
//!                                       /blob.part    the bytes that have arrived so far
//! ```

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Method;
use sha2::{Digest as _, Sha256};

use super::super::layer::LayerBlob;
use super::super::media::{
    self, CONFIG_LENGTH_MAX, Config, Descriptor, Document, MANIFEST_LENGTH_MAX, Platform,
};
use super::super::{Digest, RegistryName, RunConfig};
use super::client::{self, Client, Request};
use super::nearby::nearby;
use super::{RegistryAccess, RegistryError, download};
use dayfly_host::digest::hexadecimal;
use dayfly_host::stage::{Claim, LOOK, Maker, StageError};

/// Most blobs that are fetched at once.
const AT_ONCE: usize = 3;
/// Longest list of tags, bytes.
const TAGS_LENGTH_MAX: usize = 4 * 1024 * 1024;
/// Interval of progress reports.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// Name of a blob in its folder.
const BLOB: &str = "blob";

/// The progress of a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Pull {
    /// Layers that are complete.
    pub(crate) layers_done: usize,
    /// Layers of the image.
    pub(crate) layers: usize,
    /// Bytes that have arrived.
    pub(crate) bytes_done: u64,
    /// Bytes of all layers.
    pub(crate) bytes: u64,
}

/// An image that a registry has.
#[derive(Debug)]
pub(crate) struct Remote {
    name: RegistryName,
    /// The digest that the name resolves to: that of an index or of a manifest.
    pub(crate) digest: Digest,
    clients: Vec<Client>,
    /// The index or manifest itself, if it was fetched to learn its digest.
    document: Option<Vec<u8>>,
}

/// A pulled image, whose layers are still packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pulled {
    /// Its layers, the lowest first.
    pub(crate) layers: Vec<LayerBlob>,
    /// Its run configuration.
    pub(crate) run: RunConfig,
    /// Time of its creation, by its configuration, seconds since 1970-01-01 UTC.
    pub(crate) created_s: Option<i64>,
}

/// Resolves a name with one request (`HEAD`), which registries with a rate limit do not count.
pub(crate) async fn look(access: &RegistryAccess, name: &RegistryName) -> Result<Remote, RegistryError> {
    let mut clients = Vec::new();
    for mirror in access.registries.of(name.registry()).mirrors {
        match Client::new(access, name, Some(&mirror)).await {
            Ok(client) => clients.push(client),
            Err(error) => tracing::warn!("skipping the mirror {mirror}: {error}"),
        }
    }
    clients.push(Client::new(access, name, None).await?);
    let (digest, document, first) = look_through(&clients, name).await?;
    // Mirrors that could not resolve the name are not asked for the layers.
    clients.drain(..first);
    Ok(Remote { name: name.clone(), digest, clients, document })
}

async fn look_through(
    clients: &[Client],
    name: &RegistryName,
) -> Result<(Digest, Option<Vec<u8>>, usize), RegistryError> {
    let mut index = 0;
    loop {
        let client = &clients[index];
        match look_at(client, name).await {
            Ok((digest, document)) => return Ok((digest, document, index)),
            Err(error) if index + 1 < clients.len() => {
                tracing::info!("skipping the mirror {}: {error}", client.registry());
                index += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn look_at(client: &Client, name: &RegistryName) -> Result<(Digest, Option<Vec<u8>>), RegistryError> {
    if let Some(digest) = name.digest() {
        return Ok((digest.clone(), None));
    }
    let path = format!("manifests/{}", name.wanted());
    let request = Request { method: &Method::HEAD, path: &path, accept: &media::ACCEPTED, from: 0 };
    match client.send(request).await {
        Ok(response) => {
            let header = response.headers().get("docker-content-digest");
            let digest = header.and_then(|value| value.to_str().ok()?.parse().ok());
            if let Some(digest) = digest {
                return Ok((digest, None));
            }
        }
        Err(RegistryError::NotFound { .. }) => return Err(not_found(client, name).await),
        // Some registries do not support HEAD, or refuse it because they redirect to an address that is signed for GET. If
        // the access itself is refused, GET gets the same answer.
        Err(RegistryError::Answer { status: 400..=499 | 501, .. } | RegistryError::Denied { .. }) => {}
        Err(error) => return Err(error),
    }
    let bytes = document(client, name, name.wanted()).await?;
    Ok((Digest::of_digits(&hexadecimal(&Sha256::digest(&bytes))), Some(bytes)))
}

async fn document(client: &Client, name: &RegistryName, wanted: &str) -> Result<Vec<u8>, RegistryError> {
    let path = format!("manifests/{wanted}");
    let request = Request { method: &Method::GET, path: &path, accept: &media::ACCEPTED, from: 0 };
    let response = match client.send(request).await {
        Err(RegistryError::NotFound { .. }) => return Err(not_found(client, name).await),
        response => response?,
    };
    let length_max = usize::try_from(MANIFEST_LENGTH_MAX).unwrap_or(usize::MAX);
    client::read(response, length_max).await.map_err(|why| client.lied(why))
}

/// Returns the error for a missing image, with the similar tags of the repository.
async fn not_found(client: &Client, name: &RegistryName) -> RegistryError {
    #[derive(serde::Deserialize)]
    struct Tags {
        #[serde(default)]
        tags: Option<Vec<String>>,
    }
    let request = Request { method: &Method::GET, path: "tags/list", accept: &[], from: 0 };
    let tags = async {
        let response = client.send(request).await.ok()?;
        let bytes = client::read(response, TAGS_LENGTH_MAX).await.ok()?;
        serde_json::from_slice::<Tags>(&bytes).ok()?.tags
    };
    // Tags are shown on a terminal, so they must not have control characters.
    let is_shown =
        |tag: &String| !tag.is_empty() && tag.len() <= 128 && tag.bytes().all(|b| b.is_ascii_graphic());
    let tags = tags.await.unwrap_or_default().into_iter().filter(is_shown).collect();
    RegistryError::NotFound { what: name.to_string(), nearby: nearby(name.wanted(), tags) }
}

impl Remote {
    /// Fetches the layers that are not stored yet.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub(crate) async fn pull(
        &self,
        blobs: &Path,
        platform: &Platform,
        is_cancelled: &dyn Fn() -> bool,
        progress: &mut dyn FnMut(Pull),
    ) -> Result<Pulled, RegistryError> {
        let meter = Meter::default();
        let fetch = self.fetch(blobs, platform, &meter);
        tokio::pin!(fetch);
        loop {
            tokio::select! {
                pulled = &mut fetch => return pulled,
                () = tokio::time::sleep(TELL_EVERY) => {}
            }
            if is_cancelled() {
                return Err(RegistryError::Cancelled);
            }
            if meter.pull.get().layers > 0 {
                progress(meter.pull.get());
            }
        }
    }

    async fn fetch(&self, blobs: &Path, platform: &Platform, meter: &Meter) -> Result<Pulled, RegistryError> {
        let manifest = self.manifest(platform).await?;
        let config = self.small_blob(&manifest.config).await?;
        let config = Config::parse(&config, platform)?;
        config.check(manifest.layers.len())?;
        let wanted: BTreeMap<&str, &Descriptor> =
            manifest.layers.iter().map(|layer| (layer.digest.as_str(), layer)).collect();
        let bytes = wanted.values().fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
        check_space(blobs, wanted.values().filter(|layer| !is_here(blobs, layer)))?;
        meter.pull.set(Pull { layers: wanted.len(), bytes, ..Pull::default() });
        let fetches = wanted.values().map(|layer| self.blob(blobs, layer, meter));
        let mut fetches = futures_util::stream::iter(fetches).buffer_unordered(AT_ONCE);
        while let Some(fetched) = fetches.next().await {
            if let Err(error @ RegistryError::Io { .. }) = fetched {
                // Also removes the parts of the downloads that are still running.
                drop(fetches);
                wanted.values().for_each(|layer| discard_part(blobs, layer));
                return Err(error);
            }
            fetched?;
            meter.layer();
        }
        let layers = manifest.layers.iter().zip(config.diff_ids).map(|(layer, diff_id)| LayerBlob {
            path: blobs.join(layer.digest.digits()).join(BLOB),
            offset: 0,
            length: layer.size,
            diff_id,
        });
        Ok(Pulled { layers: layers.collect(), run: config.run, created_s: config.created_s })
    }

    /// Returns the manifest for a platform. Its digest is checked.
    async fn manifest(&self, platform: &Platform) -> Result<media::Manifest, RegistryError> {
        let mut bytes = match &self.document {
            Some(bytes) => bytes.clone(),
            None => self.proven(&self.digest).await?,
        };
        // An index within an index is allowed. Deeper nesting has no use.
        for _ in 0..3 {
            match Document::parse(&bytes)? {
                Document::Manifest(manifest) => return Ok(manifest),
                Document::Index(index) => {
                    bytes = self.proven(&media::for_platform(&index, platform)?.digest).await?;
                }
            }
        }
        Err(self.clients[0].lied("an index of indexes without an end"))
    }

    async fn proven(&self, digest: &Digest) -> Result<Vec<u8>, RegistryError> {
        let mut result = Err(RegistryError::Cancelled);
        for client in &self.clients {
            result = document(client, &self.name, digest.as_str()).await.and_then(|bytes| {
                check_digest(client, digest, &hexadecimal(&Sha256::digest(&bytes)))?;
                Ok(bytes)
            });
            if result.is_ok() {
                break;
            }
        }
        result
    }

    async fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let mut result = Err(RegistryError::Cancelled);
        for client in &self.clients {
            result = small_blob(client, descriptor).await;
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Makes sure that a blob is stored: returns if it is, waits if another process fetches it, or fetches it.
    async fn blob(&self, blobs: &Path, descriptor: &Descriptor, meter: &Meter) -> Result<(), RegistryError> {
        let id = descriptor.digest.digits();
        let claim = loop {
            if is_here(blobs, descriptor) {
                meter.add(i64::try_from(descriptor.size).unwrap_or(i64::MAX));
                return Ok(());
            }
            match Claim::take(blobs, id, &Nobody)? {
                Some(claim) => break claim,
                None => tokio::time::sleep(LOOK).await,
            }
        };
        // The previous holder of the claim may have fetched it.
        if is_here(blobs, descriptor) {
            meter.add(i64::try_from(descriptor.size).unwrap_or(i64::MAX));
            return Ok(());
        }
        let mut result = Err(RegistryError::Cancelled);
        for client in &self.clients {
            result = download::fetch(client, &blob_of(blobs, descriptor), descriptor, meter).await;
            if result.is_ok() {
                break;
            }
        }
        drop(claim);
        result
    }
}

async fn small_blob(client: &Client, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
    let path = format!("blobs/{}", descriptor.digest);
    let request = Request { method: &Method::GET, path: &path, accept: &[], from: 0 };
    let response = client.send(request).await?;
    let length_max = usize::try_from(CONFIG_LENGTH_MAX).unwrap_or(usize::MAX);
    let bytes = client::read(response, length_max).await.map_err(|why| client.lied(why))?;
    check_digest(client, &descriptor.digest, &hexadecimal(&Sha256::digest(&bytes)))?;
    Ok(bytes)
}

/// Checks that the digest of received content is the requested one.
pub(super) fn check_digest(client: &Client, wanted: &Digest, found: &str) -> Result<(), RegistryError> {
    if wanted.digits() == found {
        return Ok(());
    }
    Err(client.lied(format!("the content for the digest {wanted} has the digest sha256:{found}")))
}

fn is_here(blobs: &Path, layer: &Descriptor) -> bool {
    std::fs::metadata(blob_of(blobs, layer)).is_ok_and(|file| file.len() == layer.size)
}

fn blob_of(blobs: &Path, layer: &Descriptor) -> PathBuf {
    blobs.join(layer.digest.digits()).join(BLOB)
}

/// Removes the part of a layer that no process fetches, because it takes space if the disk is full.
fn discard_part(blobs: &Path, layer: &Descriptor) {
    if let Ok(Some(_claim)) = Claim::take(blobs, layer.digest.digits(), &Nobody) {
        download::discard(&blob_of(blobs, layer));
    }
}

/// Checks that the disk has room for the layers, so that a pull fails at its start and not after an hour.
fn check_space<'a>(
    blobs: &Path,
    layers: impl Iterator<Item = &'a &'a Descriptor>,
) -> Result<(), RegistryError> {
    dayfly_host::stage::make_folder(blobs)?;
    let part = |layer: &Descriptor| std::fs::metadata(download::part_of(&blob_of(blobs, layer)));
    let missing = |layer: &Descriptor| layer.size.saturating_sub(part(layer).map_or(0, |part| part.len()));
    let bytes = layers.fold(0_u64, |sum, layer| sum.saturating_add(missing(layer)));
    let io_error =
        |source| RegistryError::Io { what: "look at the space of", path: blobs.to_owned(), source };
    let free_mib = dayfly_host::space::free_mib(blobs).map_err(io_error)?;
    let needed_mib = bytes.div_ceil(1024 * 1024);
    if free_mib >= needed_mib {
        return Ok(());
    }
    Err(RegistryError::NoSpace { path: blobs.to_owned(), free_mib, needed_mib })
}

/// Counts the progress of a pull's blobs.
#[derive(Default)]
pub(super) struct Meter {
    pull: Cell<Pull>,
}

impl Meter {
    /// Adds bytes that have arrived. A negative number takes back bytes that must be fetched again.
    pub(super) fn add(&self, bytes: i64) {
        let pull = self.pull.get();
        self.pull.set(Pull { bytes_done: pull.bytes_done.saturating_add_signed(bytes), ..pull });
    }

    fn layer(&self) {
        let pull = self.pull.get();
        self.pull.set(Pull { layers_done: pull.layers_done + 1, ..pull });
    }
}

/// A maker that has no processes to stop, because a download starts none.
struct Nobody;

impl Maker for Nobody {}

impl From<StageError> for RegistryError {
    fn from(error: StageError) -> Self {
        match error {
            StageError::Cancelled => Self::Cancelled,
            StageError::Io { what, path, source } => Self::Io { what, path, source },
        }
    }
}
