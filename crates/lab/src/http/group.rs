//! Calls for runner groups.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Admin;
use super::page::PageQuery;
use super::reply::{Rest, base, read};
use super::scope::{InScope, Managed};
use crate::Lab;
use crate::refusal::Refusal;
use crate::state::{self, Group, Scope};

fn show(group: &Group, url: &str) -> Value {
    json!({
        "runners_url": format!("{url}/{}/runners", group.id),
        "id": group.id, "name": group.name, "visibility": "all", "default": group.id == 1, "inherited": false,
        "allows_public_repositories": group.allows_public, "restricted_to_workflows": false, "selected_workflows": [],
        // Runner apps ignore groups of GitHub's own machines.
        "is_hosted": false,
    })
}

fn url(headers: &HeaderMap, scope: &Scope) -> String {
    format!("{}/api/v3/{}/actions/runner-groups", base(headers), scope.api_path())
}

/// `GET .../actions/runner-groups`. A runner app does not request a second page, so it gets all groups at once.
pub(super) async fn list(
    Managed { scope, by_admin }: Managed,
    State(lab): State<Lab>,
    Query(query): Query<PageQuery>,
    headers: HeaderMap,
) -> Result<(HeaderMap, Json<Value>), Rest> {
    let url = url(&headers, &scope);
    let groups = lab.inner.hub.ask(move |state: &mut state::LabState| state.groups_of(&scope)).await?;
    let page = query.page();
    let (skip, size) = if by_admin { (page.skip(), page.size()) } else { (0, usize::MAX) };
    let shown: Vec<Value> = groups.iter().skip(skip).take(size).map(|group| show(group, &url)).collect();
    let links = if by_admin { page.links(&url, groups.len()) } else { HeaderMap::new() };
    Ok((links, Json(json!({"total_count": groups.len(), "runner_groups": shown}))))
}

#[derive(Deserialize)]
struct Make {
    name: String,
    #[serde(default)]
    allows_public_repositories: bool,
}

/// `POST .../actions/runner-groups`
pub(super) async fn make(
    _: Admin,
    InScope(scope): InScope,
    State(lab): State<Lab>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Rest> {
    if let Scope::Repository(_) = scope {
        return Err(Rest(Refusal::not_found()));
    }
    let make: Make = read(&body)?;
    let make_group =
        move |state: &mut state::LabState| state.make_group(&make.name, make.allows_public_repositories);
    let group = lab.inner.hub.ask(make_group).await??;
    Ok((StatusCode::CREATED, Json(show(&group, &url(&headers, &scope)))))
}
