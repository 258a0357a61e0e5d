//! An HTTP client for one lab: plain HTTP/1.1, bounded answers, connections that are used again.
//!
//! Thousands of runners would use up this host's ports if each request had a connection of its own. A general client would
//! bring TLS and its certificates, which take longer to load than a small job takes to run.

use std::sync::Mutex;
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Uri, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use thiserror::Error;
use tokio::net::TcpStream;

/// Longest wait for an answer. actions/runner 2.336.0 waits as long (`GITHUB_ACTIONS_RUNNER_HTTP_TIMEOUT`), and a poll is
/// held for 50 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(100);
/// Longest answer, in bytes. A job's message has some 10 kB.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most connections that are kept for later requests: one for the poll and one for the job.
const IDLE_MAX: usize = 2;

/// An error of a call.
#[derive(Debug, Error)]
pub enum CallError {
    /// The lab's answer has a status other than 2xx.
    #[error("{method} {url}: status {status}: {body}")]
    Refused {
        /// The request's method.
        method: Method,
        /// The request's address, without its query.
        url: String,
        /// The answer's status.
        status: u16,
        /// The answer's body; `Null` if it is not JSON.
        body: Value,
    },
    /// There is no whole answer.
    #[error("{method} {url}: {reason}")]
    Network {
        /// The request's method.
        method: Method,
        /// The request's address, without its query.
        url: String,
        /// The reason.
        reason: String,
    },
    /// An answer lacks a member that this runner needs.
    #[error("the answer of {call} has no {member}")]
    Incomplete {
        /// The call.
        call: &'static str,
        /// The member.
        member: &'static str,
    },
}

impl CallError {
    /// Returns the status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Network { .. } | Self::Incomplete { .. } => None,
        }
    }

    /// Returns the member `errorKind` of a refusal by the broker; an empty text if there is none.
    pub fn kind(&self) -> &str {
        match self {
            Self::Refused { body, .. } => body["errorKind"].as_str().unwrap_or_default(),
            Self::Network { .. } | Self::Incomplete { .. } => "",
        }
    }

    /// Returns true if the same call may succeed later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Refused { status, .. } => *status >= 500,
            Self::Network { .. } => true,
            Self::Incomplete { .. } => false,
        }
    }
}

/// A request.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a str,
    pub(crate) bearer: Option<&'a str>,
    pub(crate) headers: &'a [(&'static str, &'static str)],
    pub(crate) body: String,
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: Method, url: &'a str, bearer: &'a str) -> Self {
        Self { method, url, bearer: Some(bearer), headers: &[], body: String::new() }
    }

    pub(crate) fn post(url: &'a str, bearer: &'a str, body: &Value) -> Self {
        let headers = &[("content-type", "application/json; charset=utf-8")];
        Self { headers, body: body.to_string(), ..Self::new(Method::POST, url, bearer) }
    }
}

type Connection = (String, SendRequest<String>);

/// The client.
#[derive(Debug, Default)]
pub(crate) struct Http {
    idle: Mutex<Vec<Connection>>,
}

impl Http {
    /// Sends a request and returns the JSON of its answer; `Null` if the answer has no JSON.
    pub(crate) async fn send(&self, call: Call<'_>) -> Result<Value, CallError> {
        let (method, url) = (call.method.clone(), call.url.split('?').next().unwrap_or_default().to_owned());
        let sent = tokio::time::timeout(ANSWER_LIMIT, self.exchange(call)).await;
        let answer = sent.unwrap_or_else(|_| Err(format!("no answer in {} s", ANSWER_LIMIT.as_secs())));
        let (status, bytes) = answer.map_err(|reason| CallError::Network {
            method: method.clone(),
            url: url.clone(),
            reason,
        })?;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if (200..300).contains(&status) {
            Ok(body)
        } else {
            Err(CallError::Refused { method, url, status, body })
        }
    }

    async fn exchange(&self, call: Call<'_>) -> Result<(u16, Vec<u8>), String> {
        let uri: Uri = call.url.parse().map_err(|error| format!("no address: {error}"))?;
        if uri.scheme_str() != Some("http") {
            return Err("this runner is for the lab, which speaks http and not https".to_owned());
        }
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::builder().method(call.method).uri(path).header(header::HOST, &authority);
        for (name, value) in call.headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = call.bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(call.body).map_err(|error| error.to_string())?;
        let mut connection = self.connection(&authority).await?;
        let response = connection.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = read(response.into_body()).await?;
        let mut idle = self.idle.lock().expect("no thread panics while it holds the lock");
        if idle.len() < IDLE_MAX {
            idle.push((authority, connection));
        }
        Ok((status, body))
    }

    async fn connection(&self, authority: &str) -> Result<SendRequest<String>, String> {
        while let Some(mut kept) = self.take_idle(authority) {
            // A kept connection may have been closed by the lab.
            if kept.ready().await.is_ok() {
                return Ok(kept);
            }
        }
        let with_port =
            if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
        let stream =
            TcpStream::connect(with_port).await.map_err(|error| format!("no connection: {error}"))?;
        let _ = stream.set_nodelay(true);
        let (sender, driver) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        // The task ends when the sender is dropped; its error comes as that of the request.
        tokio::spawn(driver);
        Ok(sender)
    }

    fn take_idle(&self, authority: &str) -> Option<SendRequest<String>> {
        let mut idle = self.idle.lock().expect("no thread panics while it holds the lock");
        let place = idle.iter().position(|(known, _)| known == authority)?;
        Some(idle.swap_remove(place).1)
    }
}

async fn read(mut body: Incoming) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(frame) =
        std::future::poll_fn(|context| std::pin::Pin::new(&mut body).poll_frame(context)).await
    {
        if let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(format!("the answer has more than {ANSWER_BYTES_MAX} bytes"));
        }
    }
    Ok(bytes)
}
