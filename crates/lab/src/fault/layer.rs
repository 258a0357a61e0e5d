//! The layer around all handlers, which refuses calls and changes replies.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use super::desk::{CallBudget, Fired};
use super::kind::Fault;
use super::operation::{Call, Operation, Side};
use super::reply::changed;
use crate::Lab;
use crate::http::refused;
use crate::refusal::Refusal;
use crate::state::LabState;

/// Longest reply that is changed. A longer one stays as it is.
const REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Pause between the first half of a body and the end of its connection, so that the half is sent.
const CUT_AFTER: Duration = Duration::from_millis(50);
/// Longest text of a request in an event.
const REQUEST_LEN_MAX: usize = 200;

/// Marks a reply that must not be sent: the connection ends instead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dropped;

/// Plays the faults of a call: before it is carried out, and on its reply.
pub(crate) async fn play(State(lab): State<Lab>, request: Request, next: Next) -> Response {
    let call = Call::of(request.method(), request.uri().path());
    let has_rules = lab.inner.has_faults_of_calls.load(Ordering::Acquire);
    let Some(call) = call.filter(|_| has_rules) else { return next.run(request).await };
    let text: String =
        format!("{} {}", request.method(), request.uri().path()).chars().take(REQUEST_LEN_MAX).collect();
    let is_later_page = is_later_page(request.uri().query());
    let before = {
        let text = text.clone();
        lab.inner.hub.ask(move |state: &mut LabState| state.faults_before(call, &text)).await
    };
    // A lab that has too many calls waiting refuses the call itself.
    let Ok(before) = before else { return next.run(request).await };
    let response = match before.iter().find_map(|fired| refusal(call, fired)) {
        Some(response) => response,
        None => next.run(request).await,
    };
    let response = before.iter().filter_map(|fired| fired.budget).fold(response, with_budget);
    let has_body = response.headers().get(CONTENT_LENGTH).is_none_or(|len| len != "0")
        && response.status() != StatusCode::NO_CONTENT;
    let kind = Reply { status: response.status(), is_json: has_body && is_json(&response), is_later_page };
    let after = lab.inner.hub.ask(move |state: &mut LabState| state.faults_after(call, &text, kind)).await;
    let mut response = response;
    for fired in after.unwrap_or_default() {
        response = after_commit(call, response, &fired).await;
    }
    response
}

/// The properties of a reply that decide which faults it can have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply {
    status: StatusCode,
    is_json: bool,
    is_later_page: bool,
}

impl Reply {
    /// Returns true if the fault would change this reply.
    pub(crate) fn can_have(self, fault: Fault) -> bool {
        match fault {
            Fault::DelayReply | Fault::DropReply => true,
            Fault::NotFoundAfterDelete => self.status == StatusCode::NO_CONTENT,
            Fault::MovingPages => self.is_json && self.is_later_page,
            _ => self.is_json && self.status.is_success(),
        }
    }
}

fn is_json(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/json"))
}

/// Returns true if a query asks for another page of a list than the first.
fn is_later_page(query: Option<&str>) -> bool {
    let page = query.unwrap_or_default().split('&').find_map(|part| part.strip_prefix("page="));
    page.and_then(|page| page.parse::<usize>().ok()).is_some_and(|page| page > 1)
}

/// Returns the reply in place of the handler's. `None` for a call that may go on.
fn refusal(call: Call, fired: &Fired) -> Option<Response> {
    let refuse = |status, message: &str| refused(call.side, Refusal::new(status, message));
    Some(match fired.fault {
        Fault::RateLimit if fired.budget.is_none_or(|budget| !budget.is_exceeded) => return None,
        Fault::RateLimit => refuse(403, "API rate limit exceeded for user ID 1."),
        Fault::SecondaryLimit => {
            let mut response = secondary_limit(call);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(fired.value));
            response
        }
        Fault::SecondaryLimitWithoutWait => secondary_limit(call),
        Fault::ServerError => {
            let status = u16::try_from(fired.value).unwrap_or(503);
            refuse(status, "The lab plays a server that fails")
        }
        Fault::Unauthorized => refuse(401, "Bad credentials"),
        Fault::EmptyPoll if call.operation == Operation::Message => StatusCode::ACCEPTED.into_response(),
        Fault::EmptyPoll => StatusCode::NO_CONTENT.into_response(),
        Fault::VersionTooOld => {
            let message = "Runner version v2.300.0 is deprecated and cannot receive messages.";
            refused(Side::Runner, Refusal::named(403, "RunnerVersionTooOld", message))
        }
        _ => return None,
    })
}

fn secondary_limit(call: Call) -> Response {
    let message = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";
    refused(call.side, Refusal::new(403, message))
}

/// Adds the headers of a budget of calls (docs.github.com, "Rate limits for the REST API").
fn with_budget(mut response: Response, budget: CallBudget) -> Response {
    let CallBudget { limit, remaining, reset_s, .. } = budget;
    let headers = response.headers_mut();
    headers.insert("x-ratelimit-limit", HeaderValue::from(limit));
    headers.insert("x-ratelimit-remaining", HeaderValue::from(remaining));
    headers.insert("x-ratelimit-used", HeaderValue::from(limit - remaining));
    headers.insert("x-ratelimit-reset", HeaderValue::from(reset_s));
    headers.insert("x-ratelimit-resource", HeaderValue::from_static("core"));
    response
}

/// Changes the reply to a call that was carried out.
async fn after_commit(call: Call, mut response: Response, fired: &Fired) -> Response {
    match fired.fault {
        Fault::DelayReply => {
            tokio::time::sleep(Duration::from_secs(fired.value)).await;
            response
        }
        Fault::DropReply => {
            response.extensions_mut().insert(Dropped);
            response
        }
        Fault::NotFoundAfterDelete if call.side == Side::Service => {
            let message = "No agent found with this identifier.";
            refused(call.side, Refusal::named(404, "TaskAgentNotFoundException", message))
        }
        Fault::NotFoundAfterDelete => refused(call.side, Refusal::not_found()),
        Fault::EmptyReply => with_body(response, Body::empty()),
        _ => change_body(response, fired).await,
    }
}

async fn change_body(response: Response, fired: &Fired) -> Response {
    let (parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, REPLY_BYTES_MAX).await else {
        return Json(json!({"message": "The reply is too long for the fault desk"})).into_response();
    };
    let len = bytes.len();
    let response = Response::from_parts(parts, Body::empty());
    if fired.fault != Fault::TruncateReply {
        return with_body(response, changed(fired.fault, fired.value, &bytes).into());
    }
    let half = bytes.slice(..len / 2);
    let end = stream::once(async {
        tokio::time::sleep(CUT_AFTER).await;
        Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof))
    });
    let cut = stream::once(std::future::ready(Ok(half))).chain(end);
    let mut response = with_body(response, Body::from_stream(cut));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(len));
    response
}

/// Replaces the body, and leaves its length to the server.
fn with_body(response: Response, body: Body) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, body)
}
