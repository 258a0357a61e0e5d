//! The server: one listener, with bounds on connections, headers and seconds.

use std::fs;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::listen::ListenAddress;
use crate::stream::PatientStream;

/// Most connections at once. One above is closed at once instead of being left waiting.
const CONNECTIONS_MAX: usize = 512;
/// Most bytes of a request's headers.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;
/// Longest time until the headers of the next request are there, which is also the life of a connection that is not used.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// Longest time for which a client may leave an answer unread.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Longest time that answers in progress may take at shutdown.
const GRACE: Duration = Duration::from_secs(1);
/// Wait before the next accept after a listener failed, e.g. because no file descriptors are left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// The mode of a unix socket: its owner and its group may connect, if the folder lets them.
const SOCKET_MODE: u32 = 0o660;

/// The reason why an address cannot be listened at.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The port is taken, or the address is not one of this host.
    #[error("cannot listen at {address}: {source}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Cause.
        source: io::Error,
    },
    /// The socket cannot be created.
    #[error("cannot create the socket {}: {source}", path.display())]
    Unix {
        /// Its path.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A file of another kind is at the place of the socket.
    #[error("cannot create the socket {}: a file that is no socket is there", path.display())]
    NoSocket {
        /// Its path.
        path: PathBuf,
    },
    /// Another process listens at the socket.
    #[error("cannot create the socket {}: another process listens at it", path.display())]
    InUse {
        /// Its path.
        path: PathBuf,
    },
}

/// A server that has its address. Connections wait until [`WebServer::serve`].
#[derive(Debug)]
pub struct WebServer(Listener);

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a unix socket. It is removed when this is dropped.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A socket that stays is harmless: the next start finds that no process listens at it, and replaces it.
        let _ = fs::remove_file(&self.0);
    }
}

impl WebServer {
    /// Takes the address, within a runtime of tokio.
    ///
    /// # Errors
    /// The address is taken, or is not one of this host; the socket's folder is missing or closed.
    pub fn bind(address: &ListenAddress) -> Result<Self, BindError> {
        match address {
            ListenAddress::Tcp(address) => tcp(*address)
                .map(|listener| Self(Listener::Tcp(listener)))
                .map_err(|source| BindError::Tcp { address: *address, source }),
            ListenAddress::Unix(path) => unix(path).map(Self),
        }
    }

    /// Returns the address, with the port that the kernel has chosen for port 0.
    pub fn address(&self) -> Option<ListenAddress> {
        match &self.0 {
            Listener::Tcp(listener) => listener.local_addr().ok().map(ListenAddress::Tcp),
            Listener::Unix(_, file) => Some(ListenAddress::Unix(file.0.clone())),
        }
    }

    /// Serves until `shutdown` completes. Returns when the last connection is closed.
    pub async fn serve(self, router: Router, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let (stop, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                accepted = self.0.accept() => accepted,
            };
            let Ok(stream) = accepted else {
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
            let (router, stopped) = (router.clone(), stopped.clone());
            connections.spawn(async move {
                let _permit = permit;
                match stream {
                    Stream::Tcp(stream) => connection(stream, router, stopped).await,
                    Stream::Unix(stream) => connection(stream, router, stopped).await,
                }
            });
        }
        drop(self.0);
        let _ = stop.send(true);
        let closed = async { while connections.join_next().await.is_some() {} };
        if timeout(2 * GRACE, closed).await.is_err() {
            connections.shutdown().await;
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener, _) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let stream = PatientStream::new(stream, WRITE_LIMIT);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopped.wait_for(|stopped| *stopped) => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(GRACE, connection).await;
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Creates a unix socket. One that a dead process has left is replaced.
fn unix(path: &Path) -> Result<Listener, BindError> {
    let failed = |source| BindError::Unix { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NoSocket { path: path.to_owned() });
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(BindError::InUse { path: path.to_owned() });
        }
        Ok(_) => fs::remove_file(path).map_err(failed)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let file = SocketFile(path.to_owned());
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    Ok(Listener::Unix(listener, file))
}

#[cfg(test)]
mod tests;
