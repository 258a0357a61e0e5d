//! Answers: GitHub's REST errors, those of the runner services, and plain JSON.

use axum::Json;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::lab::refusal::Refusal;

/// A refusal in the words of GitHub's REST API.
pub(super) struct Rest(pub(super) Refusal);

/// A refusal in the words of the services that runner apps speak to; the text names the service.
pub(super) struct Service(pub(super) &'static str, pub(super) Refusal);

pub(super) const BROKER: &str = "actions-broker-listener";
pub(super) const RUN_SERVICE: &str = "actions-run-service";
pub(super) const RESULTS: &str = "actions-results-service";

fn status(refusal: &Refusal) -> StatusCode {
    StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl From<Refusal> for Rest {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for Rest {
    fn into_response(self) -> Response {
        let status = status(&self.0);
        let mut body = json!({
            "message": self.0.message,
            "documentation_url": "https://docs.github.com/rest",
            "status": status.as_u16().to_string(),
        });
        if !self.0.errors.is_empty() {
            body["errors"] = Value::Array(self.0.errors);
        }
        let mut response = (status, Json(body)).into_response();
        challenge(status, &mut response);
        response
    }
}

impl IntoResponse for Service {
    fn into_response(self) -> Response {
        let Self(source, refusal) = self;
        let status = status(&refusal);
        let mut body =
            json!({"source": source, "statusCode": status.as_u16(), "errorMessage": refusal.message});
        if !refusal.kind.is_empty() {
            body["errorKind"] = refusal.kind.into();
        }
        let mut response = (status, Json(body)).into_response();
        challenge(status, &mut response);
        response
    }
}

/// actions/runner gets a token when a 401 asks for one.
fn challenge(status: StatusCode, response: &mut Response) {
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    }
}

/// Reads a JSON body whatever its content type says; runner apps name several.
pub(super) fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    let value: Value =
        serde_json::from_slice(body).map_err(|_| Refusal::new(400, "Problems parsing JSON"))?;
    serde_json::from_value(value).map_err(|error| Refusal {
        errors: vec![error.to_string().into()],
        ..Refusal::new(422, "Invalid request.")
    })
}

/// Milliseconds since 1970 as GitHub writes times.
pub(super) fn time(ms: i64) -> String {
    crate::lab::state::timestamp(ms / 1000 * 1000).to_string()
}

/// The address under which the caller reached the lab, for links in answers.
pub(super) fn base(headers: &HeaderMap) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '[' | ']');
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    format!("http://{}", host.filter(|host| host.chars().all(plain)).unwrap_or("localhost"))
}
