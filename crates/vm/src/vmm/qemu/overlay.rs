//! Creates the disk of a fork: an empty overlay (qcow2) that takes what the fork writes.
//!
//! The file is written directly because `qemu-img` takes half as long as a whole fork. Layout, from QEMU's
//! `docs/interop/qcow2.txt` (version 3): one cluster each for the header, the reference count table and the first reference
//! count block, followed by the level 1 table. Only the VMM's command line names the backing file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Binary logarithm of the cluster size: 64 KiB, QEMU's default.
const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Bytes that one entry of the level 1 table maps: a cluster of level 2 entries of 8 bytes, each of which maps a cluster.
const MAPPED_BY_LEVEL_1: u64 = CLUSTER / 8 * CLUSTER;
/// Binary logarithm of the width of a reference count: 2^4 bits.
const REFCOUNT_ORDER: u32 = 4;
/// Length of a version 3 header without extensions, bytes.
const HEADER_LENGTH: u32 = 104;

/// Creates an empty overlay of this size and opens it. Replaces an existing file.
pub(crate) fn make(path: &Path, bytes: u64) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let level_1_entries = bytes.div_ceil(MAPPED_BY_LEVEL_1);
    let level_1_clusters = (level_1_entries * 8).div_ceil(CLUSTER).max(1);
    let clusters = 3 + level_1_clusters;
    // One block holds the reference counts of 32768 clusters, which is too few for the level 1 table of 16 PiB.
    if clusters > CLUSTER / 2 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too large for an overlay"));
    }
    file.set_len(clusters * CLUSTER)?;
    file.write_all_at(&header(bytes, u32::try_from(level_1_entries).map_err(io::Error::other)?), 0)?;
    // The reference count table has one entry: the block in the next cluster.
    file.write_all_at(&(2 * CLUSTER).to_be_bytes(), CLUSTER)?;
    let counts: Vec<u8> = (0..clusters).flat_map(|_| 1u16.to_be_bytes()).collect();
    file.write_all_at(&counts, 2 * CLUSTER)?;
    Ok(file)
}

fn header(bytes: u64, level_1_entries: u32) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_LENGTH as usize);
    header.extend(b"QFI\xfb");
    header.extend(3u32.to_be_bytes());
    // No name of a backing file.
    header.extend([0; 12]);
    header.extend(CLUSTER_BITS.to_be_bytes());
    header.extend(bytes.to_be_bytes());
    // Not encrypted.
    header.extend(0u32.to_be_bytes());
    header.extend(level_1_entries.to_be_bytes());
    header.extend((3 * CLUSTER).to_be_bytes());
    header.extend(CLUSTER.to_be_bytes());
    header.extend(1u32.to_be_bytes());
    // No snapshots; no features.
    header.extend([0; 12 + 24]);
    header.extend(REFCOUNT_ORDER.to_be_bytes());
    header.extend(HEADER_LENGTH.to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;
    use std::process::Command;

    fn qemu_img(args: &[&str], path: &Path) -> String {
        let output = Command::new("qemu-img").args(args).arg(path).output();
        let output = output.expect("qemu-img (package qemu-utils, which `make test` installs)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    #[test]
    fn qemu_finds_nothing_wrong_with_an_overlay_of_any_size() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("overlay");
        for bytes in [256 << 20, 32 << 30, 16 << 40] {
            let file = make(&path, bytes).expect("make");
            let metadata = file.metadata().expect("metadata");
            assert!(metadata.blocks() * 512 <= 64 << 10, "{} bytes", metadata.blocks() * 512);
            assert_eq!(metadata.mode() & 0o777, 0o600);
            let checked = qemu_img(&["check", "-f", "qcow2"], &path);
            assert!(checked.contains("No errors were found"), "{checked}");
            let info = qemu_img(&["info", "-f", "qcow2", "--output=json"], &path);
            let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
            assert_eq!(info["virtual-size"], bytes);
            assert_eq!(info["backing-filename"], serde_json::Value::Null);
        }
    }

    #[test]
    fn what_no_overlay_can_map_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        assert!(make(&folder.path().join("overlay"), u64::MAX / 2).is_err());
    }
}
