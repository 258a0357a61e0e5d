//! Calls for workflow runs: dispatch, lists, jobs, logs, cancellation.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Admin;
use super::page::PageQuery;
use super::reply::{Rest, base, read, time};
use super::repository::{node_id, repository, user};
use crate::Lab;
use crate::refusal::Refusal;
use crate::signing::Grant;
use crate::state::{self, Dispatch, Job, RepositoryName, RunEntry};

/// How long the address of a log is valid, as at GitHub.
const LOG_ADDRESS_SECONDS: i64 = 60;

/// `GET /api/v3/`: shows that this is the API, and checks the token.
pub(super) async fn root(_: Admin, headers: HeaderMap) -> Json<Value> {
    let base = base(&headers);
    Json(
        json!({"current_user_url": format!("{base}/api/v3/user"), "repository_url": format!("{base}/api/v3/repos/{{owner}}/{{repo}}")}),
    )
}

#[derive(Deserialize)]
struct DispatchBody {
    #[serde(default, rename = "ref")]
    git_ref: String,
    #[serde(default)]
    inputs: Option<IndexMap<String, Value>>,
    #[serde(default)]
    return_run_details: bool,
    /// A member of the lab only: use the workflow's first event if the workflow does not list `workflow_dispatch`.
    #[serde(default)]
    any_event: bool,
}

