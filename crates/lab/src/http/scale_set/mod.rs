//! The Actions Service: scale sets, their sessions and messages, and runners, as Actions Runner Controller calls it.
//!
//! ```text
//! POST {scope}/actions/runners/registration-token   by the admin: a token for an hour
//! POST actions/runner-registration                  by the token: the service's address, and the token for it
//! .../_apis/runtime/runnerscalesets                 create, find, change and delete scale sets
//! .../_apis/runtime/runnerscalesets/{id}/sessions   open a session: address and token of the message queue
//! .../_apis/runtime/runnerscalesets/{id}/messages   poll, delete; acquirejobs, generatejitconfig
//! .../_apis/distributedtask/pools/0/agents          find and delete runners
//! ```
//!
//! The lab serves it at the address at which runner apps open their sessions, because both get that address from the same
//! call. Facts: github.com/actions/scaleset 0.4.0, which `tests/peers` runs against the lab.

mod agent;
mod queue;
mod session;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, patch, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::ServiceAdmin;
use super::reply::{Exception, base, read};
use crate::Lab;
use crate::refusal::Refusal;
use crate::state::{self, LabState, ScaleSet, ScaleSetLabel, ScaleSetRequest, scale_set_not_found};

/// Longest body of a call. The longest useful one is a list of jobs to acquire.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// Path of the scale sets below the lab's address.
const SCALE_SETS: &str = "/runner/broker/_apis/runtime/runnerscalesets";

/// Returns the routes below `_apis`. Clients ask for a group at an address with a slash at its end.
pub(super) fn routes() -> Router<Lab> {
    Router::new()
        .route("/runtime/runnerscalesets", get(list).post(make))
        .route("/runtime/runnerscalesets/{id}", get(show_one).patch(update).delete(remove))
        .route("/runtime/runnerscalesets/{id}/generatejitconfig", post(agent::jit))
        .route("/runtime/runnerscalesets/{id}/acquirablejobs", get(queue::acquirable))
        .route("/runtime/runnerscalesets/{id}/acquirejobs", post(queue::acquire))
        .route("/runtime/runnerscalesets/{id}/sessions", post(session::open))
        .route(
            "/runtime/runnerscalesets/{id}/sessions/{session}",
            patch(session::refresh).delete(session::close),
        )
        .route("/runtime/runnerscalesets/{id}/messages", get(queue::poll))
        .route("/runtime/runnerscalesets/{id}/messages/{message}", delete(queue::acknowledge))
        .route("/runtime/runnergroups", get(groups))
        .route("/runtime/runnergroups/", get(groups))
        .route("/distributedtask/pools/{pool}/agents", get(agent::list))
        .route("/distributedtask/pools/{pool}/agents/{id}", get(agent::get).delete(agent::remove))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// Parses the id of a scale set in a path.
fn number(id: &str) -> Result<u64, Refusal> {
    id.parse().map_err(|_| scale_set_not_found(0))
}

/// Returns a list in the form of the service. It begins with a byte order mark, as lists of the service may.
fn list_of(values: &[Value]) -> Response {
    let body = format!("\u{feff}{}", json!({"count": values.len(), "value": values}));
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], body).into_response()
}

/// Returns a scale set as the service shows it. `base` is the address at which the caller reached the lab.
fn show(set: &ScaleSet, state: &LabState, base: &str) -> Value {
    let record = &set.record;
    let group = state.group(record.group_id).map(|group| group.name.clone());
    json!({
        "id": record.id,
        "name": record.name,
        "runnerGroupId": record.group_id,
        "runnerGroupName": group.unwrap_or_default(),
        "labels": record.labels,
        "RunnerSetting": record.setting,
        "createdOn": state::timestamp(record.created_ms).to_string(),
        "runnerJitConfigUrl": format!("{base}{SCALE_SETS}/{}/generatejitconfig", record.id),
        "statistics": state.statistics(set),
    })
}

