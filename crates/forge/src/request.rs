//! Sends a call, repeats it if that is harmless, and reads the answer.

use std::net::SocketAddr;

use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Forge;
use super::error::ForgeError;
use super::retry::{rate_limit, wait_before_next};
use super::tls::is_of_certificate;

/// Longest answer that is read, in bytes. Logs have their own bound.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
const MESSAGE_LEN_MAX: usize = 500;
/// Most redirects that are followed for one call.
const REDIRECTS_MAX: usize = 5;

/// A call to a forge.
#[derive(Clone)]
pub(super) struct Call {
    /// The action of the call, in words that follow "cannot".
    pub(super) what: String,
    method: Method,
    url: Url,
    body: Option<Value>,
    /// True if the call may be repeated after its answer was lost.
    repeatable: bool,
    pub(super) answer_bytes_max: usize,
    /// True if the call is sent without the token, because the host is not trusted yet.
    anonymous: bool,
}

impl Call {
    pub(super) fn new(what: impl Into<String>, method: Method, url: Url) -> Self {
        let repeatable = method != Method::POST;
        Self {
            what: what.into(),
            method,
            url,
            body: None,
            repeatable,
            answer_bytes_max: ANSWER_BYTES_MAX,
            anonymous: false,
        }
    }

    pub(super) fn get(what: impl Into<String>, url: Url) -> Self {
        Self::new(what, Method::GET, url)
    }

    pub(super) fn body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    /// Marks a POST as harmless to repeat.
    pub(super) fn repeatable(self) -> Self {
        Self { repeatable: true, ..self }
    }

    pub(super) fn anonymous(self) -> Self {
        Self { anonymous: true, ..self }
    }

    pub(super) fn answer_bytes_max(self, answer_bytes_max: usize) -> Self {
        Self { answer_bytes_max, ..self }
    }
}

/// An answer with a success status.
pub(super) struct ApiAnswer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// The address of the other end of the connection. `None` if the answer came after a redirect.
    pub(super) peer: Option<SocketAddr>,
    what: String,
}

impl ApiAnswer {
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, ForgeError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| ForgeError::BadAnswer { what: self.what.clone(), why: error.to_string() })
    }

    /// Returns the address of the next page of a list.
    pub(super) fn next_page(&self) -> Option<Url> {
        let links = self.headers.get("link")?.to_str().ok()?;
        let next = links.split(',').find(|link| link.contains("rel=\"next\""))?;
        let url = next.trim().strip_prefix('<')?.split_once('>')?.0;
        Url::parse(url).ok()
    }
}

impl Forge {
    /// Sends a call, and repeats it after a wait if that is harmless and may help.
    pub(super) async fn send(&self, call: Call) -> Result<ApiAnswer, ForgeError> {
        let mut calls = 0;
        loop {
            calls += 1;
            let error = match self.send_once(&call).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let chance = f64::from(rand::random::<u16>()) / f64::from(u16::MAX);
            match wait_before_next(calls, &error, chance) {
                Some(wait) if call.repeatable => tokio::time::sleep(wait).await,
                _ => return Err(error),
            }
        }
    }

    /// Sends a call. Follows redirects of a GET to the same host. Any other redirect is an error: the HTTP client would
    /// follow a redirected DELETE as a GET, whose success is none of the deletion.
    async fn send_once(&self, call: &Call) -> Result<ApiAnswer, ForgeError> {
        let mut url = call.url.clone();
        for redirects in 0..=REDIRECTS_MAX {
            let mut answer = self.send_to(call, &url).await?;
            answer.peer = answer.peer.filter(|_| redirects == 0);
            match redirect_target(&answer, &url) {
                Some(target) if call.method == Method::GET && self.base().same_origin(&target) => {
                    url = target
                }
                Some(target) => {
                    let (what, status) = (call.what.clone(), answer.status);
                    return Err(ForgeError::Redirected { what, status, target: shown_address(&target) });
                }
                None if (200..300).contains(&answer.status) => return Ok(answer),
                None => return Err(refusal(&answer)),
            }
        }
        let why = format!("it redirects more than {REDIRECTS_MAX} times");
        Err(ForgeError::BadAnswer { what: call.what.clone(), why })
    }

