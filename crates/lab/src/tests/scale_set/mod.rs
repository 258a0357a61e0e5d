//! Tests of scale sets, call by call. GitHub's own client runs against the lab in `tests/peers`.

mod queue;
mod session;
mod set;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::bench::{Bench, Script, http};
use dayfly_forge::jit::JitConfig;

const SERVICE: &str = "/runner/broker/_apis";

/// A workflow of jobs with this `runs-on`, one for each number.
fn workflow(runs_on: &str, numbers: &[u32]) -> String {
    let steps = "steps:\n      - run: echo";
    format!(
        "on: workflow_dispatch\njobs:\n  job:\n    runs-on: {runs_on}\n    strategy:\n      matrix:\n        number: {numbers:?}\n    {steps}\n"
    )
}

/// A caller with the token of one scope.
pub(super) struct Owner<'a> {
    bench: &'a Bench,
    token: String,
}

/// A listener in its session.
pub(super) struct Listener {
    queue_url: String,
    token: String,
    session: String,
    /// The answer that opened the session.
    pub(super) opened: Value,
}

/// Sends a request. Returns the status and the body, without a byte order mark.
async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap_or(Value::Null))
}

impl<'a> Owner<'a> {
    /// Signs in as an owner of `o/r`, `o` or `enterprises/big`.
    pub(super) async fn of(bench: &'a Bench, page: &str) -> Self {
        let path = match page.split_once('/') {
            Some(("enterprises", _)) => page.to_owned(),
            Some(_) => format!("repos/{page}"),
            None => format!("orgs/{page}"),
        };
        let path = format!("/api/v3/{path}/actions/runners/registration-token");
        let made = bench.call(Method::POST, &path, None).await.1;
        let body = json!({"url": format!("{}/{page}", bench.url), "runner_event": "register"});
        let begin = http()
            .post(format!("{}/api/v3/actions/runner-registration", bench.url))
            .header("authorization", format!("RemoteAuth {}", made["token"].as_str().unwrap()))
            .json(&body);
        let (status, begun) = answer(begin).await;
        assert_eq!(
            (status, begun["url"].as_str().unwrap()),
            (200, &*format!("{}/runner/broker/", bench.url))
        );
        Self { bench, token: begun["token"].as_str().unwrap().to_owned() }
    }

    pub(super) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let url = format!("{}{SERVICE}/{path}", self.bench.url);
        let mut request = http().request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request).await
    }

    /// Creates a scale set and returns its id.
    pub(super) async fn make(&self, name: &str, labels: &[&str]) -> u64 {
        let labels: Vec<Value> = labels.iter().map(|name| json!({"name": name, "type": "System"})).collect();
        let body = json!({"name": name, "runnerGroupId": 1, "labels": labels});
        let (status, made) = self.call(Method::POST, "runtime/runnerscalesets", Some(body)).await;
        assert_eq!(status, 200, "{made}");
        made["id"].as_u64().unwrap()
    }

    async fn delete(&self, set: u64) -> u16 {
        self.call(Method::DELETE, &format!("runtime/runnerscalesets/{set}"), None).await.0
    }

    /// Returns the statistics: available, acquired, assigned and running jobs; registered, busy and idle runners.
    pub(super) async fn statistics(&self, set: u64) -> [u64; 7] {
        numbers(&self.call(Method::GET, &format!("runtime/runnerscalesets/{set}"), None).await.1)
    }

    pub(super) async fn open(&self, set: u64) -> (u16, Value) {
        let path = format!("runtime/runnerscalesets/{set}/sessions");
        self.call(Method::POST, &path, Some(json!({"ownerName": "host-1"}))).await
    }

    pub(super) async fn listen(&self, set: u64) -> Listener {
        let (status, opened) = self.open(set).await;
        assert_eq!(status, 200, "{opened}");
        Listener::read(opened)
    }

    /// Mints a runner of a scale set and connects it.
    pub(super) async fn runner(&self, set: u64, name: &str) -> Script {
        let path = format!("runtime/runnerscalesets/{set}/generatejitconfig");
        let (status, made) =
            self.call(Method::POST, &path, Some(json!({"name": name, "workFolder": ""}))).await;
        assert_eq!(status, 200, "{made}");
        assert_eq!(made["runner"]["runnerScaleSetId"], set);
        let config = JitConfig::decode(made["encodedJITConfig"].as_str().unwrap()).unwrap();
        Script::with(made["runner"]["id"].as_u64().unwrap(), config).connect().await
    }
}

