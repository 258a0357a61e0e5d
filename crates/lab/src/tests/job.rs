//! Tests of jobs from the dispatch to the conclusion.

use std::time::Duration;

use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::bench::{Bench, ONE_JOB, RunnerStatus, http, next_event};
use crate::LabEventKind;
use dayfly_forge::{Deletion, Dispatch, ForgeError};

#[tokio::test]
async fn a_run_goes_from_job_to_job_with_a_runner_each() {
    let bench = Bench::new().await;
    let mut events = bench.lab.subscribe();
    let run = bench.start(ONE_JOB).await;
    let mut first = bench.runner("first", &["Self-Hosted", "BIG"]).await;
    first.take_job().await;
    assert!(first.renew().await.unwrap()["lockedUntil"].is_string());
    first.complete("succeeded", json!({"word": {"value": "dayfly"}})).await.unwrap();

    let mut second = bench.runner("second", &["self-hosted"]).await;
    second.take_job().await;
    assert!(second.job.to_string().contains("dayfly"), "the needs context has the output");
    second.complete("succeeded", json!({})).await.unwrap();

    assert_eq!(bench.conclusion(run).await.as_deref(), Some("success"));
    assert!(
        bench.forge.list_runners(&Bench::scope()).await.unwrap().is_empty(),
        "runners are removed with their jobs"
    );
    let told = next_event(&mut events, |event| match &event.kind {
        LabEventKind::JobAcquired { runner_name, .. } => Some(runner_name.clone()),
        _ => None,
    });
    assert_eq!(told.await, "first");
}

/// Returns a member of an object in a job message.
fn member<'a>(object: &'a Value, name: &str) -> &'a Value {
    let entries = object["d"].as_array().unwrap();
    entries.iter().find(|entry| entry["k"] == name).map_or(&Value::Null, |entry| &entry["v"])
}

#[tokio::test]
async fn the_event_has_every_input_as_text() {
    let workflow = "on:\n  workflow_dispatch:\n    inputs:\n      flag: {type: boolean, default: false}\n      flag-on: {type: boolean, default: true}\n      bare: {type: boolean}\n      who: {default: 'a \"b\" $c'}\n      level: {type: choice, options: [debug, '1.10'], default: '1.10'}\n      first: {type: choice, options: [debug, info]}\n      count: {type: number, default: 10}\n      given: {type: number}\n      empty:\n      text: {default: 3.10}\njobs:\n  one: {runs-on: x, steps: [{run: x}]}\n";
    let bench = Bench::new().await;
    bench.forge.put_workflow("o", "r", "ci.yml", workflow).await.unwrap();
    let inputs = [("GIVEN".to_owned(), "0x10".to_owned())].into();
    bench.forge.dispatch("o", "r", "ci.yml", &Dispatch { inputs, ..Dispatch::default() }).await.unwrap();
    let mut runner = bench.runner("a", &["x"]).await;
    runner.take_job().await;
    let contexts = &runner.job["contextData"];
    let event = member(member(&contexts["github"], "event"), "inputs");
    let expected = [
        ("flag", json!("false"), json!(false)),
        ("flag-on", json!("true"), json!(true)),
        ("bare", json!("false"), json!(false)),
        ("who", json!("a \"b\" $c"), json!("a \"b\" $c")),
        ("level", json!("1.10"), json!("1.10")),
        ("first", json!("debug"), json!("debug")),
        ("count", json!("10"), json!(10)),
        ("given", json!("0x10"), json!(16)),
        ("empty", json!(""), json!("")),
        ("text", json!("3.1"), json!("3.1")),
    ];
    for (name, text, value) in &expected {
        assert_eq!((member(event, name), member(&contexts["inputs"], name)), (text, value), "{name}");
    }
    assert_eq!(event["d"].as_array().unwrap().len(), expected.len());
}

