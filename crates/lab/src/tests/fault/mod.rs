//! Tests of the fault desk: each fault is seen by a client over HTTP, and only the admin orders faults.

mod call;
mod desk;
mod job;
mod state;
mod webhook;

use reqwest::Method;
use reqwest::header::HeaderMap;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::bench::{Bench, http, next_event};
use crate::fault::{Fault, FaultSpec};
use crate::{LabEventKind, LabEvents};

const RUNNERS: &str = "/api/v3/repos/o/r/actions/runners";
const FAULTS: &str = "/lab/v1/faults";

/// An answer as it came over the wire.
#[derive(Debug)]
struct Raw {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Raw {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Orders a fault as the command does.
async fn order(bench: &Bench, text: &str) {
    let spec: FaultSpec = text.parse().unwrap();
    let (status, answer) = bench.call(Method::POST, FAULTS, Some(json!(spec))).await;
    assert_eq!(status, 201, "{answer}");
}

async fn clear(bench: &Bench) -> Value {
    bench.call(Method::DELETE, FAULTS, None).await.1
}

/// Sends a call with the admin's token. The error is that of a connection that broke.
async fn send(bench: &Bench, method: Method, path: &str, body: Option<Value>) -> Result<Raw, reqwest::Error> {
    let url = format!("{}{path}", bench.url);
    let mut request = http().request(method, url).bearer_auth(bench.lab.token().expose_secret());
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Raw { status, headers, body: response.bytes().await?.to_vec() })
}

fn jit(name: &str) -> Value {
    json!({"name": name, "runner_group_id": 1, "labels": ["self-hosted", "big"]})
}

/// Registers runners, and returns their ids.
async fn runners(bench: &Bench, names: &[&str]) -> Vec<u64> {
    let mut ids = Vec::new();
    for name in names {
        ids.push(bench.register(name, &["self-hosted", "big"]).await.runner_id);
    }
    ids
}

/// Returns the request and the count of the next event that the fault has happened.
async fn happened(events: &mut LabEvents, wanted: Fault) -> (String, u64) {
    next_event(events, |event| match &event.kind {
        LabEventKind::FaultInjected { fault, request, count, .. } if *fault == wanted => {
            Some((request.clone(), *count))
        }
        _ => None,
    })
    .await
}

#[test]
fn every_fault_is_seen_on_the_wire_by_a_test() {
    let tests = [
        include_str!("call.rs"),
        include_str!("state.rs"),
        include_str!("job.rs"),
        include_str!("webhook.rs"),
    ];
    for fault in Fault::ALL {
        let ordered = format!("\"{}", fault.name());
        let is_ordered = |text: &&str| {
            text.match_indices(&ordered).any(|(at, _)| text[at + ordered.len()..].starts_with([',', '"']))
        };
        assert!(tests.iter().any(is_ordered), "{}", fault.name());
    }
}