    async fn send_to(&self, call: &Call, url: &Url) -> Result<ApiAnswer, ForgeError> {
        let lost = |source: reqwest::Error| {
            let (what, url) = (call.what.clone(), self.base().url().to_string());
            let source = source.without_url();
            match is_of_certificate(&source) {
                true => ForgeError::Certificate { what, url, source },
                false => ForgeError::Connection { what, url, source },
            }
        };
        if !self.base().same_origin(url) {
            let why = "it leads to another host".to_owned();
            return Err(ForgeError::BadAnswer { what: call.what.clone(), why });
        }
        let mut request = self
            .http
            .request(call.method.clone(), url.clone())
            .header("accept", "application/vnd.github+json")
            .header("x-github-api-version", "2022-11-28");
        if !call.anonymous {
            request = request.bearer_auth(self.token.expose_secret());
        }
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        let mut response = request.send().await.map_err(lost)?;
        let peer = response.remote_addr();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(lost)? {
            if body.len() + piece.len() > call.answer_bytes_max {
                let why = format!("it has more than {} bytes", call.answer_bytes_max);
                return Err(ForgeError::BadAnswer { what: call.what.clone(), why });
            }
            body.extend_from_slice(&piece);
        }
        Ok(ApiAnswer { status, headers, body, peer, what: call.what.clone() })
    }
}

/// Returns the address to which an answer redirects, or `None` if it is no redirect.
fn redirect_target(answer: &ApiAnswer, url: &Url) -> Option<Url> {
    let location = answer.headers.get("location").filter(|_| (300..400).contains(&answer.status))?;
    url.join(location.to_str().ok()?).ok()
}

/// Returns an address for an error: without a query, which may hold a signature, and without credentials.
fn shown_address(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.as_str().chars().take(MESSAGE_LEN_MAX).collect()
}

#[derive(Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Vec<Value>,
}

/// Converts an answer without a success status into an error.
fn refusal(answer: &ApiAnswer) -> ForgeError {
    let body: ErrorBody = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = if body.message.is_empty() { format!("HTTP {}", answer.status) } else { body.message };
    let message: String = text.chars().take(MESSAGE_LEN_MAX).collect();
    let what = answer.what.clone();
    let headers: Vec<(&str, &str)> =
        answer.headers.iter().filter_map(|(key, value)| Some((key.as_str(), value.to_str().ok()?))).collect();
    if let Some(wait) = rate_limit(answer.status, &headers, &message, dayfly_host::clock::now_s()) {
        return ForgeError::RateLimited { what, message, wait };
    }
    let needs = headers.iter().find(|(key, _)| *key == "x-accepted-github-permissions");
    let needs = needs.map(|(_, value)| value.chars().take(MESSAGE_LEN_MAX).collect());
    match answer.status {
        401 => ForgeError::Unauthorized { what, message, needs },
        403 => ForgeError::Forbidden { what, message, needs },
        404 => ForgeError::NotFound { what, message, needs },
        409 => ForgeError::Conflict { what, message },
        400 | 413 | 422 => {
            ForgeError::Invalid { what, message, errors: body.errors.iter().map(error_text).collect() }
        }
        status => ForgeError::Server { what, status, message },
    }
}

/// Returns the text of one entry of GitHub's `errors`, which are strings or objects.
fn error_text(error: &Value) -> String {
    match error {
        Value::String(text) => text.clone(),
        Value::Object(object) => match object.get("message").and_then(Value::as_str) {
            Some(message) => message.to_owned(),
            None => error.to_string(),
        },
        other => other.to_string(),
    }
}
