//! What can go wrong with a machine before it runs and after it has ended.

use std::io;
use std::path::{Path, PathBuf};

use crate::launch::LaunchError;
use crate::network::NetworkError;
use crate::pace::NoMemory;
use dayfly_host::tool::ToolError;
use dayfly_image::{Image, ImageError};

/// Why a machine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// QEMU is not installed.
    #[error("no qemu-system-x86_64 found (looked in {looked}); install it: apt-get install qemu-system-x86")]
    NoQemu {
        /// The folders.
        looked: String,
    },
    /// A tool of the driver is not installed.
    #[error("no {tool} found (looked in {looked}); install it: {mend}")]
    NoTool {
        /// Its name.
        tool: &'static str,
        /// The folders.
        looked: String,
        /// How it comes here.
        mend: &'static str,
    },
    /// There is no image to start it from.
    #[error(transparent)]
    NoImage(#[from] ImageError),
    /// A tool of the driver did not do what it should.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A machine of this name is there already, and is not ours.
    #[error("there is a machine named {name} already; remove it with {tool}")]
    Taken {
        /// The name.
        name: String,
        /// Who has it.
        tool: &'static str,
    },
    /// A mount that the driver cannot make.
    #[error("cannot mount {} at {}: {reason}", host.display(), guest.display())]
    Mount {
        /// What was to be mounted.
        host: PathBuf,
        /// Where.
        guest: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The guest binary is not there or is no static program.
    #[error("cannot use the guest binary {}: {source}; `make build` puts it beside dayfly", path.display())]
    GuestBinary {
        /// Its path.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A file of the image is gone or damaged.
    #[error("image {image} is not whole: {}: {source}; remove it (`dayfly image rm {image}`) and build it again", path.display())]
    Image {
        /// The image's id.
        image: String,
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The state folder's file system is full.
    #[error("no space for a machine's disk in {}: {free_mib} MiB are free, {needed_mib} MiB are needed at least", path.display())]
    NoSpace {
        /// The folder.
        path: PathBuf,
        /// Free space, MiB.
        free_mib: u64,
        /// Least space, MiB.
        needed_mib: u64,
    },
    /// A size that no machine can have.
    #[error("a machine cannot have {value} {what} ({least} to {most} are possible)")]
    Size {
        /// Of what.
        what: &'static str,
        /// The value asked for.
        value: u64,
        /// Least.
        least: u64,
        /// Most.
        most: u64,
    },
    /// KVM was asked for and cannot be used.
    #[error("KVM cannot be used: {reason}; `--accel tcg` emulates (slow, and no security boundary)")]
    NoKvm {
        /// Why.
        reason: String,
    },
    /// Not even emulation boots a guest.
    #[error("no machine boots here: {reason}{}", kvm.as_ref().map(|kvm| format!("\n  with KVM: {kvm}")).unwrap_or_default())]
    NoGuestBoots {
        /// How the probe guest failed under emulation.
        reason: String,
        /// Why KVM is not used, if it was to be.
        kvm: Option<String>,
    },
    /// A disk could not be made.
    #[error("cannot make the machine's disk {}: {reason}", path.display())]
    Disk {
        /// The disk.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file of the run.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The host is out of memory.
    #[error(transparent)]
    Memory(#[from] NoMemory),
    /// Its network could not be made.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The VMM could not be started.
    #[error("cannot start the machine's VMM: {0}")]
    Launch(#[from] LaunchError),
}

impl StartError {
    /// A file of an image could not be used.
    pub(crate) fn of_image(image: &Image, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let (image, path) = (image.id().to_owned(), path.to_owned());
        move |source| Self::Image { image, path, source }
    }

    /// Whether the same machine may well start later, when others have ended.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::NoSpace { .. }
                | Self::Memory(_)
                | Self::Tool(ToolError::TooLong { .. })
                | Self::Launch(LaunchError::NoAnswer | LaunchError::Spawn { .. })
                | Self::Network(NetworkError::Full | NetworkError::Locked { .. })
        )
    }
}

/// Why what is left of a machine could not be looked at or removed.
#[derive(Debug, thiserror::Error)]
pub enum LeftoverError {
    /// A file.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// What is left of its network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The tool that made the machine cannot remove it.
    #[error("a machine may be left: {0}")]
    Tool(#[from] ToolError),
    /// The process does not end.
    #[error("the machine's process {pid} does not end")]
    Alive {
        /// Its number.
        pid: u32,
    },
}
