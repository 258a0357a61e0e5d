//! `/lab/v1/faults`: the fault desk, for the admin alone.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Admin;
use super::reply::{Rest, read};
use crate::Lab;
use crate::fault::{Fault, FaultReport, FaultRule, FaultSpec};
use crate::refusal::Refusal;
use crate::state::LabState;

/// `GET /lab/v1/faults`: the seed and the rules.
pub(super) async fn list(_: Admin, State(lab): State<Lab>) -> Result<Json<FaultReport>, Rest> {
    Ok(Json(lab.inner.hub.ask(|state: &mut LabState| state.fault_report()).await?))
}

/// `POST /lab/v1/faults`: adds a rule.
pub(super) async fn add(
    _: Admin,
    State(lab): State<Lab>,
    body: Bytes,
) -> Result<(StatusCode, Json<FaultRule>), Rest> {
    let spec: FaultSpec = read(&body)?;
    let added = lab.inner.hub.ask(move |state: &mut LabState| state.add_fault(spec)).await??;
    Ok((StatusCode::CREATED, Json(added)))
}

#[derive(Deserialize)]
pub(super) struct Named {
    fault: Option<String>,
}

/// `DELETE /lab/v1/faults?fault=`: removes the rules of a fault, or all rules.
pub(super) async fn clear(
    _: Admin,
    State(lab): State<Lab>,
    Query(Named { fault }): Query<Named>,
) -> Result<Json<Value>, Rest> {
    let fault = fault.as_deref().map(Fault::parse).transpose();
    let fault = fault.map_err(|error| Refusal::invalid([error.to_string()]))?;
    let cleared = lab.inner.hub.ask(move |state: &mut LabState| state.clear_faults(fault)).await?;
    Ok(Json(json!({"cleared": cleared})))
}
