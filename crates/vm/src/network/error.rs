//! What can go wrong with a VM's network.

use std::io;
use std::net::IpAddr;

use super::address::RANGE;

/// Why a VM's network could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// nftables is not installed.
    #[error("no nft found (looked in {looked}); install it: apt-get install nftables")]
    NoNft {
        /// The paths.
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
    /// A rule was refused.
    #[error("nft refused the rules of {whose}: {reason}")]
    Rules {
        /// Whose rules.
        whose: &'static str,
        /// What it said.
        reason: String,
    },
    /// All networks between host and machines are in use.
    #[error("all networks of {RANGE} are in use (`ip route` lists them); end other machines first")]
    Full,
    /// Another process holds the lock for long.
    #[error("another process has kept {path} locked for {seconds} s")]
    Locked {
        /// The lock's file.
        path: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A DNS server that a guest cannot reach.
    #[error("the DNS server {address} cannot be reached from a machine: {reason}; name another one (`-d`)")]
    Dns {
        /// Its address.
        address: IpAddr,
        /// Why not.
        reason: &'static str,
    },
    /// A forwarded port that QEMU's own network cannot offer.
    #[error(
        "without root a forge on this host must listen on 127.0.0.1 and on the port {guest_port}, and not at {to}; as root any address works"
    )]
    Forward {
        /// The port that the guest uses.
        guest_port: u16,
        /// Where the forge is.
        to: std::net::SocketAddr,
    },
    /// A step was refused.
    #[error("cannot {step} for the machine's network: {source}{}", hint(source))]
    Step {
        /// Which.
        step: &'static str,
        /// Cause.
        source: io::Error,
    },
}

/// What a refusal for want of rights means.
fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        " (root needs CAP_NET_ADMIN and CAP_SYS_ADMIN for this; in a container they must be given)"
    } else {
        ""
    }
}

/// Names the step of an error.
pub(super) fn step<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> NetworkError {
    move |source| NetworkError::Step { step, source: source.into() }
}
