//! Limits of calls, and incidents of a forge.

use std::time::Duration;

use dayfly_forge::{Deletion, ForgeError, OpenJobs};

use super::{Stage, request, scope};

#[tokio::test]
async fn looks_are_held_back_before_deletions() {
    let stage = Stage::new().await;
    let runner = stage.forge.generate_jit_config(&scope(), &request("vm-1")).await.unwrap().runner_id;
    stage.count("rest").await;
    stage.order("rate-limit,value=20,for=1h").await;
    let error = loop {
        if let Err(error) = stage.forge.list_runners(&scope()).await {
            break error;
        }
    };
    let looks = stage.counted().await;
    insta::assert_snapshot!(stage.shown(&error));
    assert!(matches!(error, ForgeError::Shed { .. }), "{error:?}");
    assert_eq!(stage.forge.delete_runner(&scope(), runner).await.unwrap(), Deletion::Deleted);
    assert_eq!((looks, stage.counted().await), (17, 18), "the held call was not sent");
}

#[tokio::test]
async fn a_secondary_limit_is_said_once_and_holds_back_the_next_calls() {
    let stage = Stage::new().await;
    stage.count("rest").await;
    stage.order("secondary-limit,on=generate-jitconfig,value=600").await;
    let error = stage.forge.generate_jit_config(&scope(), &request("vm-1")).await.unwrap_err();
    insta::assert_snapshot!(error);
    assert!(matches!(error, ForgeError::RateLimited { wait, .. } if wait.as_secs() == 600), "{error:?}");
    let next = stage.forge.generate_jit_config(&scope(), &request("vm-2")).await.unwrap_err();
    insta::assert_snapshot!(stage.shown(&next));
    assert_eq!(stage.counted().await, 1);
}

#[tokio::test]
async fn a_secondary_limit_that_names_no_time_is_known_by_its_message() {
    let stage = Stage::new().await;
    stage.order("secondary-limit-without-wait,on=generate-jitconfig").await;
    let error = stage.forge.generate_jit_config(&scope(), &request("vm-1")).await.unwrap_err();
    assert!(matches!(error, ForgeError::RateLimited { wait, .. } if wait.as_secs() == 60), "{error:?}");
    assert!(error.is_temporary());
}

#[tokio::test]
async fn a_token_that_is_refused_is_not_tried_again() {
    let stage = Stage::new().await;
    stage.count("generate-jitconfig").await;
    stage.order("unauthorized,on=generate-jitconfig").await;
    let error = stage.forge.generate_jit_config(&scope(), &request("vm-1")).await.unwrap_err();
    insta::assert_snapshot!(error);
    assert!(!error.is_temporary());
    assert_eq!(stage.counted().await, 1);
}

#[tokio::test]
async fn a_look_survives_a_short_burst_of_failures_and_a_registration_is_not_repeated() {
    let stage = Stage::new().await;
    stage.order("server-error,on=list-runners,count=2,value=502").await;
    assert!(stage.forge.list_runners(&scope()).await.unwrap().is_empty());
    assert_eq!(stage.happened("server-error").await, 2);

    stage.order("server-error,on=list-runners").await;
    let error = stage.forge.list_runners(&scope()).await.unwrap_err();
    insta::assert_snapshot!(error);
    assert_eq!(stage.happened("server-error").await, 6, "four attempts");

    stage.count("generate-jitconfig").await;
    stage.order("server-error,on=generate-jitconfig").await;
    let error = stage.forge.generate_jit_config(&scope(), &request("vm-1")).await.unwrap_err();
    assert!(matches!(error, ForgeError::Server { status: 503, .. }), "{error:?}");
    assert_eq!(stage.counted().await, 1);
}

#[tokio::test]
async fn a_job_whose_delivery_was_lost_is_in_the_lists() {
    let stage = Stage::new().await;
    stage.make_hook().await;
    stage.order("webhook-loss").await;
    let mut jobs = OpenJobs::new(stage.forge.clone(), "o", "r");
    stage.dispatch().await;
    assert_eq!(stage.happened("webhook-loss").await, 1);
    let open = jobs.look().await.unwrap();
    assert_eq!(
        open.iter().map(|job| (job.name.as_str(), job.status.as_str())).collect::<Vec<_>>(),
        [("job", "queued")]
    );
}

#[tokio::test]
async fn answers_of_a_newer_forge_are_read() {
    let stage = Stage::new().await;
    for fault in ["unknown-members", "byte-order-mark", "large-ids"] {
        stage.order(fault).await;
    }
    let runner = stage.forge.generate_jit_config(&scope(), &request("vm-1")).await.unwrap();
    assert!(runner.runner_id > 1 << 53);
    let found = stage.forge.find_runner_by_name(&scope(), "vm-1").await.unwrap().unwrap();
    assert_eq!(found.id, runner.runner_id);
    let set = stage.scale_set().await;
    assert!(set.id > 1 << 53);
    let client = stage.scale_sets();
    let session = client.open_session(set.id, "host-1").await.unwrap();
    stage.dispatch().await;
    let message = async {
        loop {
            if let Some(message) = client.next_message(&session, 0, 3).await.unwrap() {
                return message;
            }
        }
    };
    let message = tokio::time::timeout(Duration::from_secs(30), message).await.unwrap();
    assert_eq!((message.events.len(), message.unread.len()), (1, 0), "{message:?}");
}
