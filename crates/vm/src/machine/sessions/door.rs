//! The socket at which a person on this host asks for sessions. Only root and the user of this process may connect.

use std::convert::Infallible;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use dayfly_guest::protocol::session::{SESSIONS_MAX, SessionInput, SessionOutput, SessionProgram, WINDOW};
use dayfly_host::socket::SocketFolder;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::super::record::SESSION_SOCKET;
use super::wire::Wire;

/// Most connections at once. The machine refuses the last ones of them with a reason; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = SESSIONS_MAX + 8;
/// Most messages that wait for one connection: a window of data and one of acknowledgements, the first and the last message.
const OUTPUTS_MAX: usize = 2 * WINDOW + 2;
/// Most requests that wait for the owner of the machine.
const REQUESTS_MAX: usize = 64;
/// Longest time from a connection to its first message.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// Longest time that a person's end may take to read a message.
const WRITE_LIMIT: Duration = Duration::from_secs(60);
/// Pause after a connection could not be accepted, e.g. because there is no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// A request of a person's end of a session.
#[derive(Debug)]
pub(in crate::machine) struct Request {
    /// Number of the session.
    pub(super) session: u64,
    pub(super) kind: RequestKind,
}

#[derive(Debug)]
pub(super) enum RequestKind {
    Open {
        program: SessionProgram,
        /// The user on this host.
        uid: u32,
        /// Messages of the session; it is over when this is dropped.
        outputs: mpsc::Sender<SessionOutput>,
    },
    Input(SessionInput),
    /// The person's end is gone.
    Gone,
}

/// Opens the door in a run folder. Returns the requests, and the task that serves it.
///
/// # Errors
/// The socket cannot be created.
pub(super) fn open(
    run_dir: &Path,
    first_number: u64,
) -> io::Result<(mpsc::Receiver<Request>, impl Future<Output = Infallible> + Send + use<>)> {
    let listener =
        std::os::unix::net::UnixListener::from(SocketFolder::open(run_dir)?.listen(SESSION_SOCKET)?);
    std::fs::set_permissions(run_dir.join(SESSION_SOCKET), Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let (sender, requests) = mpsc::channel(REQUESTS_MAX);
    Ok((requests, accept(listener, sender, first_number)))
}

async fn accept(listener: UnixListener, requests: mpsc::Sender<Request>, mut number: u64) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    let (requests, session) = (requests.clone(), number);
                    number += 1;
                    connections.spawn(async move {
                        if let Err(error) = talk(stream, session, &requests).await {
                            tracing::debug!("session {session} has failed: {error}");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!("the socket for sessions accepts no connection: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Passes the messages of one session on, until one of its ends is gone.
async fn talk(stream: UnixStream, session: u64, requests: &mpsc::Sender<Request>) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut wire = Wire::new(stream);
    let SessionInput::Open(program) = timeout(OPEN_LIMIT, wire.next()).await?? else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its first message starts no program"));
    };
    let (sender, outputs) = mpsc::channel(OUTPUTS_MAX);
    ask(requests, session, RequestKind::Open { program, uid, outputs: sender }).await?;
    let relayed = relay(&mut wire, outputs, session, requests).await;
    if relayed.is_err() {
        ask(requests, session, RequestKind::Gone).await?;
    }
    relayed
}

async fn ask(requests: &mpsc::Sender<Request>, session: u64, kind: RequestKind) -> io::Result<()> {
    requests.send(Request { session, kind }).await.map_err(io::Error::other)
}

async fn relay(
    wire: &mut Wire,
    mut outputs: mpsc::Receiver<SessionOutput>,
    session: u64,
    requests: &mpsc::Sender<Request>,
) -> io::Result<()> {
    loop {
        tokio::select! {
            input = wire.next() => ask(requests, session, RequestKind::Input(input?)).await?,
            output = outputs.recv() => {
                let Some(output) = output else { return Ok(()) };
                timeout(WRITE_LIMIT, wire.send(&output)).await??;
            }
        }
    }
}
