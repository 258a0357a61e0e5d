//! Makes a VM's network without root.
//!
//! ```text
//!   user namespace of the maker, which exits                     this host
//!   namespace of the machine's network
//!   tap0 ─ rules ─ 10.0.2.2:53, :54, forwarded port ═(sockets)═ gate, dayfly ─── internet, DNS server, forge
//! ```
//!
//! An ordinary user gives no namespace a link to this host. So the namespace of such a network has no way out at all, and its rules
//! lead each connection of the guest to a socket of the gate, which is a process in the host's namespace. A launcher makes the
//! network, because only a process with one thread enters a user namespace, hands its descriptors back, and exits. They keep the
//! namespace alive.

mod inside;
mod support;

use std::net::TcpListener;
use std::os::fd::OwnedFd;

use super::error::step;
use super::gate::{GatePlace, GateSockets};
use super::namespace::{Attachment, GateParts, NamespaceRequest, start_gate};
use super::netlink::Netlink;
use super::record::NetworkRecord;
use super::{NetworkError, account, ranges};
use crate::launch::{self, LaunchError, LaunchOrder, Launcher, NetworkPlace, OwnRoot, Task, User};

pub(crate) use inside::GatedNetwork;
pub(super) use support::{Obstacle, obstacle};

/// The descriptors of a network.
struct Made {
    tap: OwnedFd,
    sockets: GateSockets,
    listener: Option<TcpListener>,
}

/// Creates a network, and starts its gate. Takes about 20 ms. After a failure, [`super::remove`] removes the gate.
pub(super) fn make(request: &NamespaceRequest) -> Result<Attachment, NetworkError> {
    let own = Netlink::open().and_then(|host| host.own_addresses());
    let shut = ranges::shut(&own.map_err(step("list this host's addresses"))?);
    let mut record =
        NetworkRecord { machine: None, policy: request.policy.clone(), shut: shut.clone(), gate: None };
    account::discard(&request.run_dir).map_err(step("discard an earlier account"))?;
    record.write(&request.run_dir).map_err(step("write the record"))?;
    let Made { tap, sockets, listener } = make_namespace(&request.launcher, request.forward)?;
    // The listener outlives this process in the gate, because no later one may enter the namespace.
    let kept = listener.as_ref().map(TcpListener::try_clone).transpose();
    let kept = kept.map_err(step("share the forwarded port"))?.map(OwnedFd::from);
    start_gate(request, GateParts { sockets, kept, shut, place: GatePlace::Host }, &mut record)?;
    Ok(Attachment { tap, listener, _upheld: None })
}

/// Has a launcher make the namespace, and waits for it.
fn make_namespace(launcher: &Launcher, forward: Option<u16>) -> Result<Made, NetworkError> {
    let order = LaunchOrder {
        user: User::Same,
        network: NetworkPlace::Empty { listen: None },
        // It enters no root of its own, because it executes `nft`.
        root: OwnRoot { files: Vec::new(), devices: Vec::new(), export: None },
        file_bytes_max: None,
        task: Task::Network(GatedNetwork { forward }),
    };
    // It needs no record: it exits by itself, also if this process dies.
    let mut made = launch::launch(launcher, &order, &[], |_| Ok(())).map_err(NetworkError::Namespace)?;
    made.child.wait().map_err(step("wait for the maker"))?;
    let mut handed = made.handed.into_iter();
    let cut = || NetworkError::Namespace(LaunchError::NoAnswer);
    let tap = handed.next().ok_or_else(cut)?;
    let sockets = GateSockets::take(&mut handed, true).ok_or_else(cut)?;
    let listener = handed.next().map(TcpListener::from);
    Ok(Made { tap, sockets, listener })
}
