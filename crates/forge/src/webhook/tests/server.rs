//! Tests of the server over loopback, with requests as text, so that each byte is the test's.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::super::server::BODY_BYTES_MAX;
use super::super::{WebhookOptions, WebhookQueue, WebhookQueues, WebhookServer, WebhookTls};
use super::delivery::event;
use super::secret;

struct Bench {
    address: String,
    url: String,
    queues: WebhookQueues,
    troubles: mpsc::Receiver<String>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Bench {
    async fn new() -> Self {
        Self::with(1000, None).await
    }

    async fn with(requests_per_second: u32, tls: Option<WebhookTls>) -> Self {
        let options = WebhookOptions {
            path: "/webhook".to_owned(),
            secret: secret(),
            requests_per_second: NonZeroU32::new(requests_per_second).unwrap(),
            tls: tls.map(|tls| watch::channel(tls).1),
        };
        let queues = WebhookQueues::default();
        let address = "127.0.0.1:0".parse().unwrap();
        let server = WebhookServer::bind(address, options, queues.clone()).unwrap();
        let url = server.url();
        let address = url.split('/').nth(2).unwrap().to_owned();
        let (sender, troubles) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel();
        let stopped = async move { drop(stopped.await) };
        let serving = tokio::spawn(server.serve(sender, stopped));
        Self { address, url, queues, troubles, stop, serving }
    }

    /// Sends bytes on a connection of their own. Returns the status and the text of the answer.
    async fn send(&self, request: &[u8]) -> (u16, String) {
        exchange(TcpStream::connect(&self.address).await.unwrap(), request).await
    }

    async fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
        self.send(&request("POST /webhook", headers, body)).await
    }

    /// Sends a signed event.
    async fn deliver(&self, kind: &str, id: &str, body: &str) -> (u16, String) {
        let signature = secret().sign(body.as_bytes());
        self.post(&signed(kind, id, &signature), body.as_bytes()).await
    }
}

fn signed<'a>(kind: &'a str, id: &'a str, signature: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("X-GitHub-Event", kind),
        ("X-GitHub-Delivery", id),
        ("X-Hub-Signature-256", signature),
        ("Content-Type", "application/json"),
    ]
}

fn request(line: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "{line} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> (u16, String) {
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await.unwrap();
    let text = String::from_utf8(answer).unwrap();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, text.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned()).unwrap_or_default())
}

fn pem(kind: &str, der: &[u8]) -> String {
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", BASE64.encode(der))
}

async fn next(queue: &mut WebhookQueue) -> u64 {
    tokio::time::timeout(Duration::from_secs(10), queue.next()).await.unwrap().unwrap().job
}

#[tokio::test]
async fn a_signed_delivery_reaches_the_queue_of_each_pool() {
    let bench = Bench::new().await;
    let (mut one, mut other) = (bench.queues.subscribe(), bench.queues.subscribe());
    let body = event("queued", json!({"id": 7})).to_string();
    assert_eq!(bench.deliver("workflow_job", "d-1", &body).await, (202, "accepted".to_owned()));
    assert_eq!((next(&mut one).await, next(&mut other).await), (7, 7));
    drop(other);
    assert_eq!(bench.deliver("workflow_job", "d-2", &body).await.0, 202, "a pool that is gone is no pool");
    assert_eq!(next(&mut one).await, 7);
    drop(one);
    assert_eq!(bench.deliver("workflow_job", "d-3", &body).await.0, 503, "there is no pool any more");
    bench.stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(10), bench.serving).await.unwrap().unwrap();
    assert!(TcpStream::connect(&bench.address).await.is_err(), "the port is free");
}

#[tokio::test]
async fn events_of_no_interest_are_accepted_and_the_answer_says_so() {
    let bench = Bench::new().await;
    let mut queue = bench.queues.subscribe();
    let answers = [
        bench.deliver("ping", "d-1", "{\"zen\":\"x\"}").await,
        bench.deliver("push", "d-2", "anything").await,
        bench.deliver("workflow_job", "d-3", &event("dreaming", json!({})).to_string()).await,
    ];
    assert!(answers.iter().all(|(status, _)| *status == 202), "{answers:?}");
    assert!(answers[0].1.contains("works") && answers[1].1.contains("of no interest"), "{answers:?}");
    let none = tokio::time::timeout(Duration::from_millis(50), queue.next()).await;
    assert!(none.is_err(), "{none:?}");
}

#[tokio::test]
async fn a_body_without_the_right_signature_is_never_parsed() {
    let mut bench = Bench::new().await;
    let body = event("queued", json!({})).to_string();
    let sign = secret().sign(body.as_bytes());
    for (signature, body) in [("", body.as_str()), ("sha256=00", &body), (&sign, "{"), (&sign, "")] {
        let (status, text) = bench.post(&signed("workflow_job", "d", signature), body.as_bytes()).await;
        assert_eq!(status, 401, "{text}");
    }
    let without = signed("workflow_job", "d", "");
    assert_eq!(bench.post(&without[..2], body.as_bytes()).await.0, 401);
    let trouble = bench.troubles.recv().await.unwrap();
    assert!(trouble.contains("1 with a missing or wrong signature"), "{trouble}");
    assert!(bench.troubles.try_recv().is_err(), "the rest is told a minute later");
}

