//! Tests of the rule which host gets which token.

use std::sync::{Arc, Mutex};

use serde_json::json;

use super::http::{Reply, Request, serve};
use super::service::{EXCHANGE, SETS, Service, spec};
use super::{demand, ready, said, trouble, without_ports};
use crate::ForgeError;
use crate::scale_set::ScaleSetListener;

/// Starts a server that answers everything by `reply`. Returns its address and the requests that it got.
async fn other_host(reply: Reply) -> (String, Arc<Mutex<Vec<Request>>>) {
    let seen = Arc::<Mutex<Vec<Request>>>::default();
    let requests = seen.clone();
    let address = serve(move |request| {
        requests.lock().unwrap().push(request);
        reply.clone()
    })
    .await;
    (format!("http://{address}"), seen)
}

#[tokio::test(start_paused = true)]
async fn each_token_goes_only_to_the_server_that_it_is_for() {
    let (queue, polls) = other_host(Reply::new(
        200,
        json!({"messageId": 1, "messageType": "RunnerScaleSetJobMessages", "body": "", "statistics": {"totalAssignedJobs": 0}}),
    ))
    .await;
    let service = Service::start().await;
    service.state().queue_url = format!("{queue}/messages");
    let mut listener = service.listener();
    ready(&mut listener).await;
    demand(&mut listener).await;
    demand(&mut listener).await;
    listener.close().await.unwrap();

    let polls = polls.lock().unwrap();
    assert_eq!(polls.len(), 1);
    assert!(polls[0].authorization.starts_with("Bearer QUEUE-"), "{polls:?}");
    for request in service.requests("") {
        let scheme = match request.line.as_str() {
            line if line.contains(" /api/v3/orgs/") => "Bearer PAT",
            EXCHANGE => "RemoteAuth REG-",
            line if line.contains(" /tenant/1/") => "Bearer e30.",
            line => panic!("{line}"),
        };
        assert!(request.authorization.starts_with(scheme), "{request:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn jobs_are_acquired_at_the_service_with_the_token_of_the_queue() {
    let service = Service::start().await;
    service.message(1, 0, json!([{"messageType": "JobAvailable", "runnerRequestId": 5}]));
    let mut listener = service.listener();
    ready(&mut listener).await;
    demand(&mut listener).await;
    demand(&mut listener).await;
    demand(&mut listener).await;
    let acquired = service.requests(&format!("POST {SETS}"));
    let acquired = acquired.iter().find(|request| request.line.contains("/acquirejobs?")).unwrap();
    assert!(acquired.authorization.starts_with("Bearer QUEUE-") && acquired.body == "[5]", "{acquired:?}");
}

#[tokio::test(start_paused = true)]
async fn a_redirect_is_followed_only_for_a_get_and_only_on_the_same_host() {
    let (there, seen) = other_host(Reply::new(200, "{}")).await;
    let service = Service::start().await;
    let client = service.client();
    let away = || Reply::new(307, "").header("location", format!("{there}/x?token=SECRET"));
    service.script(format!("GET {SETS}/1"), away());
    let error = client.get_scale_set(1).await.unwrap_err();
    assert!(
        matches!(error, ForgeError::Redirected { status: 307, .. }) && !error.to_string().contains("SECRET"),
        "{error}"
    );

    let same_host = || Reply::new(307, "").header("location", format!("{SETS}/2"));
    service.script(format!("POST {SETS}/1/sessions"), same_host());
    assert!(matches!(client.open_session(1, "x").await, Err(ForgeError::Redirected { .. })));
    service.script(format!("DELETE {SETS}/1"), same_host());
    assert!(matches!(client.delete_scale_set(1).await, Err(ForgeError::Redirected { .. })));
    service.script(format!("GET {SETS}/1"), same_host());
    assert_eq!(client.get_scale_set(1).await.unwrap(), None, "the answer of the other path is a 404");
    assert_eq!(service.requests(&format!("GET {SETS}/2")).len(), 1);
    assert!(seen.lock().unwrap().is_empty(), "the other host was not asked");
}

#[tokio::test(start_paused = true)]
async fn a_queue_on_another_host_without_tls_gets_no_token() {
    let service = Service::start().await;
    service.state().queue_url = "http://queue.invalid/messages".to_owned();
    let mut listener = service.listener();
    ready(&mut listener).await;
    insta::assert_snapshot!(said(&trouble(&mut listener).await), @r#"scale set "vm": cannot open a session of the scale set 3 of o: the forge's answer is not understood: it names http://queue.invalid/messages, which is another host without TLS; dayfly sends no token there unless it is https; dayfly tries again; next attempt in N s"#);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_a_forge_names_on_another_host_needs_tls() {
    let service = Service::start().await;
    service.state().service_url = "http://169.254.169.254/latest".to_owned();
    let error = service.client().get_scale_set(1).await.unwrap_err();
    insta::assert_snapshot!(error, @"cannot reach the Actions Service of o, which has its scale sets: the forge's answer is not understood: it names http://169.254.169.254/latest/, which is another host without TLS; dayfly sends no token there unless it is https");
}

#[tokio::test(start_paused = true)]
async fn no_error_repeats_a_token() {
    // Each server answers with the token that it got.
    let echo = |request: Request| {
        let message = format!("refused: {}", request.authorization);
        Reply::new(400, json!({"message": message, "errors": [message]}))
    };
    let address = serve(echo).await;
    let service = Service::start().await;
    service.state().service_url = format!("http://{address}/");
    let error = service.client().get_scale_set(1).await.unwrap_err();
    insta::assert_snapshot!(error, @r"
    cannot look up the scale set 1 of o: refused: Bearer ***
    refused: Bearer ***
    ");

    let service = Service::start().await;
    service.state().queue_url = format!("http://{address}/messages");
    let client = service.client();
    let mut listener = ScaleSetListener::new(client, spec("vm"));
    ready(&mut listener).await;
    demand(&mut listener).await;
    let text = without_ports(&said(&trouble(&mut listener).await));
    assert!(text.contains("refused: Bearer ***") && !text.contains("QUEUE-"), "{text}");
    assert!(!format!("{listener:?}").contains("QUEUE-"), "{listener:?}");
    assert!(!format!("{listener:?}").contains("sessionId"), "{listener:?}");
}
