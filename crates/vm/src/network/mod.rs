//! The networks of machines.
//!
//! ```text
//!            namespace of VMM    namespace of the machine's network              this host
//!   guest ── VMM ─────────────── tap0 ─ rules, masquerade ─ eg0 ══ dayfly<random> ─ rules, masquerade ── internet
//!   10.0.2.15  (empty)           10.0.2.2                   198.19.x.y/30
//!                                  └ forwarded port ── a listener of this process ─────────────────── forge
//! ```
//!
//! This is the network of a machine as root. The namespace has no name and no process. The descriptor of `tap0`, which the
//! VMM holds, keeps it alive, so a machine keeps its network if this process dies. When the last process that holds the
//! descriptor exits, the kernel removes namespace, link, address and route. Only the exceptions in the host's rules remain;
//! they are in the record.
//!
//! Without root, a machine uses the VMM's own network (slirp) in the host's namespace. It is open: the guest reaches everything
//! that this host reaches, and the host's loopback at 10.0.2.2. A machine with [`Egress::Shut`] also uses slirp, in a
//! namespace that has only one forwarded port.

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
mod take_over;
mod tap;
#[cfg(test)]
mod tests;
mod upkeep;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Once;

pub(crate) use doctor::checks;
pub use error::NetworkError;
pub(crate) use namespace::Attachment;
pub(crate) use record::remove;
pub(crate) use take_over::take_over;

use crate::spec::{Egress, Network};
use crate::vmm::NetworkCard;

/// How a machine is connected.
#[derive(Debug)]
pub(crate) enum Connection {
    /// Through a network of its own.
    Own(Attachment),
    /// Through the VMM's own network, in this host's namespace.
    Open,
    /// Through the VMM's own network, in a namespace that has only the forwarded port.
    Shut,
}

/// Connects a machine as its spec requests and as this process's privileges allow.
pub(crate) fn connect(network: &Network, run_dir: &Path) -> Result<Connection, NetworkError> {
    match network.egress {
        Egress::Shut => Ok(Connection::Shut),
        Egress::Open if rustix::process::geteuid().is_root() => {
            let request = namespace::NamespaceRequest {
                run_dir: run_dir.to_owned(),
                reachable: rules::Reachable::of(dns(network.dns)?, &network.allow),
                forward: network.forward.map(|forward| forward.guest_port),
            };
            match namespace::make(request) {
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

/// Returns the back end of the network card of a machine with this network.
pub(crate) fn card(network: &Network) -> NetworkCard {
    let own = network.egress == Egress::Open && rustix::process::geteuid().is_root();
    if own { NetworkCard::Tap } else { NetworkCard::User }
}

/// Returns the DNS server that a machine with this network must use; none if the guest knows the address already.
pub(crate) fn name_server(network: &Network) -> Option<Ipv4Addr> {
    // The VMM's own network answers at an address that the guest knows.
    if network.egress == Egress::Shut {
        return None;
    }
    dns(network.dns).ok()
}

/// Returns the address of the DNS server, if a guest can reach it.
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
        // The VMM's network forwards each port of 10.0.2.2 to the same port of 127.0.0.1.
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
