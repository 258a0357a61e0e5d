//! The message queue: offers, acknowledgements, statistics, bounds.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::super::bench::{Bench, RunnerStatus};
use super::{Owner, ids, jobs, kinds, numbers, workflow};

#[tokio::test]
async fn a_job_is_told_from_its_offer_to_its_end() {
    let bench = Bench::new().await;
    let owner = Owner::of(&bench, "o").await;
    let set = owner.make("x", &["Big"]).await;
    let listener = owner.listen(set).await;
    let text = workflow("big", &[1]);
    let (offer, run) = tokio::join!(listener.next(0), bench.start(&text));
    let job = &jobs(&offer)[0];
    assert_eq!(numbers(&offer), [1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(job["messageType"], "JobAvailable");
    assert!(job["acquireJobUrl"].as_str().unwrap().ends_with(&format!("/runnerscalesets/{set}/acquirejobs")));
    assert_eq!((&job["ownerName"], &job["repositoryName"]), (&json!("o"), &json!("r")));
    assert_eq!((&job["jobDisplayName"], &job["workflowRunId"]), (&json!("job (1)"), &json!(run)));
    assert_eq!((&job["eventName"], &job["requestLabels"]), (&json!("workflow_dispatch"), &json!(["big"])));
    assert_eq!(job["jobWorkflowRef"], "o/r/.github/workflows/ci.yml@refs/heads/main");
    assert_eq!(job["scaleSetAssignTime"], "0001-01-01T00:00:00Z");
    assert!(job["queueTime"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{job}");

    listener.acquire_all().await;
    assert_eq!(owner.statistics(set).await, [0, 0, 1, 0, 0, 0, 0]);
    let mut runner = owner.runner(set, "vm-1").await;
    assert_eq!(owner.statistics(set).await[4..], [1, 0, 1]);
    runner.take_job().await;
    let started = listener.take().await;
    assert_eq!(numbers(&started), [0, 0, 1, 1, 1, 1, 0]);
    let job = &jobs(&started)[0];
    assert_eq!((&job["runnerId"], &job["runnerName"]), (&json!(runner.id), &json!("vm-1")));
    assert_ne!(job["runnerAssignTime"], "0001-01-01T00:00:00Z");
    runner.complete("failed", json!({})).await.unwrap();
    let ended = listener.take().await;
    assert_eq!((numbers(&ended), kinds(&ended)), ([0; 7], vec!["JobCompleted".to_owned()]));
    assert_eq!(
        (&jobs(&ended)[0]["result"], &jobs(&ended)[0]["runnerId"]),
        (&json!("failed"), &json!(runner.id))
    );
    assert_eq!(listener.poll(0, 1).await.0, 202);
}

#[tokio::test]
async fn a_message_comes_again_until_it_is_deleted_and_not_before_the_last_one_seen() {
    let bench = Bench::new().await;
    let owner = Owner::of(&bench, "o/r").await;
    let set = owner.make("x", &[]).await;
    let listener = owner.listen(set).await;
    bench.start(&workflow("x", &[1])).await;
    let first = listener.next(0).await;
    bench.start(&workflow("x", &[1])).await;
    let first_id = first["messageId"].as_u64().unwrap();
    let second = listener.next(first_id).await;
    assert_ne!(ids(&first), ids(&second));
    assert_eq!(listener.poll(second["messageId"].as_u64().unwrap(), 9).await.0, 202);
    let again = listener.next(0).await;
    assert_eq!((&again["messageId"], &again["body"]), (&first["messageId"], &first["body"]));
    assert_eq!(numbers(&again)[0], 2, "the statistics are those of now");
    assert_eq!((listener.delete(first_id).await, listener.delete(first_id).await), (204, 204));
    assert_eq!(listener.next(0).await["messageId"], second["messageId"]);
    // A new listener is told all that was not acknowledged, and of every job that waits.
    let path = format!("runtime/runnerscalesets/{set}/sessions/{}", listener.session);
    assert_eq!(owner.call(Method::DELETE, &path, None).await.0, 204);
    assert_eq!(ids(&owner.listen(set).await.next(0).await).len(), 2);
}

#[tokio::test]
async fn a_listener_is_offered_as_many_jobs_as_it_has_room_for() {
    let bench = Bench::new().await;
    let owner = Owner::of(&bench, "o/r").await;
    let set = owner.make("x", &[]).await;
    let numbers: Vec<u32> = (0..60).collect();
    bench.start(&workflow("x", &numbers)).await;
    let listener = owner.listen(set).await;
    assert_eq!(listener.poll(0, 0).await.0, 202);
    let first = listener.poll(0, 3).await.1;
    assert_eq!(ids(&first).len(), 3);
    let last = first["messageId"].as_u64().unwrap();
    assert_eq!(listener.poll(last, 3).await.0, 202, "its room is taken by what it was offered");
    let next = listener.poll(last, 100).await.1;
    assert_eq!(ids(&next).len(), 50, "a message is about 50 jobs at most");
    let rest = listener.poll(next["messageId"].as_u64().unwrap(), 100).await.1;
    assert_eq!(ids(&rest).len(), 7);
    let junk = super::http().get(&listener.queue_url).bearer_auth(&listener.token);
    assert_eq!(super::answer(junk.header("X-ScaleSetMaxCapacity", "-1")).await.0, 400);
}

#[tokio::test]
async fn a_job_that_is_cancelled_before_its_pick_up_leaves_the_queue_and_the_statistics() {
    let bench = Bench::new().await;
    let owner = Owner::of(&bench, "o/r").await;
    let set = owner.make("x", &[]).await;
    let listener = owner.listen(set).await;
    // Not offered yet, offered, and acquired.
    let unseen = bench.start(&workflow("x", &[1])).await;
    assert_eq!(owner.statistics(set).await[0], 1);
    assert!(bench.forge.cancel_run("o", "r", unseen).await.unwrap());
    assert_eq!(listener.poll(0, 9).await.0, 202);
    let offered = bench.start(&workflow("x", &[1])).await;
    let job = ids(&listener.take().await);
    assert!(bench.forge.cancel_run("o", "r", offered).await.unwrap());
    assert_eq!(listener.acquire(&job).await.1["count"], 0);
    let acquired = bench.start(&workflow("x", &[1])).await;
    let job = listener.acquire_all().await;
    assert_eq!(owner.statistics(set).await, [0, 0, 1, 0, 0, 0, 0]);
    assert!(bench.forge.cancel_run("o", "r", acquired).await.unwrap());
    let told = listener.take().await;
    assert_eq!((ids(&told), numbers(&told)), (job, [0; 7]));
    let told = &jobs(&told)[0];
    assert_eq!(
        (&told["result"], &told["runnerId"], &told["runnerName"]),
        (&json!("canceled"), &json!(0), &json!(""))
    );
    let runner = owner.runner(set, "late").await;
    assert!(runner.poll(RunnerStatus::Online).await.unwrap().is_null());
}

#[tokio::test]
async fn an_acquired_job_whose_runner_does_not_fetch_it_waits_for_another_of_the_set() {
    let bench = Bench::new().await;
    let owner = Owner::of(&bench, "o/r").await;
    let set = owner.make("x", &[]).await;
    bench.start(&workflow("x", &[1])).await;
    let listener = owner.listen(set).await;
    listener.acquire_all().await;
    let sleepy = owner.runner(set, "sleepy").await;
    sleepy.message("RunnerJobRequest").await;
    bench.advance(Duration::from_secs(61)).await;
    assert_eq!(owner.statistics(set).await[..4], [0, 0, 1, 0]);
    owner.runner(set, "awake").await.take_job().await;
    assert_eq!(kinds(&listener.take().await), ["JobStarted"]);
}

#[tokio::test]
async fn an_ordinary_runner_takes_a_job_before_it_is_acquired() {
    let bench = Bench::new().await;
    let owner = Owner::of(&bench, "o/r").await;
    let set = owner.make("x", &[]).await;
    let listener = owner.listen(set).await;
    bench.start(&workflow("x", &[1])).await;
    let job = ids(&listener.take().await);
    let path = format!("runtime/runnerscalesets/{set}/acquirablejobs");
    let (status, list) = owner.call(Method::GET, &path, None).await;
    assert_eq!((status, &list["value"][0]["runnerRequestId"]), (200, &json!(job[0])));
    let mut plain = bench.runner("plain", &["x"]).await;
    plain.take_job().await;
    assert_eq!(listener.acquire(&job).await.1["count"], 0);
    assert_eq!(owner.call(Method::GET, &path, None).await.0, 204);
    plain.complete("succeeded", json!({})).await.unwrap();
    assert_eq!(listener.poll(0, 9).await.0, 202, "nothing is told of a job that the set never had");
}

#[tokio::test]
async fn what_waits_for_a_listener_that_does_not_read_is_bounded() {
    let bench = Bench::with(|limits| limits.listener_notices_max = 2).await;
    let owner = Owner::of(&bench, "o/r").await;
    let set = owner.make("x", &[]).await;
    bench.start(&workflow("x", &[1, 2, 3, 4])).await;
    let listener = owner.listen(set).await;
    let job = ids(&listener.take().await);
    listener.acquire(&job).await;
    let message = listener.next(0).await;
    assert_eq!((ids(&message), numbers(&message)[2]), (job[2..].to_vec(), 4), "the statistics count all");
    assert_eq!(listener.acquire(&[1; 1001]).await.0, 400);
    // A listener that deletes nothing gets 100 messages at most.
    let mut last = message["messageId"].as_u64().unwrap();
    for _ in 1..100 {
        bench.start(&workflow("x", &[1])).await;
        last = listener.next(last).await["messageId"].as_u64().unwrap();
    }
    bench.start(&workflow("x", &[1])).await;
    assert_eq!(listener.poll(last, 10_000).await.0, 202);
    listener.delete(last).await;
    assert_eq!(listener.poll(last, 10_000).await.0, 200);
}