#[tokio::test]
async fn an_event_without_inputs_has_none() {
    let bench = Bench::new().await;
    for (event, has_key) in [("workflow_dispatch", true), ("push", false)] {
        let workflow = format!("on: {event}\njobs:\n  one: {{runs-on: x, steps: [{{run: x}}]}}\n");
        bench.forge.put_workflow("o", "r", "ci.yml", &workflow).await.unwrap();
        let dispatch = Dispatch { any_event: true, ..Dispatch::default() };
        bench.forge.dispatch("o", "r", "ci.yml", &dispatch).await.unwrap();
        let mut runner = bench.runner("a", &["x"]).await;
        runner.take_job().await;
        let event = member(&runner.job["contextData"]["github"], "event");
        let keys: Vec<&str> =
            event["d"].as_array().unwrap().iter().map(|entry| entry["k"].as_str().unwrap()).collect();
        assert_eq!(keys.contains(&"inputs"), has_key, "{keys:?}");
        assert_eq!(member(event, "inputs"), &Value::Null);
        runner.complete("succeeded", json!({})).await.unwrap();
    }
}

#[tokio::test]
async fn the_job_context_names_the_check_run_and_the_workflow() {
    let bench = Bench::new().await;
    let run = bench.start(ONE_JOB).await;
    let mut runner = bench.runner("a", &["self-hosted", "big"]).await;
    runner.take_job().await;
    let job = &runner.job["contextData"]["job"];
    assert_eq!(member(job, "check_run_id"), &json!(bench.forge.jobs("o", "r", run).await.unwrap()[0].id));
    assert_eq!(member(job, "workflow_file_path"), ".github/workflows/ci.yml");
    assert_eq!(member(job, "workflow_ref"), "o/r/.github/workflows/ci.yml@refs/heads/main");
    assert_eq!(member(job, "workflow_repository"), "o/r");
    assert_eq!(member(job, "workflow_sha").as_str().map(str::len), Some(40));
}

/// The job's annotation is recorded from a worker of actions/runner 2.336.0 that crashed before the first step. It is all
/// that is known of the crash.
#[tokio::test]
async fn annotations_of_a_job_and_its_steps_are_told_and_can_be_asked_for() {
    let bench = Bench::new().await;
    let mut events = bench.lab.subscribe();
    let run = bench.start(ONE_JOB).await;
    let mut runner = bench.runner("crashed", &["self-hosted", "big"]).await;
    runner.take_job().await;
    let step = json!({"external_id": "x", "number": 2, "name": "b", "conclusion": "failed", "annotations": [
        {"level": "warning", "message": "careful", "title": "T", "path": "a.c", "startLine": 3, "endLine": 4, "stepNumber": 2},
    ]});
    let body = json!({"stepResults": [step], "annotations": [
        {"level": "failure", "message": "System.IO.FileNotFoundException: Could not find file '/proc/x'."},
    ]});
    runner.complete_with("failed", body).await.unwrap();
    assert_eq!(bench.conclusion(run).await.as_deref(), Some("failure"));
    let (job, message) = next_event(&mut events, |event| match &event.kind {
        LabEventKind::Annotation { job, message, step: None, .. } => Some((*job, message.clone())),
        _ => None,
    })
    .await;
    assert!(message.contains("FileNotFoundException"), "{message}");
    let path = format!("/api/v3/repos/o/r/check-runs/{job}/annotations");
    let (status, all) = bench.call(Method::GET, &path, None).await;
    assert_eq!((status, all.as_array().map(Vec::len)), (200, Some(2)));
    assert_eq!((&all[0]["annotation_level"], &all[0]["path"]), (&json!("failure"), &json!(".github")));
    assert_eq!(
        (&all[1]["path"], &all[1]["start_line"], &all[1]["end_line"]),
        (&json!("a.c"), &json!(3), &json!(4))
    );
    let (_, second) = bench.call(Method::GET, &format!("{path}?per_page=1&page=2"), None).await;
    assert_eq!(second[0]["message"], "careful");
    assert_eq!(bench.call(Method::GET, "/api/v3/repos/o/r/check-runs/77/annotations", None).await.0, 404);
}

#[tokio::test]
async fn a_job_is_acquired_once_and_by_its_own_runner_alone() {
    let bench = Bench::new().await;
    let _run = bench.start(ONE_JOB).await;
    let mut own = bench.runner("own", &["self-hosted", "big"]).await;
    let mut other = bench.runner("other", &["self-hosted", "big"]).await;
    let request = own.message("RunnerJobRequest").await["runner_request_id"].as_str().unwrap().to_owned();
    assert_eq!(other.acquire(&request).await.unwrap_err().0, 404);
    own.acquire(&request).await.unwrap();
    let (status, body) = own.acquire(&request).await.unwrap_err();
    assert_eq!((status, body["source"].as_str()), (409, Some("actions-run-service")));
    assert_eq!(other.acquire("no-such-request").await.unwrap_err().0, 404);
    assert!(other.poll(RunnerStatus::Online).await.unwrap().is_null(), "the second job waits for the first");
}

