//! The networks of machines.
//!
//! ```text
//!            namespace of VMM    namespace of the machine's network              this host
//!   guest ── VMM ─────────────── tap0 ─ rules, masquerade ─ eg0 ══ dayfly<random> ─ rules, masquerade ── internet
//!   10.0.2.15  (empty)           10.0.2.2                   198.19.x.y/30
//!                                  ├ port 53: the gate, a process of its own (`gate`) ── eg0 ───────── DNS server
//!                                  └ forwarded port ── a listener of this process ─────────────────── forge
//! ```
//!
//! This is the network of a machine as root. The namespace has no name, and the only process in it is the machine's gate. The
//! descriptor of `tap0`, which the VMM holds, keeps `tap0` alive, so a machine keeps its network if this process dies. When
//! the last process that holds the descriptor exits, `tap0` goes and the gate exits. This process holds the namespace too, until
//! it has read what the rules have counted ([`account`]); then the kernel removes namespace, link, address and route. Only the
//! exceptions in the host's rules remain; they are in the record.
//!
//! Which destinations a machine reaches is its pool's policy ([`policy`]). The rules of its namespace hold addresses
//! ([`rules`]), and its gate holds names.
//!
//! Without root, a machine uses the VMM's own network (slirp) in the host's namespace. It is open: the guest reaches everything
//! that this host reaches, and the host's loopback at 10.0.2.2. The policy `none`, and [`Egress::Shut`] with root too, use slirp
//! in a namespace that has only one forwarded port.

mod account;
mod address;
mod allow;
mod counts;
mod doctor;
mod error;
mod forwarding;
pub(crate) mod gate;
mod lock;
mod namespace;
mod netlink;
mod nft;
pub(crate) mod policy;
mod ranges;
mod record;
mod rules;
mod take_over;
mod tap;
#[cfg(test)]
mod tests;
mod traffic;
mod upkeep;
mod used;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Once;

pub use account::network_use;
pub(crate) use account::{LEDGER, let_go};
pub use allow::AllowEntry;
pub(crate) use doctor::checks;
pub use error::NetworkError;
pub(crate) use namespace::Attachment;
pub use policy::NetworkPolicy;
pub(crate) use record::remove;
pub(crate) use take_over::take_over;
pub(crate) use traffic::traffic;
pub use used::{Decision, Destination, NetworkUse, Protocol, Reason};

use crate::launch::Launcher;
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
pub(crate) fn connect(
    network: &Network,
    launcher: &Launcher,
    run_dir: &Path,
) -> Result<Connection, NetworkError> {
    match (&network.egress, rustix::process::geteuid().is_root()) {
        (Egress::Shut, _) => Ok(Connection::Shut),
        (Egress::Policy(policy), true) => {
            let made = namespace::make(namespace::NamespaceRequest {
                run_dir: run_dir.to_owned(),
                launcher: launcher.clone(),
                policy: policy.clone(),
                dns: dns(network.dns)?,
                names: network.names.clone(),
                reachable: rules::Reachable::of(&network.allow),
                forward: network.forward.map(|forward| forward.guest_port),
            });
            match made {
                Ok(attachment) => Ok(Connection::Own(attachment)),
                Err(error) => {
                    if let Err(left) = remove(run_dir) {
                        tracing::warn!("{left}");
                    }
                    let _ = account::discard(run_dir);
                    Err(error)
                }
            }
        }
        (Egress::Policy(NetworkPolicy::None), false) => match network.allow.first() {
            // The VMM's own network cannot let through one address and no other.
            Some(&forge) => Err(NetworkError::NeedsRoot { forge }),
            None => Ok(Connection::Shut),
        },
        (Egress::Policy(NetworkPolicy::Allow(_) | NetworkPolicy::Audit(_)), false) => {
            Err(NetworkError::ListNeedsRoot)
        }
        (Egress::Policy(policy), false) => connect_openly(network, policy),
    }
}

/// Returns the back end of the network card of a machine with this network.
pub(crate) fn card(network: &Network) -> NetworkCard {
    let own = network.egress != Egress::Shut && rustix::process::geteuid().is_root();
    if own { NetworkCard::Tap } else { NetworkCard::User }
}

/// Returns the DNS server that a machine with this network must use; none if the guest knows the address already.
pub(crate) fn name_server(network: &Network) -> Option<Ipv4Addr> {
    match (&network.egress, rustix::process::geteuid().is_root()) {
        // The VMM's own network answers at an address that the guest knows.
        (Egress::Shut, _) | (Egress::Policy(NetworkPolicy::None), false) => None,
        (Egress::Policy(policy), true) if policy.has_gate() => Some(address::GATEWAY),
        (Egress::Policy(_), _) => dns(network.dns).ok(),
    }
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

fn connect_openly(network: &Network, policy: &NetworkPolicy) -> Result<Connection, NetworkError> {
    dns(network.dns)?;
    if let Some(forward) = network.forward {
        // The VMM's network forwards each port of 10.0.2.2 to the same port of 127.0.0.1.
        let (guest_port, to) = (forward.guest_port, forward.to);
        if to.ip() != Ipv4Addr::LOCALHOST || to.port() != guest_port {
            return Err(NetworkError::Forward { guest_port, to });
        }
    }
    static SAID: Once = Once::new();
    if *policy != NetworkPolicy::Open {
        SAID.call_once(|| {
            tracing::warn!(
                "not root: machines share this host's network and reach all that it reaches, its loopback and private \
                 networks included; as root each gets a network of its own, with these shut"
            );
        });
    }
    Ok(Connection::Open)
}
