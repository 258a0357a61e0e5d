//! The message queue of a scale set, and the jobs that it can acquire.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{SCALE_SETS, list_of, number};
use crate::Lab;
use crate::http::auth::{Listener, ServiceAdmin};
use crate::http::reply::{Exception, base, read};
use crate::refusal::Refusal;
use crate::state::{LabState, ListenerPoll, Notice, NoticeKind, QueueMessage};

/// The header in which a listener says how many jobs it takes at one time.
const CAPACITY: &str = "x-scalesetmaxcapacity";
/// Most jobs that one call acquires.
const ACQUIRED_MAX: usize = 1000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PollQuery {
    #[serde(default)]
    session_id: String,
    #[serde(default)]
    last_message_id: u64,
}

/// `GET .../runnerscalesets/{id}/messages?sessionId=&lastMessageId=`: held until there is a message or the time is over,
/// which is 202.
pub(super) async fn poll(
    listener: Listener,
    State(lab): State<Lab>,
    Path(id): Path<String>,
    Query(query): Query<PollQuery>,
    headers: HeaderMap,
) -> Result<Response, Exception> {
    let id = number(&id)?;
    let session = listener.session_of(id, &query.session_id)?;
    let acquire_url = format!("{}{SCALE_SETS}/{id}/acquirejobs", base(&headers));
    let poll = ListenerPoll { last: query.last_message_id, capacity: capacity(&headers)?, acquire_url };
    let own = session.clone();
    let answer = lab.inner.hub.ask(move |state| state.poll_queue(id, &own, poll)).await??;
    match tokio::time::timeout(lab.inner.limits.long_poll, answer).await {
        Ok(Ok(message)) => Ok(Json(show(&message)).into_response()),
        // A newer poll of the same session replaced this one, or the session or the scale set is gone.
        Ok(Err(_)) => {
            lab.inner.hub.ask(move |state| state.listened(id, &session).map(|_| ())).await??;
            Ok(StatusCode::ACCEPTED.into_response())
        }
        Err(_) => Ok(StatusCode::ACCEPTED.into_response()),
    }
}

/// Reads the capacity. A listener that names none takes any number of jobs.
fn capacity(headers: &HeaderMap) -> Result<Option<usize>, Refusal> {
    let Some(text) = headers.get(CAPACITY) else { return Ok(None) };
    let capacity = text.to_str().ok().and_then(|text| text.trim().parse().ok());
    capacity.map(Some).ok_or_else(|| Refusal::new(400, "X-ScaleSetMaxCapacity must be a number of jobs"))
}

fn show(message: &QueueMessage) -> Value {
    json!({
        "messageId": message.id,
        "messageType": "RunnerScaleSetJobMessages",
        "body": message.body,
        "statistics": message.statistics,
    })
}

/// `DELETE .../runnerscalesets/{id}/messages/{message}?sessionId=`
pub(super) async fn acknowledge(
    listener: Listener,
    State(lab): State<Lab>,
    Path((id, message)): Path<(String, u64)>,
    Query(query): Query<PollQuery>,
) -> Result<StatusCode, Exception> {
    let id = number(&id)?;
    let session = listener.session_of(id, &query.session_id)?;
    lab.inner.hub.ask(move |state| state.delete_message(id, &session, message)).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST .../runnerscalesets/{id}/acquirejobs`, by the token of the queue. The body is a list of `runnerRequestId`s.
pub(super) async fn acquire(
    listener: Listener,
    State(lab): State<Lab>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Exception> {
    let (id, jobs): (_, Vec<u64>) = (number(&id)?, read(&body)?);
    if jobs.len() > ACQUIRED_MAX {
        return Err(Refusal::new(400, format!("One call acquires {ACQUIRED_MAX} jobs at most")).into());
    }
    let session = listener.session_of(id, &listener.session)?;
    let acquired = lab.inner.hub.ask(move |state| state.acquire_jobs(id, &session, &jobs)).await??;
    Ok(Json(json!({"count": acquired.len(), "value": acquired})))
}

/// `GET .../runnerscalesets/{id}/acquirablejobs`, which older clients call. 204 if there is none.
pub(super) async fn acquirable(
    ServiceAdmin(scope): ServiceAdmin,
    State(lab): State<Lab>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Exception> {
    let id = number(&id)?;
    let url = format!("{}{SCALE_SETS}/{id}/acquirejobs", base(&headers));
    let find = move |state: &mut LabState| {
        let jobs = state.acquirable_jobs(&scope, id)?;
        let shown = jobs.into_iter().take(ACQUIRED_MAX).filter_map(|job| {
            let notice = Notice { job, kind: NoticeKind::Available };
            serde_json::to_value(state.job_message_of(notice, &url)?).ok()
        });
        Ok::<_, Refusal>(shown.collect::<Vec<_>>())
    };
    let jobs = lab.inner.hub.ask(find).await??;
    if jobs.is_empty() { Ok(StatusCode::NO_CONTENT.into_response()) } else { Ok(list_of(&jobs)) }
}
