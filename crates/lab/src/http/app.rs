//! GitHub Apps: the form of a manifest, the exchange of its code, and the tokens of installations.
//!
//! ```text
//! POST settings/apps/new?state=          by the admin, in a browser: leads back with a code
//! POST app-manifests/{code}/conversions  by the code: the App with its private key
//! GET  app, S/installation               by an assertion that the key has signed (JWT, RS256)
//! POST app/installations/{id}/access_tokens
//! ```

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Form, FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use dayfly_host::digest::hexadecimal;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::{Admin, credential};
use super::reply::{Rest, base, read, time};
use super::scope::InScope;
use crate::Lab;
use crate::keys::read_assertion;
use crate::refusal::Refusal;
use crate::signing::Grant;
use crate::state::{App, AppManifest, LabState};

/// Lifetime of an installation's token, as at GitHub.
const TOKEN_SECONDS: i64 = 3600;
/// Longest time until the end of an assertion. GitHub allows ten minutes, and clocks differ.
const ASSERTION_SECONDS_MAX: i64 = 660;
/// Most repositories that a token can be restricted to.
const REPOSITORIES_MAX: usize = 500;

/// A GitHub App that has signed the assertion of the call.
pub(super) struct AppCaller(App);

impl FromRequestParts<Lab> for AppCaller {
    type Rejection = Rest;

