//! Tests of one process that serves many scale sets.

use std::future::pending;

use serde_json::json;
use tokio::task::JoinSet;

use super::clock::while_time_goes_on;
use super::http::Reply;
use super::service::{EXCHANGE, SETS, Service, spec};
use crate::scale_set::{ScaleSetListener, ScaleSetUpdate};

const SCALE_SETS: usize = 50;

/// Returns the number of this process's threads.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[tokio::test(start_paused = true)]
async fn fifty_scale_sets_share_one_token_and_need_no_thread() {
    let service = Service::start().await;
    let client = service.client();
    let before = threads();
    let mut listeners = JoinSet::new();
    for number in 0..SCALE_SETS {
        let mut listener = ScaleSetListener::new(client.clone(), spec(&format!("vm-{number}")));
        // This service knows only the token of its last session, so the polls of the others would fail.
        service.script(
            "GET /queue",
            Reply::new(200, json!({"messageId": 1, "messageType": "RunnerScaleSetJobMessages", "body": "", "statistics": {"totalAssignedJobs": 1}})),
        );
        listeners.spawn(async move {
            let mut wanted = 0;
            for _ in 0..3 {
                match listener.next(1, pending()).await {
                    Some(ScaleSetUpdate::Demand(demand)) => wanted = demand.statistics.runners_wanted(0, 1),
                    Some(ScaleSetUpdate::Ready(ready)) => assert!(ready.is_new),
                    other => panic!("{other:?}"),
                }
            }
            listener.close().await.unwrap();
            wanted
        });
    }
    let wanted: u32 = while_time_goes_on(listeners.join_all()).await.into_iter().sum();
    assert_eq!(wanted, 50);
    assert_eq!(service.requests(EXCHANGE).len(), 1);
    assert_eq!(service.state().scale_sets.len(), SCALE_SETS);
    assert!(service.state().sessions.is_empty());
    let opened =
        service.requests(&format!("POST {SETS}")).into_iter().filter(|call| call.line.contains("/sessions?"));
    assert_eq!(opened.count(), SCALE_SETS);
    // Other tests of this program start and end threads of their own at the same time.
    assert!(threads() < before + SCALE_SETS / 2, "{before} threads became {}", threads());
}

#[tokio::test]
async fn a_listener_is_small() {
    let service = Service::start().await;
    let size = size_of_val(&service.listener());
    assert!(size <= 1024, "{size} bytes");
}
