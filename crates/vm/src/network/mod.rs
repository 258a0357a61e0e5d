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
//! This is the network of a machine as root ([`namespace`]). The namespace has no name, and the only process in it is the machine's
//! gate. The descriptor of `tap0`, which the VMM holds, keeps `tap0` alive, so a machine keeps its network if this process dies. When
//! the last process that holds the descriptor exits, `tap0` goes and the gate exits. This process holds the namespace too, until
//! it has read what the rules have counted ([`account`]); then the kernel removes namespace, link, address and route. Only the
//! exceptions in the host's rules remain; they are in the record.
//!
//! Which destinations a machine reaches is its pool's policy ([`policy`]). The rules of its namespace hold addresses
//! ([`rules`]), and its gate holds names.
//!
//! Without root, the namespace belongs to a user namespace and has no link to this host ([`gated`]). The gate holds addresses too, and
//! makes all connections of the machine. The policy `open`, and `guarded` on a host that allows no such namespace, use the VMM's
//! own network (slirp) in the host's namespace: the guest reaches everything that this host reaches, and the host's loopback at
//! 10.0.2.2. [`Egress::Shut`] uses slirp in a namespace that has only one forwarded port.

mod account;
mod address;
mod allow;
mod counts;
mod doctor;
mod error;
mod forwarding;
mod gate;
mod gated;
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
pub(crate) use gate::{Gate, GateSettings};
pub(crate) use gated::GatedNetwork;
pub(crate) use namespace::Attachment;
pub use policy::NetworkPolicy;
pub(crate) use record::remove;
pub(crate) use take_over::take_over;
pub(crate) use traffic::traffic;
pub use used::{Decision, Destination, NetworkUse, Protocol, Reason};

use crate::launch::Launcher;
use crate::spec::{Egress, Network};
use crate::vmm::NetworkCard;
use gated::Obstacle;
use namespace::NamespaceRequest;

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

/// The way in which a machine is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    /// A network of its own, with a link to this host.
    Linked,
    /// A network of its own, whose only way out is its gate.
    Gated,
    /// The VMM's own network, in this host's namespace. The obstacle keeps the policy from being enforced.
    Open(Option<Obstacle>),
    /// The VMM's own network, in a namespace that has only the forwarded port.
    Shut,
    /// None, because its policy cannot be enforced.
    Refused(Obstacle),
}

impl Way {
    /// Returns the way for a machine of this process.
    fn of(network: &Network, launcher: &Launcher) -> Self {
        let policy = match &network.egress {
            Egress::Shut => return Self::Shut,
            Egress::Policy(policy) => policy,
        };
        if rustix::process::geteuid().is_root() {
            return Self::Linked;
        }
        // The gate passes TCP alone, and an open machine reaches everything.
        if *policy == NetworkPolicy::Open {
            return Self::Open(None);
        }
        match (gated::obstacle(launcher), policy) {
            (None, _) => Self::Gated,
            (Some(_), NetworkPolicy::None) if network.allow.is_empty() => Self::Shut,
            (Some(obstacle), NetworkPolicy::Guarded) => Self::Open(Some(obstacle)),
            (Some(obstacle), _) => Self::Refused(obstacle),
        }
    }

    /// Returns true if the machine has a network of its own.
    fn is_own(&self) -> bool {
        matches!(self, Self::Linked | Self::Gated)
    }
}

/// Connects a machine as its spec requests and as this process's privileges allow.
pub(crate) fn connect(
    network: &Network,
    launcher: &Launcher,
    run_dir: &Path,
) -> Result<Connection, NetworkError> {
    let Egress::Policy(policy) = &network.egress else { return Ok(Connection::Shut) };
    let way = Way::of(network, launcher);
    let request = || {
        Ok(NamespaceRequest {
            run_dir: run_dir.to_owned(),
            launcher: launcher.clone(),
            policy: policy.clone(),
            dns: dns(network.dns)?,
            names: network.names.clone(),
            reachable: rules::Reachable::of(&network.allow),
            forward: network.forward.map(|forward| forward.guest_port),
        })
    };
    let made = match way {
        Way::Linked => namespace::make(request()?),
        Way::Gated => gated::make(&request()?),
        Way::Open(obstacle) => return connect_openly(network, obstacle),
        Way::Shut => return Ok(Connection::Shut),
        Way::Refused(obstacle) => {
            return Err(NetworkError::Unenforced { policy: policy.as_str(), obstacle: obstacle.to_string() });
        }
    };
    made.map(Connection::Own).inspect_err(|_| {
        if let Err(left) = remove(run_dir) {
            tracing::warn!("{left}");
        }
        let _ = account::discard(run_dir);
    })
}

/// Finds out whether this host lets dayfly make networks without root, on a blocking thread. The functions below then take no time.
pub(crate) async fn look_for_obstacles(launcher: &Launcher) {
    if !rustix::process::geteuid().is_root() {
        let launcher = launcher.clone();
        // A panic is found again by the machine's own network.
        let _ = tokio::task::spawn_blocking(move || gated::obstacle(&launcher)).await;
    }
}

/// Returns the back end of the network card of a machine with this network.
pub(crate) fn card(network: &Network, launcher: &Launcher) -> NetworkCard {
    if Way::of(network, launcher).is_own() { NetworkCard::Tap } else { NetworkCard::User }
}

/// Returns true if a VMM is in a network namespace of its own if its machine has this policy.
pub(crate) fn is_apart(policy: &NetworkPolicy, launcher: &Launcher) -> bool {
    let network = Network::new(policy.clone(), Ipv4Addr::UNSPECIFIED.into());
    !matches!(Way::of(&network, launcher), Way::Open(_))
}

/// Returns the DNS server that a machine with this network must use; none if the guest knows the address already.
pub(crate) fn name_server(network: &Network, launcher: &Launcher) -> Option<Ipv4Addr> {
    let Egress::Policy(policy) = &network.egress else { return None };
    match Way::of(network, launcher) {
        // The VMM's own network answers at an address that the guest knows.
        Way::Shut | Way::Refused(_) => None,
        way if way.is_own() && policy.has_gate() => Some(address::GATEWAY),
        _ => dns(network.dns).ok(),
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

fn connect_openly(network: &Network, obstacle: Option<Obstacle>) -> Result<Connection, NetworkError> {
    dns(network.dns)?;
    if let Some(forward) = network.forward {
        // The VMM's network forwards each port of 10.0.2.2 to the same port of 127.0.0.1.
        let (guest_port, to) = (forward.guest_port, forward.to);
        if to.ip() != Ipv4Addr::LOCALHOST || to.port() != guest_port {
            return Err(NetworkError::Forward { guest_port, to });
        }
    }
    static SAID: Once = Once::new();
    if let Some(obstacle) = obstacle {
        SAID.call_once(|| {
            tracing::warn!(
                "machines share this host's network and reach all that it reaches, its loopback and private networks \
                 included: without root they have no network of their own, because {obstacle}"
            );
        });
    }
    Ok(Connection::Open)
}
