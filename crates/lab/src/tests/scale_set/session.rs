//! Sessions of listeners, also over restarts of the lab.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::super::bench::{Bench, http};
use super::{Listener, Owner, answer, ids, kinds, numbers, workflow};

#[tokio::test]
async fn a_session_is_alone_until_it_ends_or_its_listener_is_silent() {
    let bench = Bench::new().await;
    let owner = Owner::of(&bench, "o/r").await;
    let set = owner.make("x", &[]).await;
    let first = owner.listen(set).await;
    assert_eq!(first.opened["ownerName"], "host-1");
    assert_eq!(first.opened["runnerScaleSet"]["id"], set);
    assert_eq!(numbers(&first.opened), [0; 7]);
    let (status, error) = owner.open(set).await;
    assert_eq!(status, 409);
    assert_eq!(error["message"], "The actions runner scaleset x already has an active session.");
    let expected =
        "GitHub.Actions.Runtime.WebApi.RunnerScaleSetSessionConflictException, GitHub.Actions.Runtime.WebApi";
    assert_eq!(error["typeName"], expected);

    bench.advance(Duration::from_secs(200)).await;
    assert_eq!(first.poll(0, 1).await.0, 202);
    bench.advance(Duration::from_secs(200)).await;
    assert_eq!(owner.open(set).await.0, 409, "a poll keeps the session");
    bench.advance(Duration::from_secs(241)).await;
    let second = owner.listen(set).await;
    for (status, error) in [first.poll(0, 1).await, first.acquire(&[1]).await] {
        assert_eq!((status, error["typeKey"].as_str()), (404, Some("RunnerScaleSetSessionExpiredException")));
    }
    let path = |session: &str| format!("runtime/runnerscalesets/{set}/sessions/{session}");
    assert_eq!(owner.call(Method::DELETE, &path(&first.session), None).await.0, 404);
    assert_eq!(owner.call(Method::DELETE, &path(&second.session), None).await.0, 204);
    assert_eq!(owner.call(Method::PATCH, &path(&second.session), None).await.0, 404);
    owner.listen(set).await;
}

#[tokio::test]
async fn an_old_token_of_the_queue_is_renewed_within_the_session() {
    let bench = Bench::with(|limits| limits.listener_idle = Duration::from_secs(100_000)).await;
    let owner = Owner::of(&bench, "o/r").await;
    let set = owner.make("x", &[]).await;
    let other = owner.make("y", &[]).await;
    let listener = owner.listen(set).await;
    bench.advance(Duration::from_secs(3601)).await;
    assert_eq!(listener.poll(0, 1).await.0, 401);
    assert_eq!((listener.acquire(&[1]).await.0, listener.delete(1).await), (401, 401));
    let owner = Owner::of(&bench, "o/r").await;
    let path = format!("runtime/runnerscalesets/{set}/sessions/{}", listener.session);
    let (status, renewed) = owner.call(Method::PATCH, &path, None).await;
    let renewed = Listener::read(renewed);
    assert_eq!((status, &renewed.session), (200, &listener.session));
    assert_eq!(renewed.poll(0, 1).await.0, 202);
    // A token is for one queue, and the query of its address belongs to it.
    let foreign = Listener { queue_url: owner.listen(other).await.queue_url, ..renewed };
    assert_eq!(foreign.poll(0, 1).await.0, 401);
    let bare = listener.queue_url.split_once('?').unwrap().0;
    assert_eq!(answer(http().get(bare).bearer_auth(&foreign.token)).await.0, 401);
}

#[tokio::test]
async fn the_end_of_a_session_or_a_scale_set_ends_the_poll_that_is_open() {
    let bench = Bench::with(|limits| limits.long_poll = Duration::from_secs(60)).await;
    let owner = Owner::of(&bench, "o/r").await;
    for deletes_set in [true, false] {
        let set = owner.make("x", &[]).await;
        let listener = owner.listen(set).await;
        let session = listener.session.clone();
        let poll = tokio::spawn(async move { listener.poll(0, 1).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        if deletes_set {
            assert_eq!(owner.delete(set).await, 204);
        } else {
            let path = format!("runtime/runnerscalesets/{set}/sessions/{session}");
            assert_eq!(owner.call(Method::DELETE, &path, None).await.0, 204);
        }
        let ended = tokio::time::timeout(Duration::from_secs(10), poll).await.unwrap().unwrap();
        assert_eq!(ended.0, 404, "{}", ended.1);
    }
}

#[tokio::test]
async fn a_listener_goes_on_after_the_lab_was_killed() {
    let bench = Bench::new().await;
    let owner = Owner::of(&bench, "o/r").await;
    let set = owner.make("x", &[]).await;
    let run = bench.start(&workflow("x", &[1, 2])).await;
    let mut listener = owner.listen(set).await;
    let jobs = listener.acquire_all().await;
    let third = bench.start(&workflow("x", &[1])).await;
    let mut runner = owner.runner(set, "first").await;
    runner.take_job().await;
    let unread = listener.next(0).await;
    let last = unread["messageId"].as_u64().unwrap();
    let (before, token) = (owner.statistics(set).await, owner.token.clone());

    let old = bench.url.clone();
    let bench = bench.killed_and_opened().await;
    listener.moved(&old, &bench.url);
    runner.moved(&old, &bench.url);
    let owner = Owner { bench: &bench, token: token.clone() };
    assert_eq!(owner.open(set).await.0, 409, "the session is still there");
    let again = listener.next(last).await;
    assert!(again["messageId"].as_u64().unwrap() > last, "the number of a message is not used again");
    let sorted = |message| {
        let mut all: Vec<_> = ids(message).into_iter().zip(kinds(message)).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(sorted(&again), sorted(&unread), "only what was not deleted comes again");
    assert!(
        kinds(&again).contains(&"JobStarted".to_owned())
            && kinds(&again).contains(&"JobAvailable".to_owned())
    );
    assert_eq!(before[..4], numbers(&again)[..4]);
    listener.delete(again["messageId"].as_u64().unwrap()).await;
    runner.complete("succeeded", json!({})).await.unwrap();

    // Unread messages about finished jobs survive too.
    let old = bench.url.clone();
    let bench = bench.killed_and_opened().await;
    listener.moved(&old, &bench.url);
    let owner = Owner { bench: &bench, token: token.clone() };
    let ended = listener.next(0).await;
    assert_eq!((kinds(&ended)[0].as_str(), ids(&ended)[0]), ("JobCompleted", jobs[0]), "{ended}");
    let mut second = owner.runner(set, "second").await;
    second.take_job().await;
    second.complete("succeeded", json!({})).await.unwrap();
    assert_eq!(bench.conclusion(run).await.as_deref(), Some("success"));
    assert_eq!(bench.conclusion(third).await, None);
}
