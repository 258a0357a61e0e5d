//! A small HTTP server for many connections at a time, whose answers can be cut or held back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// Method and path with its query.
    pub(super) line: String,
    pub(super) authorization: String,
    /// The header `x-scalesetmaxcapacity`.
    pub(super) capacity: String,
    pub(super) accept: String,
    pub(super) body: String,
}

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    status: u16,
    headers: String,
    body: Vec<u8>,
    delay: Duration,
    /// Bytes of the body after which the connection is closed.
    cut: Option<usize>,
}

impl Reply {
    pub(super) fn new(status: u16, body: impl ToString) -> Self {
        let body = body.to_string().into_bytes();
        Self { status, headers: String::new(), body, delay: Duration::ZERO, cut: None }
    }

    pub(super) fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push_str(&format!("{name}: {}\r\n", value.to_string()));
        self
    }

    /// Puts a byte order mark before the body.
    pub(super) fn marked(mut self) -> Self {
        self.body.splice(0..0, *b"\xef\xbb\xbf");
        self
    }

    pub(super) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    pub(super) fn cut(self, bytes: usize) -> Self {
        Self { cut: Some(bytes), ..self }
    }
}

/// Starts a server. Each connection serves one request.
pub(super) async fn serve(answer: impl Fn(Request) -> Reply + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move { serve_one(stream, &*answer).await });
        }
    });
    address
}

async fn serve_one(stream: TcpStream, answer: &impl Fn(Request) -> Reply) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let [mut authorization, mut capacity, mut accept] = [const { String::new() }; 3];
    let mut len = 0;
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await.ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        match name {
            "authorization" => authorization = value.to_owned(),
            "x-scalesetmaxcapacity" => capacity = value.to_owned(),
            "accept" => accept = value.to_owned(),
            "content-length" => len = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await.ok()?;
    let body = String::from_utf8(body).unwrap();
    let reply = answer(Request { line, authorization, capacity, accept, body });
    if !reply.delay.is_zero() {
        tokio::time::sleep(reply.delay).await;
    }
    let (status, headers, len) = (reply.status, &reply.headers, reply.body.len());
    let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {len}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(&reply.body[..reply.cut.unwrap_or(len)]).await.ok()?;
    stream.shutdown().await.ok()
}
