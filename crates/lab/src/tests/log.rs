//! Tests of logs: live, uploaded, completed, masked, cut.

use serde_json::json;

use super::bench::{Bench, Script, http, lines_until_end, next_event};
use crate::{LabEventKind, LabEvents};

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

/// Everything that the lab stores and publishes about a job is looked through for the words, after a runner app that masks
/// nothing has put them everywhere.
#[tokio::test]
async fn no_log_event_annotation_output_or_page_holds_a_secret_whatever_the_runner_app_does() {
    let bench = Bench::new().await;
    let key = "-----BEGIN KEY-----\nc2VjcmV0IGtleQ\n-----END KEY-----";
    bench.forge.put_secret("o", "r", "KEY", key).await.unwrap();
    bench.forge.put_secret("o", "r", "PASSWORD", "pass \"word\"").await.unwrap();
    let (run, runner, mut events) = talking(&bench).await;
    let hidden = [
        "c2VjcmV0IGtleQ",
        "pass \"word\"",
        r#"pass \"word\""#,
        "cGFzcyAid29yZCI=",
        "pass%20%22word%22",
        "arn:aws:iam::123:role/x",
        "line two",
    ];
    let commands = ["::add-mask::arn:aws:iam::123:role/x", "::add-mask::line one%0Aline two"];
    let mut lines: Vec<&str> = commands.to_vec();
    lines.extend(hidden);
    feed(&bench, run, 1, &lines[..4]).await;
    runner.upload(Some(STEP), &stamped(&lines)).await;
    runner.upload(None, &stamped(&lines)).await;
    let all = hidden.join(" ");
    let (name, message) = (format!("name {all}"), format!("message {all}"));
    let step = json!({"external_id": STEP, "number": 1, "name": name, "status": 3, "conclusion": 2,
        "started_at": hidden[1], "completed_at": hidden[1]});
    runner.update_steps(json!([step])).await;
    let annotation = json!({"level": "notice", "message": message, "title": all, "path": all});
    let outputs = json!({
        "open": {"value": "fine"}, "closed": {"value": all}, "line two": {"value": "x"},
        "declared": {"value": "x", "isSecret": true},
    });
    runner
        .complete_with("succeeded", json!({"outputs": outputs, "annotations": [annotation]}))
        .await
        .unwrap();

    let job = bench.forge.jobs("o", "r", run).await.unwrap()[0].id;
    let mut shown = vec![rest_log(&bench, run).await];
    for page in [format!("runs/{run}"), format!("runs/{run}/jobs"), format!("jobs/{job}")] {
        let path = format!("/api/v3/repos/o/r/actions/{page}");
        shown.push(bench.call(reqwest::Method::GET, &path, None).await.1.to_string());
    }
    let path = format!("/api/v3/repos/o/r/check-runs/{job}/annotations");
    shown.push(bench.call(reqwest::Method::GET, &path, None).await.1.to_string());
    for file in std::fs::read_dir(bench.folder.path().join("logs")).unwrap() {
        shown.push(std::fs::read_to_string(file.unwrap().path()).unwrap());
    }
    let mut kinds = Vec::new();
    while !matches!(kinds.last(), Some(LabEventKind::RunCompleted { .. })) {
        kinds.push(next_event(&mut events, |event| Some(event.kind.clone())).await);
    }
    shown.extend(kinds.iter().map(|kind| serde_json::to_string(kind).unwrap()));
    for text in &shown {
        for word in hidden {
            let in_json = serde_json::Value::from(word).to_string();
            assert!(!text.contains(word) && !text.contains(in_json.trim_matches('"')), "{word}: {text}");
        }
    }
    assert!(shown[0].contains("::add-mask::***\n"), "{}", shown[0]);
    let told = |part: &str| shown.iter().any(|text| text.contains(part));
    assert!(told("the output \\\"closed\\\" of the job is left out") && told("message *** ***"), "{shown:?}");
    let outputs = bench
        .lab
        .inner
        .hub
        .ask(move |state| state.runs[&run].run.jobs()[0].outputs.keys().cloned().collect::<Vec<_>>());
    assert_eq!(outputs.await.unwrap(), ["open"]);
}

#[tokio::test]
async fn a_mask_outlives_a_restart_and_a_changed_secret_stays_masked() {
    let bench = Bench::new().await;
    bench.forge.put_secret("o", "r", "KEY", "the old one").await.unwrap();
    let (run, mut runner, _events) = talking(&bench).await;
    feed(&bench, run, 1, &["::add-mask::added", "added", "the old one"]).await;
    bench.forge.put_secret("o", "r", "KEY", "the new one").await.unwrap();
    feed(&bench, run, 4, &["the old one", "the new one"]).await;
    let from = bench.url.clone();
    let bench = bench.killed_and_opened().await;
    runner.moved(&from, &bench.url);
    feed(&bench, run, 6, &["added", "the new one"]).await;
    let log = rest_log(&bench, run).await;
    let masked = log.lines().filter(|line| line.ends_with(" ***")).count();
    assert_eq!((masked, log.lines().count()), (6, 7), "{log}");
    runner.complete("succeeded", json!({})).await.unwrap();
    let masks =
        bench.lab.inner.hub.ask(|state| state.jobs.values().map(|job| job.record.masks.len()).sum::<usize>());
    assert_eq!(masks.await.unwrap(), 0, "they are forgotten with the job");
}

