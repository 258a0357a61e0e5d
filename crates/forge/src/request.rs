//! Sends a call when the budget allows it, repeats it if that is harmless, and reads the answer.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, IF_NONE_MATCH};
use reqwest::{Method, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Forge;
use super::budget::{AnswerLimits, CallEnd, CallPermit, Importance, Lane, chance};
use super::error::ForgeError;
use super::retry::wait_before_next;
use super::scale_set::ServiceFault;
use super::tls::is_of_certificate;

/// Longest answer that is read, in bytes. Logs have their own bound.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
const MESSAGE_LEN_MAX: usize = 500;
/// Shortest token that is hidden in the texts of errors. A shorter one would hide parts of words, and no forge makes one.
const HIDDEN_LEN_MIN: usize = 4;
/// Most redirects that are followed for one call.
const REDIRECTS_MAX: usize = 5;
/// Accepted form of the REST API's answers.
const ACCEPT: &str = "application/vnd.github+json";
/// The mark that some services put before their JSON (RFC 3629, section 6).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A call to a forge.
#[derive(Clone)]
pub(super) struct Call {
    /// The action of the call, in words that follow "cannot".
    pub(super) what: String,
    url: Url,
    body: Option<Value>,
    /// True if the call may be repeated after its answer was lost.
    repeatable: bool,
    pub(super) answer_bytes_max: usize,
    proof: Proof,
    lane: Lane,
    accept: &'static str,
    /// A header of this call alone.
    header: Option<(&'static str, String)>,
    /// Time limit, if it is not the client's.
    timeout: Option<Duration>,
    /// The mark of the answer that the caller knows. Status 304 says that it has not changed, which is a success.
    etag: Option<String>,
}

/// The proof of a call's right. It also decides which host may receive the call.
#[derive(Clone)]
enum Proof {
    /// The token of the client's credential, for the forge's REST API, within the budget of the credential.
    Credential,
    /// None, because the forge's host is not trusted yet.
    Anonymous,
    /// A token of a service that the forge has named, for that service. It has limits of its own.
    Service(ServiceToken),
}

/// A token that is not the credential's, and the only address to which it is sent.
#[derive(Clone)]
struct ServiceToken {
    scheme: &'static str,
    token: SecretString,
    /// Calls go to the scheme, host and port of this address only.
    holder: Url,
}

impl ServiceToken {
    /// Returns the value of the header. A token that no header can hold becomes an empty one, which every server refuses.
    fn header(&self) -> HeaderValue {
        let text = format!("{} {}", self.scheme, self.token.expose_secret());
        let mut value = HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}

impl Call {
    pub(super) fn new(what: impl Into<String>, method: Method, url: Url) -> Self {
        let repeatable = method != Method::POST;
        let importance = if method == Method::GET { Importance::Look } else { Importance::Essential };
        Self {
            what: what.into(),
            url,
            body: None,
            repeatable,
            answer_bytes_max: ANSWER_BYTES_MAX,
            proof: Proof::Credential,
            lane: Lane { importance, method },
            accept: ACCEPT,
            header: None,
            timeout: None,
            etag: None,
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

    /// Marks a call as one whose failure the caller handles itself.
    pub(super) fn once(self) -> Self {
        Self { repeatable: false, ..self }
    }

    pub(super) fn anonymous(self) -> Self {
        Self { proof: Proof::Anonymous, ..self }
    }

    /// Sends the call with another token than the credential's, and only to the scheme, host and port of `holder`.
    pub(super) fn service_token(self, scheme: &'static str, token: &SecretString, holder: &Url) -> Self {
        let service = ServiceToken { scheme, token: token.clone(), holder: holder.clone() };
        Self { proof: Proof::Service(service), ..self }
    }

    /// Sets the importance. Without it, a GET is a look at something, and every other call is essential.
    pub(super) fn importance(mut self, importance: Importance) -> Self {
        self.lane.importance = importance;
        self
    }

    pub(super) fn accept(self, accept: &'static str) -> Self {
        Self { accept, ..self }
    }

    pub(super) fn header(self, name: &'static str, value: String) -> Self {
        Self { header: Some((name, value)), ..self }
    }

    pub(super) fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Asks for the answer unless it is the one with this mark.
    pub(super) fn unless(self, etag: Option<String>) -> Self {
        Self { etag, ..self }
    }

    pub(super) fn answer_bytes_max(self, answer_bytes_max: usize) -> Self {
        Self { answer_bytes_max, ..self }
    }

    /// Returns true if the budget of the credential decides when the call is sent.
    fn has_budget(&self) -> bool {
        matches!(self.proof, Proof::Credential)
    }

    /// Returns the token of a service that the call sends.
    fn service_token_text(&self) -> Option<&SecretString> {
        match &self.proof {
            Proof::Service(service) => Some(&service.token),
            Proof::Credential | Proof::Anonymous => None,
        }
    }

    /// Converts the refusal of a service's token, which is not a token that the user could replace.
    fn explain(&self, error: ForgeError) -> ForgeError {
        match (error, &self.proof) {
            (ForgeError::Unauthorized { what, message, .. }, Proof::Service(_)) => {
                ForgeError::ServiceToken { what, message }
            }
            (error, _) => error,
        }
    }
}

/// An answer with a success status.
pub(super) struct ApiAnswer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// The address of the other end of the connection. `None` if the answer came after a redirect.
    pub(super) peer: Option<SocketAddr>,
    limits: AnswerLimits,
    what: String,
}

impl ApiAnswer {
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, ForgeError> {
        serde_json::from_slice(self.json_bytes()).map_err(|error| self.bad(error.to_string()))
    }

    /// Returns the body without a byte order mark.
    pub(super) fn json_bytes(&self) -> &[u8] {
        without_mark(&self.body)
    }

    /// Returns an error that says why the answer is not understood.
    pub(super) fn bad(&self, why: impl Into<String>) -> ForgeError {
        ForgeError::BadAnswer { what: self.what.clone(), why: why.into() }
    }

    /// Returns the server's time in seconds since 1970, from the header `date`.
    pub(super) fn server_time_s(&self) -> Option<i64> {
        AnswerLimits::date_s(&self.headers)
    }

    fn has_plain_text(&self) -> bool {
        let kind = self.headers.get("content-type").and_then(|value| value.to_str().ok());
        kind.is_some_and(|kind| kind.starts_with("text/plain"))
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
    /// Sends a call when the budget allows it, and repeats it after a wait if that is harmless and may help. A call whose
    /// token the forge does not accept is sent once more if there is another token, because such a call was not carried out.
    pub(super) async fn send(&self, call: Call) -> Result<ApiAnswer, ForgeError> {
        let (mut calls, mut is_token_new, mut last) = (0, false, None);
        loop {
            let (token, permit) = match self.admit(&call).await {
                Ok(admitted) => admitted,
                // The forge's own reason says more than that there is no room for another attempt.
                Err(error) => return Err(last.unwrap_or(error)),
            };
            calls += 1;
            let error = match self.send_once(&call, token.as_ref()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            drop(permit);
            if let (ForgeError::Unauthorized { .. }, Some(token), Proof::Credential) =
                (&error, &token, &call.proof)
            {
                if !std::mem::replace(&mut is_token_new, true) && self.credential().refused(token) {
                    continue;
                }
                return Err(self.credential().explain(error));
            }
            match wait_before_next(calls, &error, call.has_budget(), chance()) {
                Some(wait) if call.repeatable => tokio::time::sleep(wait).await,
                _ => return Err(error),
            }
            last = Some(error);
        }
    }

    /// Waits until a call may be sent. Returns its token, and a permit that it holds until its end.
    async fn admit(&self, call: &Call) -> Result<(Option<SecretString>, Option<CallPermit<'_>>), ForgeError> {
        match &call.proof {
            Proof::Anonymous | Proof::Service(_) => Ok((None, None)),
            Proof::Credential => {
                let what = || call.what.clone();
                let credential = self.credential();
                let token = credential
                    .bearer(self)
                    .await
                    .map_err(|source| ForgeError::App { what: what(), source })?;
                let permit = credential.budget().admit(&call.lane).await;
                let permit = permit.map_err(|shed| ForgeError::Shed {
                    what: what(),
                    why: shed.why,
                    wait: shed.wait,
                })?;
                Ok((Some(token), Some(permit)))
            }
        }
    }

    /// Sends a call. Follows redirects of a GET to the same host. Any other redirect is an error: the HTTP client would
    /// follow a redirected DELETE as a GET, whose success is none of the deletion.
    async fn send_once(&self, call: &Call, token: Option<&SecretString>) -> Result<ApiAnswer, ForgeError> {
        let mut url = call.url.clone();
        for redirects in 0..=REDIRECTS_MAX {
            let mut answer = self.send_to(call, &url, token).await?;
            answer.peer = answer.peer.filter(|_| redirects == 0);
            match redirect_target(&answer, &url) {
                Some(target) if call.lane.method == Method::GET && self.may_receive(call, &target) => {
                    url = target
                }
                Some(target) => {
                    let (what, status) = (call.what.clone(), answer.status);
                    return Err(ForgeError::Redirected { what, status, target: shown_address(&target) });
                }
                None if (200..300).contains(&answer.status) => return Ok(answer),
                None if answer.status == 304 && call.etag.is_some() => return Ok(answer),
                None => {
                    let token = token.or(call.service_token_text());
                    return Err(call.explain(refusal(&answer, token)));
                }
            }
        }
        let why = format!("it redirects more than {REDIRECTS_MAX} times");
        Err(ForgeError::BadAnswer { what: call.what.clone(), why })
    }

    /// Returns true if the proof of a call may be sent to `url`.
    fn may_receive(&self, call: &Call, url: &Url) -> bool {
        match &call.proof {
            Proof::Credential | Proof::Anonymous => self.base().same_origin(url),
            Proof::Service(service) => service.holder.origin() == url.origin(),
        }
    }

    /// Sends a request to an address, reads the answer, and enters both into the credential's budget.
    async fn send_to(
        &self,
        call: &Call,
        url: &Url,
        token: Option<&SecretString>,
    ) -> Result<ApiAnswer, ForgeError> {
        if !self.may_receive(call, url) {
            let why = "it leads to another host".to_owned();
            return Err(ForgeError::BadAnswer { what: call.what.clone(), why });
        }
        let budget = self.credential().budget();
        let lost = |source: reqwest::Error| {
            budget.count(call.lane.importance, CallEnd::Lost);
            let url = match &call.proof {
                Proof::Credential | Proof::Anonymous => self.base().url().to_string(),
                Proof::Service(service) => service.holder.origin().ascii_serialization(),
            };
            let what = call.what.clone();
            let source = source.without_url();
            match is_of_certificate(&source) {
                true => ForgeError::Certificate { what, url, source },
                false => ForgeError::Connection { what, url, source },
            }
        };
        let cut = |source| match lost(source) {
            ForgeError::Connection { what, url, source } => ForgeError::Cut { what, url, source },
            error => error,
        };
        let mut response = self.request(call, url, token).send().await.map_err(lost)?;
        let peer = response.remote_addr();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(cut)? {
            if body.len() + piece.len() > call.answer_bytes_max {
                budget.count(call.lane.importance, CallEnd::Failed);
                let why = format!("it has more than {} bytes", call.answer_bytes_max);
                return Err(ForgeError::BadAnswer { what: call.what.clone(), why });
            }
            body.extend_from_slice(&piece);
        }
        let limits = self.enter(call, status, &headers, &body);
        Ok(ApiAnswer { status, headers, body, peer, limits, what: call.what.clone() })
    }

    fn request(&self, call: &Call, url: &Url, token: Option<&SecretString>) -> reqwest::RequestBuilder {
        let mut request = self
            .http
            .request(call.lane.method.clone(), url.clone())
            .header("accept", call.accept)
            .header("x-github-api-version", "2022-11-28");
        if let Some(token) = token {
            request = request.bearer_auth(token.expose_secret());
        }
        if let Proof::Service(service) = &call.proof {
            request = request.header(AUTHORIZATION, service.header());
        }
        if let Some((name, value)) = &call.header {
            request = request.header(*name, value);
        }
        if let Some(etag) = &call.etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        if let Some(timeout) = call.timeout {
            request = request.timeout(timeout);
        }
        match &call.body {
            Some(body) => request.json(body),
            None => request,
        }
    }

    /// Reads the limits of an answer, and stores what they say about the credential.
    fn enter(&self, call: &Call, status: u16, headers: &HeaderMap, body: &[u8]) -> AnswerLimits {
        let host_s = dayfly_host::clock::now_s();
        let is_refusal = matches!(status, 403 | 429);
        let message = if is_refusal { String::from_utf8_lossy(body) } else { Cow::default() };
        let limits = AnswerLimits::read(status, headers, &message, host_s);
        if let Some(forge_s) = AnswerLimits::date_s(headers) {
            self.credential().compare_clocks(forge_s, host_s);
        }
        match &call.proof {
            Proof::Credential => self.credential().budget().learn(&call.lane, status, &limits),
            Proof::Anonymous | Proof::Service(_) => {
                let end = CallEnd::of(status, limits.demanded.is_some());
                self.credential().budget().count(call.lane.importance, end);
            }
        }
        tracing::trace!(what = call.what, status, ?limits, "the forge answered");
        limits
    }
}

/// Returns the address to which an answer redirects, or `None` if it is no redirect.
fn redirect_target(answer: &ApiAnswer, url: &Url) -> Option<Url> {
    let location = answer.headers.get("location").filter(|_| (300..400).contains(&answer.status))?;
    url.join(location.to_str().ok()?).ok()
}

/// Returns an address for an error: without a query, which may hold a signature, and without credentials.
pub(super) fn shown_address(url: &Url) -> String {
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
    /// The type of the error; only the Actions Service sends it.
    #[serde(default, rename = "typeName")]
    type_name: String,
}

impl ErrorBody {
    /// Reads the body of an error. The Actions Service also sends a message as plain text. `token` is hidden, because a
    /// server may repeat the request.
    fn read(answer: &ApiAnswer, token: Option<&SecretString>) -> Self {
        let mut text = String::from_utf8_lossy(answer.json_bytes()).into_owned();
        let token = token.map(|token| token.expose_secret());
        if let Some(token) = token.filter(|token| token.len() >= HIDDEN_LEN_MIN) {
            text = text.replace(token, "***");
        }
        if answer.has_plain_text() {
            return Self { message: text.trim().replace(char::is_control, " "), ..Self::default() };
        }
        serde_json::from_str(&text).unwrap_or_default()
    }
}

/// Returns JSON without the byte order mark that may precede it.
fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body)
}

/// Converts an answer without a success status into an error. `token` is the token that the call has sent.
fn refusal(answer: &ApiAnswer, token: Option<&SecretString>) -> ForgeError {
    let body = ErrorBody::read(answer, token);
    let text = if body.message.is_empty() { format!("HTTP {}", answer.status) } else { body.message };
    let message: String = text.chars().take(MESSAGE_LEN_MAX).collect();
    let what = answer.what.clone();
    if let Some(demanded) = answer.limits.demanded {
        return ForgeError::RateLimited { what, message, wait: demanded.time() };
    }
    if let Some(fault) = ServiceFault::of(answer.status, &body.type_name) {
        // The errors of the service are sentences.
        let message = message.trim_end_matches('.').to_owned();
        return ForgeError::Service { what, message, fault };
    }
    let needs = answer.headers.get("x-accepted-github-permissions").and_then(|value| value.to_str().ok());
    let needs = needs.map(|value| value.chars().take(MESSAGE_LEN_MAX).collect());
    match answer.status {
        401 => ForgeError::Unauthorized { what, message, needs },
        403 => ForgeError::Forbidden { what, message, needs },
        404 => ForgeError::NotFound { what, message, needs },
        409 => ForgeError::Conflict { what, message },
        400 | 413 | 422 => {
            ForgeError::Invalid { what, message, errors: body.errors.iter().map(error_text).collect() }
        }
        status => ForgeError::Server { what, status, message, wait: answer.limits.retry_after },
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
