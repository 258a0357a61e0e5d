//! Variables and secrets of repositories.
//!
//! GitHub accepts secrets only if they are sealed with a public key, and variables by POST or PATCH. The lab accepts both
//! by `PUT ... {"value": "..."}`. Its secrets are protected in transit because callers reach the lab on the host itself.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::auth::Admin;
use super::reply::{Rest, read};
use crate::Lab;
use crate::state::RepositoryName;

#[derive(Deserialize)]
struct Put {
    value: String,
}

fn status(new: bool) -> StatusCode {
    if new { StatusCode::CREATED } else { StatusCode::NO_CONTENT }
}

/// Sets a variable.
pub(super) async fn put_variable(
    _: Admin,
    State(lab): State<Lab>,
    Path((owner, repo, key)): Path<(String, String, String)>,
    body: Bytes,
) -> Result<StatusCode, Rest> {
    let name = RepositoryName::new(&owner, &repo)?;
    let put: Put = read(&body)?;
    Ok(status(lab.inner.hub.ask(move |state| state.put_variable(&name, &key, put.value)).await??))
}

/// Sets a secret.
pub(super) async fn put_secret(
    _: Admin,
    State(lab): State<Lab>,
    Path((owner, repo, key)): Path<(String, String, String)>,
    body: Bytes,
) -> Result<StatusCode, Rest> {
    let name = RepositoryName::new(&owner, &repo)?;
    let put: Put = read(&body)?;
    Ok(status(lab.inner.hub.ask(move |state| state.put_secret(&name, &key, put.value.into())).await??))
}
