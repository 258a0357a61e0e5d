//! The faults of calls: refusals before a call is carried out, and changes of its reply.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::{RUNNERS, clear, jit, order, runners, send};
use crate::tests::bench::{Bench, ONE_JOB, RunnerStatus};
use crate::tests::scale_set::Owner;

/// Returns the names of the registered runners, without the faults.
async fn registered(bench: &Bench) -> Vec<String> {
    clear(bench).await;
    bench.forge.list_runners(&Bench::scope()).await.unwrap().into_iter().map(|runner| runner.name).collect()
}

#[tokio::test]
async fn a_call_is_refused_in_the_form_of_its_interface() {
    let bench = Bench::new().await;
    let (rest, service) = (RUNNERS, "/runner/broker/_apis/runtime/runnerscalesets");
    let runner = "/runner/broker/message?sessionId=a&status=Online";
    let mut answers = Vec::new();
    for (text, path) in [
        ("server-error", rest),
        ("server-error,value=502", service),
        ("server-error", runner),
        ("unauthorized", rest),
        ("unauthorized", service),
        ("unauthorized", runner),
        ("secondary-limit,value=30", rest),
        ("secondary-limit-without-wait", rest),
        ("empty-poll", "/runner/broker/_apis/runtime/runnerscalesets/7/messages?sessionId=a"),
        ("empty-poll", runner),
        ("version-too-old", runner),
    ] {
        order(&bench, text).await;
        let answer = send(&bench, Method::GET, path, None).await.unwrap();
        clear(&bench).await;
        let wait =
            answer.header("retry-after").map(|wait| format!(" retry-after {wait}")).unwrap_or_default();
        assert!(answer.header("x-github-request-id").is_some());
        answers.push(format!("{text}: {}{wait} {}", answer.status, answer.text()));
    }
    insta::assert_snapshot!(answers.join("\n"));
}

#[tokio::test]
async fn a_refused_call_is_not_carried_out() {
    let bench = Bench::new().await;
    let path = format!("{RUNNERS}/generate-jitconfig");
    for text in ["server-error,on=generate-jitconfig", "unauthorized,count=1", "secondary-limit"] {
        order(&bench, text).await;
        assert!(send(&bench, Method::POST, &path, Some(jit("a"))).await.unwrap().status >= 400);
        assert_eq!(registered(&bench).await, [""; 0], "{text}");
    }
}

#[tokio::test]
async fn a_lost_reply_is_the_reply_to_a_call_that_was_carried_out() {
    let bench = Bench::new().await;
    let path = format!("{RUNNERS}/generate-jitconfig");
    order(&bench, "drop-reply,on=generate-jitconfig,count=1").await;
    let error = send(&bench, Method::POST, &path, Some(jit("a"))).await.unwrap_err();
    assert!(error.is_request() && !error.is_status(), "{error:?}");
    let again = send(&bench, Method::POST, &path, Some(jit("a"))).await.unwrap();
    assert_eq!(again.status, 409, "{}", again.text());
    assert_eq!(registered(&bench).await, ["a"]);
}

#[tokio::test]
async fn a_late_reply_comes_after_its_delay() {
    let bench = Bench::new().await;
    order(&bench, "delay-reply,on=list-runners,value=1").await;
    let began = Instant::now();
    assert_eq!(send(&bench, Method::GET, RUNNERS, None).await.unwrap().status, 200);
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_cut_reply_has_its_head_and_half_of_its_body() {
    let bench = Bench::new().await;
    order(&bench, "truncate-reply,on=list-runners").await;
    let error = send(&bench, Method::GET, RUNNERS, None).await.unwrap_err();
    assert!(error.is_body() || error.is_decode(), "the head has arrived: {error:?}");
}

#[tokio::test]
async fn a_changed_reply_differs_in_the_body_alone() {
    let bench = Bench::new().await;
    runners(&bench, &["a"]).await;
    let plain = send(&bench, Method::GET, RUNNERS, None).await.unwrap();
    let changed = async |text: &str| {
        order(&bench, text).await;
        let answer = send(&bench, Method::GET, RUNNERS, None).await.unwrap();
        clear(&bench).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, plain.header("content-type")));
        answer
    };
    assert_eq!(changed("empty-reply").await.text(), "");
    assert_eq!(changed("byte-order-mark").await.text(), format!("\u{feff}{}", plain.text()));
    let more = changed("unknown-members").await.json();
    assert!(more["newMemberOfTheLab"].is_object(), "{more}");
    assert!(more["runners"][0]["labels"][0]["newMemberOfTheLab"].is_object(), "{more}");
    assert_eq!(more["runners"][0]["name"], "a");
    let texts = changed("text-ids").await.json();
    let id = plain.json()["runners"][0]["id"].to_string();
    assert_eq!(texts["runners"][0]["id"], Value::String(id));
    assert_eq!(texts["total_count"], 1);
}

