//! Tests of reading deliveries.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{JobAction, JobDelivery, Webhook, WebhookError, WebhookHeaders};

/// Returns an event as GitHub sends it (docs.github.com, "Webhook events and payloads"), with the members that are read.
pub(super) fn event(action: &str, job: Value) -> Value {
    let mut event = json!({
        "action": action,
        "workflow_job": {
            "id": 289_782_451_u64, "run_id": 2_202_229_078_u64, "workflow_name": "CI", "head_branch": "main",
            "run_attempt": 1, "status": "queued", "conclusion": null, "created_at": "2026-01-02T03:04:05Z",
            "started_at": "2026-01-02T03:04:05Z", "completed_at": null, "name": "build (linux)", "steps": [],
            "labels": ["self-hosted", "linux"], "runner_id": null, "runner_name": null, "runner_group_id": null,
        },
        "repository": {"id": 1, "name": "app", "full_name": "acme/app", "owner": {"login": "acme"}},
        "organization": {"login": "acme", "id": 2},
        "sender": {"login": "jane", "id": 3},
    });
    for (key, value) in job.as_object().unwrap() {
        event["workflow_job"][key] = value.clone();
    }
    event
}

fn headers<'a>(event: &'a str, content_type: &'a str) -> WebhookHeaders<'a> {
    WebhookHeaders { event: Some(event), delivery: Some("d-1"), content_type: Some(content_type) }
}

fn read(event: &Value) -> Result<Webhook, WebhookError> {
    Webhook::read(&headers("workflow_job", "application/json"), event.to_string().as_bytes())
}

