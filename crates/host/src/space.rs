//! Free space of file systems.

use std::io;
use std::path::Path;

/// Returns the space that this user may still write in the file system of a path, MiB.
pub fn free_mib(path: &Path) -> io::Result<u64> {
    let statistics = rustix::fs::statvfs(path)?;
    Ok(statistics.f_bavail.saturating_mul(statistics.f_frsize) / (1024 * 1024))
}
