//! Finds disks by the serials that the host gave them, because their order on the bus says nothing.

use super::BootError;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Longest time until a disk appears after its driver was loaded.
const APPEAR_MAX: Duration = Duration::from_secs(5);

/// Returns the device node of the disk with this serial.
pub(super) fn find(serial: &'static str) -> Result<PathBuf, BootError> {
    let start = Instant::now();
    loop {
        let disks = list();
        if let Some((name, _)) = disks.iter().find(|(_, found)| found == serial) {
            return Ok(PathBuf::from("/dev").join(name));
        }
        if start.elapsed() > APPEAR_MAX {
            let found = disks.into_iter().map(|(name, serial)| format!("{name}: {serial}")).collect();
            return Err(BootError::NoDisk { serial, found });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the names and serials of the virtio disks.
fn list() -> Vec<(String, String)> {
    let Ok(entries) = std::fs::read_dir("/sys/block") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let serial = std::fs::read_to_string(entry.path().join("serial")).ok()?;
            Some((entry.file_name().into_string().ok()?, serial.trim().to_owned()))
        })
        .collect()
}