#[tokio::test]
async fn each_refusal_has_its_status() {
    let bench = Bench::new().await;
    let headers = signed("workflow_job", "d", "sha256=00");
    for (line, status) in [
        ("POST /", 404),
        ("POST /webhook/", 404),
        ("POST /webhook2", 404),
        ("GET /webhook", 405),
        ("PUT /webhook?x", 405),
    ] {
        assert_eq!(bench.send(&request(line, &headers, b"")).await.0, status, "{line}");
    }
    let (status, text) = bench.deliver("workflow_job", "d-1", "{}").await;
    assert!(status == 400 && text.contains("missing field"), "{status} {text}");
    let announced = format!(
        "POST /webhook HTTP/1.1\r\nHost: h\r\nX-Hub-Signature-256: sha256=00\r\nContent-Length: {}\r\n\r\n",
        BODY_BYTES_MAX + 1
    );
    assert_eq!(bench.send(announced.as_bytes()).await.0, 413, "before it is sent");
    let mut chunked = b"POST /webhook HTTP/1.1\r\nHost: h\r\nX-Hub-Signature-256: sha256=00\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let size = BODY_BYTES_MAX + 1;
    chunked.extend(format!("{size:x}\r\n").into_bytes());
    chunked.extend(vec![b'x'; size]);
    assert_eq!(bench.send(&chunked).await.0, 413);
    let many: String = (0..100).map(|number| format!("x-{number}: y\r\n")).collect();
    assert_eq!(bench.send(format!("POST /webhook HTTP/1.1\r\n{many}\r\n").as_bytes()).await.0, 431);
    assert!(matches!(bench.send(b"\x16\x03\x01 no HTTP\r\n\r\n").await.0, 0 | 400));
}

#[tokio::test]
async fn the_largest_body_is_taken() {
    let bench = Bench::new().await;
    let mut queue = bench.queues.subscribe();
    let mut body = event("queued", json!({"id": 8})).to_string();
    body.push_str(&" ".repeat(BODY_BYTES_MAX - body.len()));
    assert_eq!(bench.deliver("workflow_job", "d", &body).await.0, 202);
    assert_eq!(next(&mut queue).await, 8);
}

#[tokio::test]
async fn requests_above_the_rate_and_deliveries_without_room_are_refused() {
    let bench = Bench::with(1, None).await;
    let mut answers = Vec::new();
    for _ in 0..60 {
        answers.push(bench.deliver("ping", "d", "{}").await.0);
    }
    assert!(answers[..5].iter().all(|status| *status == 202), "{answers:?}");
    assert!(answers.contains(&429), "{answers:?}");

    let bench = Bench::new().await;
    let _unread = bench.queues.subscribe();
    let mut read = bench.queues.subscribe();
    let body = event("queued", json!({"id": 9})).to_string();
    for id in 0..1024 {
        assert_eq!(bench.deliver("workflow_job", &format!("d-{id}"), &body).await.0, 202);
        next(&mut read).await;
    }
    assert_eq!(bench.deliver("workflow_job", "d-1024", &body).await.0, 503);
    assert_eq!(next(&mut read).await, 9, "the other pool gets it");
}

#[tokio::test]
async fn more_connections_than_the_limit_are_closed_and_idle_ones_do_not_stay() {
    let mut bench = Bench::new().await;
    let mut held = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(&bench.address).await.unwrap();
        stream.write_all(b"POST /webhook HT").await.unwrap();
        held.push(stream);
    }
    let began = tokio::time::Instant::now();
    // The server accepts in the order of the connections.
    assert_eq!(bench.deliver("ping", "d", "{}").await.0, 0, "no answer");
    assert!(bench.troubles.recv().await.unwrap().contains("1 at more connections"), "counted");
    for mut stream in held {
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await.unwrap();
    }
    assert!(began.elapsed() >= Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(bench.deliver("ping", "d", "{}").await.0, 202);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for_for_ever() {
    let bench = Bench::new().await;
    let mut stream = TcpStream::connect(&bench.address).await.unwrap();
    let head = "POST /webhook HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Hub-Signature-256: sha256=00\r\nContent-Length: 9\r\n\r\nab";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn deliveries_come_by_https_if_there_is_a_certificate() {
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let tls = WebhookTls::from_pem(
        pem("CERTIFICATE", made.cert.der()).as_bytes(),
        pem("PRIVATE KEY", &made.signing_key.serialize_der()).as_bytes(),
    );
    let bench = Bench::with(100, Some(tls.unwrap())).await;
    assert!(bench.url.starts_with("https://127.0.0.1:"), "{}", bench.url);
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let versions =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(
        versions.with_root_certificates(roots).with_no_client_auth(),
    ));
    let stream = TcpStream::connect(&bench.address).await.unwrap();
    let stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    let signature = secret().sign(b"{}");
    let answer = exchange(stream, &request("POST /webhook", &signed("ping", "d", &signature), b"{}")).await;
    assert_eq!(answer.0, 202, "{answer:?}");
    assert_ne!(bench.deliver("ping", "d", "{}").await.0, 202, "plain HTTP");
}

#[test]
fn a_certificate_that_cannot_be_used_is_refused_with_the_reason() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let another = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (chain, key) =
        (pem("CERTIFICATE", made.cert.der()), pem("PRIVATE KEY", &made.signing_key.serialize_der()));
    let refused = |chain: &str, key: &str| {
        WebhookTls::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err().to_string()
    };
    assert!(refused("", &key).contains("no certificate in it"));
    assert!(refused(&chain, "").contains("private key is no PEM"));
    assert!(
        refused(&chain, &pem("PRIVATE KEY", &another.signing_key.serialize_der()))
            .contains("cannot be used together")
    );
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error() {
    let bench = Bench::new().await;
    let options = WebhookOptions {
        path: "/webhook".to_owned(),
        secret: secret(),
        requests_per_second: NonZeroU32::MIN,
        tls: None,
    };
    let taken = WebhookServer::bind(bench.address.parse().unwrap(), options, WebhookQueues::default());
    assert_eq!(taken.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
}
