//! Repositories and organisations as such. In the lab each name is one, and GitHub Actions are on everywhere.

use axum::Json;
use serde_json::{Value, json};

use super::auth::Admin;
use super::scope::InScope;
use crate::state::Scope;

/// `GET /repos/{owner}/{repo}` and `GET /orgs/{org}`
pub(super) async fn get(_: Admin, InScope(scope): InScope) -> Json<Value> {
    Json(match scope {
        Scope::Repository(name) => json!({
            "name": name.name, "full_name": name.full_name(), "owner": {"login": name.owner},
            "private": true, "archived": false, "disabled": false, "default_branch": "main",
        }),
        Scope::Organization(name) | Scope::Enterprise(name) => json!({"login": name}),
    })
}

/// `GET .../actions/permissions`
pub(super) async fn actions(_: Admin, InScope(scope): InScope) -> Json<Value> {
    Json(match scope {
        Scope::Repository(_) => json!({"enabled": true, "allowed_actions": "all"}),
        Scope::Organization(_) => json!({"enabled_repositories": "all", "allowed_actions": "all"}),
        Scope::Enterprise(_) => json!({"enabled_organizations": "all", "allowed_actions": "all"}),
    })
}
