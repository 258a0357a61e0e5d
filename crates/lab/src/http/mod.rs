//! The lab's HTTP interface.
//!
//! `/api/v3` is GitHub's REST API in the form of GHES, `/runner` is protocol V2 for runner apps and the service
//! for scale sets, `/settings/apps/new` takes the manifests of GitHub Apps, `/lab/v1` is the lab's own interface. Handlers authenticate the caller, parse the request, call the state, and convert the result into an
//! answer. The state makes all decisions.

mod app;
mod auth;
mod broker;
mod content;
mod event;
mod fault;
mod feed;
mod group;
mod hook;
mod oauth;
mod own;
mod page;
mod permission;
mod place;
mod registration;
mod reply;
mod repository;
mod result;
mod run;
mod run_service;
mod runner;
mod scale_set;
mod scope;
mod value;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post, put};

use super::Lab;
use super::fault::play;
use super::refusal::Refusal;
use reply::Rest;
pub(super) use reply::refused;

/// Returns the router with all addresses of the lab.
pub(super) fn router(lab: Lab) -> Router {
    let body_bytes_max = lab.inner.limits.body_bytes_max;
    Router::new()
        .route("/api/v3/", get(run::root))
        .nest("/api/v3", rest())
        .nest("/runner", runner_side())
        .route("/settings/apps/new", post(app::take_manifest))
        .route("/organizations/{org}/settings/apps/new", post(app::take_manifest))
        .route("/lab/v1/proof", get(own::prove))
        .route("/lab/v1/runners/{id}", delete(own::runner_lost))
        .route("/lab/v1/jobs/{id}/summary", get(own::summary))
        .route("/lab/v1/events", get(event::stream))
        .route("/lab/v1/faults", get(fault::list).post(fault::add).delete(fault::clear))
        .route("/lab/v1/logs/{token}", get(run::signed_log))
        .fallback(|| async { Rest(Refusal::not_found()) })
        .method_not_allowed_fallback(|| async { Rest(Refusal::not_found()) })
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .layer(from_fn_with_state(lab.clone(), play))
        .layer(from_fn(mark))
        .with_state(lab)
}

fn rest() -> Router<Lab> {
    Router::new()
        .route("/", get(run::root))
        .route("/repos/{owner}/{repo}/contents/{*path}", put(content::put).get(content::get))
        .route("/repos/{owner}/{repo}/actions/workflows/{file}/dispatches", post(run::dispatch))
        .route("/repos/{owner}/{repo}/actions/runs", get(run::list))
        .route("/repos/{owner}/{repo}/actions/runs/{id}", get(run::get))
        .route("/repos/{owner}/{repo}/actions/runs/{id}/jobs", get(run::jobs))
        .route("/repos/{owner}/{repo}/actions/runs/{id}/cancel", post(run::cancel))
        .route("/repos/{owner}/{repo}/actions/runs/{id}/force-cancel", post(run::force_cancel))
        .route("/repos/{owner}/{repo}/actions/jobs/{id}", get(run::job))
        .route("/repos/{owner}/{repo}/actions/jobs/{id}/logs", get(run::log))
        .route("/repos/{owner}/{repo}/check-runs/{id}/annotations", get(run::annotations))
        .route("/repos/{owner}/{repo}/actions/variables/{name}", put(value::put_variable))
        .route("/repos/{owner}/{repo}/actions/secrets/{name}", put(value::put_secret))
        .route("/repos/{owner}/{repo}", get(place::get).patch(place::patch))
        .route("/repos/{owner}/{repo}/installation", get(app::installation))
        .route("/orgs/{org}", get(place::get))
        .route("/orgs/{org}/installation", get(app::installation))
        .route("/app", get(app::get))
        .route("/app/installations/{id}/access_tokens", post(app::access_token))
        .route("/app-manifests/{code}/conversions", post(app::convert))
        .route("/actions/runner-registration", post(registration::begin))
        .route("/actions/runners/register", post(registration::register))
        .nest("/repos/{owner}/{repo}", of_scope().merge(hook::routes()))
        .nest("/orgs/{org}", of_scope().merge(hook::routes()))
        .nest("/enterprises/{enterprise}", of_scope())
}

/// Returns the routes that repositories, organisations and enterprises have in common.
fn of_scope() -> Router<Lab> {
    Router::new()
        .route("/actions/runners", get(runner::list))
        .route("/actions/runners/generate-jitconfig", post(runner::jit))
        .route("/actions/runners/registration-token", post(registration::registration_token))
        .route("/actions/runners/remove-token", post(registration::remove_token))
        .route("/actions/runners/{id}", get(runner::get).delete(runner::delete))
        .route("/actions/runner-groups", get(group::list).post(group::make))
        .route("/actions/permissions", get(place::actions))
}

/// Returns the routes for runner apps. The results service is at `/runner/results/twirp/...`; github-act-runner 0.13.0
/// joins paths in a way that drops doubled slashes.
fn runner_side() -> Router<Lab> {
    Router::new()
        .route("/oauth/token", post(oauth::token))
        .route("/broker/_apis/connectionData", get(broker::connection_data))
        .route("/broker/_apis/distributedtask/pools/{pool}/sessions", post(broker::old_session))
        .route("/broker/_apis/distributedtask/pools/{pool}/sessions/{id}", delete(broker::close_session))
        .route("/broker/_apis/distributedtask/pools/{pool}/messages", get(broker::message))
        .route("/broker/_apis/distributedtask/pools/{pool}/messages/{id}", delete(broker::old_acknowledge))
        .route("/broker/_apis/distributedtask/plans/{plan}/events", post(broker::old_complete))
        .nest("/broker/_apis", scale_set::routes())
        .route("/broker/session", post(broker::open_session).delete(broker::close_session))
        .route("/broker/message", get(broker::message))
        .route("/broker/acknowledge", post(broker::acknowledge))
        .route("/run/acquirejob", post(run_service::acquire))
        .route("/run/renewjob", post(run_service::renew))
        .route("/run/completejob", post(run_service::complete))
        .route("/results/twirp/results.services.receiver.Receiver/{method}", post(result::receiver))
        .route(
            "/results/twirp/github.actions.results.api.v1.WorkflowStepUpdateService/WorkflowStepsUpdate",
            post(result::steps),
        )
        .route("/results/blob", put(result::upload))
        .route("/feed", get(feed::feed))
}

/// The whole path of a request. The routers below see only their part of it.
#[derive(Debug, Clone)]
struct CalledPath(String);

/// Notes the path of each request, and adds GitHub's headers to its answer.
async fn mark(mut request: Request, next: Next) -> Response {
    let path = CalledPath(request.uri().path().to_owned());
    request.extensions_mut().insert(path);
    let mut response = next.run(request).await;
    // axum's own limits answer in plain text.
    let is_plain = response.headers().get(CONTENT_TYPE).is_none_or(|kind| kind != "application/json");
    if response.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE && is_plain {
        response = Rest(Refusal::new(413, "The request's body is larger than the lab takes")).into_response();
    }
    let id = dayfly_host::digest::hexadecimal(&rand::random::<[u8; 8]>()).to_uppercase();
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-github-request-id", id);
    }
    response.headers_mut().insert("x-github-enterprise-version", HeaderValue::from_static("3.19.0"));
    response
}
