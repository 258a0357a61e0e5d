//! What a machine reaches.
//!
//! ```text
//!            namespace of QEMU   namespace of the machine's network              this host
//!   guest ── QEMU ────────────── tap0 ─ rules, masquerade ─ eg0 ══ dayfly<random> ─ rules, masquerade ── internet
//!   10.0.2.15  (empty)           10.0.2.2                   198.19.x.y/30
//!                                  └ forwarded port ── a listener of this process ─────────────────── forge
//! ```
//!
//! That is how it is as root. The namespace has no name and no process: the descriptor of `tap0`, which QEMU holds, keeps
//! it alive, so a machine keeps its network when this process dies, and the kernel removes namespace, link, address and
//! route with the last of its processes. What remains, the exceptions in the host's rules, is in the record.
//!
//! Without root there is QEMU's own network (slirp) in the host's namespace, which is open: the guest reaches what this
//! host reaches, its loopback at 10.0.2.2. A machine that is shut has slirp too, in a namespace where there is nothing
//! but one forwarded port.

mod address;
mod doctor;
mod error;
mod forwarding;
mod lock;
mod namespace;
mod netlink;
mod nft;
mod record;
mod rules;
mod tap;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Once;

pub(crate) use doctor::checks;
pub use error::NetworkError;
pub(crate) use namespace::Attachment;
pub(crate) use record::remove;

use crate::driver::qemu::Card;
use crate::machine::{Egress, Network};

/// How a machine is connected.
#[derive(Debug)]
pub(crate) enum Connection {
    /// By a network of its own.
    Own(Attachment),
    /// By QEMU's own network, in this host's namespace.
    Open,
    /// By QEMU's own network, in a namespace with nothing in it but the forwarded port.
    Shut,
}

/// Connects a machine as its spec says, and as this process's rights allow.
pub(crate) fn connect(network: &Network, run_dir: &Path) -> Result<Connection, NetworkError> {
    match network.egress {
        Egress::Shut => Ok(Connection::Shut),
        Egress::Open if rustix::process::geteuid().is_root() => {
            let wish = namespace::Wish {
                run_dir: run_dir.to_owned(),
                reachable: rules::Reachable::of(dns(network.dns)?, &network.allow),
                forward: network.forward.map(|forward| forward.guest_port),
            };
            match namespace::make(wish) {
                Ok(attachment) => Ok(Connection::Own(attachment)),
                Err(error) => {
                    if let Err(left) = remove(run_dir) {
                        tracing::warn!("{left}");
                    }
                    Err(error)
                }
            }
        }
        Egress::Open => connect_openly(network),
    }
}

/// What the card of such a machine is connected to.
pub(crate) fn card(network: &Network) -> Card {
    let own = network.egress == Egress::Open && rustix::process::geteuid().is_root();
    if own { Card::Tap } else { Card::User }
}

/// The DNS server that such a machine is told.
pub(crate) fn name_server(network: &Network) -> Option<Ipv4Addr> {
    // Its own network answers at an address that the guest knows.
    if network.egress == Egress::Shut {
        return None;
    }
    dns(network.dns).ok()
}

/// The DNS server as a guest can reach it.
fn dns(address: IpAddr) -> Result<Ipv4Addr, NetworkError> {
    let refused = |reason| Err(NetworkError::Dns { address, reason });
    match address {
        IpAddr::V4(server) if server.is_loopback() => refused("it is this host's loopback"),
        IpAddr::V4(server) if server.is_unspecified() => refused("it is no address of a server"),
        IpAddr::V4(server) => Ok(server),
        IpAddr::V6(_) => refused("machines have no IPv6"),
    }
}

fn connect_openly(network: &Network) -> Result<Connection, NetworkError> {
    dns(network.dns)?;
    if let Some(forward) = network.forward {
        // 10.0.2.2 is 127.0.0.1 to QEMU's network, port by port.
        let (guest_port, to) = (forward.guest_port, forward.to);
        if to.ip() != Ipv4Addr::LOCALHOST || to.port() != guest_port {
            return Err(NetworkError::Forward { guest_port, to });
        }
    }
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        tracing::warn!(
            "not root: machines share this host's network and reach all that it reaches, its loopback and private \
             networks included; as root each gets a network of its own, with these shut"
        );
    });
    Ok(Connection::Open)
}
