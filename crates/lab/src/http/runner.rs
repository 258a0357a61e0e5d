//! Calls for runners of a repository, an organisation or an enterprise: JIT configs, lists, deletion.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Admin;
use super::page::PageQuery;
use super::reply::{Rest, base, read};
use super::scope::{InScope, Managed};
use crate::fault::Call;
use crate::refusal::Refusal;
use crate::state::{self, Registration, RegistrationRequest};
use crate::{Inner, Lab, Limits, check_runner_url};
use dayfly_forge::jit::{CredentialsData, CredentialsFile, JitConfig, RsaParameters, RunnerFile};

/// Labels that GitHub's own `config` adds; they are shown as `read-only`. A JIT config takes them like any other label.
const DEFAULT_LABELS: [&str; 8] = ["self-hosted", "linux", "windows", "macos", "x64", "x86", "arm", "arm64"];

fn number(text: &str) -> Result<u64, Refusal> {
    text.parse().map_err(|_| Refusal::not_found())
}

#[derive(Deserialize)]
struct JitBody {
    name: String,
    runner_group_id: u64,
    labels: Vec<String>,
    #[serde(default)]
    work_folder: Option<String>,
    /// A member of the lab only: the address at which this runner will reach the lab.
    #[serde(default)]
    runner_url: Option<String>,
}

/// `POST .../actions/runners/generate-jitconfig`
pub(super) async fn jit(
    _: Admin,
    InScope(scope): InScope,
    State(lab): State<Lab>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Rest> {
    let JitBody { name, runner_group_id, labels, work_folder, runner_url } = read(&body)?;
    let runner_url = checked_url(runner_url)?;
    let request = RegistrationRequest {
        scope,
        name,
        group_id: runner_group_id,
        labels,
        work_folder,
        ephemeral: true,
        version: None,
        scale_set: None,
    };
    let (config, registration) = mint(&lab, request, runner_url).await?;
    let (now_ms, presence_ms) = (lab.inner.clock.now_ms(), presence_ms(&lab.inner.limits));
    let runner = show(&state::Runner::new(registration), now_ms, presence_ms);
    Ok((
        StatusCode::CREATED,
        Json(json!({"runner": runner, "encoded_jit_config": config.encode().expose_secret()})),
    ))
}

/// Checks the address at which a runner will reach the lab.
pub(super) fn checked_url(runner_url: Option<String>) -> Result<Option<String>, Refusal> {
    let checked = runner_url.map(|url| check_runner_url(&url)).transpose();
    checked.map_err(|error| Refusal::invalid([error.to_string()]))
}

/// Registers a runner with a new key and returns its JIT config, which leads to `runner_url` or to the lab's own choice.
pub(super) async fn mint(
    lab: &Lab,
    request: RegistrationRequest,
    runner_url: Option<String>,
) -> Result<(JitConfig, Registration), Refusal> {
    let Inner { hub, keys, .. } = &*lab.inner;
    let check = request.clone();
    hub.ask(move |state| state.check_jit(&check)).await??;
    let key = keys.take().await.ok_or_else(|| Refusal::new(500, "The lab can no longer create keys"))?;
    let register = move |state: &mut state::LabState| {
        let registration = state.register_by_jit(request, key.public)?;
        let url = runner_url.unwrap_or_else(|| state.runner_url.clone());
        Ok::<_, Refusal>((jit_config(&registration, key.private, state, &url), registration))
    };
    hub.ask(register).await?
}

fn jit_config(
    registration: &Registration,
    key: RsaParameters,
    state: &state::LabState,
    url: &str,
) -> JitConfig {
    let broker = format!("{url}/runner/broker/");
    let group = state.group(registration.group_id);
    let yes = || "True".to_owned();
    JitConfig {
        runner: RunnerFile {
            agent_id: registration.id.to_string(),
            agent_name: registration.name.clone(),
            pool_id: registration.group_id.to_string(),
            pool_name: group.map(|group| group.name.clone()).unwrap_or_default(),
            disable_update: yes(),
            ephemeral: yes(),
            // Because both addresses are equal, actions/runner does not look for an old service (read in 2.336.0).
            server_url: broker.clone(),
            work_folder: registration.work_folder.clone(),
            git_hub_url: format!("{url}/{}", registration.scope.web_path()),
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

fn presence(state: &state::LabState) -> (i64, i64) {
    (state.now_ms(), presence_ms(&state.limits))
}

fn presence_ms(limits: &Limits) -> i64 {
    i64::try_from(limits.presence.as_millis()).unwrap_or(i64::MAX / 4)
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
        "ephemeral": registration.ephemeral,
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

/// `GET .../actions/runners`
pub(super) async fn list(
    Managed { scope, .. }: Managed,
    State(lab): State<Lab>,
    Query(query): Query<ListQuery>,
    headers: HeaderMap,
) -> Result<(HeaderMap, Json<Value>), Rest> {
    let url = format!("{}/api/v3/{}/actions/runners", base(&headers), scope.api_path());
    let page = query.page.page();
    let (skip, size, name) = (page.skip(), page.size(), query.name.clone());
    let collect = move |state: &mut state::LabState| {
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

/// Percent-encodes all characters that are not plain in a query.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The id in a path that may have other parameters too.
#[derive(Deserialize)]
pub(super) struct Id {
    id: String,
}

/// `GET .../actions/runners/{id}`
pub(super) async fn get(
    _: Admin,
    InScope(scope): InScope,
    State(lab): State<Lab>,
    Path(Id { id }): Path<Id>,
) -> Result<Json<Value>, Rest> {
    let id = number(&id)?;
    let find = move |state: &mut state::LabState| {
        let (now_ms, presence_ms) = presence(state);
        state.runner(&scope, id).map(|runner| show(runner, now_ms, presence_ms))
    };
    Ok(Json(lab.inner.hub.ask(find).await??))
}

/// `DELETE .../actions/runners/{id}`
pub(super) async fn delete(
    Managed { scope, .. }: Managed,
    State(lab): State<Lab>,
    Path(Id { id }): Path<Id>,
) -> Result<StatusCode, Rest> {
    let id = number(&id)?;
    lab.inner.hub.ask(move |state| state.delete_runner_by(Call::DELETE_RUNNER, &scope, id)).await??;
    Ok(StatusCode::NO_CONTENT)
}
