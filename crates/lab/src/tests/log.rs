//! Tests of logs: live, uploaded, completed, masked, cut.

use serde_json::json;

use super::bench::{Bench, Script, http, lines_until_end};
use crate::LabEvents;

const JOB: &str = "on: workflow_dispatch\njobs:\n  talk:\n    runs-on: x\n    steps:\n      - run: echo hi\n";
const STEP: &str = "step-1";

async fn talking(bench: &Bench) -> (u64, Script, LabEvents) {
    let events = bench.lab.subscribe();
    let run = bench.start(JOB).await;
    let mut runner = bench.runner("talker", &["x"]).await;
    runner.take_job().await;
    runner.update_steps(json!([{"external_id": STEP, "number": 1, "name": "speak", "status": 1, "started_at": "2026-01-01T00:00:00Z"}])).await;
    (run, runner, events)
}

async fn feed(bench: &Bench, run: u64, start: u64, lines: &[&str]) {
    let lines = lines.iter().map(|line| (*line).to_owned()).collect();
    let job = bench.forge.jobs("o", "r", run).await.unwrap()[0].id;
    bench.lab.inner.hub.ask(move |state| state.feed(job, STEP, Some(start), lines)).await.unwrap();
}

fn stamped(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("2026-11-23T16:47:01.2816991Z {line}\n")).collect()
}

async fn rest_log(bench: &Bench, run: u64) -> String {
    let job = bench.forge.jobs("o", "r", run).await.unwrap()[0].id;
    bench.forge.job_log("o", "r", job).await.unwrap()
}

#[tokio::test]
async fn lines_come_once_whether_live_doubled_or_missing() {
    let bench = Bench::new().await;
    let (run, runner, mut events) = talking(&bench).await;
    feed(&bench, run, 1, &["a", "b"]).await;
    feed(&bench, run, 2, &["b", "c"]).await;
    feed(&bench, run, 6, &["f"]).await;
    runner.upload(Some(STEP), &stamped(&["a", "b", "c", "d", "e"])).await;
    runner.upload(Some(STEP), &stamped(&["f"])).await;
    feed(&bench, run, 6, &["f"]).await;
    runner.upload(None, &stamped(&["a", "b", "c", "d", "e", "f", "only in the log of the job"])).await;
    runner.complete("succeeded", json!({})).await.unwrap();
    let lines = lines_until_end(&mut events).await;
    assert_eq!(lines, ["a", "b", "c", "d", "e", "f", "only in the log of the job"]);
    assert!(
        rest_log(&bench, run).await.ends_with("2026-11-23T16:47:01.2816991Z only in the log of the job\n")
    );
}

#[tokio::test]
async fn without_an_uploaded_log_the_live_lines_are_the_log() {
    let bench = Bench::new().await;
    let (run, runner, _events) = talking(&bench).await;
    feed(&bench, run, 1, &["live alone"]).await;
    assert!(rest_log(&bench, run).await.trim_end().ends_with("Z live alone"), "also while the job runs");
    runner.complete("failed", json!({})).await.unwrap();
    assert!(rest_log(&bench, run).await.trim_end().ends_with("Z live alone"));
}

#[tokio::test]
async fn secrets_that_a_runner_forgot_to_mask_are_masked() {
    let bench = Bench::new().await;
    bench.forge.put_secret("o", "r", "KEY", "hunter2").await.unwrap();
    let (run, runner, mut events) = talking(&bench).await;
    feed(&bench, run, 1, &["key hunter2"]).await;
    runner.upload(Some(STEP), &stamped(&["key hunter2", "again hunter2"])).await;
    runner.upload(None, &stamped(&["key hunter2", "again hunter2"])).await;
    runner.complete("succeeded", json!({})).await.unwrap();
    assert_eq!(lines_until_end(&mut events).await, ["key ***", "again ***"]);
    assert!(!rest_log(&bench, run).await.contains("hunter2"));
}

#[tokio::test]
async fn tokens_of_the_job_message_are_masked_even_after_a_restart() {
    let bench = Bench::new().await;
    let (run, mut runner, _events) = talking(&bench).await;
    let job_token = runner.job_token();
    let github_token = runner.job["variables"]["github_token"]["value"].as_str().unwrap().to_owned();
    let masks = runner.job["mask"].to_string().replace("\\\\", "");
    assert!(masks.contains(&job_token) && masks.contains(&github_token), "the runner masks them: {masks}");
    let lines = [format!("ACTIONS_RUNTIME_TOKEN={job_token}"), format!("GITHUB_TOKEN={github_token}")];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    feed(&bench, run, 1, &lines).await;

    let from = bench.url.clone();
    let bench = bench.killed_and_opened().await;
    runner.moved(&from, &bench.url);
    let mut events = bench.lab.subscribe();
    runner.upload(Some(STEP), &stamped(&[lines[0], lines[1], lines[0]])).await;
    runner.upload(None, &stamped(&[lines[0], lines[1], lines[0]])).await;
    let annotation = json!({"level": "notice", "message": lines[0]});
    runner.complete_with("succeeded", json!({"stepResults": [], "annotations": [annotation]})).await.unwrap();
    assert_eq!(lines_until_end(&mut events).await, ["ACTIONS_RUNTIME_TOKEN=***"]);
    assert!(rest_log(&bench, run).await.contains("GITHUB_TOKEN=***"));
    let mut kept = vec![std::fs::read(bench.folder.path().join("journal.jsonl")).unwrap()];
    for file in std::fs::read_dir(bench.folder.path().join("logs")).unwrap() {
        kept.push(std::fs::read(file.unwrap().path()).unwrap());
    }
    for text in kept.iter().map(|bytes| String::from_utf8_lossy(bytes)) {
        assert!(!text.contains(&job_token) && !text.contains(&github_token), "{text}");
    }
    assert_eq!(kept.len(), 3, "the journal and both logs");
}

#[tokio::test]
async fn a_log_without_end_is_cut_and_says_so() {
    let bench = Bench::with(|limits| limits.log_bytes_per_job_max = 1000).await;
    let (run, runner, mut events) = talking(&bench).await;
    let long: Vec<String> = (0..200).map(|number| format!("line {number}")).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    runner.upload(Some(STEP), &stamped(&long)).await;
    runner.upload(None, &stamped(&long)).await;
    runner.complete("succeeded", json!({})).await.unwrap();
    let lines = lines_until_end(&mut events).await;
    assert_eq!(lines.last().unwrap(), "log cut after 1000 bytes");
    assert!(lines.len() > 50 && lines.len() < 200, "{}", lines.len());
    let log = rest_log(&bench, run).await;
    assert!(log.len() < 1500 && log.ends_with("log cut after 1000 bytes\n"), "{log}");
}

#[tokio::test]
async fn an_address_for_uploads_or_logs_cannot_be_made_up() {
    let bench = Bench::new().await;
    let (_run, _runner, _events) = talking(&bench).await;
    let url = format!("{}/runner/results/blob?sig=a.b.c&comp=appendblock", bench.url);
    let answer = http().put(url).body("x").send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 403);
    let answer = http().get(format!("{}/lab/v1/logs/a.b.c", bench.url)).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 403);
}
