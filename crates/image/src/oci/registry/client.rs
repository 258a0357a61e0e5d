//! Sends requests to one registry, or to one of its mirrors.

use std::error::Error as _;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, RANGE, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode, Url};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use secrecy::{ExposeSecret as _, SecretString};

use super::super::{DEFAULT_REGISTRY, RegistryName};
use super::auth::Challenge;
use super::config::RegistrySetting;
use super::credentials::Credential;
use super::patience::{Failure, Next, Patience};
use super::{RegistryAccess, RegistryError, credentials};

/// Host of Docker Hub's registry.
const HUB: &str = "registry-1.docker.io";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time without a byte from a registry.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Longest answer with a token, and longest text of an error, bytes.
const TOKEN_LENGTH_MAX: usize = 1024 * 1024;
const ERROR_LENGTH_MAX: usize = 16 * 1024;
const REDIRECTS_MAX: usize = 5;

/// A client of one registry for one repository.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    registry: String,
    /// Address of the API without its scheme: host, and path if it has one.
    base: String,
    repository: String,
    credential: Option<Credential>,
    state: Mutex<Session>,
    /// True if connections without encryption are allowed.
    plain_allowed: bool,
}

#[derive(Debug, Default)]
struct Session {
    authorization: Option<SecretString>,
    is_plain: bool,
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) method: &'a Method,
    /// Path below the repository, e.g. `manifests/latest`.
    pub(super) path: &'a str,
    pub(super) accept: &'a [&'a str],
    /// Offset of the first requested byte.
    pub(super) from: u64,
}

impl Client {
    /// Creates a client for an image's registry, or for a mirror of it.
    pub(super) async fn new(
        access: &RegistryAccess,
        name: &RegistryName,
        mirror: Option<&str>,
    ) -> Result<Self, RegistryError> {
        let place = mirror.map_or(name.registry(), |mirror| mirror.trim_end_matches('/'));
        let registry = place.split_once('/').map_or(place, |(host, _)| host).to_owned();
        let setting = access.registries.of(&registry);
        let at = RegistryName::at(&registry, name);
        let credential = credentials::find(access, &at).await?;
        let base = if mirror.is_none() && place == DEFAULT_REGISTRY { HUB } else { place };
        Ok(Self {
            http: http(access, &registry, &setting)?,
            base: base.to_owned(),
            repository: name.repository().to_owned(),
            credential,
            state: Mutex::default(),
            plain_allowed: setting.insecure || is_loopback(&registry),
            registry,
        })
    }

    /// Returns the host of the registry, with its port.
    pub(super) fn registry(&self) -> &str {
        &self.registry
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Session> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn url(&self, path: &str) -> Result<Url, RegistryError> {
        let scheme = if self.state().is_plain { "http" } else { "https" };
        let (host, below) = self.base.split_once('/').unwrap_or((&self.base, ""));
        let below = if below.is_empty() { String::new() } else { format!("{below}/") };
        let text = format!("{scheme}://{host}/v2/{below}{}/{path}", self.repository);
        Url::parse(&text).map_err(|error| self.unreachable(format!("{text} is no address: {error}")))
    }

    fn unreachable(&self, why: impl Into<String>) -> RegistryError {
        RegistryError::Unreachable { registry: self.registry.clone(), why: why.into() }
    }

    pub(super) fn lied(&self, what: impl Into<String>) -> RegistryError {
        RegistryError::Lied { registry: self.registry.clone(), what: what.into() }
    }

    /// Sends a request. Repeats it if the registry is busy or fails, and authenticates if the registry requires it. A
    /// returned response always has a status of success.
    pub(super) async fn send(&self, request: Request<'_>) -> Result<Response, RegistryError> {
        let mut patience = Patience::default();
        loop {
            let url = self.url(request.path)?;
            match self.send_once(request, url.clone()).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => self.recover(&request, &url, response, &mut patience).await?,
                Err(error) if self.may_be_plain(&error) => self.state().is_plain = true,
                Err(error) => match patience.after(Failure::Temporary) {
                    Next::Retry(pause) => tokio::time::sleep(pause).await,
                    Next::Authenticate | Next::GiveUp => return Err(self.unreachable(text_of(&error))),
                },
            }
        }
    }

