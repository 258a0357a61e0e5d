//! Passes the connections of a guest with the policy `allow` on, if the name that the guest says is listed.
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
use super::resolved::Resolved;
use crate::network::policy::Access;

/// Most connections at once; further ones wait in the socket's backlog.
const STREAMS_MAX: usize = 512;
/// Longest wait for the first bytes of a client that names its server.
const FIRST_LIMIT: Duration = Duration::from_secs(20);
/// Longest wait for the server.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
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
}

impl Streams {
    /// Returns the connections of a machine whose forwarder fills `resolved`.
    pub(super) fn new(access: Arc<Access>, resolved: Arc<Mutex<Resolved>>) -> Self {
        Self { access, resolved }
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
        // Before anything is read, so that a connection to an address that no name has led to fails at once.
        let names = self.names_of(to);
        if names.is_empty() {
            return refuse(&guest);
        }
        let mut first = Vec::new();
        if matches!(to.port(), HTTP | HTTPS) {
            let read = if to.port() == HTTPS { first_words::of_tls } else { first_words::of_http };
            let reading = read_name(&mut guest, &mut first, read);
            let name = tokio::time::timeout(FIRST_LIMIT, reading).await??;
            if !name.is_some_and(|name| names.contains(&name)) {
                return refuse(&guest);
            }
        }
        let mut server = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(to)).await??;
        let _ = (guest.set_nodelay(true), server.set_nodelay(true));
        server.write_all(&first).await?;
        drop(first);
        tokio::io::copy_bidirectional(&mut guest, &mut server).await.map(drop)
    }

    /// Returns the names by which the machine may reach an address and a port: listed there, and resolved to the address.
    fn names_of(&self, to: SocketAddrV4) -> Vec<String> {
        let resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        let names = resolved.names(*to.ip(), Instant::now());
        names.filter(|name| self.access.may_connect(name, *to.ip(), to.port())).map(str::to_owned).collect()
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
