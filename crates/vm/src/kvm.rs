//! Who may use `/dev/kvm`.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;

const DEVICE: &str = "/dev/kvm";

/// Why KVM cannot be used. None of these is remembered: each can be mended at any time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("there is no {DEVICE}: no virtualisation, or the kvm modules are not loaded")]
    Absent,
    #[error("{DEVICE} cannot be opened: {0}")]
    Closed(io::Error),
    #[error("{DEVICE} is open to root only, and machines never run as root")]
    RootOnly,
}

impl Unusable {
    /// The command that mends it.
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

/// Whether machines could open the device. Whether a guest then boots is another question.
pub(crate) fn usable() -> Result<(), Unusable> {
    let device = fs::OpenOptions::new().read(true).write(true).open(DEVICE);
    let device = device.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unusable::Absent,
        _ => Unusable::Closed(error),
    })?;
    let root = rustix::process::geteuid().is_root();
    let metadata = device.metadata().map_err(Unusable::Closed)?;
    if root && group_of(&metadata).is_none() && !open_to_all(&metadata) {
        return Err(Unusable::RootOnly);
    }
    Ok(())
}

/// The group that a machine needs to open it; none where anybody may.
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
