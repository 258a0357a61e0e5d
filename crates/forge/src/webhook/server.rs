//! The server: one listener, with bounds on connections, requests, bytes and seconds, because anyone may reach it.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use super::bucket::Bucket;
use super::delivery::{Webhook, WebhookHeaders};
use super::queue::WebhookQueues;
use super::refusal::{Refusal, Refusals};
use super::signature::WebhookSecret;
use super::tls::WebhookTls;
use super::{DELIVERY_HEADER, EVENT_HEADER, SIGNATURE_HEADER};

/// Longest body, bytes. GitHub delivers up to 25 MB, but an event about a job has some 20 KB, and an event that is not about
/// a job is of no interest.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Most connections at once. Each may hold a whole body.
const CONNECTIONS_MAX: usize = 64;
/// Most bytes of a request's headers. GitHub's have about 1 KB.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers of a request. GitHub sends 12, and proxies add some.
const HEADERS_MAX: usize = 64;
/// Longest time for a TLS handshake, for the headers of a request (also the time that a connection stays open without one),
/// and for its body. The forge itself gives up after ten seconds.
const STEP_LIMIT: Duration = Duration::from_secs(10);
/// Longest time that answers in progress may take at shutdown.
const GRACE: Duration = Duration::from_secs(1);
/// Wait before the next accept after a listener failed, e.g. because no file descriptors are left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The settings of a server.
#[derive(Debug)]
pub struct WebhookOptions {
    /// Path of the hook's address.
    pub path: String,
    /// The secret that deliveries are signed with.
    pub secret: WebhookSecret,
    /// Most requests a second in the long run.
    pub requests_per_second: NonZeroU32,
    /// The certificate, the newest of which each connection gets; none: the server speaks HTTP.
    pub tls: Option<watch::Receiver<WebhookTls>>,
}

/// A server that has its port.
#[derive(Debug)]
pub struct WebhookServer {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<watch::Receiver<WebhookTls>>,
    shared: Arc<Shared>,
}

/// The part of the server that all connections share.
#[derive(Debug)]
struct Shared {
    path: String,
    secret: WebhookSecret,
    bucket: Mutex<Bucket>,
    queues: WebhookQueues,
    refusals: Refusals,
}

impl WebhookServer {
    /// Takes the port, within a runtime of tokio. Connections wait until [`WebhookServer::serve`].
    ///
    /// # Errors
    /// The port is taken, or the address is not one of this host.
    pub fn bind(address: SocketAddr, options: WebhookOptions, queues: WebhookQueues) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let WebhookOptions { path, secret, requests_per_second, tls } = options;
        let bucket = Mutex::new(Bucket::new(requests_per_second, Instant::now()));
        let shared = Shared { path, secret, bucket, queues, refusals: Refusals::default() };
        Ok(Self { address: listener.local_addr()?, listener, tls, shared: Arc::new(shared) })
    }

    /// Returns the address of the hook, as a program on this host would write it.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", self.address, self.shared.path)
    }

    /// Serves until `shutdown` completes, and returns when the last connection is closed. `troubles` gets a text about the
    /// requests that were refused, at most once a minute.
    pub async fn serve(self, troubles: mpsc::Sender<String>, shutdown: impl Future<Output = ()>) {
        let shared = Arc::clone(&self.shared);
        let reporting = async {
            shared.refusals.report(&troubles).await;
            // The reader is gone, and the server goes on without it.
            pending().await
        };
        tokio::select! {
            () = self.accept(shutdown) => {}
            () = reporting => {}
        }
    }

    async fn accept(self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let (stop, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                self.shared.refusals.count(Refusal::Connection);
                continue;
            };
            let tls = self.tls.as_ref().map(|tls| tls.borrow().clone());
            let (shared, stopped) = (Arc::clone(&self.shared), stopped.clone());
            connections.spawn(async move {
                let _permit = permit;
                shared.connection(stream, tls, stopped).await;
            });
        }
        drop(self.listener);
        let _ = stop.send(true);
        let closed = async { while connections.join_next().await.is_some() {} };
        if timeout(2 * GRACE, closed).await.is_err() {
            connections.shutdown().await;
        }
    }
}

