//! Webhooks of repositories and organisations (docs.github.com, "REST API endpoints for repository webhooks").

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, RawPathParams, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::routing::{get, post};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Admin;
use super::reply::{Rest, base, read, time};
use super::scope::InScope;
use crate::Lab;
use crate::refusal::Refusal;
use crate::state::{ContentType, Delivery, HookRecord, LabState, NewHook, Scope};

/// Longest address of a hook, bytes.
const URL_LENGTH_MAX: usize = 2048;
/// Longest secret of a hook, bytes.
const SECRET_LENGTH_MAX: usize = 1024;
/// Most events of a hook. GitHub has about 70.
const EVENTS_MAX: usize = 100;

/// Returns the routes, which repositories and organisations have in common.
pub(super) fn routes() -> Router<Lab> {
    Router::new()
        .route("/hooks", get(list).post(make))
        .route("/hooks/{id}", get(one).delete(remove))
        .route("/hooks/{id}/pings", post(ping))
        .route("/hooks/{id}/deliveries", get(deliveries))
        .route("/hooks/{id}/deliveries/{delivery}", get(delivery))
        .route("/hooks/{id}/deliveries/{delivery}/attempts", post(again))
}

#[derive(Deserialize)]
struct Make {
    name: Option<String>,
    active: Option<bool>,
    events: Option<Vec<String>>,
    config: Config,
}

#[derive(Deserialize)]
struct Config {
    url: Option<String>,
    content_type: Option<String>,
    secret: Option<SecretString>,
    insecure_ssl: Option<Value>,
}

impl Make {
    /// Checks the values, with GitHub's defaults for those that are not given.
    fn check(self) -> Result<NewHook, Refusal> {
        use secrecy::ExposeSecret as _;
        let mut wrong = Vec::new();
        if self.name.is_some_and(|name| name != "web") {
            wrong.push("name must be web".to_owned());
        }
        let content_type = match self.config.content_type.as_deref() {
            Some("json") => ContentType::Json,
            None | Some("form") => ContentType::Form,
            Some(_) => {
                wrong.push("content_type must be json or form".to_owned());
                ContentType::Form
            }
        };
        let url = self.config.url.unwrap_or_default();
        if !is_address(&url) {
            wrong.push("url must be an http or https address".to_owned());
        }
        if self.config.insecure_ssl.is_some_and(|it| it != "0" && it != 0) {
            wrong.push("insecure_ssl must be 0: the lab always verifies certificates".to_owned());
        }
        let events = self.events.unwrap_or_else(|| vec!["push".to_owned()]);
        let is_event = |event: &String| (1..=100).contains(&event.len());
        if events.is_empty() || events.len() > EVENTS_MAX || !events.iter().all(is_event) {
            wrong.push(format!("events must be 1 to {EVENTS_MAX} names"));
        }
        let secret = self.config.secret;
        if secret.as_ref().is_some_and(|secret| secret.expose_secret().len() > SECRET_LENGTH_MAX) {
            wrong.push(format!("secret must have {SECRET_LENGTH_MAX} bytes at most"));
        }
        if !wrong.is_empty() {
            return Err(Refusal::invalid(wrong));
        }
        Ok(NewHook { url, content_type, secret, events, active: self.active.unwrap_or(true) })
    }
}

fn is_address(url: &str) -> bool {
    let parsed = reqwest::Url::parse(url).ok().filter(|_| url.len() <= URL_LENGTH_MAX);
    parsed.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some())
}

fn show(hook: &HookRecord, base: &str) -> Value {
    let url = format!("{base}/api/v3/{}/hooks/{}", hook.scope.api_path(), hook.id);
    let kind = if matches!(hook.scope, Scope::Repository(_)) { "Repository" } else { "Organization" };
    let mut config = json!({"url": hook.url, "content_type": hook.content_type, "insecure_ssl": "0"});
    if hook.secret.is_some() {
        config["secret"] = "********".into();
    }
    json!({
        "type": kind, "id": hook.id, "name": "web", "active": hook.active, "events": hook.events, "config": config,
        "created_at": time(hook.created_ms), "updated_at": time(hook.created_ms), "url": url,
        "ping_url": format!("{url}/pings"), "deliveries_url": format!("{url}/deliveries"),
    })
}

fn show_delivery(delivery: &Delivery) -> Option<Value> {
    let answer = delivery.answer.as_ref()?;
    Some(json!({
        "id": delivery.id, "guid": delivery.guid, "delivered_at": time(delivery.at_ms),
        "redelivery": delivery.is_again, "duration": answer.duration_ms as f64 / 1000.0, "status": answer.status,
        "status_code": answer.status_code, "event": delivery.event, "action": delivery.action,
        "installation_id": null, "repository_id": delivery.repository_id, "throttled_at": null,
    }))
}

/// Returns a number of the path.
fn number(params: &RawPathParams, name: &str) -> Result<u64, Refusal> {
    let text = params.iter().find(|(key, _)| *key == name).map(|(_, value)| value);
    text.and_then(|text| text.parse().ok()).ok_or_else(Refusal::not_found)
}

