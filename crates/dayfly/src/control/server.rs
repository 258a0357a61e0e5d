//! The serving end of a control socket.

use std::convert::Infallible;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use dayfly_host::socket::SocketFolder;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep, timeout};

use super::{ANSWER_LIMIT, Answer, REQUEST_MAX, Request, SOCKET, TRANSFER_LIMIT};
use crate::exit::{Failure, Result};

/// Most connections at once. Further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 8;
/// Pause after a connection could not be accepted, e.g. because there is no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// A request, and the way back for its answer.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) request: Request,
    pub(crate) answer: oneshot::Sender<Answer>,
    /// Ends once the answer was written, or could not be.
    pub(crate) written: oneshot::Receiver<Infallible>,
}

/// Creates the control socket in an instance's folder. Returns the requests, and the task that serves them until it is dropped.
///
/// # Errors
/// The socket cannot be created.
pub(crate) fn serve(
    folder: &Path,
) -> Result<(mpsc::Receiver<Ask>, impl Future<Output = Infallible> + use<>)> {
    let failed = |error: io::Error| {
        Failure::cannot(format!(
            "cannot create the control socket {}: {error}",
            folder.join(SOCKET).display()
        ))
    };
    let listener = listen(folder).map_err(failed)?;
    let (sender, asks) = mpsc::channel(CONNECTIONS_MAX);
    Ok((asks, accept(listener, sender)))
}

fn listen(folder: &Path) -> io::Result<UnixListener> {
    let listener = std::os::unix::net::UnixListener::from(SocketFolder::open(folder)?.listen(SOCKET)?);
    std::fs::set_permissions(folder.join(SOCKET), Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

async fn accept(listener: UnixListener, asks: mpsc::Sender<Ask>) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    let asks = asks.clone();
                    connections.spawn(async move {
                        if let Err(error) = talk(stream, &asks).await {
                            tracing::debug!("a request on the control socket has failed: {error}");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!("the control socket accepts no connection: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Reads a request, and writes its answer.
async fn talk(mut stream: UnixStream, asks: &mpsc::Sender<Ask>) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != rustix::process::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut line = Vec::new();
    let mut bounded = BufReader::new((&mut stream).take(REQUEST_MAX));
    timeout(TRANSFER_LIMIT, bounded.read_until(b'\n', &mut line)).await??;
    let (_until_written, written) = oneshot::channel();
    let answer = match serde_json::from_slice(&line) {
        Ok(request) => answer_of(request, written, asks).await,
        Err(error) => Answer::Failed { why: error.to_string() },
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    timeout(TRANSFER_LIMIT, stream.write_all(&text)).await?
}

async fn answer_of(
    request: Request,
    written: oneshot::Receiver<Infallible>,
    asks: &mpsc::Sender<Ask>,
) -> Answer {
    let failed = |why: &str| Answer::Failed { why: why.to_owned() };
    let (sender, answer) = oneshot::channel();
    if asks.try_send(Ask { request, answer: sender, written }).is_err() {
        return failed("too many other requests wait");
    }
    match timeout(ANSWER_LIMIT, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => failed("the orchestrator is stopping"),
        Err(_) => failed("the orchestrator is busy with another request"),
    }
}
