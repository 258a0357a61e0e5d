//! Tests of the way to the service: the exchange of tokens, its renewal, its failures.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::clock::while_time_goes_on;
use super::http::Reply;
use super::service::{EXCHANGE, REGISTRATION_TOKEN, SETS, Service};
use super::without_ports;
use crate::scale_set::ScaleSetClient;
use crate::{Deletion, ForgeError};

/// Has many callers ask for a scale set that does not exist, at the same time.
async fn ask_at_once(client: &ScaleSetClient) -> Vec<Result<bool, ForgeError>> {
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let client = client.clone();
        callers.spawn(async move { client.get_scale_set(99).await.map(|found| found.is_some()) });
    }
    callers.join_all().await
}

#[tokio::test]
async fn callers_at_the_same_time_share_one_exchange() {
    let service = Service::start().await;
    let found = ask_at_once(&service.client()).await;
    assert!(found.iter().all(|found| matches!(found, Ok(false))), "{found:?}");
    assert_eq!(service.requests(REGISTRATION_TOKEN).len(), 1);
    let exchanges = service.requests(EXCHANGE);
    assert_eq!(exchanges.len(), 1);
    let body = format!(r#"{{"url":"{}/o","runner_event":"register"}}"#, service.url);
    assert_eq!((&exchanges[0].body, &*exchanges[0].authorization), (&body, "RemoteAuth REG-1"));
}

#[tokio::test]
async fn callers_at_the_same_time_share_one_failure() {
    let service = Service::start().await;
    let refused = || Reply::new(403, json!({"message": "Must have admin rights to Repository."}));
    service.script(REGISTRATION_TOKEN, refused());
    let client = service.client();
    let found = ask_at_once(&client).await;
    let error = found.into_iter().map(Result::unwrap_err).map(|error| error.to_string()).collect::<Vec<_>>();
    assert!(error.iter().all(|one| *one == error[0]), "{error:?}");
    insta::assert_snapshot!(error[0], @r#"cannot make a registration token for o: the token may not do that (Must have admin rights to Repository.); it needs the classic scope "admin:org", or the organisation permission "Self-hosted runners" (write) of a fine-grained token or a GitHub App"#);
    assert_eq!(service.requests(REGISTRATION_TOKEN).len(), 1);
    assert_eq!(client.get_scale_set(99).await.unwrap(), None, "a later caller tries again");
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_a_minute_before_its_end() {
    let service = Service::start().await;
    let client = service.client();
    for (pause_s, exchanges) in [(0, 1), (3530, 1), (15, 2), (3530, 2)] {
        tokio::time::advance(Duration::from_secs(pause_s)).await;
        client.get_scale_set(99).await.unwrap();
        assert_eq!(service.requests(EXCHANGE).len(), exchanges, "after {pause_s} s more");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_lives_by_the_clock_of_the_forge() {
    for ahead_s in [-5 * 3600, 5 * 3600] {
        let service = Service::start().await;
        service.state().ahead_s = ahead_s;
        let client = service.client();
        for (pause_s, exchanges) in [(0, 1), (3530, 1), (15, 2)] {
            tokio::time::advance(Duration::from_secs(pause_s)).await;
            client.get_scale_set(99).await.unwrap();
            assert_eq!(
                service.requests(EXCHANGE).len(),
                exchanges,
                "{ahead_s} s ahead, after {pause_s} s more"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_ended_at_its_birth_is_used_for_half_a_minute() {
    let service = Service::start().await;
    service.state().admin_life_s = -100;
    let client = service.client();
    for (pause_s, exchanges) in [(0, 1), (10, 1), (10, 2)] {
        tokio::time::advance(Duration::from_secs(pause_s)).await;
        client.get_scale_set(99).await.unwrap();
        assert_eq!(service.requests(EXCHANGE).len(), exchanges, "after {pause_s} s more");
    }
}

#[tokio::test]
async fn a_token_that_the_service_refuses_is_renewed_once() {
    let service = Service::start().await;
    let client = service.client();
    let refused = || Reply::new(401, "").header("content-type", "text/plain");
    service.script(format!("GET {SETS}/99"), refused());
    assert_eq!(client.get_scale_set(99).await.unwrap(), None);
    assert_eq!(service.requests(EXCHANGE).len(), 2);
    for _ in 0..2 {
        service.script(format!("GET {SETS}/99"), refused());
    }
    let error = client.get_scale_set(99).await.unwrap_err();
    insta::assert_snapshot!(error, @"cannot look up the scale set 99 of o: the service does not accept the token that the forge made for it (HTTP 401)");
    assert_eq!(service.requests(EXCHANGE).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_registration_token_that_a_server_does_not_know_yet_is_tried_again() {
    let service = Service::start().await;
    for status in [401, 403, 401] {
        service.script(EXCHANGE, Reply::new(status, json!({"message": "unknown token"})));
    }
    let since = Instant::now();
    assert_eq!(while_time_goes_on(service.client().get_scale_set(99)).await.unwrap(), None);
    assert_eq!(service.requests(REGISTRATION_TOKEN).len(), 1);
    assert!((1 + 2 + 4..30).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());

    for _ in 0..9 {
        service.script(EXCHANGE, Reply::new(403, json!({"message": "unknown token"})));
    }
    let error = while_time_goes_on(service.client().get_scale_set(99)).await.unwrap_err();
    insta::assert_snapshot!(error, @"cannot reach the Actions Service of o, which has its scale sets: the token may not do that (unknown token)");
    assert_eq!(service.requests(EXCHANGE).len(), 4 + 5);
}

#[tokio::test]
async fn a_registration_token_that_is_not_found_is_replaced_once() {
    let service = Service::start().await;
    service.script(EXCHANGE, Reply::new(404, json!({"message": "Not Found"})));
    assert_eq!(service.client().get_scale_set(99).await.unwrap(), None);
    assert_eq!(service.requests(REGISTRATION_TOKEN).len(), 2);

    for _ in 0..2 {
        service.script(EXCHANGE, Reply::new(404, json!({"message": "Not Found"})));
    }
    // The object of the call is not known to be gone.
    let error = service.client().delete_scale_set(99).await.unwrap_err();
    insta::assert_snapshot!(error, @"cannot reach the Actions Service of o, which has its scale sets: not found (Not Found); check the names, and that the token may see it: it needs GitHub Actions to be enabled there");
}

#[tokio::test]
async fn an_exchange_that_makes_no_sense_says_so() {
    for (answer, why) in [
        (json!({"url": "https://h/", "token": ""}), "it has no token"),
        (json!({"url": "x", "token": "T"}), "it names an address that is none"),
        (json!({"token": "T"}), "missing field `url`"),
    ] {
        let service = Service::start().await;
        service.script(EXCHANGE, Reply::new(200, answer));
        let error = service.client().get_scale_set(1).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[tokio::test]
async fn a_service_that_is_gone_is_named() {
    let service = Service::start().await;
    service.state().service_url = "http://127.0.0.1:1/tenant".to_owned();
    let error = service.client().delete_scale_set(1).await.unwrap_err();
    assert!(error.is_temporary());
    insta::assert_snapshot!(without_ports(&error.to_string()), @"cannot delete the scale set 1 of o: http://127.0.0.1:N does not answer; is the forge running, and is this its address?");
}

#[tokio::test]
async fn only_204_and_404_mean_that_a_scale_set_is_gone() {
    for (status, expected) in
        [(204, Some(Deletion::Deleted)), (404, Some(Deletion::Gone)), (200, None), (302, None)]
    {
        let service = Service::start().await;
        service.script(format!("DELETE {SETS}/1"), Reply::new(status, "").header("location", "/login"));
        assert_eq!(service.client().delete_scale_set(1).await.ok(), expected, "{status}");
        assert!(service.requests("GET /login").is_empty());
    }
}
