//! The errors of a VM's network.

use std::io;
use std::net::IpAddr;

use super::address::RANGE;
use crate::launch::LaunchError;

/// Why a VM's network could not be created or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// nftables is not installed.
    #[error("no nft found (looked in {looked}); install it: apt-get install nftables")]
    NoNft {
        /// The paths that were searched.
        looked: String,
    },
    /// The kernel offers no tap devices.
    #[error(
        "cannot make the machine's network card by /dev/net/tun: {source} (is the module there: modprobe tun; in a container it must be given as a device)"
    )]
    NoTun {
        /// Cause.
        source: io::Error,
    },
    /// nft refused a rule.
    #[error("nft refused the rules of {whose}: {reason}")]
    Rules {
        /// The owner of the rules.
        whose: &'static str,
        /// The first line of nft's error output.
        reason: String,
    },
    /// All transfer networks between host and machines are in use.
    #[error("all networks of {RANGE} are in use (`ip route` lists them); end other machines first")]
    Full,
    /// Another process has held the lock for too long.
    #[error("another process has kept {path} locked for {seconds} s")]
    Locked {
        /// The lock file.
        path: &'static str,
        /// Time that the lock was waited for, seconds.
        seconds: u64,
    },
    /// A DNS server that a guest cannot reach.
    #[error("the DNS server {address} cannot be reached from a machine: {reason}; name another one (`-d`)")]
    Dns {
        /// Address of the server.
        address: IpAddr,
        /// Why a guest cannot reach it.
        reason: &'static str,
    },
    /// A forwarded port that the VMM's own network cannot offer.
    #[error(
        "without root a forge on this host must listen on 127.0.0.1 and on the port {guest_port}, and not at {to}; as root any address works"
    )]
    Forward {
        /// The port that the guest uses.
        guest_port: u16,
        /// Address of the forge.
        to: std::net::SocketAddr,
    },
    /// A policy that cannot be enforced without root on this host.
    #[error(
        "network = {policy}: it cannot be enforced without root, because {obstacle}; or run dayfly as root"
    )]
    Unenforced {
        /// The policy.
        policy: &'static str,
        /// The cause, and the command that removes it.
        obstacle: String,
    },
    /// The namespace of a network could not be made without root.
    #[error("cannot make the machine's network without root: {0}")]
    Namespace(#[source] LaunchError),
    /// The process that answers the machine's questions for names could not be started.
    #[error("cannot start the gate of the machine's network: {0}")]
    Gate(#[source] LaunchError),
    /// A step failed.
    #[error("cannot {step} for the machine's network: {source}{}", hint(source))]
    Step {
        /// The step that failed.
        step: &'static str,
        /// Cause.
        source: io::Error,
    },
}

impl NetworkError {
    /// Returns the step that failed, and the cause, of an error in a launcher.
    pub(crate) fn into_step(self) -> (&'static str, io::Error) {
        match self {
            Self::Step { step, source } => (step, source),
            Self::NoTun { source } => ("make the machine's network card by /dev/net/tun", source),
            other => ("filter the machine's packets", io::Error::other(other.to_string())),
        }
    }
}

/// Returns an explanation if the error is due to missing privileges.
fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        " (root needs CAP_NET_ADMIN and CAP_SYS_ADMIN for this; in a container they must be given)"
    } else {
        ""
    }
}

/// Returns a function that adds the name of the failed step to an error.
pub(super) fn step<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> NetworkError {
    move |source| NetworkError::Step { step, source: source.into() }
}