/// Returns the numbers in the statistics of a scale set, a session or a message.
fn numbers(value: &Value) -> [u64; 7] {
    [
        "totalAvailableJobs",
        "totalAcquiredJobs",
        "totalAssignedJobs",
        "totalRunningJobs",
        "totalRegisteredRunners",
        "totalBusyRunners",
        "totalIdleRunners",
    ]
    .map(|name| value["statistics"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {value}")))
}

/// Returns the kinds of the jobs' messages in a message.
fn kinds(message: &Value) -> Vec<String> {
    jobs(message).iter().map(|job| job["messageType"].as_str().unwrap().to_owned()).collect()
}

/// Returns the jobs' messages in a message.
pub(super) fn jobs(message: &Value) -> Vec<Value> {
    assert_eq!(message["messageType"], "RunnerScaleSetJobMessages", "{message}");
    serde_json::from_str(message["body"].as_str().unwrap()).unwrap()
}

fn ids(message: &Value) -> Vec<u64> {
    jobs(message).iter().map(|job| job["runnerRequestId"].as_u64().unwrap()).collect()
}

impl Listener {
    pub(super) fn read(opened: Value) -> Self {
        let text = |name: &str| opened[name].as_str().unwrap().to_owned();
        Self {
            queue_url: text("messageQueueUrl"),
            token: text("messageQueueAccessToken"),
            session: text("sessionId"),
            opened,
        }
    }

    /// Polls once. The body is `Null` if there is no message.
    pub(super) async fn poll(&self, last: u64, capacity: u32) -> (u16, Value) {
        let url = format!("{}&lastMessageId={last}", self.queue_url);
        let capacity = capacity.to_string();
        answer(http().get(url).bearer_auth(&self.token).header("X-ScaleSetMaxCapacity", capacity)).await
    }

    /// Polls until a message comes.
    pub(super) async fn next(&self, last: u64) -> Value {
        for _ in 0..20 {
            let (status, message) = self.poll(last, 10_000).await;
            assert!(matches!(status, 200 | 202), "{status}: {message}");
            if status == 200 {
                return message;
            }
        }
        panic!("no message comes");
    }

    /// Polls until a message comes, and deletes it.
    async fn take(&self) -> Value {
        let message = self.next(0).await;
        assert_eq!(self.delete(message["messageId"].as_u64().unwrap()).await, 204);
        message
    }

    async fn delete(&self, message: u64) -> u16 {
        let (path, query) = self.queue_url.split_once('?').unwrap();
        answer(http().delete(format!("{path}/{message}?{query}")).bearer_auth(&self.token)).await.0
    }

    async fn acquire(&self, jobs: &[u64]) -> (u16, Value) {
        let url = self.queue_url.split_once("/messages").unwrap().0;
        answer(http().post(format!("{url}/acquirejobs")).bearer_auth(&self.token).json(&jobs)).await
    }

    /// Waits until jobs are offered, acquires them, and reads the message which says that they are assigned.
    pub(super) async fn acquire_all(&self) -> Vec<u64> {
        let jobs = ids(&self.take().await);
        let (status, acquired) = self.acquire(&jobs).await;
        assert_eq!((status, &acquired["value"]), (200, &json!(jobs)));
        assert!(kinds(&self.take().await).iter().all(|kind| kind == "JobAssigned"));
        jobs
    }

    /// Switches to the lab's new address. A real lab keeps its address over a restart.
    fn moved(&mut self, from: &str, to: &str) {
        self.queue_url = self.queue_url.replace(from, to);
    }
}
