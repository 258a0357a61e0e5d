//! Sends the few requests to the kernel's network configuration that create and remove a VM's network, and that tell which
//! addresses are this host's.
//!
//! Message formats: `linux/netlink.h`, `linux/rtnetlink.h`, `linux/if_link.h`, `linux/if_addr.h`. A socket belongs to
//! the network namespace that its thread was in when it was opened, even if the thread enters another one later.
#![expect(unsafe_code, reason = "an option of sockets without a safe wrapper")]

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::ranges::Prefix;

const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACK: u16 = libc::NLM_F_ACK as u16;
/// Create the object, and fail if it exists already.
const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
/// The attribute of `veth.h` that holds the other end.
const VETH_INFO_PEER: u16 = 1;
/// The answer is a list.
const DUMP: u16 = libc::NLM_F_DUMP as u16;
/// Longest answer that is read, bytes: the description of one link, or a part of a list.
const ANSWER_MAX: usize = 32 * 1024;
/// Most parts of a list that are read. One has more than a hundred routes.
const PARTS_MAX: usize = 4096;
/// Most addresses of this host that are used, so that the rules that name them stay short.
const OWN_MAX: usize = 1024;
/// Length of a message's header, and of a link's header, bytes.
const HEADER: usize = 16;
/// Length of a route's header (`rtmsg`), bytes.
const ROUTE_HEADER: usize = 12;

/// A connection to the network configuration of one namespace.
#[derive(Debug)]
pub(super) struct Netlink(OwnedFd);

/// The destination of a route.
#[derive(Debug, Clone, Copy)]
pub(super) enum Route {
    /// A network directly behind the link with this index.
    Network(Ipv4Addr, u8, u32),
    /// Everything else, through a gateway.
    Default(Ipv4Addr),
}

impl Netlink {
    /// Opens a connection to the configuration of the calling thread's namespace.
    pub(super) fn open() -> io::Result<Self> {
        // No protocol means number 0, which is NETLINK_ROUTE.
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self(socket))
    }

    /// Creates a pair of links: `name` in this namespace and `peer` in another one.
    pub(super) fn add_veth(&self, name: &str, peer: &str, peer_namespace: BorrowedFd<'_>) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWLINK, CREATE);
        message.link(0, 0).text(libc::IFLA_IFNAME, name);
        message.nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth");
            info.nest(libc::IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |other| {
                    let namespace = peer_namespace.as_raw_fd().to_ne_bytes();
                    other
                        .link(0, 0)
                        .text(libc::IFLA_IFNAME, peer)
                        .attribute(libc::IFLA_NET_NS_FD, &namespace);
                });
            });
        });
        self.ask(message)
    }

    /// Removes a link, and with it the other end of its pair. Returns false if there was no such link.
    pub(super) fn delete(&self, name: &str) -> io::Result<bool> {
        let mut message = Message::new(libc::RTM_DELLINK, 0);
        message.link(0, 0).text(libc::IFLA_IFNAME, name);
        match self.ask(message) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Brings a link up.
    pub(super) fn bring_up(&self, index: u32) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWLINK, 0);
        message.link(index, libc::IFF_UP as u32);
        self.ask(message)
    }

    /// Gives a link its hardware address.
    pub(super) fn set_mac(&self, index: u32, mac: [u8; 6]) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWLINK, 0);
        message.link(index, 0).attribute(libc::IFLA_ADDRESS, &mac);
        self.ask(message)
    }

    /// Gives a link an address.
    pub(super) fn add_address(&self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWADDR, CREATE);
        message.bytes(&[libc::AF_INET as u8, prefix, 0, 0]).bytes(&index.to_ne_bytes());
        message.attribute(libc::IFA_LOCAL, &address.octets()).attribute(libc::IFA_ADDRESS, &address.octets());
        self.ask(message)
    }

    /// Adds a route. The kernel refuses it (`AlreadyExists`) if there is a route to the same network already.
    pub(super) fn add_route(&self, route: Route) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWROUTE, CREATE);
        let (prefix, scope) = match route {
            Route::Network(_, prefix, _) => (prefix, libc::RT_SCOPE_LINK),
            Route::Default(_) => (0, libc::RT_SCOPE_UNIVERSE),
        };
        let (table, protocol) = (libc::RT_TABLE_MAIN, libc::RTPROT_STATIC);
        message.bytes(&[libc::AF_INET as u8, prefix, 0, 0, table, protocol, scope, libc::RTN_UNICAST]);
        message.bytes(&0u32.to_ne_bytes());
        match route {
            Route::Network(network, _, index) => {
                message.attribute(libc::RTA_DST, &network.octets());
                message.attribute(libc::RTA_OIF, &index.to_ne_bytes());
            }
            Route::Default(gateway) => {
                message.attribute(libc::RTA_GATEWAY, &gateway.octets());
            }
        }
        self.ask(message)
    }

    /// Returns the destinations that the kernel delivers to this host itself: its addresses, and the broadcast addresses of
    /// its networks; at most 1024. They are the routes of the table `local`.
    pub(super) fn own_addresses(&self) -> io::Result<Vec<Prefix>> {
        self.ask_for_exact_lists();
        let mut message = Message::new(libc::RTM_GETROUTE, DUMP);
        message.bytes(&[libc::AF_INET as u8, 0, 0, 0, libc::RT_TABLE_LOCAL, 0, 0, 0]).bytes(&[0; 4]);
        rustix::net::send(&self.0, &message.finish(), SendFlags::empty())?;
        let mut own = Vec::new();
        for _ in 0..PARTS_MAX {
            let part = self.receive()?;
            for (kind, body) in messages(&part) {
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(own),
                    libc::NLMSG_ERROR => {
                        return Err(io::Error::from_raw_os_error(-number(body).unwrap_or(0)));
                    }
                    _ if own.len() < OWN_MAX => own.extend(local_route(body)),
                    _ => {}
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel's list of routes has no end"))
    }

    /// Returns true if this host delivers packets to an address to itself, or to all hosts of a network. The kernel decides it by
    /// its routes, as it does when a program connects.
    pub(super) fn is_delivered_here(&self, address: Ipv4Addr) -> io::Result<bool> {
        let mut message = Message::new(libc::RTM_GETROUTE, 0);
        message.bytes(&[libc::AF_INET as u8, 32, 0, 0, 0, 0, 0, 0]).bytes(&[0; 4]);
        message.attribute(libc::RTA_DST, &address.octets());
        let answer = self.exchange(message)?;
        let body = answer.get(HEADER..).unwrap_or_default();
        // An answer to an earlier question must never be taken for that to this one.
        match (body.get(7), destination(body)) {
            (Some(&kind), Some(to)) if to == address => Ok(kind != libc::RTN_UNICAST),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Asks for lists of the requested routes alone. Kernels before 4.20 cannot do this, and send all routes.
    fn ask_for_exact_lists(&self) {
        let on: libc::c_int = 1;
        let length = size_of_val(&on) as libc::socklen_t;
        // SAFETY: the option's value is an integer, whose address and length are passed.
        unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_NETLINK,
                libc::NETLINK_GET_STRICT_CHK,
                (&raw const on).cast(),
                length,
            )
        };
    }

    /// Returns the index of a link.
    pub(super) fn index(&self, name: &str) -> io::Result<u32> {
        let mut message = Message::new(libc::RTM_GETLINK, 0);
        message.link(0, 0).text(libc::IFLA_IFNAME, name);
        let answer = self.exchange(message)?;
        // The header of the message, then that of the link: family, type, index.
        answer
            .get(HEADER + 4..HEADER + 8)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u32::from_ne_bytes)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    fn ask(&self, mut message: Message) -> io::Result<()> {
        message.want_acknowledgement();
        self.exchange(message).map(drop)
    }

    /// Sends a message and returns the first answer. It does not wait, because the kernel answers before `send` returns.
    fn exchange(&self, message: Message) -> io::Result<Vec<u8>> {
        rustix::net::send(&self.0, &message.finish(), SendFlags::empty())?;
        let answer = self.receive()?;
        let kind = answer.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
        let code = answer.get(HEADER..).and_then(number);
        match (kind, code) {
            (Some(kind), Some(code)) if i32::from(kind) == libc::NLMSG_ERROR && code != 0 => {
                Err(io::Error::from_raw_os_error(-code))
            }
            (Some(_), Some(_)) => Ok(answer),
            _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    }

    /// Receives the messages that the kernel has sent at once.
    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut answer = vec![0; ANSWER_MAX];
        let (length, _) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.0, answer.as_mut_slice(), RecvFlags::DONTWAIT)
        })?;
        answer.truncate(length);
        Ok(answer)
    }
}

