//! A small collector for tests: it decodes each request with the types of the protocol, and answers by a script.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

/// Longest request that is read, bytes.
const BODY_MAX: usize = 4 << 20;

/// An answer to a request.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// A status without a body.
    Status(u16),
    /// None: the connection stays open.
    Silence,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// The first line.
    pub line: String,
    /// The other lines before the body, in lower case.
    pub headers: Vec<String>,
    /// The message.
    pub message: ExportTraceServiceRequest,
}

/// A collector that runs in threads of the test.
#[derive(Debug, Clone)]
pub struct TestCollector {
    /// Its address.
    pub url: String,
    received: Arc<Mutex<Vec<Received>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

impl TestCollector {
    /// Starts a collector that gives these answers to its first requests, and takes all later ones.
    ///
    /// # Errors
    /// There is no port.
    pub fn start(answers: impl IntoIterator<Item = Answer>) -> io::Result<Self> {
        Self::start_within("http", answers, Ok)
    }

    /// Starts a collector whose connections `open` makes from those of TCP, such as TLS for the scheme `https`.
    ///
    /// # Errors
    /// There is no port.
    pub fn start_within<S: Read + Write>(
        scheme: &str,
        answers: impl IntoIterator<Item = Answer>,
        open: impl Fn(TcpStream) -> io::Result<S> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let collector = Self {
            url: format!("{scheme}://{}", listener.local_addr()?),
            received: Arc::default(),
            answers: Arc::new(Mutex::new(answers.into_iter().collect())),
        };
        let (serving, open) = (collector.clone(), Arc::new(open));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (serving, open) = (serving.clone(), Arc::clone(&open));
                std::thread::spawn(move || drop(open(stream).and_then(|stream| serving.serve(stream))));
            }
        });
        Ok(collector)
    }

    fn serve(&self, mut stream: impl Read + Write) -> io::Result<()> {
        let received = read(&mut stream)?;
        let status = match lock(&self.answers).pop_front() {
            None => 200,
            Some(Answer::Status(status)) => status,
            Some(Answer::Silence) => {
                std::thread::sleep(Duration::from_secs(600));
                return Ok(());
            }
        };
        lock(&self.received).push(received);
        write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
        stream.flush()
    }

    /// Returns the requests that were answered.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.received).clone()
    }

    /// Returns the spans of all requests that were answered.
    pub fn spans(&self) -> Vec<Span> {
        let of_hosts = self.received().into_iter().flat_map(|received| received.message.resource_spans);
        of_hosts.flat_map(|of_host| of_host.scope_spans).flat_map(|of_scope| of_scope.spans).collect()
    }

    /// Returns the spans of one trace as soon as there are so many traces. Returns none if that takes longer than `patience`.
    pub fn wait_for_traces(&self, count: usize, patience: Duration) -> Option<Vec<Vec<Span>>> {
        let began = Instant::now();
        while began.elapsed() < patience {
            let spans = self.spans();
            let roots = spans.iter().filter(|span| span.parent_span_id.is_empty());
            let traces: Vec<Vec<Span>> = roots
                .map(|root| spans.iter().filter(|span| span.trace_id == root.trace_id).cloned().collect())
                .collect();
            if traces.len() >= count {
                return Some(traces);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    }
}

/// Returns an attribute of a span as text; none if it is not there.
pub fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}

fn read(stream: &mut impl Read) -> io::Result<Received> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let first = if lines.is_empty() { String::new() } else { lines.remove(0) };
    let headers: Vec<String> = lines.iter().map(|line| line.to_ascii_lowercase()).collect();
    let length = headers.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.filter(|length| *length <= BODY_MAX).unwrap_or_default()];
    reader.read_exact(&mut body)?;
    let message = ExportTraceServiceRequest::decode(&body[..]).map_err(io::Error::other)?;
    Ok(Received { line: first, headers, message })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
