//! `/lab/v1`: calls that only a lab answers.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Admin;
use super::reply::Rest;
use crate::Lab;
use crate::refusal::Refusal;
use crate::server::LocalAddress;
use crate::state::{LabState, step_summaries};
use dayfly_forge::proof;

#[derive(Deserialize)]
pub(super) struct Challenge {
    #[serde(default)]
    nonce: String,
}

/// `GET /lab/v1/proof?nonce=`: proves to a caller who can read the lab's files that this is a lab. The call needs no
/// authentication, because the caller must not send a secret to a host that has not proven itself. So it costs no turn of the
/// thread that owns the state, and any number of such calls leaves the queue to the others.
///
/// It tells the path of the token's file, because the caller can know it from nowhere else. A machine that asks learns the name
/// of a folder of the host, and nothing that opens it: the file is for its owner alone.
pub(super) async fn prove(
    State(lab): State<Lab>,
    Extension(LocalAddress(local)): Extension<LocalAddress>,
    Query(challenge): Query<Challenge>,
) -> Result<Json<proof::ProofAnswer>, Rest> {
    let nonce = proof::Nonce::parse(&challenge.nonce)
        .ok_or_else(|| Refusal::new(400, "nonce must be 64 lower-case hexadecimal digits"))?;
    let token_file = lab.inner.token_file.clone().ok_or_else(Refusal::not_found)?;
    let runner_url = lab.inner.runner_url_at(local.port());
    let mac = proof::mac(lab.inner.token.expose_secret(), &nonce, local, &runner_url);
    Ok(Json(proof::ProofAnswer { lab: "dayfly".to_owned(), token_file, runner_url, mac }))
}

/// `DELETE /lab/v1/runners/{id}`: the host of a runner's machine reports that the machine is gone. The runner's job ends
/// at once instead of when its lock expires, and the registration is removed.
pub(super) async fn runner_lost(
    _: Admin,
    State(lab): State<Lab>,
    Path(id): Path<String>,
) -> Result<StatusCode, Rest> {
    let id: u64 = id.parse().map_err(|_| Refusal::not_found())?;
    lab.inner.hub.ask(move |state| state.lose_runner(id)).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /lab/v1/jobs/{id}/summary`: the whole summary of a job, with an element for each step that has written to
/// `GITHUB_STEP_SUMMARY`, in the order of the steps. GitHub shows summaries on the page of a run and has no call for them.
pub(super) async fn summary(
    _: Admin,
    State(lab): State<Lab>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Rest> {
    let id: u64 = id.parse().map_err(|_| Refusal::not_found())?;
    let find = move |state: &mut LabState| {
        let job = state.jobs.get(&id).ok_or_else(Refusal::not_found)?;
        Ok::<_, Refusal>((state.logs.clone(), job.record.steps.clone()))
    };
    let (files, steps) = lab.inner.hub.ask(find).await??;
    let read = tokio::task::spawn_blocking(move || step_summaries(&steps, files.read_summaries(id)));
    let summaries = read.await.map_err(|_| Refusal::new(500, "The summary cannot be read"))?;
    let shown = summaries
        .into_iter()
        .map(|summary| json!({"number": summary.number, "step": summary.step, "text": summary.text}));
    Ok(Json(shown.collect()))
}
