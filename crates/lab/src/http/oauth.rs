//! The token endpoint: exchanges a runner's signed assertion for an access token.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::Lab;
use crate::keys::read_assertion;
use crate::signing::Grant;
use crate::state::LabState;

/// Lifetime of an access token, as at GitHub.
const TOKEN_SECONDS: i64 = 3600;
/// How far a runner's clock may be off.
const SKEW_SECONDS: i64 = 300;
/// The assertion type of RFC 7523.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// `POST /runner/oauth/token`: the client credentials grant of RFC 6749 with a client assertion. The error
/// `invalid_client` tells a runner that its registration is gone.
pub(super) async fn token(State(lab): State<Lab>, body: Bytes) -> Response {
    match exchange(&lab, &body).await {
        Ok(token) => {
            let body = json!({"access_token": token, "expires_in": TOKEN_SECONDS, "token_type": "bearer", "scope": ""});
            Json(body).into_response()
        }
        Err((error, description)) => {
            (StatusCode::BAD_REQUEST, Json(json!({"error": error, "error_description": description})))
                .into_response()
        }
    }
}

async fn exchange(lab: &Lab, body: &Bytes) -> Result<String, (&'static str, String)> {
    let form: Vec<(String, String)> =
        parse_form(body).ok_or_else(|| ("invalid_request", "no form".to_owned()))?;
    let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    if field("grant_type") != Some("client_credentials")
        || field("client_assertion_type") != Some(ASSERTION_TYPE)
    {
        return Err(("unsupported_grant_type", "a client assertion is needed".to_owned()));
    }
    let assertion = field("client_assertion").unwrap_or_default().to_owned();
    let claims = read_assertion(&assertion).ok_or_else(|| ("invalid_request", "no assertion".to_owned()))?;
    let unknown =
        || ("invalid_client", "The runner registration was deleted or has another public key".to_owned());
    let client = claims.iss.clone();
    let find = move |state: &mut LabState| {
        let key = state.client_key(&client);
        let skew_s = if key.is_some() { state.clock_skew_s(&client) } else { 0 };
        (key, skew_s)
    };
    let found = lab.inner.hub.ask(find).await;
    let (key, skew_s) = found.map_err(|refusal| ("server_error", refusal.message))?;
    let (runner, public_key) = key.ok_or_else(unknown)?;
    if !public_key.signed(&assertion) {
        return Err(unknown());
    }
    let now_ms = lab.inner.clock.now_ms() + skew_s * 1000;
    let now = now_ms / 1000;
    if claims.exp < now - SKEW_SECONDS || claims.nbf > now + SKEW_SECONDS {
        // actions/runner recognises this text as an error of the clock, reports it and tries again.
        let time = crate::state::timestamp(now_ms);
        return Err((
            "invalid_request",
            format!("The assertion is too old or too new. Current server time is {time}."),
        ));
    }
    Ok(lab.inner.signer.issue(Grant::Runner { runner }, lab.inner.clock.now_ms(), TOKEN_SECONDS))
}

/// Parses `application/x-www-form-urlencoded`.
fn parse_form(body: &Bytes) -> Option<Vec<(String, String)>> {
    let text = std::str::from_utf8(body).ok()?;
    let url = reqwest::Url::parse(&format!("http://form/?{text}")).ok()?;
    Some(url.query_pairs().map(|(key, value)| (key.into_owned(), value.into_owned())).collect())
}
