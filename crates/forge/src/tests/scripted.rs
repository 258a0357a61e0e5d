//! A forge that answers each request as a test demands, many at a time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A request as the forge received it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Method and path: `POST /api/v3/app/installations/5/access_tokens`.
    pub(crate) line: String,
    /// The token of the header `authorization`.
    pub(crate) bearer: String,
    /// The mark of the answer that the client knows.
    pub(crate) if_none_match: String,
    pub(crate) body: Value,
}

/// An answer of the forge.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    delay: Duration,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl ToString) -> Self {
        Self { status, headers: Vec::new(), body: body.to_string(), delay: Duration::ZERO }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// Dates the answer by a clock that differs from this host's.
    pub(crate) fn dated(self, ahead_s: i64) -> Self {
        let then = jiff::Timestamp::from_second(dayfly_host::clock::now_s() + ahead_s).unwrap();
        self.header("date", then.strftime("%a, %d %b %Y %H:%M:%S GMT"))
    }

    pub(crate) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

/// A running forge, and the requests that it received.
pub(crate) struct ScriptedForge {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl ScriptedForge {
    pub(crate) async fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (requests, answer) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::new(answer));
        let seen = requests.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, answer) = (seen.clone(), answer.clone());
                tokio::spawn(async move { serve(stream, &seen, &*answer).await });
            }
        });
        Self { url, requests }
    }

    /// Returns the requests whose line contains `part`.
    pub(crate) fn requests(&self, part: &str) -> Vec<Request> {
        self.requests.lock().unwrap().iter().filter(|request| request.line.contains(part)).cloned().collect()
    }
}

async fn serve(
    stream: TcpStream,
    seen: &Mutex<Vec<Request>>,
    answer: &impl Fn(&Request) -> Reply,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let (mut line, mut bearer, mut len) = (String::new(), String::new(), 0);
    let mut if_none_match = String::new();
    stream.read_line(&mut line).await.ok()?;
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await.ok()?;
        match header.trim_end().split_once(": ") {
            Some(("authorization", value)) => bearer = value.trim_start_matches("Bearer ").to_owned(),
            Some(("if-none-match", value)) => if_none_match = value.to_owned(),
            Some(("content-length", value)) => len = value.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await.ok()?;
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let request = Request { line, bearer, if_none_match, body };
    let reply = answer(&request);
    seen.lock().unwrap().push(request);
    tokio::time::sleep(reply.delay).await;
    let mut text = format!(
        "HTTP/1.1 {} X\r\nconnection: close\r\ncontent-length: {}\r\n",
        reply.status,
        reply.body.len()
    );
    for (name, value) in &reply.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("\r\n{}", reply.body));
    stream.write_all(text.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}
