//! Answers of the lab: errors in the form of GitHub's REST API and of the runner services, and helpers for bodies, times
//! and addresses.

use axum::Json;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::fault::Side;
use crate::refusal::Refusal;
pub(super) use crate::state::github_time as time;

/// A refusal in the form of GitHub's REST API.
pub(super) struct Rest(pub(super) Refusal);

/// A refusal in the form of the Actions Service: an exception of .NET. Its clients look for a part of the type's name.
pub(super) struct Exception(pub(super) Refusal);

/// A refusal in the form of the services for runner apps. The text is the name of the service.
pub(super) struct Service(pub(super) &'static str, pub(super) Refusal);

pub(super) const BROKER: &str = "actions-broker-listener";
pub(super) const RUN_SERVICE: &str = "actions-run-service";
pub(super) const RESULTS: &str = "actions-results-service";

fn status(refusal: &Refusal) -> StatusCode {
    StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Returns a refusal in the form of the interface that was called.
pub(crate) fn refused(side: Side, refusal: Refusal) -> Response {
    match side {
        Side::Rest | Side::Inside => Rest(refusal).into_response(),
        Side::Service => Exception(refusal).into_response(),
        Side::Runner => Service(BROKER, refusal).into_response(),
    }
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

impl From<Refusal> for Exception {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for Exception {
    fn into_response(self) -> Response {
        let Self(Refusal { message, errors, kind, .. }) = &self;
        let status = match status(&self.0) {
            StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
            status => status,
        };
        let kind = match (*kind, status) {
            ("", StatusCode::UNAUTHORIZED) => "UnauthorizedRequestException",
            ("", StatusCode::BAD_REQUEST) => "ArgumentException",
            ("", _) => "VssServiceException",
            (kind, _) => kind,
        };
        // The scale sets' errors were observed in the first space, the agents' in the second.
        let space = if kind.starts_with("Runner") {
            "GitHub.Actions.Runtime.WebApi"
        } else {
            "GitHub.DistributedTask.WebApi"
        };
        let errors: Vec<&str> = errors.iter().filter_map(Value::as_str).collect();
        let message = [message.as_str()].into_iter().chain(errors).collect::<Vec<_>>().join(": ");
        let body = json!({
            "$id": "1", "innerException": null, "message": message, "typeName": format!("{space}.{kind}, {space}"),
            "typeKey": kind, "errorCode": 0, "eventId": 3000,
        });
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

/// Adds a `WWW-Authenticate` header to a 401. actions/runner requests a token when a 401 has that header.
fn challenge(status: StatusCode, response: &mut Response) {
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    }
}

/// Parses a JSON body. The content type is ignored, because runner apps send several.
pub(super) fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    let value: Value =
        serde_json::from_slice(body).map_err(|_| Refusal::new(400, "Problems parsing JSON"))?;
    serde_json::from_value(value).map_err(|error| Refusal {
        errors: vec![error.to_string().into()],
        ..Refusal::new(422, "Invalid request.")
    })
}

/// Returns the address at which the caller reached the lab. Links and the addresses that a runner calls next begin with
/// it, because one lab serves runners on this host, in guests and in other namespaces, each at another address. The
/// caller itself sets the header, so a false one misleads only the caller, but the value must be `host[:port]`.
pub(super) fn base(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    format!("http://{}", host.filter(|host| is_authority(host)).unwrap_or("localhost"))
}

fn is_authority(host: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '[' | ']');
    host.chars().all(plain) && crate::check_runner_url(&format!("http://{host}")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_and_a_port_are_taken_from_the_host_header() {
        let base = |host: &str| {
            let value = header::HeaderValue::from_str(host).expect("a value");
            super::base(&HeaderMap::from_iter([(header::HOST, value)]))
        };
        for host in ["127.0.0.1:8080", "10.0.2.2:1", "[::1]:8080", "lab.example"] {
            assert_eq!(base(host), format!("http://{host}"));
        }
        let long = "a".repeat(400);
        for host in ["", "a/b", "u:p@h", "u@h", "h:port", "h:99999", "h?x", "h#x", "h h", "[::1", &long] {
            assert_eq!(base(host), "http://localhost", "{host}");
        }
        assert_eq!(super::base(&HeaderMap::new()), "http://localhost");
    }
}
