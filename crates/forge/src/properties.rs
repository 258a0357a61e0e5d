//! Properties that hold for whatever a forge answers or delivers.

use dayfly_property::{Property, assert_shown};
use secrecy::ExposeSecret as _;

use crate::jit::{JitConfig, JitError};
use crate::scale_set::{EVENTS_MAX, ScaleSetMessage, UNREAD_MAX};
use crate::webhook::{Webhook, WebhookHeaders};

/// All properties.
pub const ALL: [Property; 3] = [MESSAGES, DELIVERIES, JIT_CONFIGS];

/// A message of a scale set's queue has a bounded number of events, and whatever is not understood can be shown.
pub const MESSAGES: Property = Property { name: "messages", seeds: messages, check: check_message };

/// A delivery names a job of one repository, in both forms of a body.
pub const DELIVERIES: Property = Property { name: "deliveries", seeds: deliveries, check: check_delivery };

/// A JIT config that can be read is the same after it was written again.
pub const JIT_CONFIGS: Property =
    Property { name: "jit-configs", seeds: jit_configs, check: check_jit_config };

fn messages() -> Vec<Vec<u8>> {
    let news = serde_json::json!([
        { "messageType": "JobAvailable", "runnerRequestId": 1, "acquireJobUrl": "https://h/" },
        { "messageType": "JobAssigned", "runnerRequestId": 9, "requestLabels": ["vm"], "jobDisplayName": "build",
          "queueTime": "2026-01-02T03:04:05Z", "finishTime": "0001-01-01T00:00:00Z" },
        { "messageType": "JobCompleted", "runnerRequestId": 4, "result": "canceled", "runnerId": 0, "runnerName": "" },
        { "messageType": "\u{1b}[1m" },
    ]);
    let of = |body: serde_json::Value| {
        serde_json::json!({ "messageId": 41, "messageType": "RunnerScaleSetJobMessages", "body": body,
            "statistics": { "totalAssignedJobs": 3, "totalIdleRunners": 1 } })
        .to_string()
        .into_bytes()
    };
    vec![
        of(news.to_string().into()),
        of(serde_json::Value::Null),
        of("[".into()),
        b"{\"messageId\":1}".to_vec(),
    ]
}

fn check_message(data: &[u8]) {
    match ScaleSetMessage::read(data) {
        Err(why) => assert_shown(why),
        Ok(message) => {
            assert!(message.events.len() <= EVENTS_MAX && message.unread.len() <= UNREAD_MAX);
            message.unread.iter().for_each(assert_shown);
        }
    }
}

fn deliveries() -> Vec<Vec<u8>> {
    let job = serde_json::json!({ "action": "queued", "repository": { "full_name": "o/r" }, "enterprise": { "slug": "e" },
        "workflow_job": { "id": 7, "labels": ["self-hosted", "x"], "name": "build", "conclusion": null, "runner_name": "",
        "workflow_name": "ci", "created_at": "2026-01-02T03:04:05Z" } });
    let job = job.to_string();
    let form = form_urlencoded::Serializer::new(String::new()).append_pair("payload", &job).finish();
    vec![job.into_bytes(), form.into_bytes(), b"payload=%7B%7D".to_vec()]
}

fn check_delivery(data: &[u8]) {
    for content_type in ["application/json; charset=utf-8", "application/x-www-form-urlencoded"] {
        for event in ["workflow_job", "ping"] {
            let headers =
                WebhookHeaders { event: Some(event), delivery: Some("id"), content_type: Some(content_type) };
            match Webhook::read(&headers, data) {
                Err(error) => assert_shown(error),
                Ok(Webhook::Ping) => assert_eq!(event, "ping"),
                Ok(Webhook::Other) => {}
                Ok(Webhook::Job(job)) => {
                    let is_name = |name: &str| !name.is_empty() && !name.contains('/');
                    assert!(is_name(&job.owner) && is_name(&job.repository), "{job:?}");
                    assert_eq!((job.id.as_str(), event), ("id", "workflow_job"));
                }
            }
        }
    }
}

fn jit_configs() -> Vec<Vec<u8>> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let file = |value: serde_json::Value| STANDARD.encode(value.to_string());
    let of = |server: &str| {
        serde_json::json!({
            ".runner": file(serde_json::json!({ "AgentId": "7", "AgentName": "a", "PoolId": "1", "PoolName": "Default",
                "ServerUrl": "https://h/", "GitHubUrl": "https://h/o/r", "WorkFolder": "_work", "UseV2Flow": "True",
                "ServerUrlV2": server, "Ephemeral": "True", "DisableUpdate": "True" })),
            ".credentials": file(serde_json::json!({ "Scheme": "OAuth", "Data": { "ClientId": "c",
                "AuthorizationUrl": "https://h/t", "RequireFipsCryptography": true } })),
            ".credentials_rsaparams": file(serde_json::json!({ "d": "AQ==", "dp": "AQ==", "dq": "AQ==", "exponent": "AQAB",
                "inverseQ": "AQ==", "modulus": "AQ==", "p": "AQ==", "q": "AQ==" })),
        })
    };
    let encoded = |value: &serde_json::Value| STANDARD.encode(value.to_string()).into_bytes();
    // The JSON as it is inside, which the check encodes, because changes of base64 seldom give JSON.
    let inside = |value: &serde_json::Value| value.to_string().into_bytes();
    let (good, odd) = (of("https://broker.example/"), of("file:///etc\u{1b}"));
    vec![encoded(&good), inside(&good), inside(&odd)]
}

fn check_jit_config(data: &[u8]) {
    use base64::Engine as _;
    let inside = base64::engine::general_purpose::STANDARD.encode(data);
    for text in [std::str::from_utf8(data).unwrap_or_default(), &inside] {
        match JitConfig::decode(text) {
            Err(error) => check_jit_error(&error),
            Ok(config) => {
                let again = JitConfig::decode(config.encode().expose_secret()).expect("what was read");
                assert_eq!((&again.runner, &again.credentials), (&config.runner, &config.credentials));
                match config.server() {
                    Err(error) => check_jit_error(&error),
                    Ok((host, port)) => assert!(!host.is_empty() && port > 0, "{host}:{port}"),
                }
            }
        }
    }
}

fn check_jit_error(error: &JitError) {
    assert_shown(error);
    if let Some(source) = std::error::Error::source(error) {
        assert_shown(source);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_should_hold_holds_for_all_seeds_and_for_what_is_almost_one() {
        dayfly_property::hold(&super::ALL);
    }
}
