//! The faults of registrations, sessions, tokens and ids.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{RUNNERS, clear, happened, jit, order, runners, send};
use crate::fault::Fault;
use crate::tests::bench::{Bench, ONE_JOB, Script};
use crate::tests::scale_set::Owner;

#[tokio::test]
async fn a_name_can_be_taken_although_no_runner_has_it() {
    let bench = Bench::new().await;
    order(&bench, "name-conflict,count=1").await;
    let path = format!("{RUNNERS}/generate-jitconfig");
    let answer = send(&bench, Method::POST, &path, Some(jit("a"))).await.unwrap();
    assert_eq!(answer.status, 409);
    assert_eq!(answer.json()["message"], "Already exists - A runner with the name a already exists.");
    assert_eq!(send(&bench, Method::POST, &path, Some(jit("a"))).await.unwrap().status, 201);

    let owner = Owner::of(&bench, "o/r").await;
    let set = owner.make("set", &["big"]).await;
    order(&bench, "name-conflict,on=service").await;
    let path = format!("runtime/runnerscalesets/{set}/generatejitconfig");
    let (status, body) = owner.call(Method::POST, &path, Some(json!({"name": "b"}))).await;
    assert_eq!((status, body["typeKey"].as_str()), (409, Some("TaskAgentExistsException")));
}

#[tokio::test]
async fn a_deletion_can_be_refused_although_no_job_runs() {
    let bench = Bench::new().await;
    let id = runners(&bench, &["a"]).await[0];
    order(&bench, "busy-delete,count=1").await;
    let path = format!("{RUNNERS}/{id}");
    let answer = send(&bench, Method::DELETE, &path, None).await.unwrap();
    assert_eq!(answer.status, 422);
    assert_eq!(answer.json()["message"], "Bad request - Runner \"a\" is still running a job\"");

    let owner = Owner::of(&bench, "o/r").await;
    order(&bench, "busy-delete,on=service,count=1").await;
    let agent = format!("distributedtask/pools/0/agents/{id}");
    let (status, body) = owner.call(Method::DELETE, &agent, None).await;
    assert_eq!((status, body["typeKey"].as_str()), (400, Some("TaskAgentJobStillRunningException")));
    assert_eq!(send(&bench, Method::DELETE, &path, None).await.unwrap().status, 204);
}

#[tokio::test]
async fn sessions_are_refused_for_a_time() {
    let bench = Bench::new().await;
    let owner = Owner::of(&bench, "o/r").await;
    let set = owner.make("set", &["big"]).await;
    order(&bench, "session-conflict,on=session,for=30s").await;
    let (status, body) = owner.open(set).await;
    assert_eq!((status, body["typeKey"].as_str()), (409, Some("RunnerScaleSetSessionConflictException")));
    bench.advance(Duration::from_secs(31)).await;
    assert_eq!(owner.open(set).await.0, 200);

    let runner = Script::new(bench.register("a", &["big"]).await);
    runner.sign_in().await.unwrap();
    order(&bench, "session-conflict,on=runner-session,count=1").await;
    let (status, body) = runner.open_session().await.unwrap_err();
    assert_eq!((status, body["errorKind"].as_str()), (409, Some("RunnerSessionConflict")));
    runner.open_session().await.unwrap();
}

#[tokio::test]
async fn the_token_of_a_queue_ends_soon_and_a_refresh_brings_another() {
    let bench = Bench::new().await;
    let owner = Owner::of(&bench, "o/r").await;
    let set = owner.make("set", &["big"]).await;
    order(&bench, "queue-token-expiry,value=5,count=1").await;
    let mut listener = owner.listen(set).await;
    assert_eq!(listener.poll(0, 5).await.0, 202);
    bench.advance(Duration::from_secs(6)).await;
    assert_eq!(listener.poll(0, 5).await.0, 401);
    let session = listener.opened["sessionId"].as_str().unwrap();
    let path = format!("runtime/runnerscalesets/{set}/sessions/{session}");
    let refreshed = owner.call(Method::PATCH, &path, None).await.1;
    listener = super::super::scale_set::Listener::read(refreshed);
    bench.advance(Duration::from_secs(6)).await;
    assert_eq!(listener.poll(0, 5).await.0, 202);
}

#[tokio::test]
async fn a_registration_is_removed_by_the_labs_clock_unless_it_has_a_job() {
    let bench = Bench::new().await;
    order(&bench, "registration-expiry,value=90").await;
    let _run = bench.start(ONE_JOB).await;
    let mut busy = bench.runner("busy", &["self-hosted", "big"]).await;
    busy.take_job().await;
    let idle = bench.runner("idle", &["self-hosted", "big"]).await;
    clear(&bench).await;
    bench.register("later", &["big"]).await;
    bench.advance(Duration::from_secs(91)).await;
    let left = bench.forge.list_runners(&Bench::scope()).await.unwrap();
    assert_eq!(left.iter().map(|runner| runner.name.as_str()).collect::<Vec<_>>(), ["busy", "later"]);
    let (status, body) = idle.sign_in().await.unwrap_err();
    assert_eq!((status, body["error"].as_str()), (400, Some("invalid_client")));
}

#[tokio::test]
async fn a_clock_that_is_ahead_refuses_an_assertion_with_the_servers_time() {
    let bench = Bench::new().await;
    let runner = Script::new(bench.register("a", &["big"]).await);
    let mut events = bench.lab.subscribe();
    order(&bench, "clock-skew,value=7200,count=1").await;
    let (status, body) = runner.sign_in().await.unwrap_err();
    assert_eq!((status, body["error"].as_str()), (400, Some("invalid_request")));
    let text = body["error_description"].as_str().unwrap();
    assert!(text.starts_with("The assertion is too old or too new. Current server time is"), "{text}");
    assert!(happened(&mut events, Fault::ClockSkew).await.0.starts_with("client "));
    runner.sign_in().await.unwrap();
}

#[tokio::test]
async fn ids_can_be_larger_than_floating_point_holds() {
    let bench = Bench::new().await;
    let small = runners(&bench, &["a"]).await[0];
    order(&bench, "large-ids").await;
    let large = runners(&bench, &["b", "c"]).await;
    assert!(small < 1 << 53 && large[0] > 1 << 53, "{small} {large:?}");
    assert_eq!(large[1], large[0] + 1);
    let found: Value =
        send(&bench, Method::GET, &format!("{RUNNERS}/{}", large[0]), None).await.unwrap().json();
    assert_eq!(found["id"].as_u64(), Some(large[0]));
    assert_eq!(bench.forge.get_runner(&Bench::scope(), large[0]).await.unwrap().unwrap().name, "b");
}
