//! Runners, which the service calls agents: JIT configs of a scale set, and look-ups by id and by name.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{list_of, number};
use crate::Lab;
use crate::fault::Call;
use crate::http::auth::ServiceAdmin;
use crate::http::reply::{Exception, read};
use crate::http::runner::{checked_url, mint};
use crate::refusal::Refusal;
use crate::state::{LabState, Registration, RegistrationRequest};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JitBody {
    name: String,
    #[serde(default)]
    work_folder: String,
    /// A member of the lab only: the address at which this runner will reach the lab.
    #[serde(default)]
    runner_url: Option<String>,
}

/// `POST .../runnerscalesets/{id}/generatejitconfig`
pub(super) async fn jit(
    ServiceAdmin(scope): ServiceAdmin,
    State(lab): State<Lab>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Exception> {
    let (id, body): (_, JitBody) = (number(&id)?, read(&body)?);
    let runner_url = checked_url(body.runner_url)?;
    let find = move |state: &mut LabState| {
        let record = &state.scale_set(&scope, id)?.record;
        Ok::<_, Refusal>(RegistrationRequest {
            scope,
            name: body.name,
            group_id: record.group_id,
            labels: record.labels.iter().map(|label| label.name.clone()).collect(),
            work_folder: Some(body.work_folder).filter(|folder| !folder.is_empty()),
            ephemeral: true,
            version: None,
            scale_set: Some(id),
        })
    };
    let request = lab.inner.hub.ask(find).await??;
    let (config, registration) = mint(&lab, request, runner_url).await.map_err(|refusal| match refusal {
        Refusal { status: 409, message, .. } => Refusal::named(409, "TaskAgentExistsException", message),
        other => other,
    })?;
    Ok(Json(json!({"runner": show(&registration), "encodedJITConfig": config.encode().expose_secret()})))
}

/// Returns a runner as the service shows it. A runner of no scale set has the id 0.
fn show(registration: &Registration) -> Value {
    let set = registration.scale_set.unwrap_or(0);
    json!({"id": registration.id, "name": registration.name, "runnerScaleSetId": set})
}

fn not_found(id: &str) -> Refusal {
    let id: String = id.chars().take(40).collect();
    Refusal::named(404, "TaskAgentNotFoundException", format!("No agent found with identifier {id}."))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListQuery {
    agent_name: Option<String>,
}

/// `GET .../pools/{pool}/agents?agentName=`
pub(super) async fn list(
    ServiceAdmin(scope): ServiceAdmin,
    State(lab): State<Lab>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Exception> {
    let find = move |state: &mut LabState| {
        let registrations = state.runners.values().map(|runner| &runner.registration);
        let asked = |it: &&Registration| {
            it.scope.same(&scope) && query.agent_name.as_ref().is_none_or(|name| *name == it.name)
        };
        registrations.filter(asked).map(show).collect::<Vec<_>>()
    };
    Ok(list_of(&lab.inner.hub.ask(find).await?))
}

/// `GET .../pools/{pool}/agents/{id}`
pub(super) async fn get(
    ServiceAdmin(scope): ServiceAdmin,
    State(lab): State<Lab>,
    Path((_, id)): Path<(String, String)>,
) -> Result<Json<Value>, Exception> {
    let number: u64 = id.parse().map_err(|_| not_found(&id))?;
    let find =
        move |state: &mut LabState| state.runner(&scope, number).map(|runner| show(&runner.registration));
    Ok(Json(lab.inner.hub.ask(find).await?.map_err(|_| not_found(&id))?))
}

/// `DELETE .../pools/{pool}/agents/{id}`
pub(super) async fn remove(
    ServiceAdmin(scope): ServiceAdmin,
    State(lab): State<Lab>,
    Path((_, id)): Path<(String, String)>,
) -> Result<StatusCode, Exception> {
    let number: u64 = id.parse().map_err(|_| not_found(&id))?;
    let remove =
        move |state: &mut LabState| state.delete_runner_by(Call::SERVICE_DELETE_RUNNER, &scope, number);
    let removed = lab.inner.hub.ask(remove).await?;
    removed.map_err(|refusal| match refusal.status {
        404 => not_found(&id),
        _ => Refusal::named(400, "TaskAgentJobStillRunningException", refusal.message),
    })?;
    Ok(StatusCode::NO_CONTENT)
}
