//! The page on loopback: the form, and the callback to which the forge leads the browser back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use dayfly_forge::Forge;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::page;

/// Most connections at a time. A browser opens up to six.
const CONNECTIONS_MAX: usize = 16;
/// Longest time until the head of the next request is there.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time that answers may take after the end.
const GRACE: Duration = Duration::from_secs(2);
/// Wait before the next accept after one failed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Number of callbacks with a wrong state after which the command gives up.
pub(super) const WRONG_STATES_MAX: u32 = 10;

/// A code with which the forge has led the browser back. The reply is the page that the browser gets.
pub(super) struct Callback {
    pub(super) code: String,
    pub(super) reply: oneshot::Sender<(StatusCode, String)>,
}

/// The state that the handlers share.
pub(super) struct Desk {
    /// The page with the form.
    form: String,
    /// The random text that proves that a callback belongs to this form.
    state: SecretString,
    policy: HeaderValue,
    nonce: String,
    is_used: AtomicBool,
    wrong_states: AtomicU32,
    callbacks: mpsc::Sender<Callback>,
    /// Told after [`WRONG_STATES_MAX`] callbacks with a wrong state.
    pub(super) gave_up: Notify,
}

impl Desk {
    /// `form_origin` is the origin of the forge, the only one besides this page that a form may be sent to. Browsers apply that
    /// also to redirects, and a forge that asks for no confirmation (the lab) redirects at once.
    pub(super) fn new(
        form: String,
        nonce: String,
        state: SecretString,
        form_origin: &str,
        callbacks: mpsc::Sender<Callback>,
    ) -> Option<Self> {
        let policy = format!(
            "default-src 'none'; style-src 'nonce-{nonce}'; form-action {form_origin} 'self'; frame-ancestors 'none'; base-uri 'none'"
        );
        Some(Self {
            form,
            state,
            policy: HeaderValue::try_from(policy).ok()?,
            nonce,
            is_used: AtomicBool::new(false),
            wrong_states: AtomicU32::new(0),
            callbacks,
            gave_up: Notify::new(),
        })
    }

    /// Checks a callback. Returns its code, once.
    fn admit(&self, query: &CallbackQuery) -> Result<String, &'static str> {
        let is_right: bool = query.state.as_bytes().ct_eq(self.state.expose_secret().as_bytes()).into();
        if !is_right {
            if self.wrong_states.fetch_add(1, Ordering::Relaxed) + 1 >= WRONG_STATES_MAX {
                self.gave_up.notify_one();
            }
            return Err(
                "This address does not belong to the form of this dayfly: its state differs. Open the page again.",
            );
        }
        if !Forge::is_manifest_code(&query.code) {
            return Err("The forge has sent no code.");
        }
        match self.is_used.swap(true, Ordering::Relaxed) {
            true => Err("This address was used already."),
            false => Ok(query.code.clone()),
        }
    }
}

#[derive(Deserialize)]
struct CallbackQuery {
    #[serde(default)]
    code: String,
    #[serde(default)]
    state: String,
}

/// Returns the addresses of the page.
pub(super) fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/", get(|State(desk): State<Arc<Desk>>| async move { Html(desk.form.clone()) }))
        .route("/callback", get(callback))
        .fallback(|| async { StatusCode::NOT_FOUND })
        .layer(from_fn_with_state(desk.clone(), guard))
        .with_state(desk)
}

async fn callback(State(desk): State<Arc<Desk>>, Query(query): Query<CallbackQuery>) -> Response {
    let failed =
        |status: StatusCode, why: &str| (status, Html(page::failed(&desk.nonce, why))).into_response();
    let code = match desk.admit(&query) {
        Ok(code) => code,
        Err(why) => return failed(StatusCode::BAD_REQUEST, why),
    };
    let (reply, answer) = oneshot::channel();
    let told = desk.callbacks.try_send(Callback { code, reply });
    match (told, answer.await) {
        (Ok(()), Ok((status, page))) => (status, Html(page)).into_response(),
        _ => failed(StatusCode::SERVICE_UNAVAILABLE, "dayfly has ended; see its terminal."),
    }
}

/// Refuses requests that a page elsewhere has led here under a name of its own, and adds the headers that protect each answer.
async fn guard(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let mut response = match host.is_some_and(is_this_host) {
        true => next.run(request).await,
        false => StatusCode::MISDIRECTED_REQUEST.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, desk.policy.clone());
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // The addresses hold the code and the state. A form without any origin could be refused by the forge.
        (header::REFERRER_POLICY, "origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Returns true if a `Host` header names loopback, with any port because of `ssh -L`.
fn is_this_host(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    matches!(name, "127.0.0.1" | "localhost")
}

/// Serves the page until `end` completes. Returns when the answers in progress are sent.
pub(super) async fn serve(listener: TcpListener, router: Router, end: oneshot::Receiver<()>) {
    let mut end = std::pin::pin!(end);
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            _ = &mut end => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_AGAIN).await;
            continue;
        };
        // A connection above the limit is closed at once instead of being left waiting.
        let Ok(permit) = permits.clone().try_acquire_owned() else { continue };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let mut stopped = stopped.clone();
        connections.spawn(async move {
            let _permit = permit;
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = stopped.wait_for(|stopped| *stopped) => connection.as_mut().graceful_shutdown(),
            }
            let _ = tokio::time::timeout(GRACE, connection).await;
        });
    }
    drop(listener);
    let _ = stop.send(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(2 * GRACE, all).await.is_err() {
        connections.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desk() -> (Desk, mpsc::Receiver<Callback>) {
        let (callbacks, receiver) = mpsc::channel(1);
        let desk = Desk::new("form".into(), "n".into(), "right".into(), "https://github.com", callbacks);
        (desk.expect("a policy"), receiver)
    }

    fn query(code: &str, state: &str) -> CallbackQuery {
        CallbackQuery { code: code.to_owned(), state: state.to_owned() }
    }

    #[test]
    fn a_code_is_taken_once_and_only_with_the_state_of_the_form() {
        let (desk, _receiver) = desk();
        for state in ["", "wrong", "right "] {
            assert!(desk.admit(&query("c1", state)).expect_err("refused").contains("state"), "{state}");
        }
        assert!(desk.admit(&query("", "right")).expect_err("refused").contains("no code"));
        assert!(desk.admit(&query("../x", "right")).expect_err("refused").contains("no code"));
        assert_eq!(desk.admit(&query("c1", "right")), Ok("c1".to_owned()));
        assert!(desk.admit(&query("c2", "right")).expect_err("refused").contains("used already"));
    }

    #[tokio::test]
    async fn the_command_gives_up_after_ten_wrong_states() {
        let (desk, _receiver) = desk();
        for _ in 1..WRONG_STATES_MAX {
            desk.admit(&query("c", "wrong")).expect_err("refused");
        }
        let told = tokio::time::timeout(Duration::from_millis(20), desk.gave_up.notified()).await;
        told.expect_err("not yet");
        desk.admit(&query("c", "wrong")).expect_err("refused");
        tokio::time::timeout(Duration::from_secs(5), desk.gave_up.notified()).await.expect("told");
    }

    #[test]
    fn a_page_elsewhere_cannot_lead_here_under_its_own_name() {
        for host in ["127.0.0.1:8080", "localhost:1", "localhost"] {
            assert!(is_this_host(host), "{host}");
        }
        for host in ["evil.example:8080", "127.0.0.1.evil.example", "", "localhost.evil.example:1"] {
            assert!(!is_this_host(host), "{host}");
        }
    }
}
