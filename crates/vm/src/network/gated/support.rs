//! Finds out whether this host lets dayfly make networks without root, by making one.

use std::fmt;
use std::fs::File;
use std::sync::{Mutex, PoisonError};

use dayfly_host::scarcity::Scarcity;

use super::make_namespace;
use crate::host::ALLOW_NAMESPACES;
use crate::launch::{LaunchError, Launcher};
use crate::network::{NetworkError, nft};

/// Why this host does not let dayfly make networks without root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::network) struct Obstacle {
    pub(in crate::network) why: String,
    /// The command that removes it, if there is one.
    pub(in crate::network) mend: Option<&'static str>,
}

/// The result of the attempt, which holds as long as this process runs: the templates of its machines have the network card that
/// follows from it.
static FOUND: Mutex<Option<Option<Obstacle>>> = Mutex::new(None);

/// Returns the obstacle to networks without root; none if there is none. Only the first call makes a network, which takes about
/// 12 ms.
pub(in crate::network) fn obstacle(launcher: &Launcher) -> Option<Obstacle> {
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = &*found {
        return found.clone();
    }
    match attempt(launcher) {
        // Nothing is weakened because the host is short of something for a moment: the network of the next machine is an error.
        Err(error) if may_pass(&error) => None,
        tried => found.insert(tried.err().map(|error| Obstacle::of(&error))).clone(),
    }
}

/// Returns true if the next attempt may succeed.
fn may_pass(error: &NetworkError) -> bool {
    Scarcity::of(error).is_some() || matches!(error, NetworkError::Namespace(LaunchError::NoAnswer))
}

fn attempt(launcher: &Launcher) -> Result<(), NetworkError> {
    nft::program()?;
    let tun = File::options().read(true).write(true).open("/dev/net/tun");
    tun.map_err(|source| NetworkError::NoTun { source })?;
    make_namespace(launcher, None).map(drop)
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        self.mend.map_or(Ok(()), |mend| write!(f, " (this helps: {mend})"))
    }
}

impl Obstacle {
    fn of(error: &NetworkError) -> Self {
        let mend = match error {
            NetworkError::NoNft { .. } => Some("apt-get install nftables"),
            NetworkError::NoTun { source } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Some("chmod 666 /dev/net/tun")
            }
            NetworkError::NoTun { .. } => Some("modprobe tun"),
            NetworkError::Namespace(LaunchError::Step { cause, .. })
                if cause.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Some(ALLOW_NAMESPACES)
            }
            _ => None,
        };
        Self { why: error.to_string(), mend }
    }
}
