//! The broker: sessions and messages, and the part of the old service that github-act-runner calls first.
//!
//! With a JIT config github-act-runner 0.13.0 ignores `UseV2Flow`. It reads `connectionData`, opens a session at the old
//! service, and finds the broker's address in the answer.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::RunnerAtBroker;
use super::reply::{BROKER, Service, base};
use crate::Lab;
use crate::refusal::Refusal;
use crate::state::{self, Message, RunnerPoll, runner_not_found};

const TEXT_LEN_MAX: usize = 100;

fn broken(refusal: Refusal) -> Service {
    Service(BROKER, refusal)
}

/// `GET /runner/broker/_apis/connectionData`: the paths of the old service. The call needs no authentication.
pub(super) async fn connection_data() -> Json<Value> {
    Json(json!({
        "instanceId": "6c8ff1c5-7a1b-4e0c-9d0b-1c3d5f7a9b2e",
        "locationServiceData": {"serviceDefinitions": [
            // The fixed ids of AgentSession, Message and plan events.
            service("134e239e-2df3-4794-a6f6-24f1f19ec8dc", "sessions", "pools/{poolId}/sessions/{sessionId}"),
            service("c3a054f6-7a8a-49c0-944e-3a8e5d7adfd7", "messages", "pools/{poolId}/messages/{messageId}"),
            service("557624af-b29e-4c20-8ab0-0399d2204f3f", "events", "plans/{planId}/events"),
        ]},
    }))
}

/// Describes a service and the template of its path. Runner apps omit the placeholders at the end that they have no value
/// for.
fn service(id: &str, name: &str, path: &str) -> Value {
    json!({
        "identifier": id,
        "serviceType": "distributedtask",
        "displayName": name,
        "relativePath": format!("/_apis/distributedtask/{path}"),
        "relativeToSetting": "fullyQualified",
        "minVersion": "1.0",
        "maxVersion": "12.0",
        "resourceVersion": 1,
    })
}

/// `POST /runner/broker/_apis/distributedtask/pools/{pool}/sessions`: opens no session; the answer refers to the broker,
/// which has the sessions.
pub(super) async fn old_session(
    RunnerAtBroker(runner): RunnerAtBroker,
    State(lab): State<Lab>,
    headers: HeaderMap,
) -> Result<Json<Value>, Service> {
    let known = move |state: &mut state::LabState| {
        state.runners.contains_key(&runner).then_some(()).ok_or_else(gone_client)
    };
    lab.inner.hub.ask(known).await.map_err(broken)?.map_err(broken)?;
    let url = base(&headers);
    // The URL has no slash at its end, because github-act-runner appends "/session" to it.
    Ok(Json(json!({"brokerMigrationMessage": {"brokerBaseUrl": format!("{url}/runner/broker")}})))
}

/// Returns a 401 for a runner whose registration was deleted. The status sends it to the token endpoint, which tells it
/// that the registration is gone.
fn gone_client() -> Refusal {
    Refusal::new(401, "The runner registration was deleted")
}

#[derive(Deserialize)]
struct OpenSession {
    #[serde(default, alias = "OwnerName", rename = "ownerName")]
    owner_name: String,
    #[serde(default, alias = "Agent", rename = "agent")]
    agent: AgentInSession,
}

#[derive(Default, Deserialize)]
struct AgentInSession {
    #[serde(default, alias = "Version", rename = "version")]
    version: Option<String>,
}

/// `POST /runner/broker/session`
pub(super) async fn open_session(
    RunnerAtBroker(runner): RunnerAtBroker,
    State(lab): State<Lab>,
    body: Bytes,
) -> Result<Json<Value>, Service> {
    let open: OpenSession = super::reply::read(&body).map_err(broken)?;
    let version = open.agent.version.map(|version| version.chars().take(TEXT_LEN_MAX).collect());
    let opened = lab.inner.hub.ask(move |state| state.open_session(runner, version)).await.map_err(broken)?;
    let (session, registration) = opened
        .map_err(|refusal| broken(if refusal.kind == "RunnerNotFound" { gone_client() } else { refusal }))?;
    let owner: String = open.owner_name.chars().take(TEXT_LEN_MAX).collect();
    Ok(Json(json!({
        "sessionId": session,
        "ownerName": owner,
        "agent": {
            "id": registration.id, "name": registration.name, "version": registration.version,
            "osDescription": registration.os, "ephemeral": registration.ephemeral, "disableUpdate": true, "status": "online",
        },
        // Messages are not encrypted.
        "encryptionKey": {"encrypted": false, "value": ""},
        "useFipsEncryption": false,
    })))
}