#[tokio::test]
async fn a_job_goes_to_a_runner_with_all_its_labels_only() {
    let bench = Bench::new().await;
    let _run = bench.start(ONE_JOB).await;
    let poor = bench.runner("poor", &["self-hosted"]).await;
    assert!(poor.poll(RunnerStatus::Online).await.unwrap().is_null());
    let rich = bench.runner("rich", &["self-hosted", "big", "more"]).await;
    assert!(poor.poll(RunnerStatus::Busy).await.unwrap().is_null());
    rich.message("RunnerJobRequest").await;
}

#[tokio::test]
async fn a_busy_runner_cannot_be_deleted_and_is_told_to_stop_by_a_cancel() {
    let bench = Bench::new().await;
    let run = bench.start(ONE_JOB).await;
    let mut runner = bench.runner("busy", &["self-hosted", "big"]).await;
    runner.take_job().await;
    assert_eq!(bench.forge.delete_runner(&Bench::scope(), runner.id).await.unwrap(), Deletion::Busy);
    assert!(bench.forge.get_runner(&Bench::scope(), runner.id).await.unwrap().unwrap().busy);

    assert!(bench.forge.cancel_run("o", "r", run).await.unwrap());
    let cancel = runner.message("JobCancellation").await;
    assert_eq!(cancel["jobId"], runner.job["jobId"]);
    assert_eq!(cancel["timeout"].as_str().unwrap().split(':').count(), 3);
    runner.complete("canceled", json!({})).await.unwrap();
    assert_eq!(bench.conclusion(run).await.as_deref(), Some("cancelled"));
    assert!(!bench.forge.cancel_run("o", "r", run).await.unwrap(), "a completed run has nothing to cancel");
    assert_eq!(bench.forge.delete_runner(&Bench::scope(), runner.id).await.unwrap(), Deletion::Gone);
}

#[tokio::test]
async fn a_forced_cancel_ends_the_job_without_its_runner() {
    let bench = Bench::new().await;
    let run = bench.start(ONE_JOB).await;
    let mut runner = bench.runner("deaf", &["self-hosted", "big"]).await;
    runner.take_job().await;
    bench.forge.force_cancel_run("o", "r", run).await.unwrap();
    assert_eq!(bench.conclusion(run).await.as_deref(), Some("cancelled"));
    assert_eq!(runner.renew().await.unwrap_err().0, 404, "the job no longer belongs to the runner");
    assert!(runner.complete("succeeded", json!({})).await.is_ok(), "a late completion is accepted");
    assert_eq!(bench.conclusion(run).await.as_deref(), Some("cancelled"), "and changes nothing");
    assert_eq!(bench.forge.delete_runner(&Bench::scope(), runner.id).await.unwrap(), Deletion::Deleted);
}

#[tokio::test]
async fn a_runner_that_is_heard_of_no_more_fails_its_job_when_the_lock_is_over() {
    let bench = Bench::new().await;
    let run = bench.start(ONE_JOB).await;
    let mut runner = bench.runner("lost", &["self-hosted", "big"]).await;
    runner.take_job().await;
    bench.advance(Duration::from_secs(140)).await;
    runner.renew().await.unwrap();
    bench.advance(Duration::from_secs(140)).await;
    assert_eq!(bench.conclusion(run).await, None, "a renewal counts");
    bench.advance(Duration::from_secs(20)).await;
    assert_eq!(bench.conclusion(run).await.as_deref(), Some("failure"));
    let jobs = bench.forge.jobs("o", "r", run).await.unwrap();
    assert!(jobs[0].remark.as_deref().unwrap().contains("lost communication"), "{jobs:?}");
    let left = bench.forge.get_runner(&Bench::scope(), runner.id).await.unwrap().unwrap();
    assert_eq!((left.busy, left.status.as_str()), (false, "offline"), "its registration stays to be swept");
    assert_eq!(bench.forge.delete_runner(&Bench::scope(), runner.id).await.unwrap(), Deletion::Deleted);
}