/// `POST .../hooks`
async fn make(
    _: Admin,
    InScope(scope): InScope,
    State(lab): State<Lab>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Rest> {
    let new = read::<Make>(&body)?.check()?;
    let record = lab.inner.hub.ask(move |state| state.make_hook(&scope, new)).await??;
    Ok((StatusCode::CREATED, Json(show(&record, &base(&headers)))))
}

/// `GET .../hooks`. The lab has so few that they fit one page.
async fn list(
    _: Admin,
    InScope(scope): InScope,
    State(lab): State<Lab>,
    headers: HeaderMap,
) -> Result<Json<Vec<Value>>, Rest> {
    let base = base(&headers);
    let collect = move |state: &mut LabState| {
        let hooks = state.hooks.values().map(|hook| &hook.record);
        hooks.filter(|hook| hook.scope.same(&scope)).map(|hook| show(hook, &base)).collect()
    };
    Ok(Json(lab.inner.hub.ask(collect).await?))
}

/// `GET .../hooks/{id}`
async fn one(
    _: Admin,
    InScope(scope): InScope,
    State(lab): State<Lab>,
    params: RawPathParams,
    headers: HeaderMap,
) -> Result<Json<Value>, Rest> {
    let (id, base) = (number(&params, "id")?, base(&headers));
    let find = move |state: &mut LabState| state.hook(&scope, id).map(|hook| show(&hook.record, &base));
    Ok(Json(lab.inner.hub.ask(find).await??))
}

/// `DELETE .../hooks/{id}`
async fn remove(
    _: Admin,
    InScope(scope): InScope,
    State(lab): State<Lab>,
    params: RawPathParams,
) -> Result<StatusCode, Rest> {
    let id = number(&params, "id")?;
    lab.inner.hub.ask(move |state| state.delete_hook(&scope, id)).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST .../hooks/{id}/pings`
async fn ping(
    _: Admin,
    InScope(scope): InScope,
    State(lab): State<Lab>,
    params: RawPathParams,
) -> Result<StatusCode, Rest> {
    let id = number(&params, "id")?;
    let ping = move |state: &mut LabState| {
        state.hook(&scope, id)?;
        state.ping_hook(id);
        Ok::<_, Refusal>(())
    };
    lab.inner.hub.ask(ping).await??;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct DeliveryQuery {
    per_page: Option<String>,
    cursor: Option<String>,
}

/// `GET .../hooks/{id}/deliveries?per_page=&cursor=`: the deliveries that have ended, the newest first. The cursor is the id
/// of the last one of the page before.
async fn deliveries(
    _: Admin,
    InScope(scope): InScope,
    State(lab): State<Lab>,
    params: RawPathParams,
    Query(query): Query<DeliveryQuery>,
    headers: HeaderMap,
) -> Result<(HeaderMap, Json<Vec<Value>>), Rest> {
    let id = number(&params, "id")?;
    let parsed = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<u64>().ok());
    let size = usize::try_from(parsed(&query.per_page).unwrap_or(30)).unwrap_or(100).clamp(1, 100);
    let below = parsed(&query.cursor).unwrap_or(u64::MAX);
    let url = format!("{}/api/v3/{}/hooks/{id}/deliveries", base(&headers), scope.api_path());
    let collect = move |state: &mut LabState| {
        let all = state.hook(&scope, id)?.deliveries.iter().rev().filter(|delivery| delivery.id < below);
        Ok::<Vec<Value>, Refusal>(all.filter_map(show_delivery).take(size + 1).collect())
    };
    let mut shown = lab.inner.hub.ask(collect).await??;
    let mut links = HeaderMap::new();
    if shown.len() > size {
        shown.truncate(size);
        let last = shown.last().and_then(|delivery| delivery["id"].as_u64()).unwrap_or(0);
        let link = format!("<{url}?per_page={size}&cursor={last}>; rel=\"next\"");
        links.extend(HeaderValue::from_str(&link).ok().map(|link| (header::LINK, link)));
    }
    Ok((links, Json(shown)))
}

/// `GET .../hooks/{id}/deliveries/{delivery}`
async fn delivery(
    _: Admin,
    InScope(scope): InScope,
    State(lab): State<Lab>,
    params: RawPathParams,
) -> Result<Json<Value>, Rest> {
    let (id, delivery) = (number(&params, "id")?, number(&params, "delivery")?);
    let find = move |state: &mut LabState| {
        let found = state.hook(&scope, id)?.deliveries.iter().find(|known| known.id == delivery);
        let found = found.ok_or_else(Refusal::not_found)?;
        let mut shown = show_delivery(found).ok_or_else(Refusal::not_found)?;
        let payload: Value = serde_json::from_str(&found.payload).unwrap_or_default();
        shown["request"] = json!({"headers": {"X-GitHub-Event": found.event, "X-GitHub-Delivery": found.guid}, "payload": payload});
        Ok::<_, Refusal>(shown)
    };
    Ok(Json(lab.inner.hub.ask(find).await??))
}

/// `POST .../hooks/{id}/deliveries/{delivery}/attempts`
async fn again(
    _: Admin,
    InScope(scope): InScope,
    State(lab): State<Lab>,
    params: RawPathParams,
) -> Result<(StatusCode, Json<Value>), Rest> {
    let (id, delivery) = (number(&params, "id")?, number(&params, "delivery")?);
    lab.inner.hub.ask(move |state| state.redeliver(&scope, id, delivery)).await??;
    Ok((StatusCode::ACCEPTED, Json(json!({}))))
}