    async fn send_once(&self, request: Request<'_>, url: Url) -> Result<Response, reqwest::Error> {
        let mut builder = self.http.request(request.method.clone(), url);
        if !request.accept.is_empty() {
            builder = builder.header(ACCEPT, request.accept.join(", "));
        }
        if request.from > 0 {
            builder = builder.header(RANGE, format!("bytes={}-", request.from));
        }
        let authorization = self.state().authorization.clone();
        if let Some(authorization) = authorization {
            builder = builder.header(AUTHORIZATION, authorization.expose_secret());
        }
        builder.send().await
    }

    /// Returns true if the client may switch to connections without encryption: the server does not speak TLS, and such
    /// connections are allowed. An invalid certificate is no reason to send secrets in the clear.
    fn may_be_plain(&self, error: &reqwest::Error) -> bool {
        let is_no_tls = |error: &rustls::Error| matches!(error, rustls::Error::InvalidMessage(_));
        self.plain_allowed && !self.state().is_plain && tls_error(error).is_some_and(is_no_tls)
    }

    /// Waits or authenticates after an answer other than success, so that the request can be sent again. Returns the
    /// answer's error if the request must not be sent again.
    async fn recover(
        &self,
        request: &Request<'_>,
        asked: &Url,
        response: Response,
        patience: &mut Patience,
    ) -> Result<(), RegistryError> {
        let failure = Failure::of_answer(response.status(), response.headers());
        match patience.after(failure) {
            Next::Authenticate => {
                self.refuse_foreign_challenge(asked, response.url())?;
                self.authenticate(challenge(response.headers())).await?;
            }
            Next::Retry(pause) => {
                if matches!(failure, Failure::Busy { .. }) {
                    tracing::warn!("{} asks to come back in {} s: waiting", self.registry, pause.as_secs());
                }
                tokio::time::sleep(pause).await;
            }
            Next::GiveUp => return Err(self.error_of(request, response, failure, patience.waited()).await),
        }
        Ok(())
    }

    async fn error_of(
        &self,
        request: &Request<'_>,
        response: Response,
        failure: Failure,
        waited: Duration,
    ) -> RegistryError {
        let registry = self.registry.clone();
        match failure {
            Failure::Unauthorized | Failure::Forbidden => self.denied(),
            Failure::NotFound => {
                let what = format!("{}/{}", self.registry, self.repository);
                RegistryError::NotFound { what, nearby: Vec::new() }
            }
            Failure::Busy { .. } => RegistryError::Busy { registry, waited },
            Failure::Temporary | Failure::Permanent => RegistryError::Answer {
                registry,
                what: format!("{} {}/{}", request.method, self.repository, request.path),
                status: response.status().as_u16(),
                text: error_text(response).await,
            },
        }
    }

    fn denied(&self) -> RegistryError {
        let user = self.credential.as_ref().map(|credential| credential.user.clone());
        RegistryError::Denied { registry: self.registry.clone(), user }
    }

    /// Refuses a challenge that comes from the target of a redirect. Registries redirect to hosts of others, and an answer to
    /// the challenge would give such a host the password (CVE-2020-15157 in containerd). No registry loses by this: the
    /// client does not send an authorization to the target of a redirect anyway.
    fn refuse_foreign_challenge(&self, asked: &Url, answered: &Url) -> Result<(), RegistryError> {
        if asked.origin() == answered.origin() {
            return Ok(());
        }
        let by = answered.origin().ascii_serialization();
        Err(self.lied(format!(
            "a redirect to {by}, which requires a login; logins are only sent to the registry"
        )))
    }

