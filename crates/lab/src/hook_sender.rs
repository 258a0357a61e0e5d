//! Sends the deliveries of webhooks: those of one hook in order and one at a time, each once, as GitHub does.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use dayfly_forge::webhook::{DELIVERY_HEADER, EVENT_HEADER, SIGNATURE_HEADER};
use reqwest::header::CONTENT_TYPE;
use tokio::task::JoinSet;

use crate::Lab;
use crate::state::{Answer, ContentType, HookSend, LabState, Scope};

/// Pause before the next attempt if the thread that owns the state has too many calls waiting.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// The version of GHES that the lab claims to be.
const VERSION: &str = "3.19.0";

/// Sends deliveries until it is dropped.
pub(crate) async fn send_for_ever(lab: &Lab) -> Infallible {
    while lab.inner.hub.ask(LabState::reset_hooks).await.is_err() {
        tokio::time::sleep(ASK_AGAIN).await;
    }
    let mut sends = JoinSet::new();
    loop {
        // Each hook sends one at a time, so the number of hooks bounds that of sends.
        let taken = lab.inner.hub.ask(LabState::take_hook_sends).await;
        let is_refused = taken.is_err();
        for send in taken.unwrap_or_default() {
            let lab = lab.clone();
            sends.spawn(async move { send_one(&lab, send).await });
        }
        tokio::select! {
            () = lab.inner.hook_work.notified() => {}
            Some(_) = sends.join_next() => {}
            () = tokio::time::sleep(ASK_AGAIN), if is_refused => {}
        }
    }
}

/// Sends a delivery and notes its end.
async fn send_one(lab: &Lab, send: HookSend) {
    let began = Instant::now();
    let sent = tokio::time::timeout(lab.inner.limits.hook_answer, post(&send)).await;
    let (status_code, status) = match sent {
        Ok(Ok(code)) if (200..300).contains(&code) => (code, "OK".to_owned()),
        Ok(Ok(code)) => (code, format!("Invalid HTTP Response: {code}")),
        Ok(Err(why)) => (0, why),
        Err(_) => (0, "timed out".to_owned()),
    };
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (hook, delivery) = (send.hook.id, send.delivery.id);
    loop {
        let answer = Answer { status_code, status: status.clone(), duration_ms };
        match lab.inner.hub.ask(move |state| state.hook_answered(hook, delivery, answer)).await {
            Err(refusal) if refusal.status == 503 => tokio::time::sleep(ASK_AGAIN).await,
            _ => return,
        }
    }
}

/// Returns the status of the receiver's answer, whose body is not read.
async fn post(send: &HookSend) -> Result<u16, String> {
    let HookSend { hook, target_id, delivery, signer } = send;
    let (kind, body) = match hook.content_type {
        ContentType::Json => ("application/json", delivery.payload.to_string()),
        ContentType::Form => ("application/x-www-form-urlencoded", form(&delivery.payload)),
    };
    let target = if matches!(hook.scope, Scope::Repository(_)) { "repository" } else { "organization" };
    let url: reqwest::Url = hook.url.parse().map_err(|_| "invalid address".to_owned())?;
    let client = dayfly_forge::delivery_client(&url).map_err(|error| error.to_string())?;
    let mut request = client
        .post(url)
        .header(CONTENT_TYPE, kind)
        .header("user-agent", "GitHub-Hookshot/dayfly-lab")
        .header(EVENT_HEADER, delivery.event)
        .header(DELIVERY_HEADER, &delivery.guid)
        .header("x-github-hook-id", hook.id)
        .header("x-github-hook-installation-target-type", target)
        .header("x-github-hook-installation-target-id", *target_id)
        .header("x-github-enterprise-host", "dayfly-lab")
        .header("x-github-enterprise-version", VERSION);
    if let Some(signer) = signer {
        request = request.header(SIGNATURE_HEADER, signer.sign(body.as_bytes()));
    }
    let answer = request.body(body).send().await.map_err(|error| root_cause(&error))?;
    Ok(answer.status().as_u16())
}

fn form(payload: &str) -> String {
    form_urlencoded::Serializer::new(String::new()).append_pair("payload", payload).finish()
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
