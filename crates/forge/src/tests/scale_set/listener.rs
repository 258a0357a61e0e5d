//! Tests of a listener whose forge behaves well.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::clock::while_time_goes_on;
use super::http::Reply;
use super::service::{HOLD, SETS, Service, spec};
use super::{demand, failure, ready, step, step_with_room};
use crate::scale_set::{ScaleSetJobEvent, ScaleSetListener, ScaleSetSpec, ScaleSetUpdate};

fn available(ids: impl IntoIterator<Item = i64>) -> Value {
    ids.into_iter().map(|id| json!({"messageType": "JobAvailable", "runnerRequestId": id})).collect()
}

/// Returns the bodies of the calls that acquire jobs.
fn acquired(service: &Service) -> Vec<String> {
    let calls = service.requests(&format!("POST {SETS}"));
    let acquire = calls.into_iter().filter(|request| request.line.contains("/acquirejobs"));
    acquire.map(|request| request.body).collect()
}

#[tokio::test(start_paused = true)]
async fn a_message_is_acted_on_before_it_is_deleted() {
    let service = Service::start().await;
    service.message(
        41,
        2,
        json!([
            {"messageType": "JobAvailable", "runnerRequestId": 5},
            {"messageType": "JobAssigned", "runnerRequestId": 4},
        ]),
    );
    service.state().statistics = json!({"totalAssignedJobs": 1});
    let mut listener = service.listener();
    assert_eq!(ready(&mut listener).await.to_string(), "created the scale set \"vm\" (3)");
    assert_eq!(demand(&mut listener).await.statistics.total_assigned_jobs, 1);
    let news = demand(&mut listener).await;
    assert_eq!((news.statistics.runners_wanted(0, 10), news.events.len(), news.unread.len()), (2, 2, 0));
    assert!(service.requests("DELETE ").is_empty() && acquired(&service).is_empty());

    let idle = demand(&mut listener).await;
    assert_eq!(
        (idle.statistics.total_assigned_jobs, idle.events),
        (2, Vec::new()),
        "an empty poll repeats the demand"
    );
    listener.close().await.unwrap();
    assert!(service.state().sessions.is_empty());
    insta::assert_snapshot!(service.lines().replace(&service.url, "URL"), @r#"
    POST /api/v3/orgs/o/actions/runners/registration-token
    POST /api/v3/actions/runner-registration {"url":"URL/o","runner_event":"register"}
    GET SETS?runnerGroupId=1&name=vm&api-version=6.0-preview
    POST SETS {"name":"vm","runnerGroupId":1,"labels":[{"name":"vm","type":"System"}],"RunnerSetting":{"disableUpdate":true}}
    POST SETS/3/sessions {"ownerName":"host-1"}
    GET /queue/messages?sessionId=4
    POST SETS/3/acquirejobs [5]
    DELETE /queue/messages/41?sessionId=4
    GET /queue/messages?sessionId=4&lastMessageId=41
    DELETE SETS/3/sessions/00000000-0000-0000-0000-000000000004
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_poll_states_the_capacity_and_the_version() {
    let service = Service::start().await;
    let mut listener = service.listener();
    for _ in 0..2 {
        step(&mut listener).await;
    }
    for capacity in [0, 7] {
        step_with_room(&mut listener, capacity).await;
    }
    let polls = service.requests("GET /queue/messages");
    assert_eq!(polls.iter().map(|poll| poll.capacity.as_str()).collect::<Vec<_>>(), ["0", "7"]);
    assert_eq!(polls[0].accept, "application/json; api-version=6.0-preview");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_not_acted_on_comes_again_after_a_restart() {
    let service = Service::start().await;
    service.message(41, 1, json!([{"messageType": "JobAssigned", "runnerRequestId": 4}]));
    let mut first = service.listener();
    ready(&mut first).await;
    demand(&mut first).await;
    assert_eq!(demand(&mut first).await.events.len(), 1);
    first.close().await.unwrap();
    assert_eq!(service.state().messages.len(), 1);

    let mut second = service.listener();
    assert_eq!(ready(&mut second).await.to_string(), "found the scale set \"vm\" (3)");
    demand(&mut second).await;
    let again = demand(&mut second).await.events;
    assert!(
        matches!(&again[..], [ScaleSetJobEvent::Assigned(job)] if job.runner_request_id == 4),
        "{again:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn jobs_are_acquired_as_there_is_room_for_them() {
    let service = Service::start().await;
    service.message(41, 1, available([5, 6, 7, 8]));
    let mut listener = service.listener();
    for capacity in [3, 3, 3] {
        step_with_room(&mut listener, capacity).await;
    }
    assert!(acquired(&service).is_empty(), "the caller has not acted yet");
    // One job is assigned, so there is room for two; these take it until the forge counts them.
    for capacity in [3, 3, 4] {
        step_with_room(&mut listener, capacity).await;
    }
    assert_eq!(acquired(&service), ["[5,6]", "[7]"]);
    // The forge has counted again, and one job was given away.
    service.message(
        42,
        0,
        json!([{"messageType": "JobCompleted", "runnerRequestId": 8, "result": "canceled"}]),
    );
    for capacity in [4, 4] {
        step_with_room(&mut listener, capacity).await;
    }
    assert_eq!(acquired(&service).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn jobs_that_were_offered_before_a_restart_are_asked_for() {
    let service = Service::start().await;
    service.state().statistics = json!({"totalAssignedJobs": 0, "totalAvailableJobs": 2});
    service.state().acquirable = vec![5, 6];
    let mut listener = service.listener();
    for _ in 0..4 {
        step(&mut listener).await;
    }
    assert_eq!(acquired(&service), ["[5,6]"]);
    assert_eq!(service.requests(&format!("GET {SETS}/3/acquirablejobs")).len(), 1);
}

/// Waits until the forge has received a request. The clock does not move meanwhile.
async fn received(service: &Service, line: &str) {
    while service.requests(line).is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_order_ends_a_poll_at_once_and_then_the_session() {
    let service = Service::start().await;
    let mut listener = service.listener();
    ready(&mut listener).await;
    demand(&mut listener).await;
    let since = Instant::now();
    assert!(listener.next(10, received(&service, "GET /queue")).await.is_none());
    listener.close().await.unwrap();
    assert!(service.state().sessions.is_empty());
    assert!(since.elapsed() < HOLD, "neither the poll nor anything else was waited for");
}

#[tokio::test(start_paused = true)]
async fn a_stop_order_ends_a_pause_at_once() {
    let service = Service::start().await;
    service.script(format!("GET {SETS}"), Reply::new(429, "").header("retry-after", 900));
    let mut listener = service.listener();
    assert_eq!(failure(&mut listener).await.pause.as_secs(), 900);
    let stop = tokio::time::sleep(Duration::from_secs(3));
    assert!(while_time_goes_on(listener.next(10, stop)).await.is_none());
    assert_eq!(service.requests(&format!("GET {SETS}")).len(), 1);
    listener.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_order_does_not_lose_a_session_that_is_being_opened() {
    let service = Service::start().await;
    let mut listener = service.listener();
    ready(&mut listener).await;
    let session = json!({
        "sessionId": "7f0c", "messageQueueUrl": format!("{}/queue", service.url),
        "messageQueueAccessToken": "T", "statistics": {"totalAssignedJobs": 0},
    });
    let opening = format!("POST {SETS}/3/sessions");
    service.script(opening.clone(), Reply::new(200, session).after(Duration::from_secs(9)));
    let stopped = while_time_goes_on(listener.next(10, received(&service, &opening))).await;
    assert!(matches!(stopped, Some(ScaleSetUpdate::Demand(_))), "{stopped:?}");
    assert!(listener.next(10, std::future::ready(())).await.is_none(), "the order counts for the next step");
    service.script(format!("DELETE {SETS}/3/sessions/7f0c"), Reply::new(204, ""));
    listener.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_does_not_wait_for_ever() {
    let service = Service::start().await;
    let mut listener = service.listener();
    ready(&mut listener).await;
    demand(&mut listener).await;
    service.script("DELETE ", Reply::new(204, "").after(Duration::from_secs(3600)));
    let since = Instant::now();
    let error = while_time_goes_on(listener.close()).await.unwrap_err();
    insta::assert_snapshot!(error, @r#"cannot end the session of the scale set "vm" within 15 s"#);
    assert_eq!(since.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn the_labels_of_a_scale_set_follow_its_description() {
    let service = Service::start().await;
    let labelled = |labels: &[&str]| {
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        ScaleSetListener::new(service.client(), ScaleSetSpec { labels, ..spec("vm") })
    };
    for (labels, changes) in [(&["a", "b"][..], 0), (&["B", "A"], 0), (&["a"], 1), (&["a", "c"], 2)] {
        let ready = ready(&mut labelled(labels)).await;
        assert_eq!(ready.scale_set.labels.len(), labels.len());
        assert_eq!(service.requests("PATCH ").len(), changes, "{labels:?}");
    }
    let one = json!({"id": 3, "name": "vm", "runnerGroupId": 1, "labels": [{"type": "System", "name": "x"}]});
    service.script("PATCH ", Reply::new(200, one));
    insta::assert_snapshot!(ready(&mut labelled(&["x", "y", "z"])).await, @r#"found the scale set "vm" (3), but the forge does not keep its labels y, z: jobs that ask for them get no runner of it; GHES before 3.21 keeps one label, so give each label a scale set of its own"#);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_hold_polls_is_asked_less_often() {
    let service = Service::start().await;
    let mut listener = service.listener();
    ready(&mut listener).await;
    demand(&mut listener).await;
    for _ in 0..10 {
        service.script("GET /queue", Reply::new(202, ""));
    }
    let since = Instant::now();
    for _ in 0..10 {
        demand(&mut listener).await;
    }
    // After the first nine of them: 1, 2, 4, 8 and five times 10 s.
    assert!((65..90).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_again_although_it_was_deleted_does_not_make_a_busy_loop() {
    let service = Service::start().await;
    let mut listener = service.listener();
    ready(&mut listener).await;
    demand(&mut listener).await;
    let message = json!({"messageId": 41, "messageType": "RunnerScaleSetJobMessages", "body": "", "statistics": {"totalAssignedJobs": 1}});
    for _ in 0..5 {
        service.script("GET /queue", Reply::new(200, &message));
    }
    let since = Instant::now();
    for _ in 0..5 {
        assert_eq!(demand(&mut listener).await.statistics.total_assigned_jobs, 1);
    }
    // After the second, third and fourth, because the first is new.
    assert!((1 + 2 + 4..20).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
}