    async fn authenticate(&self, challenge: Option<Challenge>) -> Result<(), RegistryError> {
        let authorization = match (challenge, &self.credential) {
            (Some(Challenge::Basic), Some(credential)) => basic(credential),
            (Some(Challenge::Basic), None) => return Err(self.denied()),
            (Some(Challenge::Bearer { realm, service }), credential) => {
                self.token(&realm, service.as_deref(), credential.as_ref()).await?
            }
            (None, _) => return Err(self.lied("it requires an unknown kind of authentication")),
        };
        self.state().authorization = Some(authorization);
        Ok(())
    }

    /// Requests a bearer token. The client sets the scope itself, to read one repository, whatever the registry proposes.
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        credential: Option<&Credential>,
    ) -> Result<SecretString, RegistryError> {
        let mut url = Url::parse(realm).map_err(|_| self.lied("its address for tokens is not a URL"))?;
        if url.scheme() != "https" && !(url.scheme() == "http" && self.plain_allowed) {
            return Err(self.lied(format!("it wants a secret to be sent without encryption, to {url}")));
        }
        let mut parameters = vec![("scope", format!("repository:{}:pull", self.repository))];
        parameters.extend(service.map(|service| ("service", service.to_owned())));
        let request = match credential {
            Some(credential) if credential.is_refresh_token => {
                parameters.push(("grant_type", "refresh_token".to_owned()));
                parameters.push(("client_id", "dayfly".to_owned()));
                parameters.push(("refresh_token", credential.secret.expose_secret().to_owned()));
                let mut body = url.clone();
                body.set_query(None);
                body.query_pairs_mut().extend_pairs(&parameters);
                self.http
                    .post(url)
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(body.query().unwrap_or_default().to_owned())
            }
            credential => {
                url.query_pairs_mut().extend_pairs(&parameters);
                let request = self.http.get(url);
                match credential {
                    Some(credential) => request.header(AUTHORIZATION, basic(credential).expose_secret()),
                    None => request,
                }
            }
        };
        let response = request.send().await.map_err(|error| self.unreachable(text_of(&error)))?;
        if matches!(
            response.status(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST
        ) {
            return Err(self.denied());
        }
        if !response.status().is_success() {
            let status = response.status().as_u16();
            let (registry, what) = (self.registry.clone(), "the request for a token".to_owned());
            return Err(RegistryError::Answer { registry, what, status, text: error_text(response).await });
        }
        let bytes = read(response, TOKEN_LENGTH_MAX).await.map_err(|why| self.lied(why))?;
        let answer: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let token = token_of(&answer).ok_or_else(|| self.lied("its answer holds no token"))?;
        Ok(format!("Bearer {token}").into())
    }
}

/// Returns the token of an answer. The protocol has two names for it, and an answer may have an empty text or `null` under
/// one of them.
fn token_of(answer: &serde_json::Value) -> Option<&str> {
    let names = ["token", "access_token"].into_iter();
    let token = names.filter_map(|name| answer[name].as_str()).find(|token| !token.is_empty());
    token.filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()))
}

/// Reads the body of an answer. Fails if it is longer than `length_max`.
pub(super) async fn read(mut response: Response, length_max: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| text_of(&error))? {
        if bytes.len() + chunk.len() > length_max {
            return Err(format!("an answer of more than {length_max} bytes"));
        }
        bytes.extend(chunk);
    }
    Ok(bytes)
}

fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    Challenge::choose(headers.get_all(WWW_AUTHENTICATE).into_iter().filter_map(|value| value.to_str().ok()))
}

fn basic(credential: &Credential) -> SecretString {
    let pair = format!("{}:{}", credential.user, credential.secret.expose_secret());
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)).into()
}

/// Returns the error text of an answer: the messages of the specification's JSON, or the beginning of the body.
async fn error_text(response: Response) -> String {
    let bytes = read(response, ERROR_LENGTH_MAX).await.unwrap_or_default();
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let messages =
        json["errors"].as_array().into_iter().flatten().filter_map(|error| error["message"].as_str());
    let text = messages.collect::<Vec<_>>().join(", ");
    let text = if text.is_empty() { String::from_utf8_lossy(&bytes).into_owned() } else { text };
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// Returns the TLS error among the causes of an error. The source of an I/O error that wraps another error is that error's
/// source, so that the wrapped error itself must be inspected, too.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(inner) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        return tls_error(inner);
    }
    error.downcast_ref().or_else(|| error.source().and_then(tls_error))
}

