//! The sockets of a gate. They belong to the namespace of its machine, in which they are opened, and the gate may be in another one.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::{PORT, STREAMS_PORT};
use crate::network::address::GATEWAY;

/// The group of messages about links (`RTMGRP_LINK` of linux/rtnetlink.h).
const LINKS: u32 = 1;

/// The sockets of a gate.
#[derive(Debug)]
pub(in crate::network) struct GateSockets {
    /// The socket for questions by UDP.
    pub(super) questions: OwnedFd,
    /// The listener for questions by TCP.
    pub(super) questions_by_tcp: OwnedFd,
    /// The kernel's messages about the links of the machine's network.
    pub(super) links: OwnedFd,
    /// The listener for connections, if the rules lead them to the gate.
    pub(super) connections: Option<OwnedFd>,
}

impl GateSockets {
    /// Opens them in the calling thread's namespace, in which it must be allowed to listen on ports below 1024.
    pub(in crate::network) fn open(leads_connections: bool) -> io::Result<Self> {
        let at = |port| SocketAddr::from((GATEWAY, port));
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let links = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        rustix::net::bind(&links, &SocketAddrNetlink::new(0, LINKS))?;
        let listen = |port| TcpListener::bind(at(port)).map(OwnedFd::from);
        Ok(Self {
            questions: UdpSocket::bind(at(PORT))?.into(),
            questions_by_tcp: listen(PORT)?,
            links,
            connections: leads_connections.then(|| listen(STREAMS_PORT)).transpose()?,
        })
    }

    /// Returns them in the order in which [`Self::take`] expects them.
    pub(in crate::network) fn into_descriptors(self) -> Vec<OwnedFd> {
        let Self { questions, questions_by_tcp, links, connections } = self;
        [questions, questions_by_tcp, links].into_iter().chain(connections).collect()
    }

    /// Takes them from the front of a row of descriptors; none if the row is too short.
    pub(in crate::network) fn take(
        descriptors: &mut impl Iterator<Item = OwnedFd>,
        leads_connections: bool,
    ) -> Option<Self> {
        Some(Self {
            questions: descriptors.next()?,
            questions_by_tcp: descriptors.next()?,
            links: descriptors.next()?,
            connections: if leads_connections { Some(descriptors.next()?) } else { None },
        })
    }
}
