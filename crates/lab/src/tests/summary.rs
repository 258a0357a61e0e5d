//! Tests of job summaries.

use reqwest::Method;
use serde_json::{Value, json};

use super::bench::{Bench, Script, next_event};
use crate::{LabEventKind, LabEvents};

const JOB: &str = "on: workflow_dispatch\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo 1\n      - run: echo 2\n";
const FIRST: &str = "38feab4d-1363-49da-b133-5fe2fecff511";
const SECOND: &str = "f3fbe117-33fb-4d6e-92b2-54775f1ff9c3";

/// Returns a job that runs, with two steps.
async fn running(bench: &Bench) -> (u64, Script) {
    let run = bench.start(JOB).await;
    let mut runner = bench.runner("writer", &["x"]).await;
    runner.take_job().await;
    let step = |guid: &str, name: &str| json!({"external_id": guid, "name": name, "started_at": "2026-01-01T00:00:00Z"});
    runner.update_steps(json!([step(FIRST, "one"), step(SECOND, "two")])).await;
    (bench.forge.jobs("o", "r", run).await.unwrap()[0].id, runner)
}

async fn summary(bench: &Bench, job: u64) -> Value {
    let (status, summary) = bench.call(Method::GET, &format!("/lab/v1/jobs/{job}/summary"), None).await;
    assert_eq!(status, 200, "{summary}");
    summary
}

/// Returns step, text and whole length of the summary that is published next.
async fn told(events: &mut LabEvents) -> (String, String, u64) {
    next_event(events, |event| match &event.kind {
        LabEventKind::JobSummary { step, text, bytes, .. } => Some((step.clone(), text.clone(), *bytes)),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn a_summary_is_masked_kept_over_a_restart_and_told_when_its_job_ends() {
    let bench = Bench::new().await;
    bench.forge.put_secret("o", "r", "KEY", "hunter2").await.unwrap();
    let (job, mut runner) = running(&bench).await;
    runner.upload(Some(FIRST), "::add-mask::swordfish\n").await;
    runner.upload_summary(SECOND, "# Two\n", "").await.unwrap();
    runner.upload_summary(FIRST, "first try", "").await.unwrap();
    runner.upload_summary(FIRST, "# One\nkey hunter2, swordfish\n", "").await.unwrap();
    let expected = json!([
        {"number": 1, "step": "one", "text": "# One\nkey ***, ***\n"},
        {"number": 2, "step": "two", "text": "# Two\n"},
    ]);
    assert_eq!(summary(&bench, job).await, expected);

    let from = bench.url.clone();
    let bench = bench.killed_and_opened().await;
    runner.moved(&from, &bench.url);
    let mut events = bench.lab.subscribe();
    runner.complete("succeeded", json!({})).await.unwrap();
    assert_eq!(told(&mut events).await, ("one".into(), "# One\nkey ***, ***\n".into(), 19));
    assert_eq!(told(&mut events).await, ("two".into(), "# Two\n".into(), 6));
    assert_eq!(summary(&bench, job).await, expected);
    runner.upload_summary(FIRST, "too late", "").await.unwrap();
    assert_eq!(summary(&bench, job).await, expected, "a job that is over keeps its summary");
    assert_eq!(bench.call(Method::GET, "/lab/v1/jobs/99999/summary", None).await.0, 404);
}

#[tokio::test]
async fn a_summary_has_githubs_bound_and_only_a_part_of_a_long_one_is_told() {
    let bench = Bench::new().await;
    let mut events = bench.lab.subscribe();
    let (job, runner) = running(&bench).await;
    let longest = "x".repeat(1024 * 1024);
    runner.upload_summary(FIRST, &longest, "").await.unwrap();
    let (status, answer) = runner.upload_summary(SECOND, &format!("{longest}x"), "").await.unwrap_err();
    assert_eq!(status, 413);
    assert!(answer["errorMessage"].as_str().unwrap().contains("1048577"), "{answer}");
    assert_eq!(runner.upload_summary(SECOND, "x", "&comp=appendblock").await.unwrap_err().0, 400);
    assert_eq!(summary(&bench, job).await, json!([{"number": 1, "step": "one", "text": longest}]));
    runner.complete("succeeded", json!({})).await.unwrap();
    let (_, text, bytes) = told(&mut events).await;
    assert_eq!((text.len(), bytes), (64 * 1024, 1024 * 1024));
}

#[tokio::test]
async fn a_job_has_a_bounded_number_of_summaries_and_names_no_file() {
    let bench = Bench::new().await;
    let (job, runner) = running(&bench).await;
    for number in 0..30 {
        let step = format!("00000000-0000-0000-0000-{number:012}");
        runner.upload_summary(&step, "text", "").await.unwrap();
    }
    assert_eq!(summary(&bench, job).await.as_array().unwrap().len(), 20);
    for name in ["../journal", "step-1", "/etc/passwd", ""] {
        assert_eq!(runner.upload_summary(name, "x", "").await.unwrap_err().0, 400, "{name}");
    }
}

#[tokio::test]
async fn the_summaries_of_a_job_are_removed_with_its_run() {
    let bench = Bench::with(|limits| limits.runs_max = 1).await;
    let (job, runner) = running(&bench).await;
    runner.upload_summary(FIRST, "text", "").await.unwrap();
    runner.complete("succeeded", json!({})).await.unwrap();
    let folder = bench.folder.path().join(format!("logs/{job}.summaries"));
    assert!(folder.is_dir());
    bench.start(JOB).await;
    assert!(!folder.exists());
}
