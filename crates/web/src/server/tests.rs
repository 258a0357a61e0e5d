use std::time::Instant;

use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

/// Longest time for anything that has to happen.
const SOON: Duration = Duration::from_secs(20);

/// A server that runs until this is dropped.
struct Running {
    address: ListenAddress,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

fn run(address: &ListenAddress) -> Running {
    let server = WebServer::bind(address).expect("bound");
    let address = server.address().expect("an address");
    let large = || async { "x".repeat(64 << 20) };
    let router = Router::new().route("/", get(|| async { "small" })).route("/large", get(large));
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(server.serve(router, async move { drop(stopped.await) }));
    Running { address, stop, task }
}

fn local() -> ListenAddress {
    "127.0.0.1:0".parse().expect("an address")
}

async fn connect(running: &Running) -> TcpStream {
    let ListenAddress::Tcp(address) = running.address else { panic!("no port") };
    TcpStream::connect(address).await.expect("connected")
}

async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), head: &str) -> String {
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("in time");
    String::from_utf8(answer).expect("text")
}

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn a_port_that_is_taken_is_reported_with_its_address() {
    let running = run(&local());
    let error = WebServer::bind(&running.address).expect_err("taken").to_string();
    assert!(error.starts_with("cannot listen at 127.0.0.1:") && error.contains("in use"), "{error}");
}

#[tokio::test]
async fn a_request_is_answered_and_a_shutdown_waits_for_no_idle_connection() {
    let running = run(&local());
    let mut idle = connect(&running).await;
    assert!(ask(&mut connect(&running).await, GET).await.ends_with("small"));
    let began = Instant::now();
    running.stop.send(()).expect("runs");
    timeout(SOON, running.task).await.expect("in time").expect("no panic");
    assert!(began.elapsed() < 3 * GRACE, "{:?}", began.elapsed());
    assert_eq!(idle.read(&mut [0]).await.unwrap_or(0), 0, "closed");
}

#[tokio::test]
async fn headers_that_are_too_long_or_too_many_are_refused() {
    let running = run(&local());
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nA: {}\r\n\r\n", "x".repeat(2 * HEAD_BYTES_MAX));
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "A: x\r\n".repeat(HEADERS_MAX + 1));
    for head in [long, many] {
        let answer = ask(&mut connect(&running).await, &head).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    assert!(ask(&mut connect(&running).await, GET).await.ends_with("small"), "it goes on");
}

#[tokio::test]
async fn connections_above_the_limit_are_closed_at_once_and_clients_that_do_not_read_hold_no_other_up() {
    let running = run(&local());
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = connect(&running).await;
        if open.len() < 4 {
            stream.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
        }
        open.push(stream);
    }
    let mut refused = connect(&running).await;
    let _ = refused.write_all(GET.as_bytes()).await;
    let mut byte = [0];
    let read = timeout(SOON, refused.read(&mut byte)).await.expect("in time");
    assert!(!matches!(read, Ok(1..)), "closed without an answer");
    // One that is open already is served beside the clients that do not read.
    let served = open.last_mut().expect("one");
    assert!(ask(served, GET).await.ends_with("small"));
}

#[tokio::test]
async fn a_socket_that_a_dead_process_has_left_is_replaced_and_other_files_are_not() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("web.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("left"));
    let address = ListenAddress::Unix(path.clone());
    let running = run(&address);
    let mode = fs::metadata(&path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode, SOCKET_MODE);
    let mut stream = UnixStream::connect(&path).await.expect("connected");
    assert!(ask(&mut stream, GET).await.ends_with("small"));
    let error = WebServer::bind(&address).expect_err("in use").to_string();
    assert!(error.ends_with("another process listens at it"), "{error}");
    running.stop.send(()).expect("runs");
    timeout(SOON, running.task).await.expect("in time").expect("no panic");
    assert!(!path.exists(), "removed");

    fs::write(&path, "text").expect("written");
    let error = WebServer::bind(&address).expect_err("a file").to_string();
    assert!(error.ends_with("a file that is no socket is there"), "{error}");
    assert_eq!(fs::read(&path).expect("stays"), b"text");
    let missing = ListenAddress::Unix(folder.path().join("none/web.sock"));
    let error = WebServer::bind(&missing).expect_err("no folder").to_string();
    assert!(error.contains("none/web.sock: No such file"), "{error}");
}
