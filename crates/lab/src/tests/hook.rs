//! Tests of webhooks: creation, deliveries as a receiver sees them, failures, and bounds.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use dayfly_forge::webhook::{JobAction, JobDelivery, Webhook, WebhookHeaders, WebhookSecret};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::bench::{Bench, ONE_JOB};

pub(super) const HOOKS: &str = "/api/v3/repos/o/r/hooks";

pub(super) type Received = (HeaderMap, Bytes);

/// A receiver of deliveries, which answers with the status that the test sets; 0: it does not answer.
pub(super) struct Receiver {
    url: String,
    status: Arc<Mutex<u16>>,
    received: mpsc::UnboundedReceiver<Received>,
}

impl Receiver {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (sender, received) = mpsc::unbounded_channel();
        let status = Arc::new(Mutex::new(202));
        let shared = (sender, Arc::clone(&status));
        let router = Router::new().fallback(take).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, status, received }
    }

    pub(super) async fn next(&mut self) -> Received {
        tokio::time::timeout(Duration::from_secs(20), self.received.recv()).await.unwrap().unwrap()
    }

    /// Returns the next event about a job, and checks its signature.
    pub(super) async fn job(&mut self, secret: &str) -> JobDelivery {
        let (headers, body) = self.next().await;
        match read(&headers, &body, secret) {
            Webhook::Job(job) => (*job).clone(),
            other => panic!("{other:?}"),
        }
    }

    fn answer_with(&self, status: u16) {
        *self.status.lock().unwrap() = status;
    }
}

