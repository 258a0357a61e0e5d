//! Sessions of listeners.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{SCALE_SETS, number, show};
use crate::Lab;
use crate::fault::Call;
use crate::http::auth::ServiceAdmin;
use crate::http::reply::{Exception, base, read};
use crate::refusal::Refusal;
use crate::signing::Grant;
use crate::state::{LabState, ListenerSession, Scope};

const OWNER_LEN_MAX: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Open {
    #[serde(default)]
    owner_name: String,
}

/// `POST .../runnerscalesets/{id}/sessions`
pub(super) async fn open(
    ServiceAdmin(scope): ServiceAdmin,
    State(lab): State<Lab>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Exception> {
    let (id, open, base): (_, Open, _) = (number(&id)?, read(&body)?, base(&headers));
    let owner = open.owner_name.chars().take(OWNER_LEN_MAX).collect();
    let open = move |state: &mut LabState| {
        let session = state.open_listener_session(&scope, id, owner)?;
        show_session(state, Call::SESSION, &scope, id, &session, &base)
    };
    Ok(Json(lab.inner.hub.ask(open).await??))
}

/// `PATCH .../runnerscalesets/{id}/sessions/{session}`: the same session with a new token.
pub(super) async fn refresh(
    ServiceAdmin(scope): ServiceAdmin,
    State(lab): State<Lab>,
    Path((id, session)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Value>, Exception> {
    let (id, base) = (number(&id)?, base(&headers));
    let refresh = move |state: &mut LabState| {
        let session = state.listener_session(&scope, id, &session)?;
        show_session(state, Call::REFRESH_SESSION, &scope, id, &session, &base)
    };
    Ok(Json(lab.inner.hub.ask(refresh).await??))
}

/// `DELETE .../runnerscalesets/{id}/sessions/{session}`
pub(super) async fn close(
    ServiceAdmin(scope): ServiceAdmin,
    State(lab): State<Lab>,
    Path((id, session)): Path<(String, String)>,
) -> Result<StatusCode, Exception> {
    let id = number(&id)?;
    lab.inner.hub.ask(move |state| state.close_listener_session(&scope, id, &session)).await??;
    Ok(StatusCode::NO_CONTENT)
}

fn show_session(
    state: &mut LabState,
    call: Call,
    scope: &Scope,
    id: u64,
    session: &ListenerSession,
    base: &str,
) -> Result<Value, Refusal> {
    let seconds = state.queue_token_seconds(call, &session.id);
    let set = state.scale_set(scope, id)?;
    let grant = Grant::Queue { scale_set: id, session: session.id.clone() };
    let query = format!("sessionId={}&api-version=6.0-preview", session.id);
    Ok(json!({
        "sessionId": session.id,
        "ownerName": session.owner,
        "runnerScaleSet": show(set, state, base),
        "messageQueueUrl": format!("{base}{SCALE_SETS}/{id}/messages?{query}"),
        "messageQueueAccessToken": state.signer.issue(grant, state.now_ms(), seconds),
        "statistics": state.statistics(set),
    }))
}
