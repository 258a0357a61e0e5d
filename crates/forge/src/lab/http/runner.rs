//! Runners of a repository or an organisation: JIT configs, lists, deletion; and runner groups.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Admin;
use super::page::PageQuery;
use super::reply::{Rest, base, read};
use crate::jit::{CredentialsData, CredentialsFile, JitConfig, RsaParameters, RunnerFile};
use crate::lab::refusal::Refusal;
use crate::lab::state::{self, Registration, RegistrationRequest, RepositoryName, Scope};
use crate::lab::{Inner, Lab};

/// Labels that GitHub's own `config` adds are marked so; in a JIT config they are taken as given like any other.
const DEFAULT_LABELS: [&str; 8] = ["self-hosted", "linux", "windows", "macos", "x64", "x86", "arm", "arm64"];

fn repository((owner, repo): (String, String)) -> Result<Scope, Refusal> {
    Ok(Scope::Repository(RepositoryName::new(&owner, &repo)?))
}

fn organization(org: &str) -> Result<Scope, Refusal> {
    RepositoryName::new(org, "any").map(|name| Scope::Organization(name.owner))
}

fn number(text: &str) -> Result<u64, Refusal> {
    text.parse().map_err(|_| Refusal::not_found())
}

/// `POST /repos/{owner}/{repo}/actions/runners/generate-jitconfig`
pub(super) async fn jit_repository(
    _: Admin,
    State(lab): State<Lab>,
    Path(path): Path<(String, String)>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Rest> {
    jit(&lab, repository(path)?, &body).await
}

/// `POST /orgs/{org}/actions/runners/generate-jitconfig`
pub(super) async fn jit_organization(
    _: Admin,
    State(lab): State<Lab>,
    Path(org): Path<String>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Rest> {
    jit(&lab, organization(&org)?, &body).await
}

async fn jit(lab: &Lab, scope: Scope, body: &Bytes) -> Result<(StatusCode, Json<Value>), Rest> {
    let Inner { hub, keys, .. } = &*lab.inner;
    let request: RegistrationRequest = read(body)?;
    let (check_scope, check) = (scope.clone(), request.clone());
    hub.ask(move |state| state.check_registration(&check_scope, &check)).await??;
    let key = keys.take().await.ok_or_else(|| Refusal::new(500, "The lab can make no more keys"))?;
    let register = move |state: &mut state::State| {
        let runner = state.register(scope, request, key.public)?;
        let registration = runner.registration.clone();
        let (now_ms, presence_ms) = presence(state);
        let shown = show(&state.runners[&registration.id], now_ms, presence_ms);
        Ok::<_, Refusal>((jit_config(&registration, key.private, state), shown))
    };
    let (config, runner) = hub.ask(register).await??;
    Ok((StatusCode::CREATED, Json(json!({"runner": runner, "encoded_jit_config": config.encode()}))))
}

fn jit_config(registration: &Registration, key: RsaParameters, state: &state::State) -> JitConfig {
    let url = &state.runner_url;
    let broker = format!("{url}/runner/broker/");
    let group = state.groups.iter().find(|group| group.id == registration.group_id);
    let yes = || "True".to_owned();
    JitConfig {
        runner: RunnerFile {
            agent_id: registration.id.to_string(),
            agent_name: registration.name.clone(),
            pool_id: registration.group_id.to_string(),
            pool_name: group.map(|group| group.name.clone()).unwrap_or_default(),
            disable_update: yes(),
            ephemeral: yes(),
            // The same address twice keeps actions/runner from looking for an old service (read in 2.336.0).
            server_url: broker.clone(),
            work_folder: registration.work_folder.clone(),
            git_hub_url: format!("{url}/{}", registration.scope.path()),
            use_v2_flow: yes(),
            server_url_v2: broker,
        },
        credentials: CredentialsFile {
            scheme: "OAuth".to_owned(),
            data: CredentialsData {
                client_id: registration.client_id.clone(),
                authorization_url: format!("{url}/runner/oauth/token"),
                require_fips_cryptography: yes(),
            },
        },
        key,
    }
}

fn presence(state: &state::State) -> (i64, i64) {
    (state.now_ms(), i64::try_from(state.limits.presence.as_millis()).unwrap_or(i64::MAX / 4))
}

fn show(runner: &state::Runner, now_ms: i64, presence_ms: i64) -> Value {
    let registration = &runner.registration;
    let label = |(place, name): (usize, &String)| {
        let default = DEFAULT_LABELS.iter().any(|known| known.eq_ignore_ascii_case(name));
        json!({"id": place + 1, "name": name, "type": if default { "read-only" } else { "custom" }})
    };
    json!({
        "id": registration.id,
        "runner_group_id": registration.group_id,
        "name": registration.name,
        "os": registration.os,
        "status": if runner.online(now_ms, presence_ms) { "online" } else { "offline" },
        "busy": runner.job.is_some(),
        "ephemeral": true,
        "version": registration.version,
        "labels": registration.labels.iter().enumerate().map(label).collect::<Vec<_>>(),
    })
}

#[derive(Deserialize)]
pub(super) struct ListQuery {
    name: Option<String>,
    #[serde(flatten)]
    page: PageQuery,
}

/// `GET /repos/{owner}/{repo}/actions/runners`
pub(super) async fn list_repository(
    _: Admin,
    State(lab): State<Lab>,
    Path(path): Path<(String, String)>,
    Query(query): Query<ListQuery>,
    headers: HeaderMap,
) -> Result<(HeaderMap, Json<Value>), Rest> {
    let url = format!("{}/api/v3/repos/{}/{}/actions/runners", base(&headers), path.0, path.1);
    list(&lab, repository(path)?, query, url).await
}

/// `GET /orgs/{org}/actions/runners`
pub(super) async fn list_organization(
    _: Admin,
    State(lab): State<Lab>,
    Path(org): Path<String>,
    Query(query): Query<ListQuery>,
    headers: HeaderMap,
) -> Result<(HeaderMap, Json<Value>), Rest> {
    let url = format!("{}/api/v3/orgs/{org}/actions/runners", base(&headers));
    list(&lab, organization(&org)?, query, url).await
}

async fn list(
    lab: &Lab,
    scope: Scope,
    query: ListQuery,
    url: String,
) -> Result<(HeaderMap, Json<Value>), Rest> {
    let page = query.page.page();
    let (skip, size, name) = (page.skip(), page.size(), query.name.clone());
    let collect = move |state: &mut state::State| {
        let (now_ms, presence_ms) = presence(state);
        let of_scope = |runner: &&state::Runner| {
            runner.registration.scope.same(&scope)
                && name.as_ref().is_none_or(|name| *name == runner.registration.name)
        };
        let found: Vec<_> = state.runners.values().filter(of_scope).collect();
        let shown = found.iter().skip(skip).take(size).map(|runner| show(runner, now_ms, presence_ms));
        (found.len(), shown.collect::<Vec<_>>())
    };
    let (total, runners) = lab.inner.hub.ask(collect).await?;
    let url = match &query.name {
        Some(name) => format!("{url}?name={}", encode(name)),
        None => url,
    };
    Ok((page.links(&url, total), Json(json!({"total_count": total, "runners": runners}))))
}

/// Percent-encodes what is not plain in a query.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// `GET /repos/{owner}/{repo}/actions/runners/{id}`
pub(super) async fn get_repository(
    _: Admin,
    State(lab): State<Lab>,
    Path((owner, repo, id)): Path<(String, String, String)>,
) -> Result<Json<Value>, Rest> {
    get(&lab, repository((owner, repo))?, number(&id)?).await
}

/// `GET /orgs/{org}/actions/runners/{id}`
pub(super) async fn get_organization(
    _: Admin,
    State(lab): State<Lab>,
    Path((org, id)): Path<(String, String)>,
) -> Result<Json<Value>, Rest> {
    get(&lab, organization(&org)?, number(&id)?).await
}

async fn get(lab: &Lab, scope: Scope, id: u64) -> Result<Json<Value>, Rest> {
    let find = move |state: &mut state::State| {
        let (now_ms, presence_ms) = presence(state);
        state.runner(&scope, id).map(|runner| show(runner, now_ms, presence_ms))
    };
    Ok(Json(lab.inner.hub.ask(find).await??))
}

/// `DELETE /repos/{owner}/{repo}/actions/runners/{id}`
pub(super) async fn delete_repository(
    _: Admin,
    State(lab): State<Lab>,
    Path((owner, repo, id)): Path<(String, String, String)>,
) -> Result<StatusCode, Rest> {
    delete(&lab, repository((owner, repo))?, number(&id)?).await
}

/// `DELETE /orgs/{org}/actions/runners/{id}`
pub(super) async fn delete_organization(
    _: Admin,
    State(lab): State<Lab>,
    Path((org, id)): Path<(String, String)>,
) -> Result<StatusCode, Rest> {
    delete(&lab, organization(&org)?, number(&id)?).await
}

async fn delete(lab: &Lab, scope: Scope, id: u64) -> Result<StatusCode, Rest> {
    lab.inner.hub.ask(move |state| state.delete_runner(&scope, id)).await??;
    Ok(StatusCode::NO_CONTENT)
}

fn show_group(group: &state::Group, url: &str) -> Value {
    json!({
        "runners_url": format!("{url}/{}/runners", group.id),
        "id": group.id, "name": group.name, "visibility": "all", "default": group.id == 1, "inherited": false,
        "allows_public_repositories": true, "restricted_to_workflows": false, "selected_workflows": [],
    })
}

fn groups_url(headers: &HeaderMap, org: &str) -> String {
    format!("{}/api/v3/orgs/{org}/actions/runner-groups", base(headers))
}

/// `GET /orgs/{org}/actions/runner-groups`. The lab's groups are those of all its organisations.
pub(super) async fn groups(
    _: Admin,
    State(lab): State<Lab>,
    Path(org): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Rest> {
    organization(&org)?;
    let url = groups_url(&headers, &org);
    let show = move |state: &mut state::State| {
        state.groups.iter().map(|group| show_group(group, &url)).collect::<Vec<_>>()
    };
    let groups = lab.inner.hub.ask(show).await?;
    Ok(Json(json!({"total_count": groups.len(), "runner_groups": groups})))
}

#[derive(Deserialize)]
struct MakeGroup {
    name: String,
}

/// `POST /orgs/{org}/actions/runner-groups`
pub(super) async fn make_group(
    _: Admin,
    State(lab): State<Lab>,
    Path(org): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Rest> {
    const GROUPS_MAX: usize = 1000;
    organization(&org)?;
    let make: MakeGroup = read(&body)?;
    let url = groups_url(&headers, &org);
    if make.name.trim().is_empty() || make.name.len() > 100 {
        return Err(Rest(Refusal::invalid(["name must have 1 to 100 characters"])));
    }
    let make_it = move |state: &mut state::State| {
        if state.groups.iter().any(|group| group.name.eq_ignore_ascii_case(&make.name)) {
            return Err(Refusal::new(
                409,
                format!("Already exists - A group with the name {} already exists.", make.name),
            ));
        }
        if state.groups.len() >= GROUPS_MAX {
            return Err(Refusal::new(422, format!("The lab holds {GROUPS_MAX} runner groups at most")));
        }
        let id = state.group_id(&make.name);
        Ok(show_group(&state::Group { id, name: make.name }, &url))
    };
    Ok((StatusCode::CREATED, Json(lab.inner.hub.ask(make_it).await??)))
}