async fn take(
    State((sender, status)): State<(mpsc::UnboundedSender<Received>, Arc<Mutex<u16>>)>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let status = *status.lock().unwrap();
    sender.send((headers, body)).unwrap();
    match StatusCode::from_u16(status) {
        Ok(status) => status,
        Err(_) => std::future::pending().await,
    }
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

/// Reads a delivery as dayfly does.
fn read(headers: &HeaderMap, body: &Bytes, secret: &str) -> Webhook {
    let secret = WebhookSecret::new(secret.into()).unwrap();
    assert!(secret.verifies(body, header(headers, "x-hub-signature-256").unwrap()));
    let headers = WebhookHeaders {
        event: header(headers, "x-github-event"),
        delivery: header(headers, "x-github-delivery"),
        content_type: header(headers, "content-type"),
    };
    Webhook::read(&headers, body).unwrap()
}

fn hook(url: &str, content_type: &str) -> Value {
    let config = json!({"url": url, "content_type": content_type, "secret": "s3cret", "insecure_ssl": "0"});
    json!({"name": "web", "active": true, "events": ["workflow_job"], "config": config})
}

/// Creates a hook, and takes its ping from the receiver.
pub(super) async fn make(bench: &Bench, path: &str, receiver: &mut Receiver, content_type: &str) -> u64 {
    let (status, made) = bench.call(Method::POST, path, Some(hook(&receiver.url, content_type))).await;
    assert_eq!(status, 201, "{made}");
    let (headers, body) = receiver.next().await;
    assert_eq!(read(&headers, &body, "s3cret"), Webhook::Ping);
    made["id"].as_u64().unwrap()
}

/// Returns the list of a hook's deliveries, once it has this length.
pub(super) async fn deliveries(bench: &Bench, hook: u64, count: usize) -> Vec<Value> {
    for _ in 0..200 {
        let (_, list) =
            bench.call(Method::GET, &format!("{HOOKS}/{hook}/deliveries?per_page=100"), None).await;
        if list.as_array().unwrap().len() >= count {
            return list.as_array().unwrap().clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("there are not {count} deliveries");
}

#[tokio::test]
async fn a_receiver_is_told_each_change_of_a_job_in_order_and_signed() {
    let bench = Bench::new().await;
    for (path, target, content_type, kind) in [
        (HOOKS, "repository", "json", "application/json"),
        ("/api/v3/orgs/O/hooks", "organization", "form", "application/x-www-form-urlencoded"),
    ] {
        let mut receiver = Receiver::start().await;
        let hook = make(&bench, path, &mut receiver, content_type).await;
        let run = bench.start(ONE_JOB).await;
        let (headers, body) = receiver.next().await;
        assert_eq!(header(&headers, "content-type"), Some(kind));
        assert_eq!(header(&headers, "x-github-event"), Some("workflow_job"));
        assert_eq!(header(&headers, "x-github-hook-id"), Some(hook.to_string().as_str()));
        assert_eq!(header(&headers, "x-github-hook-installation-target-type"), Some(target));
        assert!(header(&headers, "user-agent").unwrap().starts_with("GitHub-Hookshot/"));
        let Webhook::Job(queued) = read(&headers, &body, "s3cret") else { panic!("no job") };
        let job = bench.forge.jobs("o", "r", run).await.unwrap()[0].clone();
        assert_eq!((queued.action, queued.job, &queued.labels), (JobAction::Queued, job.id, &job.labels));
        assert_eq!((queued.owner.as_str(), queued.repository.as_str(), &queued.runner), ("o", "r", &None));

        let mut runner = bench.runner(target, &["self-hosted", "big"]).await;
        runner.take_job().await;
        let taken = receiver.job("s3cret").await;
        assert_eq!(
            (taken.action, taken.job, taken.runner.as_deref()),
            (JobAction::InProgress, job.id, Some(target))
        );
        runner.complete("succeeded", json!({})).await.unwrap();
        let over = receiver.job("s3cret").await;
        assert_eq!(
            (over.action, over.job, over.conclusion.as_deref()),
            (JobAction::Completed, job.id, Some("success"))
        );
        let next = receiver.job("s3cret").await;
        assert_eq!(next.action, JobAction::Queued, "the job that needs it");
        bench.forge.cancel_run("o", "r", run).await.unwrap();
        let cancelled = receiver.job("s3cret").await;
        let end = (cancelled.action, cancelled.conclusion.as_deref(), cancelled.runner);
        assert_eq!(end, (JobAction::Completed, Some("cancelled"), None));
        let gone = bench.call(Method::DELETE, &format!("{path}/{hook}"), None).await;
        assert_eq!(gone.0, 204);
    }
}

#[tokio::test]
async fn a_delivery_that_fails_is_sent_again_only_on_request() {
    let bench = Bench::with(|limits| limits.hook_answer = Duration::from_secs(2)).await;
    let mut receiver = Receiver::start().await;
    let hook = make(&bench, HOOKS, &mut receiver, "json").await;
    receiver.answer_with(500);
    bench.start(ONE_JOB).await;
    let lost = receiver.job("s3cret").await;
    let list = deliveries(&bench, hook, 2).await;
    assert_eq!((&list[0]["status_code"], &list[0]["guid"]), (&json!(500), &json!(lost.id)));
    assert_eq!((&list[0]["event"], &list[0]["action"]), (&json!("workflow_job"), &json!("queued")));
    assert_eq!((&list[1]["event"], &list[1]["status"]), (&json!("ping"), &json!("OK")));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(receiver.received.try_recv().is_err(), "no retry");

    receiver.answer_with(0);
    let attempts = format!("{HOOKS}/{hook}/deliveries/{}/attempts", list[0]["id"]);
    assert_eq!(bench.call(Method::POST, &attempts, None).await.0, 202);
    assert_eq!(receiver.job("s3cret").await, lost, "the same id and payload");
    let late = deliveries(&bench, hook, 3).await;
    assert_eq!((&late[0]["status"], &late[0]["redelivery"]), (&json!("timed out"), &json!(true)));
    assert_ne!(late[0]["id"], list[0]["id"]);
    receiver.answer_with(202);
    assert_eq!(bench.call(Method::POST, &attempts, None).await.0, 202);
    assert_eq!(receiver.job("s3cret").await, lost);
    assert_eq!(deliveries(&bench, hook, 4).await[0]["status_code"], 202);
    let (_, one) =
        bench.call(Method::GET, &format!("{HOOKS}/{hook}/deliveries/{}", list[0]["id"]), None).await;
    assert_eq!(one["request"]["payload"]["action"], "queued");
    let (_, page) = bench
        .call(Method::GET, &format!("{HOOKS}/{hook}/deliveries?per_page=1&cursor={}", late[0]["id"]), None)
        .await;
    assert_eq!((page.as_array().unwrap().len(), &page[0]["id"]), (1, &list[0]["id"]));
}

#[tokio::test]
async fn deliveries_that_wait_have_a_bound_and_the_list_too() {
    let bench = Bench::with(|limits| {
        (limits.hook_deliveries_waiting_max, limits.hook_deliveries_kept_max) = (2, 6);
    })
    .await;
    let mut receiver = Receiver::start().await;
    let hook = make(&bench, HOOKS, &mut receiver, "json").await;
    deliveries(&bench, hook, 1).await;
    receiver.answer_with(0);
    let pings = format!("{HOOKS}/{hook}/pings");
    assert_eq!(bench.call(Method::POST, &pings, None).await.0, 204);
    receiver.next().await;
    for _ in 0..4 {
        assert_eq!(bench.call(Method::POST, &pings, None).await.0, 204);
    }
    // One is being sent, two wait, and two have failed.
    let failed = deliveries(&bench, hook, 3).await;
    assert!(
        failed[..2].iter().all(|it| it["status"].as_str().unwrap().starts_with("not sent")),
        "{failed:?}"
    );
    for _ in 0..10 {
        bench.call(Method::POST, &pings, None).await;
    }
    let kept = bench.lab.inner.hub.ask(move |state| state.hooks[&hook].deliveries.len()).await.unwrap();
    assert_eq!(kept, 6);
}

#[tokio::test]
async fn a_hook_outlives_the_lab_and_shows_no_secret() {
    let bench = Bench::new().await;
    let mut receiver = Receiver::start().await;
    let id = make(&bench, HOOKS, &mut receiver, "json").await;
    let bench = bench.killed_and_opened().await;
    let (_, list) = bench.call(Method::GET, HOOKS, None).await;
    assert_eq!((list.as_array().unwrap().len(), &list[0]["id"]), (1, &json!(id)));
    assert!(!list.to_string().contains("s3cret") && list[0]["config"]["url"] == receiver.url, "{list}");
    bench.start(ONE_JOB).await;
    assert_eq!(receiver.job("s3cret").await.action, JobAction::Queued);
    assert_eq!(bench.call(Method::DELETE, &format!("{HOOKS}/{id}"), None).await.0, 204);
    let bench = bench.killed_and_opened().await;
    assert_eq!(bench.call(Method::GET, &format!("{HOOKS}/{id}"), None).await.0, 404);
}

#[tokio::test]
async fn hooks_that_make_no_sense_are_refused() {
    let bench = Bench::with(|limits| limits.hooks_max = 1).await;
    let url = "http://127.0.0.1:1/x";
    for change in [
        json!({"config": {"url": "ftp://127.0.0.1/x"}}),
        json!({"config": {"url": "file:///etc/passwd"}}),
        json!({"config": {"url": "127.0.0.1"}}),
        json!({"config": {}}),
        json!({"config": {"url": url, "content_type": "xml"}}),
        json!({"config": {"url": url, "insecure_ssl": "1"}}),
        json!({"name": "mail", "config": {"url": url}}),
        json!({"events": [], "config": {"url": url}}),
        json!({"config": {"url": url, "secret": "x".repeat(1025)}}),
        json!({}),
    ] {
        let (status, body) = bench.call(Method::POST, HOOKS, Some(change.clone())).await;
        assert_eq!(status, 422, "{change}: {body}");
    }
    assert_eq!(bench.call(Method::POST, HOOKS, Some(hook(url, "json"))).await.0, 201);
    assert_eq!(
        bench.call(Method::POST, HOOKS, Some(hook(url, "json"))).await.0,
        422,
        "there is room for one"
    );
    for path in ["/api/v3/enterprises/e/hooks", "/api/v3/repos/o/other/hooks/1", "/api/v3/repos/o/r/hooks/x"]
    {
        assert_eq!(bench.call(Method::GET, path, None).await.0, 404, "{path}");
    }
    let stranger = super::bench::http().get(format!("{}{HOOKS}", bench.url)).send().await.unwrap();
    assert_eq!(stranger.status().as_u16(), 401);
}
