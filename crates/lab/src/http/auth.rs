//! Authentication of callers: the admin, a runner app that registers itself, a runner or a job.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::ExposeSecret as _;

use super::CalledPath;
use super::permission::AppRights;
use super::reply::{BROKER, Exception, RESULTS, RUN_SERVICE, Rest, Service};
use crate::Lab;
use crate::refusal::Refusal;
use crate::signing::{Grant, Purpose};
use crate::state::Scope;
use subtle::ConstantTimeEq as _;

/// A caller with the admin token, given as `Bearer`, `token` or the password of HTTP basic authentication; or with the token of
/// an App's installation, if its permissions allow the call.
pub(super) struct Admin;

/// A runner app with a token for registering or removing runners of one scope. The header's scheme is `RemoteAuth`
/// (actions/runner) or `Bearer` (github-act-runner, once it has begun).
pub(super) struct RegistrationToken {
    pub(super) scope: Scope,
    pub(super) text: String,
    purpose: Purpose,
}

impl RegistrationToken {
    /// Returns 404 if `scope` is not the token's scope.
    pub(super) fn must_be_for(&self, scope: &Scope) -> Result<(), Refusal> {
        self.scope.same(scope).then_some(()).ok_or_else(Refusal::not_found)
    }

    /// Returns 404 if the token permits only removing.
    pub(super) fn must_register(&self) -> Result<(), Refusal> {
        (self.purpose == Purpose::Register).then_some(()).ok_or_else(Refusal::not_found)
    }
}

/// A caller who may manage the scale sets and runners of this scope at the Actions Service. The token is the one that the
/// caller registered with: `runner-registration` gives it back.
pub(super) struct ServiceAdmin(pub(super) Scope);

/// The listener of a scale set with the token of its message queue.
pub(super) struct Listener {
    scale_set: u64,
    pub(super) session: String,
}

impl Listener {
    /// Returns the session if the token is for this scale set, and if the address has the session's id in its query.
    pub(super) fn session_of(&self, scale_set: u64, session: &str) -> Result<String, Refusal> {
        if self.scale_set == scale_set && self.session.eq_ignore_ascii_case(session) {
            Ok(self.session.clone())
        } else {
            Err(unauthorized_at_service())
        }
    }
}

fn unauthorized_at_service() -> Refusal {
    Refusal::new(401, "The token is missing, too old or not for this")
}

/// A runner with its access token, which calls the broker.
pub(super) struct RunnerAtBroker(pub(super) u64);

/// A runner with its access token, which calls the run service.
pub(super) struct RunnerAtRunService(pub(super) u64);

/// A job with its token, which calls the run service.
pub(super) struct JobAtRunService(pub(super) u64);

/// A job with its token, which calls the results service or the live feed.
pub(super) struct JobAtResults(pub(super) u64);

impl FromRequestParts<Lab> for Admin {
    type Rejection = Rest;

    async fn from_request_parts(parts: &mut Parts, lab: &Lab) -> Result<Self, Rest> {
        let Some(given) = credential(&parts.headers) else {
            return Err(Rest(Refusal::new(401, "Requires authentication")));
        };
        if given.as_bytes().ct_eq(lab.inner.token.expose_secret().as_bytes()).into() {
            return Ok(Self);
        }
        let path = parts.extensions.get::<CalledPath>().map(|CalledPath(path)| path.as_str());
        match (lab.inner.signer.check(&given, lab.inner.clock.now_ms()), path) {
            (Some(Grant::App { permissions, repositories }), Some(path)) => {
                AppRights { permissions, repositories }.check(&parts.method, path)?;
                Ok(Self)
            }
            _ => Err(Rest(Refusal::new(401, "Bad credentials"))),
        }
    }
}

impl FromRequestParts<Lab> for RegistrationToken {
    type Rejection = Rest;

    async fn from_request_parts(parts: &mut Parts, lab: &Lab) -> Result<Self, Rest> {
        match grant(parts, lab) {
            Some(Grant::Registration { scope, purpose }) => {
                let text = credential(&parts.headers).unwrap_or_default();
                Ok(Self { scope, purpose, text })
            }
            _ => Err(Rest(Refusal::not_found())),
        }
    }
}

impl FromRequestParts<Lab> for ServiceAdmin {
    type Rejection = Exception;

    async fn from_request_parts(parts: &mut Parts, lab: &Lab) -> Result<Self, Exception> {
        match grant(parts, lab) {
            Some(Grant::Registration { scope, purpose: Purpose::Register }) => Ok(Self(scope)),
            _ => Err(Exception(unauthorized_at_service())),
        }
    }
}

impl FromRequestParts<Lab> for Listener {
    type Rejection = Exception;

    async fn from_request_parts(parts: &mut Parts, lab: &Lab) -> Result<Self, Exception> {
        match grant(parts, lab) {
            Some(Grant::Queue { scale_set, session }) => Ok(Self { scale_set, session }),
            _ => Err(Exception(unauthorized_at_service())),
        }
    }
}

/// Returns true if the credential has the scheme that runner apps use while they register.
pub(super) fn is_remote_auth(headers: &HeaderMap) -> bool {
    let text = headers.get(header::AUTHORIZATION).and_then(|text| text.to_str().ok());
    text.and_then(|text| text.split_once(' '))
        .is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("remoteauth"))
}

/// Returns the secret of an `Authorization` header.
pub(super) fn credential(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = text.split_once(' ')?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" | "token" | "remoteauth" => Some(rest.trim().to_owned()),
        "basic" => {
            let pair = String::from_utf8(BASE64.decode(rest.trim()).ok()?).ok()?;
            Some(pair.split_once(':')?.1.to_owned())
        }
        _ => None,
    }
}

fn grant(parts: &Parts, lab: &Lab) -> Option<Grant> {
    lab.inner.signer.check(&credential(&parts.headers)?, lab.inner.clock.now_ms())
}

fn unauthorized(source: &'static str) -> Service {
    Service(source, Refusal::new(401, "The access token is missing, too old or not for this"))
}

macro_rules! caller {
    ($caller:ident, $grant:pat => $id:expr, $source:expr) => {
        impl FromRequestParts<Lab> for $caller {
            type Rejection = Service;

            async fn from_request_parts(parts: &mut Parts, lab: &Lab) -> Result<Self, Service> {
                match grant(parts, lab) {
                    Some($grant) => Ok(Self($id)),
                    _ => Err(unauthorized($source)),
                }
            }
        }
    };
}

caller!(RunnerAtBroker, Grant::Runner { runner } => runner, BROKER);
caller!(RunnerAtRunService, Grant::Runner { runner } => runner, RUN_SERVICE);
caller!(JobAtRunService, Grant::Job { job } => job, RUN_SERVICE);
caller!(JobAtResults, Grant::Job { job } => job, RESULTS);