#[tokio::test]
async fn a_job_that_its_runner_does_not_fetch_goes_to_another() {
    let bench = Bench::new().await;
    let _run = bench.start(ONE_JOB).await;
    let sleepy = bench.runner("sleepy", &["self-hosted", "big"]).await;
    let first = sleepy.message("RunnerJobRequest").await;
    let again = sleepy.message("RunnerJobRequest").await;
    assert_eq!(first["runner_request_id"], again["runner_request_id"], "a lost message comes again");
    bench.advance(Duration::from_secs(61)).await;
    let mut awake = bench.runner("awake", &["self-hosted", "big"]).await;
    awake.take_job().await;
}

#[tokio::test]
async fn deleting_a_runner_that_was_only_sent_its_job_gives_the_job_back() {
    let bench = Bench::new().await;
    let _run = bench.start(ONE_JOB).await;
    let doomed = bench.runner("doomed", &["self-hosted", "big"]).await;
    doomed.message("RunnerJobRequest").await;
    assert_eq!(bench.forge.delete_runner(&Bench::scope(), doomed.id).await.unwrap(), Deletion::Deleted);
    bench.runner("next", &["self-hosted", "big"]).await.take_job().await;
}

#[tokio::test]
async fn a_conclusion_that_is_none_is_refused() {
    let bench = Bench::new().await;
    let _run = bench.start(ONE_JOB).await;
    let mut runner = bench.runner("odd", &["self-hosted", "big"]).await;
    runner.take_job().await;
    assert_eq!(runner.complete("perhaps", json!({})).await.unwrap_err().0, 422);
    assert!(matches!(bench.forge.job_log("o", "r", 999_999).await.unwrap_err(), ForgeError::NotFound { .. }));
}

const SHORT: &str = "on: workflow_dispatch\njobs:\n  short:\n    runs-on: x\n    timeout-minutes: 2\n    steps:\n      - run: echo\n";

#[tokio::test]
async fn a_job_that_takes_too_long_is_stopped_and_counts_as_cancelled() {
    let bench = Bench::new().await;
    let run = bench.start(SHORT).await;
    let mut runner = bench.runner("slow", &["x"]).await;
    runner.take_job().await;
    bench.advance(Duration::from_secs(121)).await;
    assert_eq!(runner.message("JobCancellation").await["jobId"], runner.job["jobId"]);
    runner.complete("canceled", json!({})).await.unwrap();
    assert_eq!(bench.forge.jobs("o", "r", run).await.unwrap()[0].conclusion.as_deref(), Some("cancelled"));
    assert!(bench.conclusion(run).await.is_some());
}

#[tokio::test]
async fn a_runner_that_does_not_stop_loses_its_job_after_the_grace() {
    let bench = Bench::new().await;
    let run = bench.start(SHORT).await;
    let mut runner = bench.runner("stubborn", &["x"]).await;
    runner.take_job().await;
    for _ in 0..5 {
        bench.advance(Duration::from_secs(100)).await;
        let _ = runner.renew().await;
    }
    assert_eq!(bench.forge.jobs("o", "r", run).await.unwrap()[0].conclusion.as_deref(), Some("cancelled"));
    assert_eq!(runner.renew().await.unwrap_err().0, 404);
}

#[tokio::test]
async fn a_slow_subscriber_is_told_what_it_missed_and_a_late_one_reads_what_is_kept() {
    let bench = Bench::with(|limits| limits.events_waiting_max = 2).await;
    let mut slow = bench.lab.subscribe();
    for _ in 0..3 {
        bench.start(SHORT).await;
    }
    let lagged = slow.next().await.unwrap().unwrap_err();
    assert!(lagged.missed > 0, "{lagged}");
    let url = format!("{}/lab/v1/events?since=0", bench.url);
    let mut response = http().get(url).bearer_auth(bench.lab.token().expose_secret()).send().await.unwrap();
    let first = response.chunk().await.unwrap().unwrap();
    let first: serde_json::Value =
        serde_json::from_slice(first.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    assert_eq!((first["seq"].as_u64(), first["event"].as_str()), (Some(1), Some("run_created")));
}
