//! Failures of registrations and names.

use std::time::Duration;

use dayfly_forge::scale_set::NewScaleSet;
use dayfly_forge::{Deletion, ForgeError};
use dayfly_light_runner::{CallError, Client};

use super::{Stage, request, scope};

#[tokio::test]
async fn a_token_of_the_service_that_has_ended_is_replaced_without_a_word() {
    let stage = Stage::new().await;
    stage.count("service-token").await;
    let client = stage.scale_sets();
    let new = NewScaleSet { name: "one".to_owned(), group_id: 1, labels: Vec::new() };
    client.create_scale_set(&new).await.unwrap();
    // The lab's clock runs ahead of the times in its answers, so that the client does not expect the end.
    stage.clock.advance(Duration::from_secs(2 * 3600));
    assert!(client.find_scale_set(1, "one").await.unwrap().is_some());
    assert_eq!(stage.counted().await, 2);
}

#[tokio::test]
async fn a_token_that_a_replica_does_not_know_yet_is_tried_again() {
    let stage = Stage::new().await;
    stage.order("unauthorized,on=service-token,count=1").await;
    assert_eq!(stage.scale_sets().find_scale_set(1, "one").await.unwrap(), None);
    assert_eq!(stage.happened("unauthorized").await, 1);
}

#[tokio::test]
async fn a_lost_reply_leaves_a_runner_that_is_found_by_its_name() {
    let stage = Stage::new().await;
    stage.count("generate-jitconfig").await;
    stage.order("drop-reply,on=generate-jitconfig,count=1").await;
    let error = stage.forge.generate_jit_config(&scope(), &request("vm-1")).await.unwrap_err();
    insta::assert_snapshot!(stage.shown(&error));
    assert!(error.is_temporary());
    assert_eq!(stage.counted().await, 1, "a registration is never repeated");
    let left = stage.forge.find_runner_by_name(&scope(), "vm-1").await.unwrap().unwrap();
    assert!(!left.busy && left.status == "offline", "{left:?}");
    assert_eq!(stage.forge.delete_runner(&scope(), left.id).await.unwrap(), Deletion::Deleted);
    stage.forge.generate_jit_config(&scope(), &request("vm-2")).await.unwrap();
}

#[tokio::test]
async fn a_name_that_is_taken_is_said_and_not_tried_again() {
    let stage = Stage::new().await;
    stage.count("generate-jitconfig").await;
    stage.order("name-conflict").await;
    let error = stage.forge.generate_jit_config(&scope(), &request("vm-1")).await.unwrap_err();
    assert!(matches!(error, ForgeError::Conflict { .. }) && !error.is_temporary(), "{error:?}");
    insta::assert_snapshot!(stage.shown(&error));
    assert_eq!(stage.counted().await, 1);
}

#[tokio::test]
async fn a_registration_that_cannot_be_is_not_tried_again() {
    let stage = Stage::new().await;
    stage.count("generate-jitconfig").await;
    let mut wrong = request("vm-1");
    wrong.labels.clear();
    let error = stage.forge.generate_jit_config(&scope(), &wrong).await.unwrap_err();
    assert!(matches!(error, ForgeError::Invalid { .. }) && !error.is_temporary(), "{error:?}");
    insta::assert_snapshot!(stage.shown(&error));
    assert_eq!(stage.counted().await, 1);
}

#[tokio::test]
async fn a_refusal_names_the_permission_that_may_be_missing() {
    let stage = Stage::new().await;
    let mut unknown_group = request("vm-1");
    unknown_group.group_id = 77;
    let error = stage.forge.generate_jit_config(&scope(), &unknown_group).await.unwrap_err();
    assert!(matches!(error, ForgeError::NotFound { .. }) && !error.is_temporary(), "{error:?}");
    insta::assert_snapshot!(stage.shown(&error));
}

#[tokio::test]
async fn a_jit_config_that_is_started_twice_is_refused_the_second_time() {
    let stage = Stage::new().await;
    let config = stage.forge.generate_jit_config(&scope(), &request("vm-1")).await.unwrap().config;
    let (first, second) = (Client::new(config.clone()), Client::new(config));
    first.sign_in().await.unwrap();
    first.open_session().await.unwrap();
    second.sign_in().await.unwrap();
    match second.open_session().await.unwrap_err() {
        CallError::Refused { status, body, .. } => {
            assert_eq!((status, body["errorKind"].as_str()), (409, Some("RunnerSessionConflict")));
            assert_eq!(body["errorMessage"], "A session for this runner already exists.");
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_runner_is_deleted_by_its_id_whatever_has_become_of_its_config() {
    let stage = Stage::new().await;
    let runner = stage.forge.generate_jit_config(&scope(), &request("vm-1")).await.unwrap();
    stage.order("not-found-after-delete,count=1").await;
    let deleted = stage.forge.delete_runner(&scope(), runner.runner_id).await.unwrap();
    assert_eq!(deleted, Deletion::Gone, "a proxy has sent the deletion twice");
    assert_eq!(stage.forge.find_runner_by_name(&scope(), "vm-1").await.unwrap(), None);
}
