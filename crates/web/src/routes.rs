//! The addresses of the server, and the checks and headers of each answer.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use crate::access::{Access, Denied};
use crate::publish::Published;
use crate::{metrics, page};

/// The page may load its own style sheet and script, and connect to its own server; nothing else, nothing inline.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// No page elsewhere may embed an answer, although a browser sends along the token that it has.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Returns the addresses of the server.
pub fn router(published: Published, access: Access) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .with_state(published.clone())
        .merge(page::router(published))
        .layer(from_fn_with_state(Arc::new(access), guard))
}

async fn scrape(State(published): State<Published>) -> Response {
    // Some thousand lines: milliseconds that the other tasks of the process do not wait for.
    match tokio::task::spawn_blocking(move || published.metrics.text()).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "The metrics cannot be written.\n").into_response(),
    }
}

/// Refuses requests that are not allowed, or would change something, and adds the headers that protect each answer.
async fn guard(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let mut response = match admit(&access, request.headers()) {
        Err(denied) => refusal(denied),
        Ok(()) if ![Method::GET, Method::HEAD].contains(request.method()) => {
            let allow = [(header::ALLOW, "GET, HEAD")];
            (StatusCode::METHOD_NOT_ALLOWED, allow, "This server only shows.\n").into_response()
        }
        Ok(()) => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (RESOURCE_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // The style sheet and the script say how long they are good for.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn admit(access: &Access, headers: &HeaderMap) -> Result<(), Denied> {
    let value = |name| headers.get(name).and_then(|value| value.to_str().ok());
    access.admit(value(header::HOST), value(header::AUTHORIZATION))
}

fn refusal(denied: Denied) -> Response {
    match denied {
        Denied::Token => (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, r#"Basic realm="dayfly", charset="UTF-8""#)],
            "A token is needed: as Authorization: Bearer TOKEN, or as the password of any user.\n",
        )
            .into_response(),
        Denied::Host => (
            StatusCode::MISDIRECTED_REQUEST,
            "This server answers for 127.0.0.1 and localhost only. Give it a token to reach it under another name.\n",
        )
            .into_response(),
    }
}