#[tokio::test]
async fn a_deletion_that_reads_as_404_is_a_deletion() {
    let bench = Bench::new().await;
    let id = runners(&bench, &["a", "b"]).await[0];
    order(&bench, "not-found-after-delete").await;
    let answer = send(&bench, Method::DELETE, &format!("{RUNNERS}/{id}"), None).await.unwrap();
    assert_eq!(answer.status, 404);
    assert_eq!(registered(&bench).await, ["b"]);
}

#[tokio::test]
async fn a_list_that_moves_lacks_an_entry_on_its_second_page() {
    let bench = Bench::new().await;
    runners(&bench, &["a", "b", "c", "d"]).await;
    order(&bench, "moving-pages").await;
    let mut names = Vec::new();
    for page in 1..=2 {
        let path = format!("{RUNNERS}?per_page=2&page={page}");
        let answer = send(&bench, Method::GET, &path, None).await.unwrap().json();
        names.extend(answer["runners"].as_array().unwrap().iter().map(|runner| runner["name"].to_string()));
    }
    assert_eq!(names, ["\"a\"", "\"b\"", "\"d\""]);
}

#[tokio::test]
async fn a_small_budget_of_calls_is_stated_and_then_refuses() {
    let bench = Bench::new().await;
    order(&bench, "rate-limit,value=2,for=600s").await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let answer = send(&bench, Method::GET, RUNNERS, None).await.unwrap();
        let number = |name: &str| answer.header(name).unwrap().parse::<i64>().unwrap();
        let resets_in = number("x-ratelimit-reset") - bench.clock.now_ms() / 1000;
        assert!((590..=601).contains(&resets_in), "{resets_in}");
        seen.push((answer.status, number("x-ratelimit-remaining"), number("x-ratelimit-used")));
    }
    assert_eq!(seen, [(200, 1, 1), (200, 0, 2), (403, 0, 2)]);
    bench.advance(Duration::from_secs(601)).await;
    assert_eq!(send(&bench, Method::GET, RUNNERS, None).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_poll_of_a_runner_can_end_at_once_and_a_runner_can_be_too_old() {
    let bench = Bench::new().await;
    let _run = bench.start(ONE_JOB).await;
    let mut runner = bench.runner("a", &["self-hosted", "big"]).await;
    order(&bench, "empty-poll,count=1").await;
    assert_eq!(runner.poll(RunnerStatus::Online).await.unwrap(), Value::Null, "although a job waits");
    order(&bench, "version-too-old,on=runner-message,count=1").await;
    let (status, body) = runner.poll(RunnerStatus::Online).await.unwrap_err();
    assert_eq!((status, body["errorKind"].as_str()), (403, Some("RunnerVersionTooOld")));
    runner.take_job().await;
}

#[tokio::test]
async fn a_poll_of_a_listener_can_end_at_once_or_in_the_middle() {
    let bench = Bench::new().await;
    let owner = Owner::of(&bench, "o/r").await;
    let set = owner.make("set", &["self-hosted", "big"]).await;
    let listener = owner.listen(set).await;
    bench.start(ONE_JOB).await;
    order(&bench, "empty-poll,on=message,count=1").await;
    assert_eq!(listener.poll(0, 5).await, (202, Value::Null));
    order(&bench, "truncate-reply,on=message,count=1").await;
    let url = format!("{}&lastMessageId=0", listener.opened["messageQueueUrl"].as_str().unwrap());
    let token = listener.opened["messageQueueAccessToken"].as_str().unwrap();
    let response = super::http().get(url).bearer_auth(token).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert!(response.bytes().await.is_err());
    let (status, message) = listener.poll(0, 5).await;
    assert_eq!((status, &message["statistics"]["totalAvailableJobs"]), (200, &json!(1)));
}
