//! Passes the connections of a guest with the policy `allow` on, if the name that the guest says is listed. With `audit`, it passes
//! all of them on, and writes into the ledger which ones `allow` would refuse. Without root, it also passes those of a guest with
//! the policy `guarded` on, by their addresses alone.
//!
//! ```text
//!   guest ── any address and port ── tap0 ─ rules ── 10.0.2.2:54 ── gate ── eg0 ── the address
//!                                                        │
//!          listed name that has led to the address (Resolved), and that the first bytes name (first_words)
//! ```
//!
//! The gate ends the guest's connection and makes its own, so that the bytes that it has judged are those that it sends. A
//! filter that looks at packets would have to know how each server puts doubled, reordered and damaged segments together.

use std::io;
use std::net::{SocketAddrV4, TcpListener as StdTcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::first_words::{self, FirstWords};
use super::ledger::Book;
use super::metered::Metered;
use super::resolved::Resolved;
use super::routes::Routes;
use crate::network::address::GATEWAY;
use crate::network::policy::{self, Access, Passage};
use crate::network::used::Reason;

/// Most connections at once; further ones wait in the socket's backlog.
const STREAMS_MAX: usize = 512;
/// Longest wait for the first bytes of a client that names its server.
const FIRST_LIMIT: Duration = Duration::from_secs(20);
/// Longest wait for the server.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// Bytes that are copied at once in each direction. A guest takes a long frame as fast as a short one.
const BUFFER: usize = 32 * 1024;
/// Pause after an error of the socket.
const PAUSE: Duration = Duration::from_millis(50);
/// The ports of HTTP and TLS, at which the name is read.
const HTTP: u16 = 80;
const HTTPS: u16 = 443;

/// The connections of one machine.
#[derive(Debug)]
pub(super) struct Streams {
    access: Arc<Access>,
    resolved: Arc<Mutex<Resolved>>,
    /// The routes of this host, if the connections are made from it.
    routes: Option<Routes>,
    book: Book,
}

/// The decision about a connection.
#[derive(Debug)]
struct Judged {
    /// The name that the guest has said, or one that has led to the address.
    name: Option<String>,
    /// The reason why the policy denies it, or a list in its place would.
    reason: Option<Reason>,
}

impl Streams {
    /// Returns the connections of a machine whose forwarder fills `resolved`. With the routes of this host, they are made from it.
    pub(super) fn new(
        access: Arc<Access>,
        resolved: Arc<Mutex<Resolved>>,
        routes: Option<Routes>,
        book: Book,
    ) -> Self {
        Self { access, resolved, routes, book }
    }

    /// Serves without end.
    pub(super) async fn serve(self, listener: StdTcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (streams, permits) = (Arc::new(self), Arc::new(Semaphore::new(STREAMS_MAX)));
        let mut passing = JoinSet::new();
        loop {
            while passing.try_join_next().is_some() {}
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return Ok(()) };
            let Ok((guest, _)) = listener.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let streams = Arc::clone(&streams);
            passing.spawn(async move {
                // An error is the end of the connection, and nothing else.
                let _ = streams.pass(guest).await;
                drop(permit);
            });
        }
    }

    async fn pass(&self, mut guest: TcpStream) -> io::Result<()> {
        let to = rustix::net::sockopt::ip_original_dst(&guest)?;
        if *to.ip() == GATEWAY {
            // The guest has called the gate itself, which serves no one there.
            return refuse(&guest);
        }
        let Ok(is_own) = self.routes.as_ref().map_or(Ok(false), |routes| routes.lead_here(*to.ip())) else {
            return refuse(&guest);
        };
        let mut first = Vec::new();
        let judged = self.judge(&mut guest, &mut first, (to, is_own)).await?;
        let row = self.book.pass(to, judged.name.as_deref(), judged.reason);
        let is_denied = judged.reason.is_some() && !self.access.policy.only_records();
        if is_denied || policy::is_nowhere(*to.ip()) {
            return refuse(&guest);
        }
        let Ok(Ok(mut server)) = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(to)).await else {
            return refuse(&guest);
        };
        let _ = (guest.set_nodelay(true), server.set_nodelay(true));
        server.write_all(&first).await?;
        self.book.count(row, first.len(), 0);
        drop(first);
        let mut guest = Metered::new(guest, self.book.clone(), row);
        tokio::io::copy_bidirectional_with_sizes(&mut guest, &mut server, BUFFER, BUFFER).await.map(drop)
    }

    /// Decides about a connection to an address, which is perhaps one of this host's own. If a name decides, reads the first bytes
    /// of a client that names its server.
    async fn judge(
        &self,
        guest: &mut TcpStream,
        first: &mut Vec<u8>,
        (to, is_own): (SocketAddrV4, bool),
    ) -> io::Result<Judged> {
        let (known, names) = self.names_of(to);
        let denied = |name: Option<String>, reason| Ok(Judged { name, reason: Some(reason) });
        match self.access.passage(to, is_own) {
            Passage::Open => return Ok(Judged { name: known, reason: None }),
            Passage::Shut => return denied(known, Reason::Shut),
            Passage::ByName => {}
        }
        let is_named = matches!(to.port(), HTTP | HTTPS);
        // Before anything is read, so that a connection to an address that no name has led to fails at once.
        if names.is_empty() && !(is_named && self.access.policy.only_records()) {
            return denied(known, Reason::Unlisted);
        }
        if !is_named {
            return Ok(Judged { name: names.into_iter().next(), reason: None });
        }
        let read = if to.port() == HTTPS { first_words::of_tls } else { first_words::of_http };
        let reading = tokio::time::timeout(FIRST_LIMIT, read_name(guest, first, read)).await;
        // A client that says nothing names no server.
        let said = reading.unwrap_or(Ok(None))?;
        match said {
            Some(said) if names.contains(&said) => Ok(Judged { name: Some(said), reason: None }),
            said if names.is_empty() => denied(said.or(known), Reason::Unlisted),
            said => denied(said.or(known), Reason::OtherName),
        }
    }

    /// Returns a name that has led to an address, if there is one, and the names by which the machine may reach the address and
    /// the port: listed there, and resolved to the address.
    fn names_of(&self, to: SocketAddrV4) -> (Option<String>, Vec<String>) {
        let resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<&str> = resolved.names(*to.ip(), Instant::now()).collect();
        let listed = all.iter().filter(|name| self.access.may_connect(name, *to.ip(), to.port()));
        (all.iter().min().map(|&name| name.to_owned()), listed.map(|&name| name.to_owned()).collect())
    }
}

/// Reads until the first bytes name the server; none if they name none.
async fn read_name(
    guest: &mut TcpStream,
    first: &mut Vec<u8>,
    read: fn(&[u8]) -> FirstWords,
) -> io::Result<Option<String>> {
    loop {
        match read(first) {
            FirstWords::Name(name) => return Ok(Some(name)),
            FirstWords::Nameless => return Ok(None),
            FirstWords::Unfinished if first.len() >= first_words::BYTES_MAX => return Ok(None),
            FirstWords::Unfinished => {}
        }
        if guest.read_buf(first).await? == 0 {
            return Ok(None);
        }
    }
}

/// Ends a connection with a reset, so that its client fails at once.
fn refuse(guest: &TcpStream) -> io::Result<()> {
    guest.set_zero_linger()
}