/// `POST .../actions/workflows/{file}/dispatches`. Answers 204, or 200 with the run's id if the caller sets
/// `return_run_details` or uses API version 2026-03-10, as GitHub does.
pub(super) async fn dispatch(
    _: Admin,
    State(lab): State<Lab>,
    Path((owner, repo, file)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Rest> {
    let name = RepositoryName::new(&owner, &repo)?;
    let body: DispatchBody = read(&body)?;
    let mut inputs = IndexMap::new();
    for (key, value) in body.inputs.unwrap_or_default() {
        let text = match value {
            Value::String(text) => text,
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            _ => return Err(Rest(Refusal::invalid([format!("the input \"{key}\" must be a string")]))),
        };
        inputs.insert(key, text);
    }
    let dispatch = Dispatch { git_ref: body.git_ref, inputs, any_event: body.any_event };
    let id = lab.inner.hub.ask(move |state| state.dispatch(&name, &file, dispatch)).await??;
    let version =
        headers.get("x-github-api-version").and_then(|version| version.to_str().ok()).unwrap_or_default();
    if !body.return_run_details && version < "2026-03-10" {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let base = base(&headers);
    let details = json!({
        "workflow_run_id": id,
        "run_url": format!("{base}/api/v3/repos/{owner}/{repo}/actions/runs/{id}"),
        "html_url": format!("{base}/{owner}/{repo}/actions/runs/{id}"),
    });
    Ok(Json(details).into_response())
}

fn show_run(entry: &RunEntry, state: &state::LabState, base: &str) -> Value {
    let record = &entry.record;
    let (name, id) = (record.repository.full_name(), record.id);
    let url = format!("{base}/api/v3/repos/{name}/actions/runs/{id}");
    let jobs = || entry.jobs.iter().filter_map(|id| state.jobs.get(id));
    let started = jobs().filter_map(|job| job.record.started_ms).min();
    let last = jobs().filter_map(|job| job.record.completed_ms.or(job.record.started_ms)).max();
    let conclusion = entry.run.conclusion();
    let status = match (conclusion, started) {
        (Some(_), _) => "completed",
        (None, Some(_)) => "in_progress",
        (None, None) => "queued",
    };
    let RepositoryName { owner, name: short, .. } = &record.repository;
    let repository = repository(record.repository_id, owner, short, base);
    let branch = record.git_ref.strip_prefix("refs/heads/").unwrap_or(&record.git_ref);
    json!({
        "id": id,
        "node_id": node_id("WorkflowRun", id),
        "name": entry.run.workflow().display_name(),
        "display_title": entry.run.display_title(),
        "path": format!(".github/workflows/{}", record.file),
        "workflow_id": record.workflow_id,
        "run_number": record.number,
        "run_attempt": 1,
        "event": record.event,
        "status": status,
        "conclusion": conclusion.map(|conclusion| conclusion.as_str()),
        "head_branch": branch,
        "head_sha": record.sha,
        "url": url,
        "html_url": format!("{base}/{name}/actions/runs/{id}"),
        "jobs_url": format!("{url}/jobs"),
        "logs_url": format!("{url}/logs"),
        "cancel_url": format!("{url}/cancel"),
        "rerun_url": format!("{url}/rerun"),
        "artifacts_url": format!("{url}/artifacts"),
        "check_suite_url": format!("{base}/api/v3/repos/{name}/check-suites/{id}"),
        "workflow_url": format!("{base}/api/v3/repos/{name}/actions/workflows/{}", record.workflow_id),
        "pull_requests": [],
        "head_commit": null,
        "actor": user("dayfly", base),
        "created_at": time(record.created_ms),
        "run_started_at": time(record.created_ms),
        "updated_at": time(last.unwrap_or(record.created_ms)),
        "repository": repository,
        "head_repository": repository,
    })
}

#[derive(Deserialize)]
pub(super) struct ListQuery {
    status: Option<String>,
    #[serde(flatten)]
    page: PageQuery,
}

/// `GET .../actions/runs?status=`, newest first.
pub(super) async fn list(
    _: Admin,
    State(lab): State<Lab>,
    Path((owner, repo)): Path<(String, String)>,
    Query(query): Query<ListQuery>,
    headers: HeaderMap,
) -> Result<(HeaderMap, Json<Value>), Rest> {
    let name = RepositoryName::new(&owner, &repo)?;
    let (page, base) = (query.page.page(), base(&headers));
    let (skip, size, status, shown_base) = (page.skip(), page.size(), query.status.clone(), base.clone());
    let collect = move |state: &mut state::LabState| {
        let of_repository =
            state.runs.values().rev().filter(|entry| entry.record.repository.key() == name.key());
        let shown = of_repository.map(|entry| show_run(entry, state, &shown_base));
        let asked = |run: &Value| {
            status.as_ref().is_none_or(|status| run["status"] == **status || run["conclusion"] == **status)
        };
        let found: Vec<Value> = shown.filter(asked).collect();
        (found.len(), found.into_iter().skip(skip).take(size).collect::<Vec<_>>())
    };
    let (total, runs) = lab.inner.hub.ask(collect).await?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let filter = query.status.filter(|status| status.chars().all(plain));
    let filter = filter.map(|status| format!("?status={status}")).unwrap_or_default();
    let links = page.links(&format!("{base}/api/v3/repos/{owner}/{repo}/actions/runs{filter}"), total);
    Ok((links, Json(json!({"total_count": total, "workflow_runs": runs}))))
}

type RunPath = Path<(String, String, String)>;

fn parse((owner, repo, id): (String, String, String)) -> Result<(RepositoryName, u64), Refusal> {
    let id = id.parse().map_err(|_| Refusal::not_found())?;
    Ok((RepositoryName::new(&owner, &repo)?, id))
}

/// `GET .../actions/runs/{id}`
pub(super) async fn get(
    _: Admin,
    State(lab): State<Lab>,
    Path(path): RunPath,
    headers: HeaderMap,
) -> Result<Json<Value>, Rest> {
    let ((name, id), base) = (parse(path)?, base(&headers));
    let find =
        move |state: &mut state::LabState| state.run(&name, id).map(|entry| show_run(entry, state, &base));
    Ok(Json(lab.inner.hub.ask(find).await??))
}

#[derive(Deserialize)]
pub(super) struct JobsQuery {
    filter: Option<String>,
    #[serde(flatten)]
    page: PageQuery,
}

/// `GET .../actions/runs/{id}/jobs?filter=latest|all`. A run in the lab has only one attempt, so both filters return the
/// same.
pub(super) async fn jobs(
    _: Admin,
    State(lab): State<Lab>,
    Path(path): RunPath,
    Query(query): Query<JobsQuery>,
    headers: HeaderMap,
) -> Result<(HeaderMap, Json<Value>), Rest> {
    if !matches!(query.filter.as_deref(), None | Some("latest" | "all")) {
        return Err(Rest(Refusal::invalid(["filter must be latest or all"])));
    }
    let url = format!("{}/api/v3/repos/{}/{}/actions/runs/{}/jobs", base(&headers), path.0, path.1, path.2);
    let ((name, id), base, page) = (parse(path)?, base(&headers), query.page.page());
    let (skip, size) = (page.skip(), page.size());
    let collect = move |state: &mut state::LabState| {
        let entry = state.run(&name, id)?;
        let found: Vec<&Job> = entry.jobs.iter().filter_map(|id| state.jobs.get(id)).collect();
        let shown = found.iter().skip(skip).take(size).filter_map(|job| state.show_job(job, &base));
        Ok::<_, Refusal>((found.len(), shown.collect::<Vec<_>>()))
    };
    let (total, jobs) = lab.inner.hub.ask(collect).await??;
    Ok((page.links(&url, total), Json(json!({"total_count": total, "jobs": jobs}))))
}

fn find_job<'a>(state: &'a state::LabState, name: &RepositoryName, id: u64) -> Result<&'a Job, Refusal> {
    let job = state.jobs.get(&id).ok_or_else(Refusal::not_found)?;
    state.run(name, job.record.run)?;
    Ok(job)
}

/// `GET .../actions/jobs/{id}`
pub(super) async fn job(
    _: Admin,
    State(lab): State<Lab>,
    Path(path): RunPath,
    headers: HeaderMap,
) -> Result<Json<Value>, Rest> {
    let ((name, id), base) = (parse(path)?, base(&headers));
    let find = move |state: &mut state::LabState| {
        let job = find_job(state, &name, id)?;
        state.show_job(job, &base).ok_or_else(Refusal::not_found)
    };
    Ok(Json(lab.inner.hub.ask(find).await??))
}

/// `GET .../check-runs/{id}/annotations`: the annotations that the runner app reported for the job. The check run of a
/// job has the job's id.
pub(super) async fn annotations(
    _: Admin,
    State(lab): State<Lab>,
    Path(path): RunPath,
    Query(page): Query<PageQuery>,
    headers: HeaderMap,
) -> Result<(HeaderMap, Json<Vec<Value>>), Rest> {
    let (name, id) = parse(path)?;
    let url = format!("{}/api/v3/repos/{}/check-runs/{id}/annotations", base(&headers), name.full_name());
    let find = move |state: &mut state::LabState| -> Result<Vec<Value>, Refusal> {
        Ok(find_job(state, &name, id)?.record.annotations.iter().map(show_annotation).collect())
    };
    let all = lab.inner.hub.ask(find).await??;
    let (page, total) = (page.page(), all.len());
    let shown = all.into_iter().skip(page.skip()).take(page.size()).collect();
    Ok((page.links(&url, total), Json(shown)))
}

fn show_annotation(annotation: &state::Annotation) -> Value {
    // GitHub's path for an annotation that is about no file.
    let path = annotation.path.as_deref().unwrap_or(".github");
    let line = annotation.start_line.unwrap_or(1);
    json!({
        "path": path,
        "start_line": line,
        "end_line": annotation.end_line.unwrap_or(line),
        "start_column": annotation.start_column,
        "end_column": annotation.end_column,
        "annotation_level": annotation.level,
        "title": annotation.title,
        "message": annotation.message,
        "raw_details": null,
        "blob_href": "",
    })
}

/// `GET .../actions/jobs/{id}/logs`: 302 to an address that needs no token and is valid for a minute. The lab also
/// returns the lines so far while the job runs, when GitHub answers 404.
pub(super) async fn log(_: Admin, State(lab): State<Lab>, Path(path): RunPath) -> Result<Response, Rest> {
    let (name, id) = parse(path)?;
    let sign = move |state: &mut state::LabState| {
        find_job(state, &name, id)?;
        Ok::<_, Refusal>(state.signer.issue(Grant::Log { job: id }, state.now_ms(), LOG_ADDRESS_SECONDS))
    };
    let token = lab.inner.hub.ask(sign).await??;
    Ok((StatusCode::FOUND, [(header::LOCATION, format!("/lab/v1/logs/{token}"))]).into_response())
}

/// `GET /lab/v1/logs/{token}`: the address to which [`log`] redirects.
pub(super) async fn signed_log(State(lab): State<Lab>, Path(token): Path<String>) -> Result<Response, Rest> {
    let Some(Grant::Log { job }) = lab.inner.signer.check(&token, lab.inner.clock.now_ms()) else {
        return Err(Rest(Refusal::new(403, "This address is too old or was changed")));
    };
    let files = lab.inner.hub.ask(|state| state.logs.clone()).await?;
    let text = tokio::task::spawn_blocking(move || files.read(job)).await;
    let text =
        text.map_err(|_| Refusal::new(500, "The log cannot be read"))?.ok_or_else(Refusal::not_found)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

/// `POST .../actions/runs/{id}/cancel`
pub(super) async fn cancel(
    _: Admin,
    State(lab): State<Lab>,
    Path(path): RunPath,
) -> Result<(StatusCode, Json<Value>), Rest> {
    let (name, id) = parse(path)?;
    lab.inner.hub.ask(move |state| state.cancel_run(&name, id)).await??;
    Ok((StatusCode::ACCEPTED, Json(json!({}))))
}

/// `POST .../actions/runs/{id}/force-cancel`
pub(super) async fn force_cancel(
    _: Admin,
    State(lab): State<Lab>,
    Path(path): RunPath,
) -> Result<(StatusCode, Json<Value>), Rest> {
    let (name, id) = parse(path)?;
    lab.inner.hub.ask(move |state| state.force_cancel_run(&name, id)).await??;
    Ok((StatusCode::ACCEPTED, Json(json!({}))))
}
