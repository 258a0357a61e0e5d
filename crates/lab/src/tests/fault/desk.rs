//! The desk itself: who may order, what is refused, the list, and the events.

use reqwest::Method;
use serde_json::{Value, json};

use super::{FAULTS, RUNNERS, clear, happened, order, send};
use crate::fault::Fault;
use crate::tests::bench::{Bench, http};

#[tokio::test]
async fn only_the_admin_orders_faults() {
    let bench = Bench::new().await;
    let made = bench.forge.registration_token(&Bench::scope()).await.unwrap();
    let registration = secrecy::ExposeSecret::expose_secret(&made.token).to_owned();
    for (token, expected) in [(None, 401), (Some("wrong".to_owned()), 401), (Some(registration), 401)] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let mut request = http().request(method, format!("{}{FAULTS}", bench.url));
            if let Some(token) = &token {
                request = request.bearer_auth(token);
            }
            let response = request.json(&json!({"fault": "drop-reply"})).send().await.unwrap();
            assert_eq!(response.status().as_u16(), expected, "{token:?}");
        }
    }
    assert_eq!(bench.call(Method::GET, FAULTS, None).await.1["rules"], json!([]));
}

#[tokio::test]
async fn an_order_that_cannot_be_is_refused_with_the_reason() {
    let bench = Bench::new().await;
    let mut reasons = Vec::new();
    for body in [
        json!({"fault": "busy-delete", "on": "session"}),
        json!({"fault": "server-error", "value": 200}),
        json!({"fault": "drop-reply", "trigger": {"probability": 0.0}}),
        json!({"fault": "banana"}),
        json!({"fault": "drop-reply", "often": true}),
    ] {
        let (status, answer) = bench.call(Method::POST, FAULTS, Some(body)).await;
        assert_eq!(status, 422, "{answer}");
        reasons.push(answer["errors"][0].as_str().unwrap().split(", expected").next().unwrap().to_owned());
    }
    let (status, answer) = bench.call(Method::DELETE, &format!("{FAULTS}?fault=drop-repl"), None).await;
    assert_eq!(status, 422);
    reasons.push(answer["errors"][0].as_str().unwrap().to_owned());
    insta::assert_snapshot!(reasons.join("\n"));
}

#[tokio::test]
async fn rules_are_listed_counted_and_cleared() {
    let bench = Bench::new().await;
    order(&bench, "server-error,on=list-runners,count=2").await;
    order(&bench, "drop-reply,on=delete-runner,probability=0.5,for=60s").await;
    let look = || send(&bench, Method::GET, RUNNERS, None);
    assert_eq!(look().await.unwrap().status, 503);
    let report = bench.call(Method::GET, FAULTS, None).await.1;
    assert!(report["seed"].is_u64(), "{report}");
    let rules = json!([
        {"id": 1, "fault": "server-error", "on": "list-runners", "trigger": {"count": 2}, "seen": 1, "fired": 1,
         "is_over": false},
        {"id": 2, "fault": "drop-reply", "on": "delete-runner", "trigger": {"probability": 0.5}, "for_s": 60, "seen": 0,
         "fired": 0, "is_over": false},
    ]);
    assert_eq!(report["rules"], rules);
    let cleared = bench.call(Method::DELETE, &format!("{FAULTS}?fault=server-error"), None).await;
    assert_eq!(cleared, (200, json!({"cleared": 1})));
    assert_eq!(look().await.unwrap().status, 200);
    assert_eq!(clear(&bench).await, json!({"cleared": 1}));
}

#[tokio::test]
async fn the_time_of_a_rule_is_the_labs() {
    let bench = Bench::new().await;
    order(&bench, "unauthorized,on=rest,for=5m").await;
    let look = || send(&bench, Method::GET, RUNNERS, None);
    assert_eq!(look().await.unwrap().status, 401);
    bench.advance(std::time::Duration::from_secs(301)).await;
    assert_eq!(look().await.unwrap().status, 200);
    let rule: Value = bench.call(Method::GET, FAULTS, None).await.1["rules"][0].clone();
    assert_eq!((&rule["fired"], &rule["is_over"]), (&json!(1), &json!(true)));
}

#[tokio::test]
async fn each_fault_that_happens_is_an_event_with_its_request() {
    let bench = Bench::new().await;
    let mut events = bench.lab.subscribe();
    order(&bench, "server-error,on=list-runners").await;
    order(&bench, "name-conflict").await;
    for count in 1..=2 {
        send(&bench, Method::GET, &format!("{RUNNERS}?name=secret"), None).await.unwrap();
        let (request, counted) = happened(&mut events, Fault::ServerError).await;
        assert_eq!((request.as_str(), counted), ("GET /api/v3/repos/o/r/actions/runners", count));
    }
    send(&bench, Method::POST, &format!("{RUNNERS}/generate-jitconfig"), Some(super::jit("a")))
        .await
        .unwrap();
    assert_eq!(happened(&mut events, Fault::NameConflict).await, ("runner a".to_owned(), 1));
}

#[tokio::test]
async fn a_seed_repeats_the_failures_of_a_run() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let bench = Bench::seeded(42, "server-error,on=list-runners,probability=0.5").await;
        let mut statuses = Vec::new();
        for _ in 0..20 {
            statuses.push(send(&bench, Method::GET, RUNNERS, None).await.unwrap().status);
        }
        assert!(statuses.contains(&200) && statuses.contains(&503), "{statuses:?}");
        runs.push(statuses);
    }
    assert_eq!(runs[0], runs[1]);
}
