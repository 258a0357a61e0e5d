//! Registration by the runner app itself, with a token (`config.sh`, "runner admin" flow).
//!
//! ```text
//! POST {scope}/actions/runners/registration-token   by the admin: a token for an hour
//! POST actions/runner-registration                  by the token: says that the new flow is spoken, and gives it back
//! GET  {scope}/actions/runner-groups                to find the group's number
//! POST actions/runners/register                     with the runner's public key: it is registered
//! ```
//!
//! Observed with github-act-runner 0.13.0 and read in actions/runner 2.336.0. The lab answers 404 to a token that has
//! expired or belongs to another scope, as GitHub does.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::{Admin, RegistrationToken};
use super::reply::{Rest, base, read, time};
use super::scope::InScope;
use crate::Lab;
use crate::keys::PublicKey;
use crate::refusal::Refusal;
use crate::signing::{Grant, Purpose};
use crate::state::{self, RegistrationRequest, Scope};

/// Lifetime of a registration token, as at GitHub.
const TOKEN_SECONDS: i64 = 3600;

/// `POST .../actions/runners/registration-token`
pub(super) async fn registration_token(
    _: Admin,
    InScope(scope): InScope,
    State(lab): State<Lab>,
) -> (StatusCode, Json<Value>) {
    token(&lab, scope, Purpose::Register)
}

/// `POST .../actions/runners/remove-token`
pub(super) async fn remove_token(
    _: Admin,
    InScope(scope): InScope,
    State(lab): State<Lab>,
) -> (StatusCode, Json<Value>) {
    token(&lab, scope, Purpose::Remove)
}

fn token(lab: &Lab, scope: Scope, purpose: Purpose) -> (StatusCode, Json<Value>) {
    let now_ms = lab.inner.clock.now_ms();
    let token = lab.inner.signer.issue(Grant::Registration { scope, purpose }, now_ms, TOKEN_SECONDS);
    let expires_at = time(now_ms + TOKEN_SECONDS * 1000);
    (StatusCode::CREATED, Json(json!({"token": token, "expires_at": expires_at})))
}

#[derive(Deserialize)]
struct Begin {
    url: String,
    runner_event: String,
}

/// `POST /actions/runner-registration`. github-act-runner 0.13.0 then opens its sessions at `url`, and clients for scale
/// sets find the Actions Service there (`super::scale_set`).
pub(super) async fn begin(
    token: RegistrationToken,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Rest> {
    let begin: Begin = read(&body)?;
    token.must_be_for(&Scope::from_web_url(&begin.url)?)?;
    match begin.runner_event.as_str() {
        "register" => token.must_register()?,
        "remove" => {}
        _ => return Err(Rest(Refusal::invalid(["runner_event must be register or remove"]))),
    }
    Ok(Json(json!({
        "url": format!("{}/runner/broker/", base(&headers)),
        "token_schema": "OAuthAccessToken",
        "token": token.text,
        "use_v2_flow": true,
    })))
}

/// github-act-runner 0.13.0 writes the names of a label's members with capitals.
#[derive(Deserialize)]
struct Label {
    #[serde(alias = "Name")]
    name: String,
}

#[derive(Deserialize)]
struct Register {
    url: String,
    group_id: u64,
    name: String,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    ephemeral: bool,
    labels: Vec<Label>,
    public_key: String,
    #[serde(default)]
    runner_id: Option<u64>,
    #[serde(default)]
    replace: bool,
}

/// `POST /actions/runners/register`
pub(super) async fn register(
    token: RegistrationToken,
    State(lab): State<Lab>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Rest> {
    const VERSION_LEN_MAX: usize = 40;
    let body: Register = read(&body)?;
    let scope = Scope::from_web_url(&body.url)?;
    token.must_be_for(&scope)?;
    token.must_register()?;
    let public_key = PublicKey::from_xml(&body.public_key).ok_or_else(|| {
        Refusal::invalid(["public_key must be an RSAKeyValue with a key of 2048 to 4096 bits"])
    })?;
    let request = RegistrationRequest {
        scope,
        name: body.name,
        group_id: body.group_id,
        labels: body.labels.into_iter().map(|label| label.name).collect(),
        work_folder: None,
        ephemeral: body.ephemeral,
        version: body.version.map(|version| version.chars().take(VERSION_LEN_MAX).collect()),
        scale_set: None,
    };
    let enrol = move |state: &mut state::LabState| {
        let runner = if body.replace {
            state.register_or_replace(request, body.runner_id, public_key)
        } else {
            state.register(request, public_key)
        };
        runner.map(|runner| runner.registration.clone())
    };
    let registration = lab.inner.hub.ask(enrol).await??;
    let base = base(&headers);
    Ok(Json(json!({
        "id": registration.id,
        "name": registration.name,
        "authorization": {
            "authorization_url": format!("{base}/runner/oauth/token"),
            "server_url": format!("{base}/runner/broker/"),
            "client_id": registration.client_id,
            "legacy_authorization_url": null,
        },
    })))
}