/// Returns the kind and the content of each message.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (message, rest) = take(bytes)?;
        bytes = rest;
        Some((u16::from_ne_bytes([*message.get(4)?, *message.get(5)?]), message.get(HEADER..)?))
    })
}

/// Splits the first message off. Its length is in its first four bytes.
fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(number(bytes)?).ok().filter(|length| *length >= HEADER)?;
    Some((bytes.get(..length)?, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn number(bytes: &[u8]) -> Option<i32> {
    bytes.get(..4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes)
}

/// Returns the destination of a route, if it is in the table `local`.
fn local_route(body: &[u8]) -> Option<Prefix> {
    let (length, table) = (*body.get(1)?, *body.get(4)?);
    if table != libc::RT_TABLE_LOCAL {
        return None;
    }
    destination(body).map(|address| Prefix::of(address, length))
}

/// Returns the destination of a route.
fn destination(body: &[u8]) -> Option<Ipv4Addr> {
    let mut attributes = body.get(ROUTE_HEADER..)?;
    loop {
        // Length and kind, two bytes each, then the value.
        let end = usize::from(u16::from_ne_bytes([*attributes.first()?, *attributes.get(1)?])).max(4);
        let kind = u16::from_ne_bytes([*attributes.get(2)?, *attributes.get(3)?]);
        if kind == libc::RTA_DST {
            let address: [u8; 4] = attributes.get(4..end)?.try_into().ok()?;
            return Some(address.into());
        }
        attributes = attributes.get(end.next_multiple_of(4)..)?;
    }
}

/// A request under construction: a header, then the header of the object, then attributes. All fields are in the host's
/// byte order, and parts begin at multiples of four bytes.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut message = Self(vec![0; HEADER]);
        message.0[4..6].copy_from_slice(&kind.to_ne_bytes());
        message.0[6..8].copy_from_slice(&(REQUEST | flags).to_ne_bytes());
        message
    }

    fn want_acknowledgement(&mut self) {
        let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) | ACK;
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends the header of a link (`ifinfomsg`): its index, and the flags to be set.
    fn link(&mut self, index: u32, flags: u32) -> &mut Self {
        self.bytes(&[0; 4]).bytes(&index.to_ne_bytes());
        self.bytes(&flags.to_ne_bytes()).bytes(&flags.to_ne_bytes())
    }

    fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.nest(kind, |inner| {
            inner.bytes(value);
        });
        self
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.bytes(&[0; 2]).bytes(&kind.to_ne_bytes());
        fill(self);
        // No attribute is near 64 KiB long, because names and addresses are short.
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}
