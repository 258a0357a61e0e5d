//! Tests of a listener whose session or scale set is taken, has ended, or was deleted.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::http::Reply;
use super::service::{SETS, Service, refusal};
use super::{demand, ready, said, step, trouble};
use crate::scale_set::{ScaleSetListener, ScaleSetUpdate};

/// Starts a forge and a listener that has polled once.
async fn served() -> (Service, ScaleSetListener) {
    let service = Service::start().await;
    let mut listener = service.listener();
    ready(&mut listener).await;
    demand(&mut listener).await;
    demand(&mut listener).await;
    (service, listener)
}

fn refused() -> Reply {
    Reply::new(401, json!({"message": "The token has expired."}))
}

#[tokio::test(start_paused = true)]
async fn a_session_that_another_program_holds_is_waited_for() {
    let service = Service::start().await;
    let mut other = service.listener();
    ready(&mut other).await;
    demand(&mut other).await;

    let mut listener = service.listener();
    ready(&mut listener).await;
    let since = Instant::now();
    let first = trouble(&mut listener).await;
    insta::assert_snapshot!(said(&first), @r#"scale set "vm": cannot open a session of the scale set 3 of o: The actions runner scaleset vm already has an active session; if another program serves this scale set, give one of them a scale set with another name; if a program was killed that served it, the forge ends its session within some minutes; next attempt in N s"#);
    let last = loop {
        let trouble = trouble(&mut listener).await;
        assert!((27..=33).contains(&trouble.pause.as_secs()), "{trouble}");
        if trouble.since > Duration::from_secs(600) {
            break trouble;
        }
    };
    assert!((18..=25).contains(&last.failures), "the row has a number and a length for the caller: {last}");
    assert!(since.elapsed() >= Duration::from_secs(600));
    other.close().await.unwrap();
    demand(&mut listener).await;
}

#[tokio::test(start_paused = true)]
async fn the_token_of_a_queue_is_renewed_without_a_word() {
    let (service, mut listener) = served().await;
    service.message(41, 2, json!([]));
    service.script("GET /queue", refused());
    service.lines();
    assert_eq!(
        demand(&mut listener).await.statistics.total_assigned_jobs,
        2,
        "the refreshed session has counts"
    );
    assert_eq!(demand(&mut listener).await.statistics.total_assigned_jobs, 2);
    insta::assert_snapshot!(service.lines(), @r"
    GET /queue/messages?sessionId=4
    PATCH SETS/3/sessions/00000000-0000-0000-0000-000000000004
    GET /queue/messages?sessionId=4
    ");
}

#[tokio::test(start_paused = true)]
async fn a_deletion_or_acquisition_whose_token_has_ended_is_done_with_the_next() {
    for (line, news) in [
        ("DELETE /queue", json!([])),
        (
            "POST /tenant/1/_apis/runtime/runnerscalesets/3/acquirejobs",
            json!([{"messageType": "JobAvailable", "runnerRequestId": 5}]),
        ),
    ] {
        let (service, mut listener) = served().await;
        service.message(41, 2, news);
        demand(&mut listener).await;
        service.script(line, refused());
        demand(&mut listener).await;
        demand(&mut listener).await;
        assert_eq!(service.requests(line).len(), 2, "{line}");
        assert!(service.state().messages.is_empty(), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_refuses_new_tokens_gets_a_new_session() {
    let (service, mut listener) = served().await;
    service.script("GET /queue", refused());
    service.script("GET /queue", refused());
    demand(&mut listener).await;
    insta::assert_snapshot!(said(&trouble(&mut listener).await), @r#"scale set "vm": cannot wait for messages of the scale set 3 of o: the service does not accept the token that the forge made for it (The token has expired.); dayfly opens a new session; next attempt in N s"#);
    service.lines();
    demand(&mut listener).await;
    demand(&mut listener).await;
    insta::assert_snapshot!(service.lines(), @r#"
    DELETE SETS/3/sessions/00000000-0000-0000-0000-000000000004
    POST SETS/3/sessions {"ownerName":"host-1"}
    GET /queue/messages?sessionId=7
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_has_ended_is_replaced() {
    for status in [401, 404, 409] {
        let (service, mut listener) = served().await;
        service.script("GET /queue", refused());
        for _ in 0..2 {
            service.script("PATCH ", Reply::new(status, json!({"message": "no such session"})));
        }
        let text = said(&trouble(&mut listener).await);
        assert!(
            text.contains("cannot refresh the session of the scale set 3")
                && text.contains("dayfly opens a new session"),
            "{text}"
        );
        demand(&mut listener).await;
        assert_eq!(service.requests(&format!("POST {SETS}/3/sessions")).len(), 2, "{status}");
        listener.close().await.unwrap();
        assert!(service.state().sessions.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_scale_set_that_was_deleted_is_created_again() {
    let (service, mut listener) = served().await;
    service.message(41, 1, json!([]));
    demand(&mut listener).await;
    service.state().scale_sets.clear();
    service.state().sessions.clear();
    for line in ["DELETE /queue", "GET /queue"] {
        service.script(line, Reply::new(404, json!({"message": "The session was not found."})));
    }
    let mut texts = Vec::new();
    let ready = loop {
        match step(&mut listener).await {
            ScaleSetUpdate::Trouble(trouble) => texts.push(said(&trouble)),
            ScaleSetUpdate::Ready(ready) => break ready,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((ready.is_new, ready.replaces), (true, Some(3)));
    texts.push(ready.to_string());
    insta::assert_snapshot!(texts.join("\n"), @r#"
    scale set "vm": cannot wait for messages of the scale set 3 of o: not found (The session was not found.); check the names, and that the token may see it; dayfly opens a new session; next attempt in N s
    scale set "vm": cannot open a session of the scale set 3 of o: No runner scale set found with identifier 3; the scale set was deleted by another program, so dayfly looks for it and creates it if it is not there; next attempt in N s (failure 2 in N s)
    the scale set "vm" (3) was deleted by another program; created it again (6)
    "#);
    demand(&mut listener).await;
    demand(&mut listener).await;
    listener.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_scale_set_that_another_program_creates_at_the_same_time_is_found() {
    let service = Service::start().await;
    service.script(
        format!("POST {SETS}"),
        refusal(409, "RunnerScaleSetExistsException", "The runner scale set vm already exists."),
    );
    let mut listener = service.listener();
    insta::assert_snapshot!(said(&trouble(&mut listener).await), @r#"scale set "vm": cannot create the scale set "vm" of o: The runner scale set vm already exists; dayfly tries again; next attempt in N s"#);
    service.script(
        format!("GET {SETS}"),
        Reply::new(
            200,
            json!({"value": [{"id": 7, "name": "vm", "runnerGroupId": 1, "labels": [{"name": "vm"}]}]}),
        ),
    );
    assert_eq!(ready(&mut listener).await.scale_set.id, 7);
}

#[tokio::test(start_paused = true)]
async fn a_session_without_statistics_is_refreshed_until_it_has_some() {
    let service = Service::start().await;
    service.state().statistics = json!(null);
    let mut listener = service.listener();
    ready(&mut listener).await;
    insta::assert_snapshot!(said(&trouble(&mut listener).await), @r#"scale set "vm": cannot use the session of the scale set "vm": the forge's answer is not understood: it has no statistics, which tell how many runners are needed; dayfly tries again; next attempt in N s"#);
    service.state().statistics = json!({"totalAssignedJobs": 3});
    assert_eq!(demand(&mut listener).await.statistics.total_assigned_jobs, 3);
    assert_eq!(service.requests(&format!("POST {SETS}/3/sessions")).len(), 1, "no second session is opened");
}
