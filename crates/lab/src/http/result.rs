//! The results service: states of steps, and addresses for uploading logs.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::JobAtResults;
use super::reply::{RESULTS, Service, base, read};
use crate::Lab;
use crate::refusal::Refusal;
use crate::signing::{Blob, Grant};
use crate::state::{GUID_LEN_MAX, SUMMARY_BYTES_MAX, StepUpdate};

/// How long an upload address is valid.
const UPLOAD_SECONDS: i64 = 3600;

fn broken(refusal: Refusal) -> Service {
    Service(RESULTS, refusal)
}

#[derive(Deserialize)]
struct Receiver {
    #[serde(default)]
    step_backend_id: String,
}

/// The Twirp methods of `results.services.receiver.Receiver`: `Get...SignedBlobURL` and `Create...Metadata`.
pub(super) async fn receiver(
    JobAtResults(job): JobAtResults,
    State(lab): State<Lab>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Service> {
    let request: Receiver = read(&body).map_err(broken)?;
    if request.step_backend_id.len() > GUID_LEN_MAX {
        return Err(broken(Refusal::new(400, "step_backend_id is too long")));
    }
    let (blob, member) = match method.as_str() {
        "GetStepLogsSignedBlobURL" => (Blob::StepLog(request.step_backend_id), "logs_url"),
        "GetJobLogsSignedBlobURL" => (Blob::JobLog, "logs_url"),
        "GetJobDiagLogsSignedBlobURL" => (Blob::Ignored, "diag_logs_url"),
        "GetStepSummarySignedBlobURL" => {
            (Blob::StepSummary(guid(&request.step_backend_id).map_err(broken)?), "summary_url")
        }
        "CreateStepLogsMetadata" | "CreateJobLogsMetadata" | "CreateStepSummaryMetadata" => {
            return Ok(Json(json!({"ok": true})));
        }
        _ => return Err(broken(Refusal::not_found())),
    };
    let signed = lab.inner.signer.issue(Grant::Blob { job, blob }, lab.inner.clock.now_ms(), UPLOAD_SECONDS);
    // Runner apps append `&comp=...`, so the address must have a query.
    let url = format!("{}/runner/results/blob?sig={signed}", base(&headers));
    Ok(Json(
        json!({member: url, "blob_storage_type": "BLOB_STORAGE_TYPE_AZURE", "soft_size_limit": "1048576"}),
    ))
}

/// Returns a GUID in the form that names a summary's file.
fn guid(text: &str) -> Result<String, Refusal> {
    let guid = uuid::Uuid::try_parse(text);
    guid.map(|guid| guid.to_string()).map_err(|_| Refusal::new(400, "step_backend_id is no GUID"))
}

#[derive(Deserialize)]
pub(super) struct UploadQuery {
    #[serde(default)]
    sig: String,
    comp: Option<String>,
}

/// `PUT /runner/results/blob`: one piece of a log, or a whole summary.
///
/// A runner first creates an append blob and then appends to it. github-act-runner 0.13.0 mixes up "first" and "last": it
/// creates the blob before its last piece and seals it with the first. So creating a blob here empties nothing, and
/// sealing it closes nothing.
pub(super) async fn upload(
    State(lab): State<Lab>,
    Query(query): Query<UploadQuery>,
    body: Bytes,
) -> Result<StatusCode, Service> {
    let Some(Grant::Blob { job, blob }) = lab.inner.signer.check(&query.sig, lab.inner.clock.now_ms()) else {
        return Err(broken(Refusal::new(403, "This address is too old or was changed")));
    };
    if let Blob::StepSummary(_) = &blob {
        check_summary(query.comp.as_deref(), body.len()).map_err(broken)?;
    }
    let whole = query.comp.is_none() && !body.is_empty();
    if whole || query.comp.as_deref() == Some("appendblock") {
        lab.inner.hub.ask(move |state| state.upload(job, &blob, &body)).await.map_err(broken)?;
    }
    Ok(StatusCode::CREATED)
}

/// Refuses a summary that comes in pieces or is too long. actions/runner 2.336.0 uploads a summary as a block blob, and
/// none that is longer than GitHub's limit.
fn check_summary(comp: Option<&str>, length: usize) -> Result<(), Refusal> {
    if comp.is_some() {
        return Err(Refusal::new(400, "The summary of a step must be uploaded in one piece"));
    }
    if length > SUMMARY_BYTES_MAX {
        return Err(Refusal::new(
            413,
            format!("The summary of a step has {length} bytes; at most {SUMMARY_BYTES_MAX} are allowed"),
        ));
    }
    Ok(())
}

#[derive(Deserialize)]
struct StepsUpdate {
    #[serde(default)]
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    external_id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    started_at: Option<String>,
    #[serde(default)]
    completed_at: Option<String>,
    #[serde(default)]
    conclusion: u64,
}

/// `WorkflowStepsUpdate`. The number in `status` is ignored: 3 means "in progress" in actions/runner (3, 5, 6 for in
/// progress, pending, completed) and "completed" in github-act-runner 0.13.0 (1, 2, 3). The times carry the same
/// information.
pub(super) async fn steps(
    JobAtResults(job): JobAtResults,
    State(lab): State<Lab>,
    body: Bytes,
) -> Result<Json<Value>, Service> {
    let update: StepsUpdate = read(&body).map_err(broken)?;
    let said = |time: Option<String>| time.filter(|time| !time.is_empty());
    let steps = update.steps.into_iter().map(|step| {
        let completed_at = said(step.completed_at);
        let conclusion = match step.conclusion {
            2 => Some("success"),
            3 => Some("failure"),
            4 => Some("cancelled"),
            7 => Some("skipped"),
            _ => None,
        };
        StepUpdate {
            guid: step.external_id,
            name: step.name,
            started_at: said(step.started_at),
            conclusion: conclusion.filter(|_| completed_at.is_some()).map(str::to_owned),
            completed_at,
        }
    });
    let steps = steps.collect();
    lab.inner.hub.ask(move |state| state.update_steps(job, steps)).await.map_err(broken)?;
    Ok(Json(json!({"ok": true})))
}