fn job(event: &Value) -> JobDelivery {
    match read(event).unwrap() {
        Webhook::Job(job) => (*job).clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_queued_job_is_read_from_json_and_from_a_form() {
    let expected = JobDelivery {
        id: "d-1".to_owned(),
        action: JobAction::Queued,
        owner: "acme".to_owned(),
        repository: "app".to_owned(),
        enterprise: None,
        job: 289_782_451,
        name: "build (linux)".to_owned(),
        labels: vec!["self-hosted".to_owned(), "linux".to_owned()],
        conclusion: None,
        runner: None,
        workflow: Some("CI".to_owned()),
        queued_ms: Some(1_767_323_045_000),
    };
    let text = event("queued", json!({})).to_string();
    let form: String = form_urlencoded::Serializer::new(String::new()).append_pair("payload", &text).finish();
    for (kind, body) in [
        ("application/json", &text),
        ("Application/JSON; charset=utf-8", &text),
        ("application/x-www-form-urlencoded", &form),
    ] {
        let read = Webhook::read(&headers("workflow_job", kind), body.as_bytes()).unwrap();
        assert_eq!(read, Webhook::Job(Arc::new(expected.clone())), "{kind}");
    }
}

#[test]
fn members_that_are_not_needed_may_be_missing_or_null() {
    let least = json!({
        "action": "in_progress", "workflow_job": {"id": 9_007_199_254_740_993_u64, "run_id": 2, "labels": []},
        "repository": {"full_name": "acme/app"}, "enterprise": null,
    });
    let read = job(&least);
    assert_eq!((read.job, read.name.as_str(), read.labels.len()), (9_007_199_254_740_993, "", 0));
    assert_eq!(job(&event("completed", json!({"runner_name": ""}))).runner, None, "an empty name is none");
    assert_eq!(job(&event("completed", json!({"runner_name": "vm-1"}))).runner.as_deref(), Some("vm-1"));
    // One of GitHub's own examples has this status.
    assert_eq!(job(&event("queued", json!({"status": "waiting"}))).action, JobAction::Queued);
    let mut of_enterprise = event("waiting", json!({}));
    of_enterprise["enterprise"] = json!({"id": 1, "slug": "big-corp"});
    assert_eq!(job(&of_enterprise).enterprise.as_deref(), Some("big-corp"));
}

#[test]
fn pings_and_events_about_something_else_are_no_jobs() {
    let of = |kind: &str, body: &[u8]| Webhook::read(&headers(kind, "application/json"), body);
    assert_eq!(of("ping", b"{\"zen\":\"x\",\"hook_id\":1}").unwrap(), Webhook::Ping);
    assert_eq!(of("push", b"\xff").unwrap(), Webhook::Other);
    assert_eq!(read(&event("dreaming", json!({}))).unwrap(), Webhook::Other);
}

#[test]
fn each_problem_is_named() {
    let body = event("queued", json!({})).to_string();
    let text = |headers: &WebhookHeaders<'_>, body: &str| {
        Webhook::read(headers, body.as_bytes()).unwrap_err().to_string()
    };
    let good = headers("workflow_job", "application/json");
    let mut said = vec![
        text(&WebhookHeaders { event: None, ..good }, &body),
        text(&WebhookHeaders { delivery: Some(""), ..good }, &body),
        text(&WebhookHeaders { delivery: Some(&"d".repeat(129)), ..good }, &body),
        text(&WebhookHeaders { content_type: None, ..good }, &body),
        text(&WebhookHeaders { content_type: Some("text/xml"), ..good }, &body),
        text(&headers("workflow_job", "application/x-www-form-urlencoded"), &body),
        text(&headers("ping", "application/json"), "payload=%7B%7D"),
        text(&good, "{\"action\":\"queued\"}"),
    ];
    for name in ["acme", "/app", "acme/", "a/b/c"] {
        let mut event = event("queued", json!({}));
        event["repository"]["full_name"] = name.into();
        said.push(read(&event).unwrap_err().to_string());
    }
    insta::assert_snapshot!(said.join("\n"), @r#"
    the header X-GitHub-Event is missing or too long
    the header X-GitHub-Delivery is missing or too long
    the header X-GitHub-Delivery is missing or too long
    the content type is "", not application/json or application/x-www-form-urlencoded
    the content type is "text/xml", not application/json or application/x-www-form-urlencoded
    the form has no field "payload"
    the body is no event "ping": expected value at line 1 column 1
    the body is no event "workflow_job": missing field `workflow_job` at line 1 column 19
    "acme" is no repository: OWNER/NAME is needed
    "/app" is no repository: OWNER/NAME is needed
    "acme/" is no repository: OWNER/NAME is needed
    "a/b/c" is no repository: OWNER/NAME is needed
    "#);
}

/// Returns any JSON, in which the names of an event's members are frequent.
fn json_like() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        "(queued|completed|o/r|)".prop_map(Value::from),
    ];
    let key = "(action|workflow_job|repository|enterprise|id|labels|name|full_name|slug|x)";
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map(key, inner, 0..6).prop_map(|all| all.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(
        kind in "(ping|workflow_job|push|)", form in any::<bool>(), body in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let kinds = ["application/json", "application/x-www-form-urlencoded"];
        let _ = Webhook::read(&headers(&kind, kinds[usize::from(form)]), &body);
        let payload = [b"payload=".as_slice(), &body].concat();
        let _ = Webhook::read(&headers(&kind, kinds[1]), &payload);
    }

    #[test]
    fn any_json_in_the_place_of_a_member_is_read_or_refused(
        at in 0..6_usize, other in json_like(),
    ) {
        let mut event = event("queued", json!({}));
        match at {
            0 => event = other,
            1 => event["workflow_job"] = other,
            2 => event["repository"] = other,
            3 => event["enterprise"] = other,
            4 => event["workflow_job"]["labels"] = other,
            _ => event["workflow_job"]["id"] = other,
        }
        match read(&event) {
            Ok(Webhook::Job(job)) => prop_assert!(!job.owner.is_empty() && !job.repository.contains('/')),
            Ok(_) => {}
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn a_delivery_with_some_bytes_changed_is_read_or_refused(
        changes in proptest::collection::vec((0..500_usize, any::<u8>()), 1..5),
    ) {
        let mut bytes = event("completed", json!({"runner_name": "vm-1"})).to_string().into_bytes();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let _ = Webhook::read(&headers("workflow_job", "application/json"), &bytes);
    }
}

#[test]
fn deep_bodies_are_refused() {
    for deep in ["[".repeat(500_000), "{\"workflow_job\":".repeat(100_000)] {
        let read = Webhook::read(&headers("workflow_job", "application/json"), deep.as_bytes());
        assert!(matches!(read, Err(WebhookError::Body { .. })));
    }
}
