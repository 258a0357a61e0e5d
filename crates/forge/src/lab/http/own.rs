//! `/lab/v1`: what only a lab answers.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::auth::Admin;
use super::reply::Rest;
use crate::lab::Lab;
use crate::lab::refusal::Refusal;

/// `GET /lab/v1`: that this is a lab.
pub(super) async fn hello(_: Admin) -> Json<Value> {
    Json(json!({ "lab": "dayfly", "version": env!("CARGO_PKG_VERSION") }))
}

/// `DELETE /lab/v1/runners/{id}`: the machine of a runner is gone, says the host that had it. Its job ends now and not
/// only when the lock runs out, and its registration goes.
pub(super) async fn runner_lost(
    _: Admin,
    State(lab): State<Lab>,
    Path(id): Path<String>,
) -> Result<StatusCode, Rest> {
    let id: u64 = id.parse().map_err(|_| Refusal::not_found())?;
    lab.inner.hub.ask(move |state| state.lose_runner(id)).await??;
    Ok(StatusCode::NO_CONTENT)
}
