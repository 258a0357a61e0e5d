//! Downloads a blob. An interrupted download resumes at the byte where it stopped, even in another process.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use sha2::{Digest as _, Sha256};

use super::super::media::Descriptor;
use super::RegistryError;
use super::client::{self, Client, Request};
use super::pull::{Meter, check_digest};
use dayfly_host::digest::hexadecimal;
use dayfly_host::retry::DOWNLOAD;
use dayfly_host::stage;

/// Lowest rate of a download after its first ten minutes, bytes a second, so that no download lasts for ever.
const RATE_MIN: u64 = 20_000;
const START_MAX: Duration = Duration::from_secs(600);
/// Bytes that are read at once from an existing part.
const CHUNK: usize = 1024 * 1024;

/// Fetches a blob to `path`. No other download may use its folder meanwhile. Continues the part of an earlier attempt. If
/// this attempt fails, its part stays for the next one, unless the part is wrong or a file operation failed.
pub(super) async fn fetch(
    client: &Client,
    path: &Path,
    descriptor: &Descriptor,
    meter: &Meter,
) -> Result<(), RegistryError> {
    let mut download = Download::begin(path, descriptor, meter).await?;
    let had = download.length;
    let mut fetched = download.run_to_its_end(client, meter).await;
    if had > 0 && matches!(fetched, Err(RegistryError::Lied { .. })) {
        // The registry may be right: after a power cut, the earlier part may differ from the bytes that were written.
        tracing::info!("the stored part of {} is damaged", descriptor.digest);
        download.begin_again(meter)?;
        fetched = download.run_to_its_end(client, meter).await;
    }
    match fetched {
        Ok(()) => download.finish(path),
        Err(error) => {
            meter.add(-i64::try_from(download.length).unwrap_or_default());
            if matches!(error, RegistryError::Io { .. } | RegistryError::Lied { .. }) {
                discard(path);
            }
            Err(error)
        }
    }
}

struct Download<'a> {
    descriptor: &'a Descriptor,
    part: PathBuf,
    file: File,
    length: u64,
    hasher: Sha256,
}

impl<'a> Download<'a> {
    /// Opens the part of an earlier download, or creates an empty one.
    async fn begin(path: &Path, descriptor: &'a Descriptor, meter: &Meter) -> Result<Self, RegistryError> {
        let part = part_of(path);
        stage::make_folder(part.parent().unwrap_or(Path::new("/")))?;
        let opened =
            File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&part);
        let file = opened.map_err(io_error("make", &part))?;
        let mut download = Self { descriptor, part, file, length: 0, hasher: Sha256::new() };
        let length = download.file.metadata().map_err(io_error("look at", &download.part))?.len();
        if length > descriptor.size {
            download.begin_again(meter)?;
        }
        download.take_what_is_here(meter).await?;
        Ok(download)
    }

    async fn take_what_is_here(&mut self, meter: &Meter) -> Result<(), RegistryError> {
        let mut chunk = vec![0; CHUNK];
        loop {
            match self.file.read(&mut chunk).map_err(io_error("read", &self.part))? {
                0 => return Ok(()),
                length => self.count(&chunk[..length], meter),
            }
            // Lets other downloads run.
            tokio::task::yield_now().await;
        }
    }

    fn count(&mut self, bytes: &[u8], meter: &Meter) {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        meter.add(i64::try_from(bytes.len()).unwrap_or_default());
    }

    fn begin_again(&mut self, meter: &Meter) -> Result<(), RegistryError> {
        meter.add(-i64::try_from(self.length).unwrap_or_default());
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(io_error("empty", &self.part))?;
        (self.length, self.hasher) = (0, Sha256::new());
        Ok(())
    }

    /// Downloads the rest of the blob and resumes after interruptions, up to the limits. Then checks the digest.
    async fn run_to_its_end(&mut self, client: &Client, meter: &Meter) -> Result<(), RegistryError> {
        let (began, mut failures) = (Instant::now(), 0);
        let limit = START_MAX + Duration::from_secs(self.descriptor.size / RATE_MIN);
        while self.length < self.descriptor.size {
            let before = self.length;
            let ended = self.go_on(client, meter).await;
            if let Err(error @ (RegistryError::Io { .. } | RegistryError::Lied { .. })) = ended {
                return Err(error);
            }
            // An attempt that brought new bytes begins a new row.
            failures = if self.length > before { 1 } else { failures + 1 };
            if self.length == self.descriptor.size {
                break;
            }
            let why = ended.err().unwrap_or_else(|| RegistryError::Unreachable {
                registry: client.registry().to_owned(),
                why: "it ended a layer before its end".to_owned(),
            });
            let Some(pause) = DOWNLOAD.pause_after(failures).filter(|_| began.elapsed() <= limit) else {
                return Err(why);
            };
            tracing::info!("a layer was interrupted at byte {}: {why}; resuming there", self.length);
            tokio::time::sleep(pause).await;
        }
        check_digest(client, &self.descriptor.digest, &hexadecimal(&self.hasher.clone().finalize()))
    }

    /// Sends one request and stores its bytes until the answer ends or is interrupted.
    async fn go_on(&mut self, client: &Client, meter: &Meter) -> Result<(), RegistryError> {
        let path = format!("blobs/{}", self.descriptor.digest);
        let request = Request { method: &Method::GET, path: &path, accept: &[], from: self.length };
        let mut response = client.send(request).await?;
        if self.length > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            // The registry ignores the range and sends the blob from its beginning.
            self.begin_again(meter)?;
        }
        let cut = |error: reqwest::Error| RegistryError::Unreachable {
            registry: client.registry().to_owned(),
            why: client::text_of(&error),
        };
        while let Some(chunk) = response.chunk().await.map_err(cut)? {
            if self.length + chunk.len() as u64 > self.descriptor.size {
                let size = self.descriptor.size;
                return Err(client.lied(format!("a layer that is longer than its {size} bytes")));
            }
            self.file.write_all(&chunk).map_err(io_error("write", &self.part))?;
            self.count(&chunk, meter);
        }
        Ok(())
    }

    /// Syncs the blob to disk, then renames it to its final name.
    fn finish(self, path: &Path) -> Result<(), RegistryError> {
        self.file.sync_all().map_err(io_error("write", &self.part))?;
        fs::rename(&self.part, path).map_err(io_error("rename to", path))?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("write", folder))
    }
}

/// Returns the path of a blob that is not complete yet.
pub(super) fn part_of(path: &Path) -> PathBuf {
    path.with_extension("part")
}

/// Removes the part of a blob, and its folder if that is empty. Ignores errors, because a collection removes the rest.
pub(super) fn discard(path: &Path) {
    let _ = fs::remove_file(part_of(path));
    let _ = fs::remove_dir(path.parent().unwrap_or(Path::new("/")));
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RegistryError {
    let path = path.to_owned();
    move |source| RegistryError::Io { what, path, source }
}
