//! Forges for tests: one that answers each request as a test demands, and a lab.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::IntoResponse as _;
use axum::{Json, Router};
use dayfly_forge::{AppManifest, Url};
use dayfly_lab::{Lab, LabSettings};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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

/// A running lab.
pub(crate) struct TestLab {
    pub(crate) url: String,
    pub(crate) token: String,
    _folder: tempfile::TempDir,
}

impl TestLab {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let lab = Lab::open(LabSettings::new(folder.path())).expect("a lab");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let token = lab.token().expose_secret().to_owned();
        tokio::spawn(async move { lab.serve(listener, std::future::pending()).await });
        Self { url, token, _folder: folder }
    }

    /// Sends the form of a manifest as a browser does, and returns the address that the lab leads it to.
    pub(crate) async fn send_form(&self, form_url: &str, manifest: &str) -> String {
        let encoded = Url::parse_with_params("http://x/", [("manifest", manifest)]).expect("an address");
        let body = encoded.query().expect("a form");
        let path = form_url.strip_prefix(&self.url).expect("an address of the lab");
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: lab\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        let (status, answer) = exchange(&self.url, &request).await;
        assert_eq!(status, 302, "{answer}");
        let location = answer.lines().find_map(|line| line.strip_prefix("location: "));
        location.expect("a redirect").to_owned()
    }

    /// Sends the form of a manifest, and returns the code that the lab answers with.
    pub(crate) async fn code(&self, manifest: &AppManifest) -> String {
        let base = dayfly_forge::ApiBase::from_host_or_url(&self.url).expect("an address");
        let form_url = manifest.form_url(&base, "s").expect("an address");
        let text = manifest.to_json("http://127.0.0.1:1/callback").to_string();
        let target = Url::parse(&self.send_form(form_url.as_str(), &text).await).expect("an address");
        let code = target.query_pairs().find(|(name, _)| name == "code").expect("a code");
        code.1.into_owned()
    }
}

/// Sends a request, and returns the status and the whole answer.
pub(crate) async fn exchange(url: &str, request: &str) -> (u16, String) {
    let mut stream =
        tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await.expect("connect");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer)
}
