//! The scope of a request about runners (`/repos/{owner}/{repo}`, `/orgs/{org}` or `/enterprises/{enterprise}`), and the
//! check that the caller may manage them.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

use super::auth::{Admin, RegistrationToken};
use super::reply::Rest;
use crate::Lab;
use crate::refusal::Refusal;
use crate::state::Scope;

/// The scope in the path.
pub(super) struct InScope(pub(super) Scope);

/// The scope in the path, and a caller who may list its runners and delete them: the admin, or a runner app with a token
/// of that scope.
pub(super) struct Managed {
    pub(super) scope: Scope,
    pub(super) by_admin: bool,
}

impl FromRequestParts<Lab> for InScope {
    type Rejection = Rest;

    async fn from_request_parts(parts: &mut Parts, lab: &Lab) -> Result<Self, Rest> {
        let params = RawPathParams::from_request_parts(parts, lab).await;
        let params = params.map_err(|_| Refusal::not_found())?;
        let value = |name: &str| params.iter().find(|(key, _)| *key == name).map(|(_, value)| value);
        let scope = match (value("owner"), value("repo"), value("org"), value("enterprise")) {
            (Some(owner), Some(repo), ..) => Scope::repository(owner, repo),
            (_, _, Some(org), _) => Scope::organization(org),
            (_, _, _, Some(enterprise)) => Scope::enterprise(enterprise),
            _ => Err(Refusal::not_found()),
        };
        Ok(Self(scope?))
    }
}

impl FromRequestParts<Lab> for Managed {
    type Rejection = Rest;

    async fn from_request_parts(parts: &mut Parts, lab: &Lab) -> Result<Self, Rest> {
        let InScope(scope) = InScope::from_request_parts(parts, lab).await?;
        match RegistrationToken::from_request_parts(parts, lab).await {
            Ok(token) if token.scope.same(&scope) => Ok(Self { scope, by_admin: false }),
            Ok(_) => Err(Rest(Refusal::not_found())),
            Err(not_found) => match Admin::from_request_parts(parts, lab).await {
                Ok(Admin) => Ok(Self { scope, by_admin: true }),
                // The scheme of runner apps shows that the caller meant to use a registration token.
                Err(_) if super::auth::is_remote_auth(&parts.headers) => Err(not_found),
                Err(unauthorized) => Err(unauthorized),
            },
        }
    }
}
