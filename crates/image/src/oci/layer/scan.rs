//! The first reading of layers: reads headers and checks digests.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};

use sha2::{Digest as _, Sha256};

use super::super::tar::{Header, Kind, Reader, TarError};
use super::tree::Attributes;
use super::{LayerBlob, LayerError, Limits, clean};
use dayfly_host::digest::hexadecimal;

/// Files on whose content the host's additions depend.
const KEPT: [&[u8]; 6] =
    [b"etc/passwd", b"etc/group", b"etc/shadow", b"etc/os-release", b"usr/lib/os-release", b"usr/etc/passwd"];
/// Such files in the folder of a kernel's modules.
const KEPT_OF_KERNEL: [&[u8]; 2] = [b"modules.dep", b"modules.builtin"];
/// Longest such file that is stored, bytes.
const KEPT_LENGTH_MAX: u64 = 4 * 1024 * 1024;

/// Prefix and name of whiteouts (image-spec, `layer.md`, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Prefix of AUFS's own files in old layers.
const OF_AUFS: &[u8] = b".wh..wh.";

/// An entry of a layer.
#[derive(Debug)]
pub(super) struct Entry {
    /// Path from the root of the image, without a slash at either end.
    pub(super) path: Box<[u8]>,
    pub(super) what: EntryKind,
    pub(super) attributes: Attributes,
    /// Index of the entry in its archive, from 0.
    pub(super) ordinal: u32,
}

#[derive(Debug)]
pub(super) enum EntryKind {
    File {
        size: u64,
    },
    HardLink(Box<[u8]>),
    Symlink(Box<[u8]>),
    Folder,
    Fifo,
    Device,
    /// Hides the path.
    Whiteout,
    /// Hides the content that lower layers have in this folder.
    Opaque,
}

/// The entries of a layer.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    pub(super) entries: Vec<Entry>,
    /// Contents of some files, by their ordinal.
    pub(super) kept: HashMap<u32, Vec<u8>>,
}

