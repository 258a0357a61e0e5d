//! Errors of starting a machine, and of removing what is left of one.

use std::io;
use std::path::{Path, PathBuf};

use crate::driver::DriverKind;
use crate::launch::LaunchError;
use crate::network::NetworkError;
use crate::pace::NoMemory;
use dayfly_host::scarcity::Scarcity;
use dayfly_host::tool::ToolError;
use dayfly_image::{Image, ImageError};

/// Why a machine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The VMM, or a tool of the driver, is not installed.
    #[error("no {tool} found (looked in {looked}); install it: {mend}")]
    NoTool {
        /// The tool's name.
        tool: &'static str,
        /// The folders that were searched.
        looked: String,
        /// How to install it.
        mend: &'static str,
    },
    /// There is no image to start the machine from.
    #[error(transparent)]
    NoImage(#[from] ImageError),
    /// A tool of the driver failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// Another machine has this name already, and it was not created by this start.
    #[error("there is a machine named {name} already; remove it with {tool}")]
    Taken {
        /// The name.
        name: String,
        /// The tool that manages the other machine.
        tool: &'static str,
    },
    /// A mount that the driver does not support.
    #[error("cannot mount {} at {}: {reason}", host.display(), guest.display())]
    Mount {
        /// The path on the host.
        host: PathBuf,
        /// The path in the guest.
        guest: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A network policy that the driver cannot enforce.
    #[error(
        "network = {policy}: only machines of the driver qemu have a network of their own, and these are of {driver}"
    )]
    NoPolicy {
        /// The policy.
        policy: &'static str,
        /// The driver.
        driver: DriverKind,
    },
    /// The guest binary is missing, or is not a static program.
    #[error("cannot use the guest binary {}: {source}; `make build` puts it beside dayfly", path.display())]
    GuestBinary {
        /// Path of the guest binary.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file of the image is missing or damaged.
    #[error("image {image} is damaged: {}: {source}; remove it (`dayfly image rm {image}`) and build it again", path.display())]
    Image {
        /// The image's id.
        image: String,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file system of the disk's folder has too little free space.
    #[error("no space for a machine's disk in {}: {free_mib} MiB are free, {needed_mib} MiB are needed at least", path.display())]
    NoSpace {
        /// The folder.
        path: PathBuf,
        /// Free space, MiB.
        free_mib: u64,
        /// The least space that must be free, MiB.
        needed_mib: u64,
    },
    /// A size that no machine can have.
    #[error("a machine cannot have {value} {what} ({least} to {most} are possible)")]
    Size {
        /// The thing that has this size, with its unit.
        what: &'static str,
        /// The requested value.
        value: u64,
        /// The smallest possible value.
        least: u64,
        /// The largest possible value.
        most: u64,
    },
    /// KVM was requested and cannot be used.
    #[error("KVM cannot be used: {reason}; `--accel tcg` emulates (slow, and no security boundary)")]
    NoKvm {
        /// The reason.
        reason: String,
    },
    /// No guest boots on this host, not even under emulation.
    #[error("no machine boots here: {reason}{}", kvm.as_ref().map(|kvm| format!("\n  with KVM: {kvm}")).unwrap_or_default())]
    NoGuestBoots {
        /// How the probe guest failed under emulation.
        reason: String,
        /// Why KVM is not used, if it was to be used.
        kvm: Option<String>,
    },
    /// A disk could not be created.
    #[error("cannot make the machine's disk {}: {reason}", path.display())]
    Disk {
        /// Path of the disk.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The machine was started by an earlier process, and its parts are not known to this one.
    #[error("the machine has ended, and only the process that had started it could start it again")]
    Vanished,
    /// An operation on a file of the run failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The operation.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The kernel of this host killed the machine for memory before it was up.
    #[error("the machine was lost while it started: {exit}")]
    KilledForMemory {
        /// The way in which the machine ended.
        exit: String,
    },
    /// The host has too little free memory.
    #[error(transparent)]
    Memory(#[from] NoMemory),
    /// The machine's network could not be created.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The VMM could not be started.
    #[error("cannot start the machine's VMM: {0}")]
    Launch(#[from] LaunchError),
}

impl StartError {
    /// Returns a function that turns an I/O error of a file of an image into [`StartError::Image`].
    pub(crate) fn of_image(image: &Image, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let (image, path) = (image.id().to_owned(), path.to_owned());
        move |source| Self::Image { image, path, source }
    }

    /// Returns the error of a guest binary. A path that stands for an open file is replaced by that of the file.
    pub(crate) fn of_guest_binary(path: &Path, source: io::Error) -> Self {
        let path = std::fs::read_link(path).unwrap_or_else(|_| path.to_owned());
        Self::GuestBinary { path, source }
    }

    /// Returns what this host has run out of, if that is why the machine was not started. It says nothing about the image or
    /// the template.
    #[must_use]
    pub fn scarcity(&self) -> Option<Scarcity> {
        match self {
            Self::NoSpace { .. } | Self::NoImage(ImageError::NoSpace { .. }) => Some(Scarcity::Space),
            Self::Memory(_) | Self::KilledForMemory { .. } => Some(Scarcity::Memory),
            _ => Scarcity::of(self),
        }
    }

    /// Returns true if the same machine is likely to start later, when other machines have ended.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let is_scarce = self.scarcity().is_some();
        is_scarce
            || matches!(
                self,
                Self::Tool(ToolError::TooLong { .. })
                    | Self::Launch(LaunchError::NoAnswer | LaunchError::Spawn { .. })
                    | Self::Network(NetworkError::Full | NetworkError::Locked { .. })
            )
    }
}

/// Why the remains of a machine could not be inspected or removed.
#[derive(Debug, thiserror::Error)]
pub enum LeftoverError {
    /// An operation on a file or a process failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The operation.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The remains of the machine's network could not be removed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The tool that created the machine could not list or remove it.
    #[error("a machine may be left: {0}")]
    Tool(#[from] ToolError),
    /// The process does not exit, although it was killed.
    #[error("the machine's process {pid} does not exit")]
    Alive {
        /// The process id.
        pid: u32,
    },
}
