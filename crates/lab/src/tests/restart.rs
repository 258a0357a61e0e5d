//! Tests that a killed lab continues from its journal.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde_json::json;

use super::bench::{Bench, ONE_JOB, RunnerStatus};
use crate::{Lab, LabError, LabSettings};

#[tokio::test]
async fn a_killed_lab_goes_on_in_the_middle_of_a_run() {
    let bench = Bench::new().await;
    bench.forge.put_secret("o", "r", "KEY", "hunter2").await.unwrap();
    let run = bench.start(ONE_JOB).await;
    let mut runner = bench.runner("first", &["self-hosted", "big"]).await;
    runner.take_job().await;
    let step = json!([{"external_id": "s", "name": "speak", "started_at": "2026-01-01T00:00:00Z"}]);
    runner.update_steps(step).await;
    runner.upload(Some("s"), "before\n").await;
    let (token, old_url) = (bench.lab.token().expose_secret().to_owned(), bench.url.clone());
    let bench = bench.killed_and_opened().await;
    assert_eq!(bench.lab.token().expose_secret(), token);

    // The runner is still registered and busy, and its old session and tokens are valid.
    runner.moved(&old_url, &bench.url);
    assert!(bench.forge.get_runner(&Bench::scope(), runner.id).await.unwrap().unwrap().busy);
    assert!(runner.poll(RunnerStatus::Busy).await.unwrap().is_null());
    runner.renew().await.unwrap();
    runner.complete("succeeded", json!({"word": {"value": "kept"}})).await.unwrap();
    let job = bench.forge.jobs("o", "r", run).await.unwrap();
    assert_eq!(job[0].conclusion.as_deref(), Some("success"));
    assert_eq!(job[0].steps[0].name, "speak");
    assert!(bench.forge.job_log("o", "r", job[0].id).await.unwrap().contains("before"));

    let bench = bench.killed_and_opened().await;
    let mut second = bench.runner("second", &["self-hosted"]).await;
    second.take_job().await;
    let message = second.job.to_string();
    assert!(message.contains("kept") && message.contains("hunter2"), "outputs and secrets were kept");
    second.complete("succeeded", json!({})).await.unwrap();
    assert_eq!(bench.conclusion(run).await.as_deref(), Some("success"));
    let bench = bench.killed_and_opened().await;
    assert_eq!(bench.conclusion(run).await.as_deref(), Some("success"));
    let again = bench.start(ONE_JOB).await;
    assert!(again > run, "no id is used twice");
}

#[tokio::test]
async fn a_job_whose_runner_died_with_the_lab_fails_when_its_lock_is_over() {
    let bench = Bench::new().await;
    let run = bench.start(ONE_JOB).await;
    bench.runner("gone", &["self-hosted", "big"]).await.take_job().await;
    let bench = bench.killed_and_opened().await;
    assert_eq!(bench.conclusion(run).await, None);
    bench.advance(Duration::from_secs(151)).await;
    assert_eq!(bench.conclusion(run).await.as_deref(), Some("failure"));
}

#[tokio::test]
async fn a_job_that_was_sent_but_not_fetched_is_offered_again() {
    let bench = Bench::new().await;
    let _run = bench.start(ONE_JOB).await;
    bench.runner("unlucky", &["self-hosted", "big"]).await.message("RunnerJobRequest").await;
    let bench = bench.killed_and_opened().await;
    bench.runner("lucky", &["self-hosted", "big"]).await.take_job().await;
}

#[tokio::test]
async fn half_a_line_at_the_end_of_the_journal_does_no_harm() {
    use std::io::Write as _;
    let bench = Bench::new().await;
    let run = bench.start(ONE_JOB).await;
    let path = bench.folder.path().join("journal.jsonl");
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(b"{\"run_gone\":").unwrap();
    let bench = bench.killed_and_opened().await;
    assert_eq!(bench.conclusion(run).await, None);
    bench.stopped().await;
}

#[tokio::test]
async fn one_folder_is_one_labs() {
    let bench = Bench::new().await;
    let second = Lab::open(LabSettings::new(bench.folder.path())).unwrap_err();
    assert!(matches!(second, LabError::InUse { .. }), "{second}");
    let bad = LabSettings { runner_url: Some("https://h/x".into()), ..LabSettings::new(bench.folder.path()) };
    assert!(matches!(Lab::open(bad).unwrap_err(), LabError::BadRunnerUrl { .. }));
}

#[tokio::test]
async fn a_journal_from_before_there_were_other_registrations_holds_ephemeral_ones() {
    let bench = Bench::new().await;
    bench.register("old", &["x"]).await;
    let path = bench.folder.path().join("journal.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(",\"ephemeral\":true"));
    std::fs::write(&path, text.replace(",\"ephemeral\":true", "")).unwrap();
    let bench = bench.killed_and_opened().await;
    let (_, list) = bench.call(reqwest::Method::GET, "/api/v3/repos/o/r/actions/runners", None).await;
    assert_eq!(list["runners"][0]["ephemeral"], true, "{list}");
}
