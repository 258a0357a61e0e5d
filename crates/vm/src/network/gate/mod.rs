//! The gate of a machine's network: the process that resolves names for it, and passes its connections on if its policy is a
//! list.
//!
//! ```text
//!   guest ── any address, port 53 ── tap0 ─ rules ── 10.0.2.2:53 ── gate ── eg0 ── DNS server
//!                                                         │
//!                                          Access::may_resolve (name), Access::decide (each address)
//! ```
//!
//! The rules of the namespace hold addresses. A gate holds what no address shows: which names a machine may learn, and that no
//! name of the internet leads to an address that is shut. It is a process of its own beside the VMM, so that the machine has
//! names while the process that started it is gone, is killed or starts again. It runs in the machine's namespace, behind
//! the walls of a VMM (a user of its own, an empty root, no capabilities, a filter of system calls; `launch`), and the rules let
//! it reach the DNS server alone. So a guest that took it over would win the DNS server. It exits with the machine's card.
//!
//! If the policy is a list, the rules also lead the guest's connections to the gate, which makes its own to the same address if
//! the list allows it ([`streams`]). A guest that took such a gate over would win all addresses that are not shut;
//! with an audit, it reaches all that the gate reaches anyway.
//!
//! The gate has no cache, because its DNS server has one.

mod first_words;
mod forwarder;
pub(super) mod ledger;
mod message;
mod metered;
mod resolved;
mod server;
mod streams;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use super::policy::Access;
use super::rules::TAP;
use crate::launch::{self, LaunchError, LaunchOrder, Launcher, NetworkPlace, OwnRoot, Task, User};
use crate::machine::record::ProcessId;
use forwarder::Forwarder;
use ledger::{Book, Writer};
use resolved::Resolved;
use streams::Streams;
#[cfg(test)]
pub(super) use {first_words::tests as hellos, message::tests as messages};

/// The port of questions.
pub(super) const PORT: u16 = 53;
/// The port of connections that the rules lead to the gate.
pub(super) const STREAMS_PORT: u16 = 54;
/// Longest time that a gate may take to write its ledger and exit. Then it is killed.
const TERM_LIMIT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Longest time that a killed gate may take to exit.
const EXIT_LIMIT: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
/// Time between two looks at the card, in case the kernel's message about its end was lost.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// The group of messages about links (`RTMGRP_LINK` of linux/rtnetlink.h).
const LINKS: u32 = 1;

/// The settings of a gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GateSettings {
    /// The destinations that the machine may reach.
    pub(super) access: Access,
    /// The DNS server.
    pub(super) dns: Ipv4Addr,
}

/// A gate that can serve.
#[derive(Debug)]
pub(crate) struct Gate {
    settings: GateSettings,
    /// The socket for questions by UDP.
    questions: OwnedFd,
    /// The listener for questions by TCP.
    questions_by_tcp: OwnedFd,
    /// The file of its ledger.
    ledger: OwnedFd,
    /// The listener for connections, if the policy is a list.
    connections: Option<OwnedFd>,
    /// The kernel's messages about the links of the machine's network.
    links: OwnedFd,
}

/// Starts a gate in the calling thread's namespace. `record` stores its process id before it serves. Takes some milliseconds.
pub(super) fn start(
    launcher: &Launcher,
    settings: GateSettings,
    sockets: &[OwnedFd],
    record: impl FnOnce(u32) -> io::Result<()>,
) -> Result<(), LaunchError> {
    let order = LaunchOrder {
        user: User::Own { group: None },
        network: NetworkPlace::Inherited,
        root: OwnRoot { files: Vec::new(), devices: Vec::new(), export: None },
        // Its ledger.
        file_bytes_max: Some(ledger::FILE_MAX),
        task: Task::Gate(settings),
    };
    // Its output is not read: it outlives this process, and writes none.
    launch::launch(launcher, &order, sockets, record).map(drop)
}

/// Returns true if a gate has exited.
pub(super) fn has_exited(gate: &ProcessId) -> io::Result<bool> {
    let Some(process) = gate.open()? else { return Ok(true) };
    exits_within(&process, Timespec { tv_sec: 0, tv_nsec: 0 })
}

fn exits_within(process: &OwnedFd, limit: Timespec) -> io::Result<bool> {
    Ok(poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&limit))? > 0)
}

/// Ends a gate, which writes its ledger for the last time, and waits until it has exited. Kills it if it does not. A gate
/// that has exited by itself leaves no zombie either.
pub(super) fn end(gate: &ProcessId) -> io::Result<()> {
    if let Some(process) = gate.open()? {
        // Each fails if it has exited meanwhile.
        let _ = rustix::process::pidfd_send_signal(&process, Signal::TERM);
        if !exits_within(&process, TERM_LIMIT)? {
            let _ = rustix::process::pidfd_send_signal(&process, Signal::KILL);
            if !exits_within(&process, EXIT_LIMIT)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
    gate.reap()
}

impl Gate {
    /// Returns a gate with these descriptors (the sockets for questions by UDP and by TCP, the file of its ledger, and the socket
    /// for connections if the policy is a list), in the calling thread's namespace.
    pub(crate) fn new(settings: GateSettings, sockets: Vec<OwnedFd>) -> io::Result<Self> {
        let _ = rustix::thread::set_name(c"dayfly-gate");
        let mut sockets = sockets.into_iter();
        let (Some(questions), Some(questions_by_tcp), Some(ledger)) =
            (sockets.next(), sockets.next(), sockets.next())
        else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let links = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        rustix::net::bind(&links, &SocketAddrNetlink::new(0, LINKS))?;
        Ok(Self { settings, questions, questions_by_tcp, ledger, connections: sockets.next(), links })
    }

    /// Serves until the machine's card is gone, or until it is asked to end.
    pub(crate) fn serve(self) -> io::Result<()> {
        let Self { settings, questions, questions_by_tcp, ledger, connections, links } = self;
        let (access, resolved) = (Arc::new(settings.access), Arc::<Mutex<Resolved>>::default());
        let (book, mut writer) = (Book::default(), Writer::new(ledger.into()));
        let server = SocketAddr::from((settings.dns, PORT));
        let forwarder = Forwarder::new(Arc::clone(&access), Arc::clone(&resolved), book.clone(), server);
        let streams = Streams::new(access, resolved, book.clone());
        let passing = async {
            match connections {
                Some(listener) => streams.serve(listener.into()).await,
                None => std::future::pending().await,
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let served = runtime.block_on(async {
            let mut asked_to_end = signal(SignalKind::terminate())?;
            tokio::select! {
                served = server::serve(forwarder, questions.into(), questions_by_tcp.into()) => served,
                served = passing => served,
                gone = card_gone(links) => gone,
                kept = book.keep(&mut writer) => kept,
                _ = asked_to_end.recv() => Ok(()),
            }
        });
        book.end(&mut writer);
        served
    }
}

/// Waits until the card is gone from the calling thread's namespace. The gate holds no descriptor of it.
async fn card_gone(links: OwnedFd) -> io::Result<()> {
    let messages = crate::readiness::readable(links)?;
    let asking = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    while rustix::net::netdevice::name_to_index(&asking, TAP).is_ok() {
        let Ok(ready) = tokio::time::timeout(LOOK_INTERVAL, messages.readable()).await else { continue };
        let mut ready = ready?;
        // The content does not matter, and neither does a message that was lost.
        let mut buffer = [0; 4096];
        if rustix::net::recv(messages.get_ref(), buffer.as_mut_slice(), RecvFlags::empty()).is_err() {
            ready.clear_ready();
        }
    }
    Ok(())
}