/// Returns the text of an error's last cause, because it names what happened.
pub(super) fn text_of(error: &reqwest::Error) -> String {
    if let Some(error @ rustls::Error::InvalidCertificate(_)) = tls_error(error) {
        return format!("{error}; registries.json may name its authority (docs/images.md)");
    }
    let mut text = String::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        cause = error.source();
        // Only the last cause is written.
        if cause.is_none() {
            let _ = write!(text, "{error}");
        }
    }
    if text.is_empty() { error.to_string() } else { text }
}

/// Returns true for a name or address that always means this host.
fn is_loopback(registry: &str) -> bool {
    let url = Url::parse(&format!("http://{registry}/"));
    let host = url.ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn http(
    access: &RegistryAccess,
    registry: &str,
    setting: &RegistrySetting,
) -> Result<reqwest::Client, RegistryError> {
    let unusable = |why: String| RegistryError::Unreachable { registry: registry.to_owned(), why };
    let insecure = setting.insecure;
    let redirects = reqwest::redirect::Policy::custom(move |attempt| {
        let from_https = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
        if attempt.previous().len() > REDIRECTS_MAX {
            attempt.error("it leads from one address to another without an end")
        } else if from_https && attempt.url().scheme() != "https" && !insecure {
            attempt.error("it leads to an address without encryption")
        } else {
            attempt.follow()
        }
    });
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("dayfly/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE_MAX)
        .redirect(redirects)
        .tls_backend_preconfigured(tls(setting).map_err(unusable)?)
        .no_proxy();
    if let Some(proxy) = access.proxy.as_deref().filter(|_| !is_loopback(registry)) {
        let proxy = reqwest::Proxy::all(proxy)
            .map_err(|error| unusable(format!("the proxy: {}", text_of(&error))))?;
        builder = builder.proxy(proxy.no_proxy(reqwest::NoProxy::from_string(&access.no_proxy)));
    }
    builder.build().map_err(|error| unusable(text_of(&error)))
}

fn tls(setting: &RegistrySetting) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    if setting.insecure {
        let verifier = Arc::new(Anybody(provider));
        return Ok(versions.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = &setting.authorities {
        add_authorities(&mut roots, file)
            .map_err(|why| format!("the authorities in {}: {why}", file.display()))?;
    }
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

fn add_authorities(roots: &mut RootCertStore, file: &Path) -> Result<(), String> {
    let pem = std::fs::read(file).map_err(|error| error.to_string())?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
        count += 1;
    }
    if count == 0 { Err("there is none in it".to_owned()) } else { Ok(()) }
}

/// A verifier that accepts any certificate, for `insecure` registries.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::{is_loopback, token_of};

    #[test]
    fn a_token_is_found_under_either_of_its_names() {
        for (answer, token) in [
            (serde_json::json!({ "token": "a", "access_token": "b" }), Some("a")),
            (serde_json::json!({ "token": "", "access_token": "b" }), Some("b")),
            (serde_json::json!({ "token": null, "access_token": "b" }), Some("b")),
            (serde_json::json!({ "token": "a", "access_token": null, "expires_in": null }), Some("a")),
            (serde_json::json!({ "token": "a\r\nx: y" }), None),
            (serde_json::json!({ "token": 5 }), None),
            (serde_json::json!(null), None),
        ] {
            assert_eq!(token_of(&answer), token, "{answer}");
        }
    }

    #[test]
    fn only_this_host_is_spoken_to_without_encryption_unasked() {
        for (registry, expected) in [
            ("localhost:5000", true),
            ("127.0.0.9", true),
            ("[::1]:5000", true),
            ("10.0.0.1:5000", false),
            ("localhost.example.com", false),
            ("docker.io", false),
        ] {
            assert_eq!(is_loopback(registry), expected, "{registry}");
        }
    }
}