/// A scale set in a request. Members that the lab assigns itself are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    name: Option<String>,
    #[serde(default)]
    runner_group_id: Option<u64>,
    #[serde(default)]
    labels: Option<Vec<ScaleSetLabel>>,
    #[serde(default, rename = "RunnerSetting", alias = "runnerSetting")]
    runner_setting: Option<Value>,
}

impl From<Body> for ScaleSetRequest {
    fn from(body: Body) -> Self {
        let Body { name, runner_group_id, labels, runner_setting } = body;
        Self { name, group_id: runner_group_id.filter(|id| *id != 0), labels, setting: runner_setting }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListQuery {
    runner_group_id: Option<u64>,
    name: Option<String>,
}

/// `GET .../runnerscalesets?runnerGroupId=&name=`
async fn list(
    ServiceAdmin(scope): ServiceAdmin,
    State(lab): State<Lab>,
    Query(query): Query<ListQuery>,
    headers: HeaderMap,
) -> Result<Response, Exception> {
    let base = base(&headers);
    let find = move |state: &mut LabState| {
        let asked = |set: &&ScaleSet| {
            set.record.scope.same(&scope)
                && query.runner_group_id.is_none_or(|id| id == set.record.group_id)
                && query.name.as_ref().is_none_or(|name| name.eq_ignore_ascii_case(&set.record.name))
        };
        state.scale_sets.values().filter(asked).map(|set| show(set, state, &base)).collect::<Vec<_>>()
    };
    Ok(list_of(&lab.inner.hub.ask(find).await?))
}

/// `POST .../runnerscalesets`. Answers 200, not 201.
async fn make(
    ServiceAdmin(scope): ServiceAdmin,
    State(lab): State<Lab>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Exception> {
    let (body, base): (Body, String) = (read(&body)?, base(&headers));
    let make = move |state: &mut LabState| {
        let id = state.make_scale_set(scope.clone(), body.into())?;
        state.scale_set(&scope, id).map(|set| show(set, state, &base))
    };
    Ok(Json(lab.inner.hub.ask(make).await??))
}

/// `GET .../runnerscalesets/{id}`
async fn show_one(
    ServiceAdmin(scope): ServiceAdmin,
    State(lab): State<Lab>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Exception> {
    let (id, base) = (number(&id)?, base(&headers));
    let find = move |state: &mut LabState| state.scale_set(&scope, id).map(|set| show(set, state, &base));
    Ok(Json(lab.inner.hub.ask(find).await??))
}

/// `PATCH .../runnerscalesets/{id}`
async fn update(
    ServiceAdmin(scope): ServiceAdmin,
    State(lab): State<Lab>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Exception> {
    let (id, body, base): (_, Body, _) = (number(&id)?, read(&body)?, base(&headers));
    let update = move |state: &mut LabState| {
        state.update_scale_set(&scope, id, body.into())?;
        state.scale_set(&scope, id).map(|set| show(set, state, &base))
    };
    Ok(Json(lab.inner.hub.ask(update).await??))
}

/// `DELETE .../runnerscalesets/{id}`
async fn remove(
    ServiceAdmin(scope): ServiceAdmin,
    State(lab): State<Lab>,
    Path(id): Path<String>,
) -> Result<StatusCode, Exception> {
    let id = number(&id)?;
    lab.inner.hub.ask(move |state| state.delete_scale_set(&scope, id)).await??;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupQuery {
    group_name: Option<String>,
}

/// `GET .../runnergroups/?groupName=`
async fn groups(
    ServiceAdmin(scope): ServiceAdmin,
    State(lab): State<Lab>,
    Query(query): Query<GroupQuery>,
) -> Result<Response, Exception> {
    let groups = lab.inner.hub.ask(move |state: &mut LabState| state.groups_of(&scope)).await?;
    let asked = |group: &&state::Group| {
        query.group_name.as_ref().is_none_or(|name| name.eq_ignore_ascii_case(&group.name))
    };
    let show = |group: &state::Group| json!({"id": group.id, "name": group.name, "size": 0, "isDefaultGroup": group.id == state::DEFAULT_GROUP});
    Ok(list_of(&groups.iter().filter(asked).map(show).collect::<Vec<_>>()))
}
