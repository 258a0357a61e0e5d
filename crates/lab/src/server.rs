//! Accepts connections, limits their number and their idle time, and waits for them at shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use axum::{Extension, Router};
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::fault::Dropped;
use super::settings::Limits;

/// Longest time that answers in progress may take at shutdown; long polls and streams are cut after it.
const GRACE: Duration = Duration::from_secs(1);
/// Wait before the next accept after a listener failed (for example, because no file descriptors are left).
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The lab's end of the connection on which a request came.
#[derive(Debug, Clone, Copy)]
pub(super) struct LocalAddress(pub(super) SocketAddr);

/// The fault desk has dropped the reply.
#[derive(Debug, Error)]
#[error("the reply is dropped")]
struct ReplyDropped;

/// Answers the requests of one connection. An error makes hyper close the connection without a reply.
struct Answering(TowerToHyperService<Router>);

impl Answering {
    fn new(router: Router, local: SocketAddr) -> Self {
        Self(TowerToHyperService::new(router.layer(Extension(LocalAddress(local)))))
    }
}

impl hyper::service::Service<Request<Incoming>> for Answering {
    type Response = Response;
    type Error = ReplyDropped;
    type Future = BoxFuture<'static, Result<Response, ReplyDropped>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            match answer.await {
                Ok(response) if response.extensions().get::<Dropped>().is_some() => Err(ReplyDropped),
                Ok(response) => Ok(response),
                Err(never) => match never {},
            }
        })
    }
}

/// Serves `router` until `shutdown` completes.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: &Limits,
    shutdown: impl Future<Output = ()>,
) {
    let mut shutdown = std::pin::pin!(shutdown);
    let permits = Arc::new(Semaphore::new(limits.connections_max));
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_AGAIN).await;
            continue;
        };
        // A connection above the limit is closed at once instead of being left waiting.
        let Ok(permit) = permits.clone().try_acquire_owned() else { continue };
        let _ = stream.set_nodelay(true);
        let Ok(local) = stream.local_addr() else { continue };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.connection_idle)
            .serve_connection(TokioIo::new(stream), Answering::new(router.clone(), local))
            .with_upgrades();
        let mut stopped = stopped.clone();
        connections.spawn(async move {
            let _permit = permit;
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = stopped.wait_for(|stopped| *stopped) => connection.as_mut().graceful_shutdown(),
            }
            let _ = tokio::time::timeout(GRACE, connection).await;
        });
    }
    drop(listener);
    let _ = stop.send(true);
    if tokio::time::timeout(2 * GRACE, async { while connections.join_next().await.is_some() {} })
        .await
        .is_err()
    {
        connections.shutdown().await;
    }
}
