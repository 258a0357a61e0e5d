//! The faults of webhooks.

use dayfly_forge::webhook::JobAction;
use std::time::Duration;

use super::order;
use crate::tests::bench::{Bench, ONE_JOB};
use crate::tests::hook::{HOOKS, Receiver, deliveries, header, make};

/// A lab with a hook and its receiver, and one fault that a run meets.
async fn stage(fault: &str) -> (Bench, Receiver, u64) {
    let bench = Bench::new().await;
    bench.forge.put_workflow("o", "r", "ci.yml", ONE_JOB).await.unwrap();
    let mut receiver = Receiver::start().await;
    let hook = make(&bench, HOOKS, &mut receiver, "json").await;
    order(&bench, fault).await;
    (bench, receiver, hook)
}

#[tokio::test]
async fn a_lost_delivery_is_in_the_list_and_can_be_sent_again() {
    let (bench, mut receiver, hook) = stage("webhook-loss,count=1").await;
    let run = bench.start(ONE_JOB).await;
    let list = deliveries(&bench, hook, 2).await;
    assert_eq!(
        (&list[0]["action"], &list[0]["status"]),
        (&"queued".into(), &"lost by the fault desk".into())
    );
    bench.forge.cancel_run("o", "r", run).await.unwrap();
    assert_eq!(receiver.job("s3cret").await.action, JobAction::Completed, "the next delivery arrives");
    let path = format!("{HOOKS}/{hook}/deliveries/{}/attempts", list[0]["id"]);
    assert_eq!(bench.call(reqwest::Method::POST, &path, None).await.0, 202);
    loop {
        if receiver.job("s3cret").await.action == JobAction::Queued {
            break;
        }
    }
}

#[tokio::test]
async fn a_delivery_comes_twice_with_the_same_guid() {
    let (bench, mut receiver, _) = stage("webhook-duplicate,count=1").await;
    bench.start(ONE_JOB).await;
    let (first, second) = (receiver.next().await, receiver.next().await);
    assert_eq!(header(&first.0, "x-github-delivery"), header(&second.0, "x-github-delivery"));
    assert_eq!(first.1, second.1);
}

#[tokio::test]
async fn a_delivery_comes_after_the_next_one_or_after_five_seconds() {
    let (bench, mut receiver, _) = stage("webhook-reorder,count=1").await;
    let run = bench.start(ONE_JOB).await;
    bench.forge.cancel_run("o", "r", run).await.unwrap();
    assert_eq!(receiver.job("s3cret").await.action, JobAction::Completed);
    let mut actions = Vec::new();
    while !actions.contains(&JobAction::Queued) {
        actions.push(receiver.job("s3cret").await.action);
    }

    let (bench, mut receiver, _) = stage("webhook-reorder,count=1").await;
    bench.start(ONE_JOB).await;
    let nothing = tokio::time::timeout(Duration::from_millis(300), receiver.next()).await;
    assert!(nothing.is_err(), "it is held back");
    bench.advance(Duration::from_secs(6)).await;
    assert_eq!(receiver.job("s3cret").await.action, JobAction::Queued);
}