    async fn from_request_parts(parts: &mut Parts, lab: &Lab) -> Result<Self, Rest> {
        let refused = |message: &str| Rest(Refusal::new(401, message));
        let undecodable = || refused("A JSON web token could not be decoded");
        let token = credential(&parts.headers).ok_or_else(undecodable)?;
        let claims = read_assertion(&token).ok_or_else(undecodable)?;
        let app = lab.inner.hub.ask(move |state: &mut LabState| state.app(&claims.iss).cloned()).await?;
        let app = app.ok_or_else(|| refused("Integration not found"))?;
        if !app.public_key.signed(&token) {
            return Err(undecodable());
        }
        let left_s = claims.exp.saturating_sub(lab.inner.clock.now_ms() / 1000);
        match left_s {
            ..=0 => Err(refused(
                "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires",
            )),
            1..=ASSERTION_SECONDS_MAX => Ok(Self(app)),
            _ => Err(refused("'Expiration time' claim ('exp') is too far in the future")),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Sent {
    manifest: String,
}

#[derive(Deserialize)]
pub(super) struct WithState {
    #[serde(default)]
    state: String,
}

#[derive(Deserialize)]
struct Manifest {
    redirect_url: String,
    #[serde(flatten)]
    app: AppManifest,
}

/// `POST /settings/apps/new`, also below `/organizations/{org}`. GitHub shows a page to confirm; the lab leads back at once, but
/// only to this host, so that no page elsewhere gets a code. A browser asks for the admin's token as a password.
pub(super) async fn take_manifest(
    admin: Result<Admin, Rest>,
    State(lab): State<Lab>,
    Query(query): Query<WithState>,
    Form(sent): Form<Sent>,
) -> Result<Response, Rest> {
    if let Err(refusal) = admin {
        let mut response = refusal.into_response();
        let ask =
            HeaderValue::from_static("Basic realm=\"dayfly lab: any name, and the token as the password\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
        return Ok(response);
    }
    let manifest: Manifest = read(&Bytes::from(sent.manifest))?;
    let back = reqwest::Url::parse(&manifest.redirect_url).ok().filter(|url| {
        url.scheme() == "http" && matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"))
    });
    let mut back = back.ok_or_else(|| Refusal::invalid(["redirect_url must lead to this host"]))?;
    let code = lab.inner.hub.ask(move |state: &mut LabState| state.take_manifest(manifest.app)).await??;
    back.query_pairs_mut().append_pair("code", &code).append_pair("state", &query.state);
    Ok((StatusCode::FOUND, [(header::LOCATION, back.to_string())]).into_response())
}

/// `POST /app-manifests/{code}/conversions`. The code is the proof.
pub(super) async fn convert(
    State(lab): State<Lab>,
    Path(code): Path<String>,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<Value>), Rest> {
    let known = code.clone();
    // A caller without a code must not use up the keys.
    lab.inner.hub.ask(move |state: &mut LabState| state.waiting_manifest(&known)).await??;
    let key = lab.inner.keys.take().await.ok_or_else(|| Refusal::new(500, "The lab generates no keys"))?;
    let pem =
        crate::pem::pkcs1(&key.private).ok_or_else(|| Refusal::new(500, "The key cannot be written"))?;
    let public = key.public;
    let app = lab.inner.hub.ask(move |state: &mut LabState| state.create_app(&code, public)).await??;
    let mut shown = show(&app, &headers);
    shown["pem"] = json!(pem.expose_secret());
    shown["client_secret"] = json!(hexadecimal(&rand::random::<[u8; 20]>()));
    shown["webhook_secret"] = json!(hexadecimal(&rand::random::<[u8; 20]>()));
    Ok((StatusCode::CREATED, Json(shown)))
}

/// `GET /app`
pub(super) async fn get(AppCaller(app): AppCaller, headers: HeaderMap) -> Json<Value> {
    Json(show(&app, &headers))
}

fn show(app: &App, headers: &HeaderMap) -> Value {
    json!({
        "id": app.id, "slug": app.slug(), "name": app.manifest.name, "client_id": app.client_id(),
        "html_url": format!("{}/apps/{}", base(headers), app.slug()),
        "permissions": app.manifest.default_permissions, "events": app.manifest.default_events,
    })
}

/// `GET /repos/{owner}/{repo}/installation` and `GET /orgs/{org}/installation`
pub(super) async fn installation(
    AppCaller(app): AppCaller,
    InScope(scope): InScope,
    headers: HeaderMap,
) -> Json<Value> {
    let (base, id) = (base(&headers), app.id);
    let path = scope.web_path();
    Json(json!({
        "id": id, "app_id": id, "app_slug": app.slug(), "account": {"login": path.split('/').next()},
        "permissions": app.manifest.default_permissions, "events": app.manifest.default_events,
        "repository_selection": "all", "suspended_at": null,
        "access_tokens_url": format!("{base}/api/v3/app/installations/{id}/access_tokens"),
        "html_url": format!("{base}/settings/installations/{id}"),
    }))
}

#[derive(Deserialize, Default)]
struct Restriction {
    permissions: Option<BTreeMap<String, String>>,
    repositories: Option<Vec<String>>,
}

/// `POST /app/installations/{id}/access_tokens`
pub(super) async fn access_token(
    AppCaller(app): AppCaller,
    State(lab): State<Lab>,
    Path(id): Path<u64>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Rest> {
    if id != app.id {
        return Err(Rest(Refusal::not_found()));
    }
    let restriction: Restriction = if body.is_empty() { Restriction::default() } else { read(&body)? };
    let granted = &app.manifest.default_permissions;
    let permissions = restriction.permissions.unwrap_or_else(|| granted.clone());
    let covers = |(name, access): (&String, &String)| {
        let has = granted.get(name).map(String::as_str);
        has == Some(access) || (access == "read" && has == Some("write"))
    };
    if !permissions.iter().all(covers) {
        let message = "The permissions requested are not granted to this installation.";
        return Err(Rest(Refusal::new(422, message)));
    }
    let repositories = restriction.repositories;
    if repositories.as_ref().is_some_and(|names| names.len() > REPOSITORIES_MAX) {
        return Err(Rest(Refusal::invalid([format!("repositories has at most {REPOSITORIES_MAX} names")])));
    }
    let selection = if repositories.is_some() { "selected" } else { "all" };
    let shown = json!(permissions);
    let now_ms = lab.inner.clock.now_ms();
    let token = lab.inner.signer.issue(Grant::App { permissions, repositories }, now_ms, TOKEN_SECONDS);
    let expires_at = time(now_ms + TOKEN_SECONDS * 1000);
    let answer = json!({
        "token": token, "expires_at": expires_at, "permissions": shown, "repository_selection": selection,
    });
    Ok((StatusCode::CREATED, Json(answer)))
}
