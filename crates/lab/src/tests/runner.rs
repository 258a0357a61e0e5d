//! Tests of registrations and sessions.

use std::time::Duration;

use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::bench::{Bench, ONE_JOB, RunnerStatus, Script, http};
use dayfly_forge::{Deletion, ForgeError, JitRequest, RunnerScope};

fn request(name: &str) -> JitRequest {
    super::bench::request(name, &["self-hosted", "gpu"])
}

#[tokio::test]
async fn a_new_runner_is_offline_and_its_config_leads_back_here() {
    let bench = Bench::new().await;
    let path = "/api/v3/repos/o/r/actions/runners/generate-jitconfig";
    let body = json!({"name": "vm-1", "runner_group_id": 1, "labels": ["self-hosted", "gpu", "GPU"], "work_folder": "_work"});
    let (status, answer) = bench.call(Method::POST, path, Some(body)).await;
    assert_eq!(status, 201);
    let runner = &answer["runner"];
    assert_eq!(
        (runner["os"].as_str(), runner["status"].as_str(), runner["busy"].as_bool()),
        (Some("unknown"), Some("offline"), Some(false))
    );
    assert_eq!(
        runner["labels"],
        json!([
            {"id": 1, "name": "self-hosted", "type": "read-only"}, {"id": 2, "name": "gpu", "type": "custom"},
        ])
    );
    let config =
        dayfly_forge::jit::JitConfig::decode(answer["encoded_jit_config"].as_str().unwrap()).unwrap();
    let (host, port) = config.server().unwrap();
    assert_eq!(format!("http://{host}:{port}"), bench.url);
    assert_eq!(config.runner.agent_id, runner["id"].to_string());
}

#[tokio::test]
async fn registrations_that_cannot_be_are_refused_each_in_its_way() {
    let bench = Bench::with(|limits| limits.runners_max = 2).await;
    let forge = &bench.forge;
    let ask = async |request: JitRequest| forge.generate_jit_config(&Bench::scope(), &request).await;
    ask(request("one")).await.unwrap();
    assert!(matches!(ask(request("one")).await.unwrap_err(), ForgeError::Conflict { .. }));
    let org = RunnerScope::Organization("o".into());
    bench
        .forge
        .generate_jit_config(&org, &request("one"))
        .await
        .expect("names are taken within a scope only");
    assert!(matches!(ask(request("three")).await.unwrap_err(), ForgeError::Invalid { .. }), "no room");
    assert!(matches!(
        ask(JitRequest { labels: vec![], ..request("a") }).await.unwrap_err(),
        ForgeError::Invalid { .. }
    ));
    assert!(matches!(
        ask(JitRequest { labels: vec![" ".into()], ..request("a") }).await.unwrap_err(),
        ForgeError::Invalid { .. }
    ));
    assert!(matches!(
        ask(JitRequest { group_id: 77, ..request("a") }).await.unwrap_err(),
        ForgeError::NotFound { .. }
    ));
    assert!(matches!(ask(request("")).await.unwrap_err(), ForgeError::Invalid { .. }));
}

#[tokio::test]
async fn runners_are_found_by_name_and_over_many_pages() {
    let bench = Bench::new().await;
    for number in 0..4 {
        bench.register(&format!("vm-{number}"), &["x"]).await;
    }
    let found = bench.forge.find_runner_by_name(&Bench::scope(), "vm-2").await.unwrap().unwrap();
    assert_eq!(found.name, "vm-2");
    assert!(bench.forge.find_runner_by_name(&Bench::scope(), "vm").await.unwrap().is_none());
    let (_, page) =
        bench.call(Method::GET, "/api/v3/repos/o/r/actions/runners?per_page=3&page=2", None).await;
    assert_eq!((page["total_count"].as_u64(), page["runners"].as_array().unwrap().len()), (Some(4), 1));
    let org = RunnerScope::Organization("o".into());
    assert!(
        bench.forge.list_runners(&org).await.unwrap().is_empty(),
        "a repository's runners are not the organisation's"
    );
    assert!(bench.forge.get_runner(&org, found.id).await.unwrap().is_none());
}

#[tokio::test]
async fn a_deleted_runner_gets_no_token_and_learns_it_on_its_poll() {
    let bench = Bench::new().await;
    let runner = bench.runner("short", &["x"]).await;
    assert_eq!(bench.forge.delete_runner(&Bench::scope(), runner.id).await.unwrap(), Deletion::Deleted);
    assert_eq!(bench.forge.delete_runner(&Bench::scope(), runner.id).await.unwrap(), Deletion::Gone);
    let (status, body) = runner.poll(RunnerStatus::Online).await.unwrap_err();
    assert_eq!((status, body["errorKind"].as_str()), (404, Some("RunnerNotFound")));
    assert_eq!(runner.open_session().await.unwrap_err().0, 401);
    let (status, body) = runner.sign_in().await.unwrap_err();
    assert_eq!((status, body["error"].as_str()), (400, Some("invalid_client")));
}