/// Reads several layers at a time, and passes them to `take` from the lowest to the highest.
///
/// # Errors
/// A layer cannot be read, does not match its digest, or has an invalid entry.
pub(crate) fn scan_all(
    layers: &[LayerBlob],
    limits: &Limits,
    is_cancelled: &(dyn Fn() -> bool + Sync),
    mut take: impl FnMut(usize, Scanned) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    if layers.len() > limits.layers {
        return Err(LayerError::layer(
            limits.layers,
            format!("there are more than {} layers", limits.layers),
        ));
    }
    let at_once =
        std::thread::available_parallelism().map_or(2, usize::from).clamp(1, 4).min(layers.len().max(1));
    let (next, given_up, used) = (AtomicUsize::new(0), AtomicBool::new(false), Used::default());
    let zstd_turns = ZstdTurns::default();
    let stop = || given_up.load(Ordering::Relaxed) || is_cancelled();
    std::thread::scope(|scope| {
        let (sender, results) = mpsc::sync_channel(at_once);
        for _ in 0..at_once {
            let (sender, next, stop, used) = (sender.clone(), &next, &stop, &used);
            let zstd_turns = &zstd_turns;
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(layer) = layers.get(index) else { return };
                    let scanned = zstd_turns
                        .take(index, layer)
                        .and_then(|_turn| scan(index, layer, limits, used, stop));
                    if sender.send((index, scanned)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let taken = in_order(&results, &mut take);
        given_up.store(true, Ordering::Relaxed);
        taken
    })
}

/// Bounds the memory of the decoders: at most two layers that are packed with Zstandard are read at once.
#[derive(Default)]
struct ZstdTurns([Mutex<()>; 2]);

impl ZstdTurns {
    /// Waits for the turn of a layer. Another reader of this image has it, so that it ends when that layer is read.
    fn take(&self, index: usize, layer: &LayerBlob) -> Result<Option<MutexGuard<'_, ()>>, LayerError> {
        let is_zstd = layer.is_zstd().map_err(|error| LayerError::layer(index, error.to_string()))?;
        let turn = &self.0[index % self.0.len()];
        Ok(is_zstd.then(|| turn.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn in_order(
    results: &mpsc::Receiver<(usize, Result<Scanned, LayerError>)>,
    take: &mut impl FnMut(usize, Scanned) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    let (mut wanted, mut early) = (0, HashMap::new());
    for (index, scanned) in results {
        early.insert(index, scanned?);
        while let Some(scanned) = early.remove(&wanted) {
            take(wanted, scanned)?;
            wanted += 1;
        }
    }
    Ok(())
}

fn scan(
    index: usize,
    layer: &LayerBlob,
    limits: &Limits,
    used: &Used,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Scanned, LayerError> {
    let of_layer = |error: TarError| LayerError::layer(index, error.to_string());
    let inner = layer.open().map_err(|error| LayerError::layer(index, error.to_string()))?;
    let hashing = Hashing { inner, hasher: Sha256::new(), left: limits.bytes };
    let mut reader = Reader::new(io::BufReader::with_capacity(128 * 1024, hashing));
    let mut scanned = Scanned::default();
    while let Some(header) = reader.next().map_err(of_layer)? {
        let ordinal = u32::try_from(scanned.entries.len()).unwrap_or(u32::MAX);
        if ordinal.is_multiple_of(256) && stop() {
            return Err(LayerError::Cancelled);
        }
        used.add(index, &header, limits)?;
        let entry = entry_of(index, header, ordinal, limits)?;
        if let EntryKind::File { size } = entry.what
            && size <= KEPT_LENGTH_MAX
            && is_kept(&entry.path)
        {
            used.keep(index, &entry.path, size, limits)?;
            let mut content = Vec::new();
            let read = (&mut reader).take(KEPT_LENGTH_MAX).read_to_end(&mut content);
            read.map_err(|error| LayerError::entry(index, &entry.path, error.to_string()))?;
            scanned.kept.insert(ordinal, content);
        }
        scanned.entries.push(entry);
    }
    reader.drain().map_err(|error| LayerError::layer(index, error.to_string()))?;
    let digest = hexadecimal(&reader.into_inner().into_inner().hasher.finalize());
    if digest != layer.diff_id.digits() {
        let what =
            format!("its content has the digest sha256:{digest}, and the image says {}", layer.diff_id);
        return Err(LayerError::layer(index, what));
    }
    Ok(scanned)
}

fn is_kept(path: &[u8]) -> bool {
    let (folder, name) = match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&path[..0], path),
    };
    let of_kernel = folder.strip_prefix(b"usr/").unwrap_or(folder).strip_prefix(b"lib/modules/");
    KEPT.contains(&path) || (of_kernel.is_some() && KEPT_OF_KERNEL.contains(&name))
}

/// The totals of all layers so far, for the limits.
#[derive(Default)]
struct Used {
    entries: AtomicU64,
    bytes: AtomicU64,
    names: AtomicU64,
    kept: AtomicU64,
}

/// Adds `more` to a counter. Returns true if the sum exceeds `most`.
fn over(counter: &AtomicU64, more: u64, most: u64) -> bool {
    counter.fetch_add(more.min(most.saturating_add(1)), Ordering::Relaxed).saturating_add(more) > most
}

impl Used {
    /// Counts a stored file. A layer may have the same file any number of times, and each copy would be stored.
    fn keep(&self, index: usize, path: &[u8], size: u64, limits: &Limits) -> Result<(), LayerError> {
        if !over(&self.kept, size, limits.kept) {
            return Ok(());
        }
        let what = format!("an image with more than {} bytes of files like this one is refused", limits.kept);
        Err(LayerError::entry(index, path, what))
    }

    fn add(&self, index: usize, header: &Header, limits: &Limits) -> Result<(), LayerError> {
        let xattrs: usize = header.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        let names = (header.path.len() + header.link.len() + xattrs) as u64;
        let what = if over(&self.entries, 1, limits.entries) {
            format!("an image with more than {} entries is refused", limits.entries)
        } else if over(&self.bytes, header.size, limits.bytes) {
            format!("an image whose layers have files of more than {} bytes is refused", limits.bytes)
        } else if over(&self.names, names, limits.names) {
            format!("an image whose names and attributes have more than {} bytes is refused", limits.names)
        } else {
            return Ok(());
        };
        Err(LayerError::entry(index, &header.path, what))
    }
}

fn entry_of(index: usize, header: Header, ordinal: u32, limits: &Limits) -> Result<Entry, LayerError> {
    let bad = |what: &str| LayerError::entry(index, &header.path, what);
    if header.path.contains(&0) || header.link.contains(&0) {
        return Err(bad("a path has a zero in it"));
    }
    let parts = clean(&header.path).ok_or_else(|| bad("it leads outside the image"))?;
    if parts.len() > limits.depth {
        return Err(bad(&format!("more than {} folders are within each other", limits.depth)));
    }
    if let Some(long) = parts.iter().find(|part| part.len() > 255) {
        return Err(bad(&format!("a name of {} bytes is too long for any file system", long.len())));
    }
    let (path, mark) = marked(&parts).map_err(bad)?;
    let what = match (mark, header.kind) {
        (Some(mark), _) => mark,
        (None, Kind::File) => EntryKind::File { size: header.size },
        (None, Kind::Folder) => EntryKind::Folder,
        (None, Kind::Fifo) => EntryKind::Fifo,
        (None, Kind::Device) => EntryKind::Device,
        (None, Kind::HardLink) => {
            let target =
                clean(&header.link).ok_or_else(|| bad("it is a link that leads outside the image"))?;
            EntryKind::HardLink(target.join(&b'/').into())
        }
        // No system call can create such a link, and unsquashfs rejects the whole image because of it.
        (None, Kind::Symlink) if header.link.is_empty() => return Err(bad("it is a link to nothing")),
        (None, Kind::Symlink) => {
            // A link is resolved from the root, so that links which containers resolve inside the root are not refused.
            let folder = parts.len().saturating_sub(1);
            let from = if header.link.starts_with(b"/") { &parts[..0] } else { &parts[..folder] };
            let target = [from.join(&b'/').as_slice(), &header.link].join(&b'/');
            clean(&target).ok_or_else(|| {
                bad(&format!("it is a link to {}, which leads outside the image", header.link.escape_ascii()))
            })?;
            EntryKind::Symlink(header.link.clone().into())
        }
    };
    let attributes = Attributes {
        mode: header.mode,
        uid: header.uid,
        gid: header.gid,
        mtime_s: header.mtime_s,
        xattrs: header.xattrs.into_iter().filter(|(name, _)| is_xattr_kept(name)).collect(),
    };
    Ok(Entry { path: path.into(), what, attributes, ordinal })
}

/// Returns true if an extended attribute is kept. Squashfs supports three kinds. Attributes of an overlay refer to its own
/// layers.
fn is_xattr_kept(name: &[u8]) -> bool {
    let known = [b"user.".as_slice(), b"security.", b"trusted."].iter().any(|kind| name.starts_with(kind));
    known && !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.")
}

/// Returns the path that an entry refers to, and the meaning of the entry if it is a whiteout.
fn marked(parts: &[&[u8]]) -> Result<(Vec<u8>, Option<EntryKind>), &'static str> {
    let Some((name, folder)) = parts.split_last() else { return Ok((Vec::new(), None)) };
    if *name == OPAQUE {
        return Ok((folder.join(&b'/'), Some(EntryKind::Opaque)));
    }
    let path = parts.join(&b'/');
    // AUFS's own files are left out, like devices.
    if name.starts_with(OF_AUFS) || folder.iter().any(|part| part.starts_with(OF_AUFS)) {
        return Ok((path, Some(EntryKind::Device)));
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok((path, None)),
        Some(b"" | b"." | b"..") => Err("it is a whiteout of no name"),
        Some(hidden) => Ok(([folder, &[hidden]].concat().join(&b'/'), Some(EntryKind::Whiteout))),
    }
}

/// Computes the digest of all bytes that are read, up to a limit.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
    left: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        let over = || io::Error::other("it is longer than any layer may be when it is unpacked");
        self.left = self.left.checked_sub(count as u64).ok_or_else(over)?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Digest;
    use super::*;

    #[test]
    fn two_layers_of_zstandard_are_read_at_once_and_others_do_not_wait() {
        let folder = tempfile::tempdir().expect("a folder");
        let layer = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).expect("written");
            LayerBlob { path, offset: 1, length: content.len() as u64 - 1, diff_id: Digest::of_digits("") }
        };
        let zstd = layer("zstd", b" \x28\xb5\x2f\xfd\x00");
        let skipped = layer("skipped", b" \x50\x2a\x4d\x18\x00");
        let others = [layer("gzip", b" \x1f\x8b\x08"), layer("plain", b" file"), layer("empty", b" ")];
        let turns = ZstdTurns::default();
        let first = turns.take(0, &zstd).expect("readable").expect("a turn");
        let _second = turns.take(1, &skipped).expect("readable").expect("a turn");
        for other in &others {
            assert!(turns.take(2, other).expect("readable").is_none());
        }
        assert!(turns.0.iter().all(|turn| turn.try_lock().is_err()), "no third one");
        drop(first);
        assert!(turns.take(2, &zstd).expect("readable").is_some());
    }
}
