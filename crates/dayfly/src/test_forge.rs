//! A forge that answers each request as a test demands.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::IntoResponse as _;
use axum::{Json, Router};
use serde_json::Value;

/// The status, the headers and the body of an answer.
pub(crate) type Answer = (u16, Vec<(&'static str, String)>, Value);

/// A running forge, and the requests that it received: `GET /api/v3/repos/o/r`.
pub(crate) struct TestForge {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl TestForge {
    /// Starts a forge. `answer` maps a request to its answer.
    pub(crate) async fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (seen, answer) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(answer));
        let requests = seen.clone();
        let handler = move |request: Request<Body>| {
            let line = format!("{} {}", request.method(), request.uri());
            let (status, headers, body) = answer(&line);
            requests.lock().expect("no panic").push(line);
            let headers: HeaderMap = headers
                .into_iter()
                .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
                .collect();
            let answer =
                (StatusCode::from_u16(status).expect("a status"), headers, Json(body)).into_response();
            async { answer }
        };
        let router = Router::new().fallback(handler);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, seen }
    }

    /// Returns the requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.lock().expect("no panic").clone()
    }
}
