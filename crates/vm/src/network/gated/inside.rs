//! The work of the launcher that makes a network without root.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::network::error::step;
use crate::network::gate::GateSockets;
use crate::network::namespace::{connect_card, listen_on_gateway, turn_ipv6_off};
use crate::network::netlink::Netlink;
use crate::network::rules::{self, TAP};
use crate::network::{NetworkError, nft, tap};

/// A network whose only way out is its gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GatedNetwork {
    /// The port of the gateway that dayfly serves.
    pub(super) forward: Option<u16>,
}

impl GatedNetwork {
    /// Makes the network in the namespace of the calling process, which has all capabilities in it. Returns the card, the
    /// sockets of the gate, and the listener on the forwarded port.
    pub(crate) fn make(&self) -> Result<Vec<OwnedFd>, NetworkError> {
        turn_ipv6_off()?;
        let tap = tap::open(TAP).map_err(|source| NetworkError::NoTun { source })?;
        nft::run("the machine", &rules::gated(self.forward))?;
        connect_card(&Netlink::open().map_err(step("open a netlink socket"))?)?;
        let sockets = GateSockets::open(true).map_err(step("listen for the gate"))?;
        let listener = self.forward.map(listen_on_gateway).transpose()?;
        let all = std::iter::once(tap).chain(sockets.into_descriptors());
        Ok(all.chain(listener.map(OwnedFd::from)).collect())
    }
}