/// `DELETE /runner/broker/session`. It also succeeds if the registration was removed together with its job.
pub(super) async fn close_session(
    RunnerAtBroker(runner): RunnerAtBroker,
    State(lab): State<Lab>,
) -> Result<StatusCode, Service> {
    lab.inner.hub.ask(move |state| state.close_session(runner)).await.map_err(broken)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PollQuery {
    #[serde(default)]
    session_id: String,
    #[serde(default)]
    status: String,
    runner_version: Option<String>,
    os: Option<String>,
}

/// `GET /runner/broker/message`: held until a message comes or the time is over. The old service's path leads here too:
/// after its first job, a persistent runner of github-act-runner 0.13.0 goes back to the old service with its broker's
/// session.
pub(super) async fn message(
    RunnerAtBroker(runner): RunnerAtBroker,
    State(lab): State<Lab>,
    Query(query): Query<PollQuery>,
    headers: HeaderMap,
) -> Result<Response, Service> {
    let poll = RunnerPoll {
        session: query.session_id,
        busy: query.status.eq_ignore_ascii_case("busy"),
        version: query.runner_version,
        os: query.os,
    };
    let opened = lab.inner.hub.ask(move |state| state.poll(runner, poll)).await.map_err(broken)?;
    let answer = opened.map_err(broken)?;
    match tokio::time::timeout(lab.inner.limits.long_poll, answer).await {
        Ok(Ok(message)) => Ok(Json(show(&message, &base(&headers))).into_response()),
        // A newer poll of the same runner replaced this one, or the runner is gone.
        Ok(Err(_)) => {
            let may_poll = lab.inner.hub.ask(move |state| state.may_poll(runner)).await.map_err(broken)?;
            if may_poll { Ok(nothing()) } else { Err(broken(runner_not_found())) }
        }
        Err(_) => Ok(nothing()),
    }
}

/// Returns the answer for "no message", which is 204. github-act-runner 0.13.0 accepts 204 or an empty body as "no
/// message", and so does actions/runner.
fn nothing() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

fn show(message: &Message, url: &str) -> Value {
    let (id, kind, body) = match message {
        Message::Job { message_id, request_id } => {
            let body = json!({
                "id": message_id.to_string(),
                "runner_request_id": request_id,
                "should_acknowledge": false,
                "run_service_url": format!("{url}/runner/run/"),
                "billing_owner_id": "",
            });
            (message_id, "RunnerJobRequest", body)
        }
        Message::Cancel { message_id, job_guid, grace_seconds } => {
            let (hours, minutes, seconds) =
                (grace_seconds / 3600, grace_seconds / 60 % 60, grace_seconds % 60);
            let timeout = format!("{hours:02}:{minutes:02}:{seconds:02}");
            (message_id, "JobCancellation", json!({"jobId": job_guid, "timeout": timeout}))
        }
    };
    json!({"messageId": id, "messageType": kind, "body": body.to_string(), "iv": null})
}

/// `DELETE /runner/broker/_apis/distributedtask/pools/{pool}/messages/{id}`: the runner has received the message. The lab
/// does not store messages once they are delivered.
pub(super) async fn old_acknowledge(_: RunnerAtBroker) -> StatusCode {
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
struct JobEvent {
    #[serde(rename = "JobID", alias = "jobId")]
    job_id: String,
}

/// `POST /runner/broker/_apis/distributedtask/plans/{plan}/events`: a job has failed. github-act-runner 0.13.0 sends this
/// call when it finds at its start that it was killed in the middle of a job.
pub(super) async fn old_complete(
    RunnerAtBroker(runner): RunnerAtBroker,
    State(lab): State<Lab>,
    body: Bytes,
) -> Result<StatusCode, Service> {
    let event: JobEvent = super::reply::read(&body).map_err(broken)?;
    let fail = move |state: &mut state::LabState| state.fail_job_of(runner, &event.job_id);
    lab.inner.hub.ask(fail).await.map_err(broken)?;
    Ok(StatusCode::OK)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Acknowledge {
    runner_request_id: String,
}

/// `POST /runner/broker/acknowledge`: the runner has received the message. Only `acquirejob` decides that the runner gets
/// the job.
pub(super) async fn acknowledge(
    RunnerAtBroker(runner): RunnerAtBroker,
    State(lab): State<Lab>,
    body: Bytes,
) -> Result<StatusCode, Service> {
    let acknowledge: Acknowledge = super::reply::read(&body).map_err(broken)?;
    let known = move |state: &mut state::LabState| {
        let runners_job =
            state.runners.get(&runner).and_then(|runner| runner.job).and_then(|job| state.jobs.get(&job));
        runners_job
            .is_some_and(|job| job.record.request_guid.eq_ignore_ascii_case(&acknowledge.runner_request_id))
    };
    if lab.inner.hub.ask(known).await.map_err(broken)? {
        Ok(StatusCode::OK)
    } else {
        Err(broken(Refusal::named(404, "AcknowledgeJobNotFound", "The job is no longer this runner's")))
    }
}
