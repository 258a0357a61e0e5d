//! The gate of a machine's network: the process that resolves names for it, and passes its connections on if its policy is a
//! list, or if dayfly does not run as root.
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
//! Without root, the gate is in the namespace of this host, with sockets of the machine's ([`GatePlace::Host`]). The machine's
//! namespace has no way out, so the rules lead all connections to the gate, which decides about each of them by the policy
//! ([`Access::passage`]) and the host's routes ([`routes`]), and makes its own from this host. A guest that took such a gate over
//! would win all that this host reaches.
//!
//! The gate has no cache, because its DNS server has one.

mod first_words;
mod forwarder;
pub(super) mod ledger;
mod message;
mod metered;
mod rate;
mod resolved;
mod routes;
mod server;
mod sockets;
mod streams;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::RecvFlags;
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
use routes::Routes;
pub(super) use sockets::GateSockets;
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
/// The settings of a gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GateSettings {
    /// The destinations that the machine may reach.
    pub(super) access: Access,
    /// The DNS server.
    pub(super) dns: Ipv4Addr,
    /// The place of the gate.
    pub(super) place: GatePlace,
}

/// The namespace from which a gate asks and connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GatePlace {
    /// That of its machine, whose rules hold addresses.
    Machine,
    /// That of this host. The gate holds addresses too.
    Host,
}

impl GateSettings {
    /// Returns true if the rules lead connections to the gate.
    fn has_connections(&self) -> bool {
        self.place == GatePlace::Host || self.access.policy.has_list()
    }
}

/// A gate that can serve.
#[derive(Debug)]
pub(crate) struct Gate {
    settings: GateSettings,
    /// The file of its ledger.
    ledger: OwnedFd,
    sockets: GateSockets,
    /// A socket of the machine's namespace, by which its card is looked for.
    asking: OwnedFd,
    /// The routes of this host, if the gate connects from it.
    routes: Option<Routes>,
    /// Sockets that a later process of dayfly takes from it.
    kept: Vec<OwnedFd>,
}

/// Starts a gate in the calling thread's namespace, with the file of its ledger, its sockets, and others that it keeps. `record`
/// stores its process id before it serves. Takes some milliseconds.
pub(super) fn start(
    launcher: &Launcher,
    settings: GateSettings,
    ledger: OwnedFd,
    sockets: GateSockets,
    kept: Option<OwnedFd>,
    record: impl FnOnce(u32) -> io::Result<()>,
) -> Result<(), LaunchError> {
    let order = LaunchOrder {
        user: match settings.place {
            GatePlace::Machine => User::Own { group: None },
            GatePlace::Host => User::Same,
        },
        network: NetworkPlace::Inherited,
        root: OwnRoot { files: Vec::new(), devices: Vec::new(), export: None },
        // Its ledger.
        file_bytes_max: Some(ledger::FILE_MAX),
        task: Task::Gate(settings),
    };
    // Its output is not read: it outlives this process, and writes none.
    let descriptors: Vec<OwnedFd> =
        std::iter::once(ledger).chain(sockets.into_descriptors()).chain(kept).collect();
    launch::launch(launcher, &order, &descriptors, record).map(drop)
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
    /// Returns a gate with the descriptors of [`start`], in the namespace from which it connects.
    pub(crate) fn new(settings: GateSettings, descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let _ = rustix::thread::set_name(c"dayfly-gate");
        let mut descriptors = descriptors.into_iter();
        let ledger = descriptors.next();
        let sockets = GateSockets::take(&mut descriptors, settings.has_connections());
        let (Some(ledger), Some(sockets)) = (ledger, sockets) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let asking = sockets.questions.try_clone()?;
        let routes = (settings.place == GatePlace::Host).then(Routes::open).transpose()?;
        Ok(Self { settings, ledger, sockets, asking, routes, kept: descriptors.collect() })
    }

    /// Serves until the machine's card is gone, or until it is asked to end.
    pub(crate) fn serve(self) -> io::Result<()> {
        let Self { settings, ledger, sockets, asking, routes, kept } = self;
        let GateSockets { questions, questions_by_tcp, links, connections } = sockets;
        let (access, resolved) = (Arc::new(settings.access), Arc::<Mutex<Resolved>>::default());
        let (book, mut writer) = (Book::default(), Writer::new(ledger.into()));
        let server = SocketAddr::from((settings.dns, PORT));
        let remembered = connections.is_some().then(|| Arc::clone(&resolved));
        let forwarder = Forwarder::new(Arc::clone(&access), remembered, book.clone(), server);
        let streams = Streams::new(access, resolved, routes, book.clone());
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
                gone = card_gone(links, &asking) => gone,
                kept = book.keep(&mut writer) => kept,
                _ = asked_to_end.recv() => Ok(()),
            }
        });
        book.end(&mut writer);
        drop(kept);
        served
    }
}

/// Waits until the card is gone from the namespace of these sockets. The gate holds no descriptor of it.
async fn card_gone(links: OwnedFd, asking: &OwnedFd) -> io::Result<()> {
    let messages = crate::readiness::readable(links)?;
    while rustix::net::netdevice::name_to_index(asking, TAP).is_ok() {
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