impl Shared {
    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        tls: Option<WebhookTls>,
        stopped: watch::Receiver<bool>,
    ) {
        let _ = stream.set_nodelay(true);
        match tls {
            None => self.requests(stream, stopped).await,
            Some(WebhookTls(config)) => {
                // A handshake that fails is the caller's to report: it does not trust the certificate, or speaks no TLS.
                if let Ok(Ok(stream)) = timeout(STEP_LIMIT, TlsAcceptor::from(config).accept(stream)).await {
                    self.requests(stream, stopped).await;
                }
            }
        }
    }

    async fn requests(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        mut stopped: watch::Receiver<bool>,
    ) {
        let service = service_fn(|request| {
            let shared = Arc::clone(&self);
            async move { Ok::<_, Infallible>(shared.answer(request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(STEP_LIMIT)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = stopped.wait_for(|stopped| *stopped) => connection.as_mut().graceful_shutdown(),
        }
        let _ = timeout(GRACE, connection).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<String> {
        match self.take(request).await {
            Ok(text) => response(StatusCode::ACCEPTED, text),
            Err((refusal, text)) => {
                self.refusals.count(refusal);
                let mut response = response(refusal.status(), text);
                let header = match refusal {
                    Refusal::Method => Some((ALLOW, "POST")),
                    Refusal::Rate | Refusal::Full => Some((RETRY_AFTER, "1")),
                    _ => None,
                };
                response
                    .headers_mut()
                    .extend(header.map(|(name, value)| (name, HeaderValue::from_static(value))));
                response
            }
        }
    }

    /// Checks a request in the order of what a check costs, and takes its delivery. Returns the text of the answer.
    async fn take(&self, request: Request<Incoming>) -> Result<String, (Refusal, String)> {
        let refused = |refusal: Refusal| (refusal, format!("refused: a request {}", refusal.text()));
        let (head, body) = request.into_parts();
        if head.uri.path() != self.path {
            return Err(refused(Refusal::Path));
        }
        if head.method != Method::POST {
            return Err(refused(Refusal::Method));
        }
        if !self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now()) {
            return Err(refused(Refusal::Rate));
        }
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let signature = header(SIGNATURE_HEADER).ok_or_else(|| refused(Refusal::Signature))?;
        let length = header(CONTENT_LENGTH.as_str()).and_then(|length| length.parse::<u64>().ok());
        if length.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
            return Err(refused(Refusal::TooLong));
        }
        let body =
            timeout(STEP_LIMIT, read(body)).await.unwrap_or(Err(Refusal::Incomplete)).map_err(refused)?;
        if !self.secret.verifies(&body, signature) {
            return Err(refused(Refusal::Signature));
        }
        let headers = WebhookHeaders {
            event: header(EVENT_HEADER),
            delivery: header(DELIVERY_HEADER),
            content_type: header(CONTENT_TYPE.as_str()),
        };
        let delivery = Webhook::read(&headers, &body);
        match delivery.map_err(|error| (Refusal::NoDelivery, format!("refused: {error}")))? {
            Webhook::Ping => Ok("accepted: the webhook works".to_owned()),
            Webhook::Other => Ok("accepted, but of no interest: dayfly needs workflow_job events".to_owned()),
            Webhook::Job(job) => match self.queues.offer(&job) {
                Ok(()) => Ok("accepted".to_owned()),
                Err(refusal) => Err(refused(refusal)),
            },
        }
    }
}

/// Reads a body of bounded length.
async fn read(mut body: Incoming) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame.map_err(|_| Refusal::Incomplete)?.into_data() else { continue };
        if bytes.len() + data.len() > BODY_BYTES_MAX {
            return Err(Refusal::TooLong);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

fn response(status: StatusCode, text: String) -> Response<String> {
    let mut response = Response::new(text + "\n");
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
