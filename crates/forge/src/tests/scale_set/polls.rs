//! Tests of a listener whose polls fail, or whose messages are broken.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::clock::while_time_goes_on;
use super::http::Reply;
use super::service::{SETS, Service};
use super::{demand, failure, ready, said, step, trouble};
use crate::scale_set::{ScaleSetListener, ScaleSetUpdate};

/// Starts a forge and a listener that is about to poll. Three jobs were assigned since it opened its session.
async fn served() -> (Service, ScaleSetListener) {
    let service = Service::start().await;
    let mut listener = service.listener();
    ready(&mut listener).await;
    demand(&mut listener).await;
    service.state().statistics = json!({"totalAssignedJobs": 3});
    (service, listener)
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_fails_is_said_and_the_refreshed_session_tells_the_demand() {
    let whole = json!({"messageId": 41, "messageType": "RunnerScaleSetJobMessages", "body": ""});
    let replies = [
        Reply::new(200, ""),
        Reply::new(200, &whole).cut(20),
        Reply::new(200, &whole.to_string()[..20]),
        Reply::new(200, "<html>Please log in</html>").header("content-type", "text/html"),
        Reply::new(200, "x".repeat(1024 * 1024 + 1)),
        Reply::new(502, "<html>Bad Gateway</html>"),
        Reply::new(400, "no session id").header("content-type", "text/plain"),
        Reply::new(202, "").after(Duration::from_secs(91)),
    ];
    let mut texts = Vec::new();
    for reply in replies {
        let (service, mut listener) = served().await;
        service.script("GET /queue", reply);
        let trouble = trouble(&mut listener).await;
        assert!(trouble.pause <= Duration::from_millis(1500) && trouble.failures == 1);
        texts.push(said(&trouble));
        assert_eq!(demand(&mut listener).await.statistics.total_assigned_jobs, 3);
        service.message(42, 4, json!([]));
        assert_eq!(demand(&mut listener).await.statistics.total_assigned_jobs, 4);
        listener.close().await.unwrap();
    }
    insta::assert_snapshot!(texts.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn a_forge_that_limits_calls_is_left_alone_for_as_long_as_it_says() {
    for (reply, least_s) in [
        (Reply::new(429, json!({"message": "Slow down"})).header("retry-after", 120), 120),
        (Reply::new(503, json!({"message": "Maintenance"})).header("retry-after", 300), 300),
        (Reply::new(403, json!({"message": "You have exceeded a secondary rate limit"})), 60),
        (Reply::new(429, json!({"message": "Slow down"})).header("retry-after", 999_999), 3600),
    ] {
        let (service, mut listener) = served().await;
        service.script("GET /queue", reply);
        let trouble = failure(&mut listener).await;
        assert!((least_s..=least_s + 1).contains(&trouble.pause.as_secs()), "{trouble}");
        let sent = service.requests("").len();
        tokio::time::advance(Duration::from_secs(least_s - 1)).await;
        let stop = tokio::time::sleep(Duration::from_millis(500));
        assert!(while_time_goes_on(listener.next(10, stop)).await.is_none(), "nothing happens before");
        assert_eq!(service.requests("").len(), sent);
        demand(&mut listener).await;
        assert_eq!(service.requests("PATCH ").len(), 1, "the next call is the refresh");
    }
}

#[tokio::test(start_paused = true)]
async fn a_forge_that_stays_down_is_asked_once_a_minute() {
    let (service, mut listener) = served().await;
    let down = || Reply::new(500, "");
    for _ in 0..10 {
        service.script("GET /queue", down());
    }
    for _ in 0..200 {
        service.script("PATCH ", down());
    }
    let since = Instant::now();
    let mut last = trouble(&mut listener).await;
    while last.failures < 30 {
        last = trouble(&mut listener).await;
        assert!(last.pause <= Duration::from_secs(90), "{last}");
    }
    assert!(since.elapsed() > Duration::from_secs(20 * 30), "{last}");
    assert_eq!(said(&last).matches("(failure 30 in N s)").count(), 1, "{last}");
    // Each refresh is tried as often as any call, and no more.
    assert!(service.requests("PATCH ").len() <= 30 * 4);
    service.forget_scripts();
    demand(&mut listener).await;
    demand(&mut listener).await;
    service.script("GET /queue", down());
    assert_eq!(trouble(&mut listener).await.failures, 1, "a successful poll ends the row");
}

#[tokio::test(start_paused = true)]
async fn parts_of_a_message_that_are_not_understood_are_skipped_and_it_is_deleted() {
    let statistics = json!({"totalAssignedJobs": 7, "totalNewThings": 1});
    let cases = [
        (
            json!({"messageId": 41, "messageType": "RunnerScaleSetJobMessages", "body": "[{", "statistics": statistics}),
            7,
        ),
        (
            json!({"messageId": 41, "messageType": "SomethingNew", "body": "x", "statistics": statistics, "new": {}}),
            7,
        ),
        (
            json!({"messageId": 41, "messageType": "RunnerScaleSetJobMessages",
                "body": "[{\"messageType\":\"JobPostponed\"}]", "statistics": statistics}),
            7,
        ),
        (json!({"messageId": 41, "messageType": "RunnerScaleSetJobMessages", "body": ""}), 0),
        (
            json!({"messageId": 41, "messageType": "RunnerScaleSetJobMessages", "body": null, "statistics": {"x": 1}}),
            0,
        ),
    ];
    let mut unread = Vec::new();
    for (message, assigned) in cases {
        let (service, mut listener) = served().await;
        service.script("GET /queue", Reply::new(200, message).marked());
        let demanded = demand(&mut listener).await;
        assert_eq!(demanded.statistics.total_assigned_jobs, assigned, "without counts, the last ones stay");
        unread.extend(demanded.unread);
        demand(&mut listener).await;
        assert_eq!(service.requests("DELETE /queue/messages/41?").len(), 1);
    }
    insta::assert_snapshot!(unread.join("\n"), @r#"
    a body that is no list in JSON: EOF while parsing an object at line 1 column 2
    a message of the unknown type "SomethingNew"
    news of the unknown type "JobPostponed"
    no statistics
    statistics that are not understood
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_deleted_does_not_hold_up_the_next() {
    let (service, mut listener) = served().await;
    service.message(41, 1, json!([]));
    demand(&mut listener).await;
    for _ in 0..4 {
        service.script("DELETE /queue", Reply::new(405, "<html>Method not allowed</html>"));
    }
    insta::assert_snapshot!(said(&trouble(&mut listener).await), @r#"scale set "vm": cannot delete the message 41 of the scale set 3 of o: the forge answered 405 (HTTP 405); try again later; dayfly goes on; the counts of the next message are right nevertheless"#);
    service.message(42, 2, json!([]));
    assert_eq!(demand(&mut listener).await.statistics.total_assigned_jobs, 2);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_is_answered_by_a_page_does_not_count() {
    let (service, mut listener) = served().await;
    service.message(41, 1, json!([]));
    demand(&mut listener).await;
    service.script("DELETE /queue", Reply::new(200, "<html>Please log in</html>"));
    let text = said(&trouble(&mut listener).await);
    assert!(text.contains("its status is 200 instead of 204"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn jobs_that_cannot_be_acquired_do_not_hold_up_messages() {
    let (service, mut listener) = served().await;
    service.message(41, 1, json!([{"messageType": "JobAvailable", "runnerRequestId": 5}]));
    demand(&mut listener).await;
    let acquire = format!("POST {SETS}/3/acquirejobs");
    for _ in 0..4 {
        service.script(acquire.clone(), Reply::new(500, ""));
    }
    insta::assert_snapshot!(said(&trouble(&mut listener).await), @r#"scale set "vm": cannot acquire offered jobs for the scale set 3 of o: the forge answered 500 (HTTP 500); try again later; dayfly goes on; the counts of the next message are right nevertheless"#);
    demand(&mut listener).await;
    assert!(service.state().messages.is_empty(), "the message was deleted");
    demand(&mut listener).await;
    assert_eq!(service.requests(&acquire).len(), 5, "tried again after a poll");

    service.message(42, 1, json!([{"messageType": "JobAvailable", "runnerRequestId": 6}]));
    demand(&mut listener).await;
    service.script(acquire.clone(), Reply::new(422, json!({"message": "The job is gone."})));
    assert!(matches!(step(&mut listener).await, ScaleSetUpdate::Trouble(_)));
    demand(&mut listener).await;
    demand(&mut listener).await;
    assert_eq!(service.requests(&acquire).len(), 6, "an offer that is refused is not tried again");
}

#[tokio::test(start_paused = true)]
async fn offers_that_cannot_be_listed_do_not_hold_up_messages() {
    for status in [404, 500] {
        let (service, mut listener) = served().await;
        listener.close().await.unwrap();
        service.state().statistics = json!({"totalAssignedJobs": 0, "totalAvailableJobs": 2});
        for _ in 0..4 {
            service.script(format!("GET {SETS}/3/acquirablejobs"), Reply::new(status, ""));
        }
        listener = service.listener();
        ready(&mut listener).await;
        demand(&mut listener).await;
        if status == 500 {
            trouble(&mut listener).await;
        }
        demand(&mut listener).await;
        demand(&mut listener).await;
    }
}
