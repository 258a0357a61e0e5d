//! Access to `/dev/kvm`.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;

/// Path of the device.
pub(crate) const DEVICE: &str = "/dev/kvm";

/// Why KVM cannot be used. The reason is never stored, because each of them can be fixed at any time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KvmUnusable {
    #[error("there is no {DEVICE}: no virtualisation, or the kvm modules are not loaded")]
    Absent,
    #[error("{DEVICE} cannot be opened: {0}")]
    Closed(io::Error),
    #[error("{DEVICE} is open to root only, and machines never run as root")]
    RootOnly,
}

impl KvmUnusable {
    /// Returns the command that fixes the problem.
    pub(crate) fn mend(&self) -> &'static str {
        match self {
            Self::Absent => {
                "modprobe kvm_intel || modprobe kvm_amd (and virtualisation switched on in the firmware)"
            }
            Self::Closed(_) => "usermod --append --groups kvm $USER, then log in again",
            Self::RootOnly => "chgrp kvm /dev/kvm && chmod 660 /dev/kvm",
        }
    }
}

/// Checks that machines can open the device. It does not check whether a guest boots with it.
pub(crate) fn usable() -> Result<(), KvmUnusable> {
    let device = fs::OpenOptions::new().read(true).write(true).open(DEVICE);
    let device = device.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => KvmUnusable::Absent,
        _ => KvmUnusable::Closed(error),
    })?;
    let root = rustix::process::geteuid().is_root();
    let metadata = device.metadata().map_err(KvmUnusable::Closed)?;
    if root && group_of(&metadata).is_none() && !open_to_all(&metadata) {
        return Err(KvmUnusable::RootOnly);
    }
    Ok(())
}

/// Returns the group that a machine needs to open the device; none if every user may open it.
pub(crate) fn group() -> Option<u32> {
    fs::metadata(DEVICE)
        .ok()
        .filter(|metadata| !open_to_all(metadata))
        .and_then(|metadata| group_of(&metadata))
}

fn group_of(metadata: &Metadata) -> Option<u32> {
    (metadata.gid() != 0 && metadata.mode() & 0o060 == 0o060).then(|| metadata.gid())
}

fn open_to_all(metadata: &Metadata) -> bool {
    metadata.mode() & 0o006 == 0o006
}
