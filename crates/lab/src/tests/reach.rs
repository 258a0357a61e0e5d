//! Tests of one lab that its runners reach under different addresses.

use serde_json::json;

use super::bench::{Bench, ONE_JOB, Script, request};
use dayfly_forge::{ForgeError, JitRequest};

#[tokio::test]
async fn what_a_runner_is_told_leads_to_where_it_reached_the_lab() {
    let bench = Bench::new().await;
    let _run = bench.start(ONE_JOB).await;
    let other = bench.url.replace("127.0.0.1", "localhost");
    let asked = JitRequest { runner_url: Some(other.clone()), ..request("far", &["self-hosted", "big"]) };
    let made = bench.forge.generate_jit_config(&Bench::scope(), &asked).await.unwrap();
    assert_eq!(made.config.runner.server_url_v2, format!("{other}/runner/broker/"));
    assert_eq!(made.config.credentials.data.authorization_url, format!("{other}/runner/oauth/token"));
    let mut runner = Script::new(made).connect().await;
    let message = runner.message("RunnerJobRequest").await;
    assert_eq!(message["run_service_url"], format!("{other}/runner/run/"));
    runner.acquire(message["runner_request_id"].as_str().unwrap()).await.unwrap();
    let text = runner.job.to_string();
    assert!(text.contains(&other) && !text.contains(&bench.url), "{text}");
    assert!(text.contains(&other.replacen("http", "ws", 1)), "the feed, too");
    let method = "results.services.receiver.Receiver/GetJobLogsSignedBlobURL";
    let answer = runner.twirp(method, json!({"step_backend_id": ""})).await.unwrap();
    assert!(answer["logs_url"].as_str().unwrap().starts_with(&other), "{answer}");
}

#[tokio::test]
async fn a_runner_url_that_is_none_is_refused() {
    let bench = Bench::new().await;
    let long = format!("http://{}", "a".repeat(400));
    for url in ["", "10.0.2.2:80", "https://h", "http://h/path", "http://u:p@h", "http://h?q", &long] {
        let asked = JitRequest { runner_url: Some(url.to_owned()), ..request("a", &["x"]) };
        let refused = bench.forge.generate_jit_config(&Bench::scope(), &asked).await.unwrap_err();
        assert!(matches!(refused, ForgeError::Invalid { .. }), "{url}: {refused}");
    }
}