#[tokio::test]
async fn deleting_a_runner_ends_the_poll_that_it_has_open() {
    let bench = Bench::with(|limits| limits.long_poll = Duration::from_secs(60)).await;
    let runner = bench.runner("waiting", &["x"]).await;
    let id = runner.id;
    let poll = tokio::spawn(async move { runner.poll(RunnerStatus::Online).await });
    while bench.forge.get_runner(&Bench::scope(), id).await.unwrap().unwrap().status != "online" {}
    tokio::time::sleep(Duration::from_millis(50)).await;
    bench.forge.delete_runner(&Bench::scope(), id).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(5), poll).await.unwrap().unwrap();
    assert_eq!(answer.unwrap_err().0, 404);
}

/// GitHub does the same. If a poll reports the removal, actions/runner 2.336.0 shows a successful job as cancelled.
#[tokio::test]
async fn a_runner_whose_only_job_has_ended_finds_nothing_on_its_polls_until_it_closes_its_session() {
    for closes in [true, false] {
        let bench = Bench::new().await;
        let _run = bench.start(ONE_JOB).await;
        let mut runner = bench.runner("done", &["self-hosted", "big"]).await;
        runner.take_job().await;
        let complete = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            runner.complete("succeeded", json!({})).await
        };
        let (open, completed) = tokio::join!(runner.poll(RunnerStatus::Busy), complete);
        completed.unwrap();
        assert!(
            bench.forge.get_runner(&Bench::scope(), runner.id).await.unwrap().is_none(),
            "REST no longer lists it"
        );
        assert!(open.unwrap().is_null(), "nothing came on the poll that was open");
        assert!(runner.poll(RunnerStatus::Online).await.unwrap().is_null());
        if closes {
            runner.close_session().await.unwrap();
        } else {
            bench.advance(Duration::from_secs(31)).await;
        }
        let (status, body) = runner.poll(RunnerStatus::Online).await.unwrap_err();
        assert_eq!((status, body["errorKind"].as_str()), (404, Some("RunnerNotFound")), "closes: {closes}");
    }
}

#[tokio::test]
async fn a_runner_has_one_session_at_a_time() {
    let bench = Bench::new().await;
    let config = bench.register("twin", &["x"]).await;
    let (first, second) = (Script::new(config.clone()), Script::new(config));
    first.sign_in().await.unwrap();
    second.sign_in().await.unwrap();
    first.open_session().await.unwrap();
    assert_eq!(second.open_session().await.unwrap_err().0, 409);
    first.close_session().await.unwrap();
    second.open_session().await.unwrap();
    let (status, body) = first.poll(RunnerStatus::Online).await.unwrap_err();
    assert_eq!((status, body["errorKind"].as_str()), (404, Some("RunnerSessionInvalid")));
}

#[tokio::test]
async fn a_token_of_one_kind_does_not_open_what_another_is_for() {
    let bench = Bench::new().await;
    let _run = bench.start(ONE_JOB).await;
    let mut runner = bench.runner("mixed", &["self-hosted", "big"]).await;
    runner.take_job().await;
    let job_token = runner.job["resources"]["endpoints"][0]["authorization"]["parameters"]["AccessToken"]
        .as_str()
        .unwrap();
    let client = http();
    for path in ["/api/v3/repos/o/r/actions/runs", "/runner/broker/message?sessionId=x", "/lab/v1/events"] {
        let answer = client.get(format!("{}{path}", bench.url)).bearer_auth(job_token).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 401, "{path}");
    }
    let answer = client
        .post(format!("{}/runner/run/renewjob", bench.url))
        .bearer_auth(bench.lab.token().expose_secret())
        .body("{}");
    assert_eq!(answer.send().await.unwrap().status().as_u16(), 401);
}

#[tokio::test]
async fn a_registration_that_nobody_uses_is_removed_after_a_day() {
    let bench = Bench::new().await;
    let runner = bench.register("forgotten", &["x"]).await;
    bench.advance(Duration::from_secs(23 * 3600)).await;
    assert!(bench.forge.get_runner(&Bench::scope(), runner.runner_id).await.unwrap().is_some());
    bench.advance(Duration::from_secs(2 * 3600)).await;
    assert!(bench.forge.get_runner(&Bench::scope(), runner.runner_id).await.unwrap().is_none());
}

#[tokio::test]
async fn a_job_that_asks_for_a_group_gets_a_runner_of_that_group() {
    let bench = Bench::new().await;
    let workflow = "on: workflow_dispatch\njobs:\n  a:\n    runs-on:\n      group: fast\n      labels: [x]\n    steps:\n      - run: echo\n";
    let _run = bench.start(workflow).await;
    let plain = bench.runner("plain", &["x"]).await;
    assert!(plain.poll(RunnerStatus::Online).await.unwrap().is_null());
    let group_id = bench.forge.group_id(&RunnerScope::Organization("o".into()), "fast").await.unwrap();
    let request = JitRequest { group_id, labels: vec!["x".into()], ..request("fast-1") };
    let mut fast = Script::new(bench.forge.generate_jit_config(&Bench::scope(), &request).await.unwrap());
    fast.sign_in().await.unwrap();
    fast.open_session().await.unwrap();
    fast.take_job().await;
}
