//! Tests of the client and the listener of scale sets against a forge with an Actions Service on loopback.

mod client;
mod clock;
mod connection;
mod hosts;
mod http;
mod listener;
mod many;
mod polls;
mod runner;
mod service;
mod sessions;

use std::future::pending;

use self::clock::while_time_goes_on;
use crate::scale_set::{ListenerTrouble, ReadyScaleSet, ScaleSetDemand, ScaleSetListener, ScaleSetUpdate};

/// Takes a step with room for ten jobs.
async fn step(listener: &mut ScaleSetListener) -> ScaleSetUpdate {
    step_with_room(listener, 10).await
}

/// Takes a step, while time goes on.
async fn step_with_room(listener: &mut ScaleSetListener, capacity: u32) -> ScaleSetUpdate {
    while_time_goes_on(listener.next(capacity, pending())).await.unwrap()
}

async fn demand(listener: &mut ScaleSetListener) -> ScaleSetDemand {
    match step(listener).await {
        ScaleSetUpdate::Demand(demand) => demand,
        other => panic!("{other:?}"),
    }
}

async fn ready(listener: &mut ScaleSetListener) -> ReadyScaleSet {
    match step(listener).await {
        ScaleSetUpdate::Ready(ready) => ready,
        other => panic!("{other:?}"),
    }
}

/// Takes a step that fails, and lets the pause after it pass.
async fn trouble(listener: &mut ScaleSetListener) -> ListenerTrouble {
    let trouble = failure(listener).await;
    tokio::time::advance(trouble.pause).await;
    trouble
}

async fn failure(listener: &mut ScaleSetListener) -> ListenerTrouble {
    match step(listener).await {
        ScaleSetUpdate::Trouble(trouble) => trouble,
        other => panic!("{other:?}"),
    }
}

/// Returns the text of a failure, with `N` for each time and port that differs between two runs.
fn said(trouble: &ListenerTrouble) -> String {
    without_ports(&trouble.to_string())
        .replace(&format!("attempt in {} s", trouble.pause.as_secs_f64().ceil()), "attempt in N s")
        .replace(&format!(" in {} s)", trouble.since.as_secs()), " in N s)")
}

/// Returns a text with `N` for each port of loopback.
fn without_ports(text: &str) -> String {
    let mut parts = text.split("127.0.0.1:");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shown.push_str("127.0.0.1:N");
        shown.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    shown
}
