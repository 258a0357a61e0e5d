//! Repositories and organisations as such. In the lab each name is one, and GitHub Actions are on everywhere.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Admin;
use super::reply::{Rest, read};
use super::scope::InScope;
use crate::Lab;
use crate::refusal::Refusal;
use crate::state::{LabState, RepositoryName, Scope};

fn show(name: &RepositoryName, is_public: bool) -> Value {
    json!({
        "name": name.name, "full_name": name.full_name(), "owner": {"login": name.owner},
        "private": !is_public, "visibility": if is_public { "public" } else { "private" },
        "archived": false, "disabled": false, "default_branch": "main",
    })
}

/// `GET /repos/{owner}/{repo}` and `GET /orgs/{org}`
pub(super) async fn get(
    _: Admin,
    InScope(scope): InScope,
    State(lab): State<Lab>,
) -> Result<Json<Value>, Rest> {
    Ok(Json(match scope {
        Scope::Repository(name) => {
            lab.inner.hub.ask(move |state: &mut LabState| show(&name, state.is_public(&name))).await?
        }
        Scope::Organization(name) | Scope::Enterprise(name) => json!({"login": name}),
    }))
}

#[derive(Deserialize)]
struct Patch {
    private: bool,
}

/// `PATCH /repos/{owner}/{repo}`, limited to `private`.
pub(super) async fn patch(
    _: Admin,
    InScope(scope): InScope,
    State(lab): State<Lab>,
    body: Bytes,
) -> Result<Json<Value>, Rest> {
    let Scope::Repository(name) = scope else { return Err(Rest(Refusal::not_found())) };
    let is_public = !read::<Patch>(&body)?.private;
    let set = move |state: &mut LabState| state.set_public(&name, is_public).map(|()| show(&name, is_public));
    Ok(Json(lab.inner.hub.ask(set).await??))
}

/// `GET .../actions/permissions`
pub(super) async fn actions(_: Admin, InScope(scope): InScope) -> Json<Value> {
    Json(match scope {
        Scope::Repository(_) => json!({"enabled": true, "allowed_actions": "all"}),
        Scope::Organization(_) => json!({"enabled_repositories": "all", "allowed_actions": "all"}),
        Scope::Enterprise(_) => json!({"enabled_organizations": "all", "allowed_actions": "all"}),
    })
}
