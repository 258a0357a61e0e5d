//! The run service, at which a runner acquires its job, renews it and completes it.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::{JobAtRunService, RunnerAtRunService};
use super::reply::{RUN_SERVICE, Service, base, read};
use crate::Lab;
use crate::refusal::Refusal;
use crate::state::{Annotation, Completion, StepUpdate, timestamp};
use crate::workflow::Conclusion;
use crate::workflow::message::adapt_to_github_act_runner;

const OUTPUTS_MAX: usize = 1000;
/// GitHub's limit for the outputs of one job is 1 MB.
const OUTPUT_BYTES_MAX: usize = 1024 * 1024;

fn broken(refusal: Refusal) -> Service {
    Service(RUN_SERVICE, refusal)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Acquire {
    job_message_id: String,
    /// Only github-act-runner sends this member (observed with 0.13.0); the official runner has no such member.
    stream_id: Option<serde::de::IgnoredAny>,
}

/// `POST /runner/run/acquirejob`: returns the job's message, only once. 404 if the job is not this runner's, 409 if it
/// was already acquired.
pub(super) async fn acquire(
    RunnerAtRunService(runner): RunnerAtRunService,
    State(lab): State<Lab>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Service> {
    let acquire: Acquire = read(&body).map_err(broken)?;
    let is_act_runner = acquire.stream_id.is_some();
    let url = base(&headers);
    let asked = lab
        .inner
        .hub
        .ask(move |state| state.acquire(runner, &acquire.job_message_id, &url, is_act_runner))
        .await;
    let mut message = asked.map_err(broken)?.map_err(broken)?;
    if is_act_runner {
        adapt_to_github_act_runner(&mut message);
    }
    Ok(Json(message))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Renew {
    job_id: String,
}

/// `POST /runner/run/renewjob`: 404 if the job no longer belongs to the runner.
pub(super) async fn renew(
    JobAtRunService(job): JobAtRunService,
    State(lab): State<Lab>,
    body: Bytes,
) -> Result<Json<Value>, Service> {
    let renew: Renew = read(&body).map_err(broken)?;
    let until_ms = lab.inner.hub.ask(move |state| state.renew(job, &renew.job_id)).await.map_err(broken)?;
    Ok(Json(json!({"lockedUntil": timestamp(until_ms.map_err(broken)?).to_string()})))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Complete {
    job_id: String,
    conclusion: String,
    #[serde(default)]
    outputs: Option<IndexMap<String, Output>>,
    #[serde(default)]
    step_results: Option<Vec<StepResult>>,
    /// Annotations of the job itself, for example the reason why its worker crashed.
    #[serde(default)]
    annotations: Option<Vec<Annotation>>,
}

/// github-act-runner 0.13.0 writes `Value` and `IsSecret`, actions/runner writes lower-case names.
#[derive(Deserialize)]
struct Output {
    #[serde(default, alias = "Value")]
    value: Option<String>,
    #[serde(default, alias = "IsSecret", rename = "isSecret")]
    secret: bool,
}

#[derive(Deserialize)]
struct StepResult {
    #[serde(default)]
    external_id: String,
    #[serde(default)]
    name: String,
    conclusion: Option<String>,
    started_at: Option<String>,
    completed_at: Option<String>,
    #[serde(default)]
    annotations: Option<Vec<Annotation>>,
}

/// `POST /runner/run/completejob`. A repeated call for a job that is over is accepted and does nothing, because the
/// answer to the first call may have been lost.
pub(super) async fn complete(
    JobAtRunService(job): JobAtRunService,
    State(lab): State<Lab>,
    body: Bytes,
) -> Result<StatusCode, Service> {
    let complete: Complete = read(&body).map_err(broken)?;
    let Some(conclusion) = Conclusion::from_runner(&complete.conclusion) else {
        return Err(broken(Refusal::new(422, format!("\"{}\" is no conclusion", complete.conclusion))));
    };
    let outputs = outputs(complete.outputs.unwrap_or_default()).map_err(broken)?;
    let mut results = complete.step_results.unwrap_or_default();
    let of_steps = results.iter_mut().flat_map(|result| result.annotations.take().unwrap_or_default());
    let annotations = complete.annotations.unwrap_or_default().into_iter().chain(of_steps).collect();
    let steps = results.into_iter().filter_map(step).collect();
    let completion = Completion { conclusion, outputs, steps, annotations };
    let done = move |state: &mut crate::state::LabState| state.complete(job, &complete.job_id, completion);
    lab.inner.hub.ask(done).await.map_err(broken)?.map_err(broken)?;
    Ok(StatusCode::OK)
}

/// Returns the outputs without the secret ones, as GitHub does.
fn outputs(outputs: IndexMap<String, Output>) -> Result<IndexMap<String, String>, Refusal> {
    let bytes: usize =
        outputs.iter().map(|(key, it)| key.len() + it.value.as_ref().map_or(0, String::len)).sum();
    if outputs.len() > OUTPUTS_MAX || bytes > OUTPUT_BYTES_MAX {
        return Err(Refusal::new(
            422,
            format!("a job may have at most {OUTPUTS_MAX} outputs with {OUTPUT_BYTES_MAX} bytes in total"),
        ));
    }
    let open = outputs.into_iter().filter(|(_, output)| !output.secret);
    Ok(open.map(|(key, output)| (key, output.value.unwrap_or_default())).collect())
}

fn step(result: StepResult) -> Option<StepUpdate> {
    let conclusion = Conclusion::from_runner(result.conclusion.as_deref()?)?;
    (!result.external_id.is_empty()).then(|| StepUpdate {
        guid: result.external_id,
        name: result.name,
        started_at: result.started_at.filter(|time| !time.is_empty()),
        completed_at: result.completed_at.filter(|time| !time.is_empty()),
        conclusion: Some(conclusion.as_str().to_owned()),
    })
}