#[tokio::test]
async fn the_log_of_a_job_that_adds_too_many_masks_is_cut() {
    let bench = Bench::new().await;
    let (run, runner, mut events) = talking(&bench).await;
    let mut lines: Vec<String> = (0..1001).map(|number| format!("::add-mask::secret-{number:04}")).collect();
    lines.push("secret-1000".to_owned());
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    feed(&bench, run, 1, &lines).await;
    runner.upload(None, &stamped(&lines)).await;
    runner.complete("succeeded", json!({})).await.unwrap();
    let told = lines_until_end(&mut events).await;
    assert_eq!(told.len(), 1001);
    assert!(told[1000].starts_with("log cut, because the job adds more masks"), "{}", told[1000]);
    assert!(!rest_log(&bench, run).await.contains("secret-1000"));
}

#[tokio::test]
async fn secrets_of_a_repository_are_bounded_together() {
    let bench = Bench::new().await;
    let secret = "x".repeat(48 * 1024);
    for number in 0..5 {
        bench.forge.put_secret("o", "r", &format!("S{number}"), &secret).await.unwrap();
    }
    let refused = bench.forge.put_secret("o", "r", "S5", &secret).await.unwrap_err().to_string();
    assert!(refused.contains("at most 262144 bytes in all"), "{refused}");
    bench.forge.put_secret("o", "r", "S4", &secret).await.unwrap();
    bench.forge.put_secret("o", "other", "S5", &secret).await.unwrap();
}

/// github-act-runner 0.13.0 writes the lines of its own last step into the log of the workflow's last step (recorded).
#[tokio::test]
async fn lines_behind_the_last_step_are_in_a_step_of_their_own() {
    let workflow =
        "on: workflow_dispatch\njobs:\n  talk:\n    runs-on: x\n    steps:\n      - run: a\n      - run: b\n";
    let bench = Bench::new().await;
    let mut events = bench.lab.subscribe();
    let run = bench.start(workflow).await;
    let mut runner = bench.runner("talker", &["x"]).await;
    runner.is_act_runner = true;
    runner.take_job().await;
    let step = |number: u32, done: bool| {
        let completed_at = done.then_some("2026-01-01T00:00:09Z");
        json!({"external_id": format!("step-{number}"), "number": number, "name": format!("step {number}"), "status": 1,
            "started_at": "2026-01-01T00:00:00Z", "completed_at": completed_at, "conclusion": if done { 2 } else { 0 }})
    };
    runner.update_steps(json!([step(1, false)])).await;
    // A job may write the line itself, which changes nothing for the next step.
    runner.upload(Some("step-1"), &stamped(&["one", "\u{2b50} Run Complete job", "said"])).await;
    runner.update_steps(json!([step(1, true), step(2, false)])).await;
    let last = [
        "\u{2b50} Run Main b",
        "two",
        "  \u{2705}  Success - Main b",
        "\u{2b50} Run Complete job",
        "Stopping",
    ];
    runner.upload(Some("step-2"), &stamped(&last)).await;
    let from = bench.url.clone();
    let bench = bench.killed_and_opened().await;
    let mut later = bench.lab.subscribe();
    runner.moved(&from, &bench.url);
    runner.upload(Some("step-2"), &stamped(&[&last[..], &["\u{1f3c1}  Job succeeded"]].concat())).await;
    runner.update_steps(json!([step(2, true)])).await;
    runner.complete("succeeded", json!({})).await.unwrap();

    let mut told = Vec::new();
    while let Ok(Some(Ok(event))) =
        tokio::time::timeout(std::time::Duration::from_millis(200), events.next()).await
    {
        told.extend(spoken(&event.kind));
    }
    while !matches!(told.last().map(String::as_str), Some("end")) {
        let next = next_event(&mut later, |event| match &event.kind {
            LabEventKind::RunCompleted { .. } => Some("end".to_owned()),
            kind => spoken(kind),
        });
        told.push(next.await);
    }
    assert_eq!(
        told,
        [
            "> step 1",
            "step 1: one",
            "> Complete job",
            "Complete job: \u{2b50} Run Complete job",
            "Complete job: said",
            "> step 2",
            "step 2: \u{2b50} Run Main b",
            "step 2: two",
            "step 2:   \u{2705}  Success - Main b",
            "Complete job: \u{2b50} Run Complete job",
            "Complete job: Stopping",
            "Complete job: \u{1f3c1}  Job succeeded",
            "end",
        ]
    );
    let path = format!("/api/v3/repos/o/r/actions/runs/{run}/jobs");
    let jobs = bench.call(reqwest::Method::GET, &path, None).await.1;
    let steps = jobs["jobs"][0]["steps"].as_array().unwrap().iter();
    let steps: Vec<_> = steps.map(|step| format!("{} {}", step["name"], step["conclusion"])).collect();
    assert_eq!(steps, [r#""step 1" "success""#, r#""Complete job" "success""#, r#""step 2" "success""#]);
}

fn spoken(kind: &LabEventKind) -> Option<String> {
    match kind {
        LabEventKind::StepStarted { name, .. } => Some(format!("> {name}")),
        LabEventKind::LogLine { step, line, .. } => Some(format!("{step}: {line}")),
        _ => None,
    }
}

#[tokio::test]
async fn the_official_runner_app_names_its_last_step_itself() {
    let bench = Bench::new().await;
    let (run, runner, mut events) = talking(&bench).await;
    feed(&bench, run, 1, &["\u{2b50} Run Complete job"]).await;
    runner.complete("succeeded", json!({})).await.unwrap();
    let step = next_event(&mut events, |event| match &event.kind {
        LabEventKind::LogLine { step, .. } => Some(step.clone()),
        _ => None,
    });
    assert_eq!(step.await, "speak");
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
