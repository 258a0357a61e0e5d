//! Forwards one port of a VM's network namespace to one address of the host.
//!
//! The thread that created the namespace, or the launcher, passes the port's listening socket to this process. Connections
//! to it are carried to the forge and nowhere else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Most simultaneous connections; further ones wait in the socket's backlog.
const CONNECTIONS_MAX: usize = 128;
/// Longest time that a connection to the host's address may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A port that the guest can connect to, and its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// The port at 10.0.2.2 as the guest sees it.
    pub guest_port: u16,
    /// The address that connections to the port are forwarded to.
    pub to: SocketAddr,
}

/// Forwards connections until the future is dropped, which closes them.
pub(crate) async fn serve(listener: TcpListener, to: SocketAddr) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((guest, _)) => {
                connections.spawn(async move {
                    carry(guest, to).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // For example, no descriptor is left until other connections close.
                tracing::debug!(%to, "cannot accept a connection of a guest: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn carry(mut guest: TcpStream, to: SocketAddr) {
    match tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(to)).await {
        Ok(Ok(mut host)) => {
            let _ = (guest.set_nodelay(true), host.set_nodelay(true));
            if let Err(error) = tokio::io::copy_bidirectional(&mut guest, &mut host).await {
                tracing::debug!(%to, "a guest's connection ended: {error}");
            }
        }
        Ok(Err(error)) => tracing::debug!(%to, "cannot connect for a guest: {error}"),
        Err(_) => tracing::debug!(%to, "cannot connect for a guest within {} s", CONNECT_LIMIT.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn bytes_go_both_ways_and_a_half_closed_connection_still_answers() {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let to = server.local_addr().expect("address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address");
        let forward = tokio::spawn(serve(listener, to));
        let echo = tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.expect("accept");
            let mut text = String::new();
            stream.read_to_string(&mut text).await.expect("read");
            stream.write_all(text.to_uppercase().as_bytes()).await.expect("write");
        });
        let mut client = TcpStream::connect(port).await.expect("connect");
        client.write_all(b"hello").await.expect("write");
        client.shutdown().await.expect("half close");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("read");
        assert_eq!(answer, "HELLO");
        echo.await.expect("echo");
        forward.abort();
    }

    #[tokio::test]
    async fn a_forge_that_is_gone_closes_the_guests_connection() {
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let to = gone.local_addr().expect("address");
        drop(gone);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address");
        let forward = tokio::spawn(serve(listener, to));
        let mut client = TcpStream::connect(port).await.expect("connect");
        assert_eq!(client.read(&mut [0; 8]).await.unwrap_or(0), 0);
        forward.abort();
    }
}
