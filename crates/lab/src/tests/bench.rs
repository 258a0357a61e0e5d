//! Test bench: a served lab with a clock that tests can advance, and a scripted runner.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::{Clock, Lab, LabEvent, LabEventKind, LabEvents, LabSettings, Limits};
use dayfly_forge::{ApiBase, Dispatch, Forge, JitRequest, NewRunner, RunnerScope};
pub(super) use dayfly_light_runner::RunnerStatus;
use dayfly_light_runner::{CallError, Client, JobClient, Upload};

pub(super) const ONE_JOB: &str = "on: workflow_dispatch\njobs:\n  one:\n    runs-on: [self-hosted, big]\n    outputs:\n      word: ${{ steps.a.outputs.word }}\n    steps:\n      - id: a\n        run: echo hi\n  two:\n    needs: one\n    runs-on: [self-hosted]\n    steps:\n      - run: echo ${{ needs.one.outputs.word }}\n";

pub(super) struct Bench {
    pub(super) lab: Lab,
    pub(super) forge: Forge,
    pub(super) url: String,
    pub(super) clock: Clock,
    pub(super) folder: TempDir,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Bench {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits { long_poll: Duration::from_millis(400), keys_ready: 1, ..Limits::default() };
        change(&mut limits);
        Self::open(tempfile::tempdir().unwrap(), limits, Clock::system()).await
    }

    /// Opens a lab whose fault desk has this seed and this rule.
    pub(super) async fn seeded(seed: u64, fault: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = LabSettings {
            fault_seed: Some(seed),
            faults: vec![fault.parse().unwrap()],
            limits: Limits { keys_ready: 1, ..Limits::default() },
            ..LabSettings::new(folder.path())
        };
        Self::serve(folder, settings).await
    }

    async fn open(folder: TempDir, limits: Limits, clock: Clock) -> Self {
        let settings = LabSettings { limits, clock, ..LabSettings::new(folder.path()) };
        Self::serve(folder, settings).await
    }

    async fn serve(folder: TempDir, settings: LabSettings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let settings = LabSettings { runner_url: Some(url.clone()), ..settings };
        let clock = settings.clock.clone();
        // The previous lab may need a moment to release the folder.
        let mut tries = 0;
        let lab = loop {
            match Lab::open(settings.clone()) {
                Ok(lab) => break lab,
                Err(crate::LabError::InUse { .. }) if tries < 100 => tries += 1,
                Err(error) => panic!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let forge =
            Forge::new(ApiBase::from_host_or_url(&url).unwrap(), lab.token().expose_secret()).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = lab.clone();
        let serving = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            served.serve(listener, stopped).await.unwrap();
        });
        Self { lab, forge, url, clock, folder, stop: Some(stop), serving }
    }

    /// Aborts this lab without a shutdown, as a kill would, and opens its folder again.
    pub(super) async fn killed_and_opened(self) -> Self {
        let Self { lab, folder, clock, serving, .. } = self;
        let limits = lab.inner.limits.clone();
        serving.abort();
        let _ = serving.await;
        drop(lab);
        Self::open(folder, limits, clock).await
    }

    /// Shuts this lab down.
    pub(super) async fn stopped(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), self.serving).await.unwrap().unwrap();
    }

    pub(super) fn scope() -> RunnerScope {
        RunnerScope::Repository { owner: "o".into(), name: "r".into() }
    }

    pub(super) async fn register(&self, name: &str, labels: &[&str]) -> NewRunner {
        self.forge.generate_jit_config(&Self::scope(), &request(name, labels)).await.unwrap()
    }

    /// Registers a runner and opens its session.
    pub(super) async fn runner(&self, name: &str, labels: &[&str]) -> Script {
        Script::new(self.register(name, labels).await).connect().await
    }

    pub(super) async fn start(&self, workflow: &str) -> u64 {
        self.forge.put_workflow("o", "r", "ci.yml", workflow).await.unwrap();
        self.forge.dispatch("o", "r", "ci.yml", &Dispatch::default()).await.unwrap()
    }

    pub(super) async fn conclusion(&self, run: u64) -> Option<String> {
        self.forge.run("o", "r", run).await.unwrap().conclusion
    }

    /// Sends an HTTP request with the admin token, and returns the raw answer.
    pub(super) async fn call(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let mut request = http()
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(self.lab.token().expose_secret());
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        assert!(response.headers().contains_key("x-github-request-id"));
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null))
    }

    pub(super) async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.lab.inner.hub.ask(crate::state::LabState::tick).await.unwrap();
    }
}

/// Builds an HTTP client that follows no redirects and uses no proxy.
pub(super) fn http() -> reqwest::Client {
    // Another test may have installed the provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
    client.build().unwrap()
}

/// Returns the request for a runner of the default group.
pub(super) fn request(name: &str, labels: &[&str]) -> JitRequest {
    JitRequest {
        name: name.into(),
        group_id: 1,
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        work_folder: "_work".into(),
        runner_url: None,
    }
}

/// Returns the next event that `take` accepts, and skips all others.
pub(super) async fn next_event<T>(events: &mut LabEvents, take: impl Fn(&LabEvent) -> Option<T>) -> T {
    let waiting = async {
        loop {
            let event = events.next().await.unwrap().unwrap();
            if let Some(taken) = take(&event) {
                return taken;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("the event does not come")
}

/// Returns the log lines of all events until the run is over.
pub(super) async fn lines_until_end(events: &mut LabEvents) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let event = next_event(events, |event| Some(event.kind.clone())).await;
        match event {
            LabEventKind::LogLine { line, .. } => lines.push(line),
            LabEventKind::RunCompleted { .. } => return lines,
            _ => {}
        }
    }
}

/// A scripted runner: each call of the protocol is a method.
pub(super) struct Script {
    pub(super) id: u64,
    client: Client,
    /// True if it is to be taken for github-act-runner when it acquires a job.
    pub(super) is_act_runner: bool,
    pub(super) job: Value,
}

/// The answer to a call, or the status and the body of a refusal.
type Reply = Result<Value, (u16, Value)>;

fn reply(answer: Result<Value, CallError>) -> Reply {
    answer.map_err(|error| match error {
        CallError::Refused { status, body, .. } => (status, body),
        error => panic!("{error}"),
    })
}

impl Script {
    pub(super) fn new(runner: NewRunner) -> Self {
        Self::with(runner.runner_id, runner.config)
    }

    pub(super) fn with(id: u64, config: dayfly_forge::jit::JitConfig) -> Self {
        Self { id, client: Client::new(config), is_act_runner: false, job: Value::Null }
    }

    /// Signs in and opens the runner's session.
    pub(super) async fn connect(self) -> Self {
        self.sign_in().await.unwrap();
        self.open_session().await.unwrap();
        self
    }

    pub(super) async fn sign_in(&self) -> Reply {
        reply(self.client.sign_in().await)
    }

    pub(super) async fn open_session(&self) -> Reply {
        reply(self.client.open_session().await)
    }

    /// Polls once. Returns `Null` if there is no message.
    pub(super) async fn poll(&self, status: RunnerStatus) -> Reply {
        let message = self.client.poll(status).await;
        reply(message.map(|message| {
            message.map_or(Value::Null, |message| json!({"messageType": message.kind, "body": message.body}))
        }))
    }

    /// Polls until a message arrives, checks its type and returns its body.
    pub(super) async fn message(&self, kind: &str) -> Value {
        let status = if kind == "RunnerJobRequest" { RunnerStatus::Online } else { RunnerStatus::Busy };
        for _ in 0..20 {
            let message = self.poll(status).await.unwrap();
            if message.is_object() {
                assert_eq!(message["messageType"], kind, "{message}");
                return message["body"].clone();
            }
        }
        panic!("no {kind} comes");
    }

    pub(super) async fn acquire(&mut self, request: &str) -> Reply {
        let url = self.client.config().runner.server_url_v2.replace("/broker/", "/run/");
        let job = if self.is_act_runner {
            let body = json!({ "jobMessageId": request, "streamId": request });
            reply(self.client.acquire_with(&url, &body).await)?
        } else {
            reply(self.client.acquire(&url, request).await)?
        };
        self.job = job.clone();
        Ok(job)
    }

    /// Waits for a job and acquires it.
    pub(super) async fn take_job(&mut self) {
        let body = self.message("RunnerJobRequest").await;
        self.acquire(body["runner_request_id"].as_str().unwrap()).await.unwrap();
    }

    fn calls(&self) -> JobClient {
        self.client.of_job(&self.job).unwrap()
    }

    pub(super) fn job_token(&self) -> String {
        let token = &self.job["resources"]["endpoints"][0]["authorization"]["parameters"]["AccessToken"];
        token.as_str().unwrap().to_owned()
    }

    pub(super) async fn renew(&self) -> Reply {
        reply(self.calls().renew().await)
    }

    pub(super) async fn complete(&self, conclusion: &str, outputs: Value) -> Reply {
        self.complete_with(conclusion, json!({"outputs": outputs, "stepResults": []})).await
    }

    /// Completes the job; `body` holds the other members of `completejob`.
    pub(super) async fn complete_with(&self, conclusion: &str, mut body: Value) -> Reply {
        body["conclusion"] = conclusion.into();
        reply(self.calls().complete(body).await)
    }

    pub(super) async fn twirp(&self, method: &str, body: Value) -> Reply {
        reply(self.calls().twirp(method, body).await)
    }

    pub(super) async fn update_steps(&self, steps: Value) {
        self.calls().update_steps(steps, 1).await.unwrap();
    }

    /// Uploads one piece of the log of a step or, if `step` is `None`, of the job.
    pub(super) async fn upload(&self, step: Option<&str>, text: &str) {
        self.calls().upload(step.map_or(Upload::JobLog, Upload::StepLog), text).await.unwrap();
    }

    /// Uploads the summary of a step in the way of actions/runner. `comp` is appended to the address of the upload.
    pub(super) async fn upload_summary(&self, step: &str, text: &str, comp: &str) -> Reply {
        let method = "results.services.receiver.Receiver/GetStepSummarySignedBlobURL";
        let answer = self.twirp(method, json!({"step_backend_id": step})).await?;
        let url = format!("{}{comp}", answer["summary_url"].as_str().unwrap());
        let upload = http().put(url).header("x-ms-blob-type", "BlockBlob").body(text.to_owned());
        let response = upload.send().await.unwrap();
        let status = response.status().as_u16();
        let body = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null);
        if status == 201 { Ok(body) } else { Err((status, body)) }
    }

    /// Switches to the lab's new address. A real lab keeps its address over a restart.
    pub(super) fn moved(&mut self, from: &str, to: &str) {
        let swap = |text: &mut String| *text = text.replace(from, to);
        let config = self.client.config_mut();
        swap(&mut config.runner.server_url_v2);
        swap(&mut config.credentials.data.authorization_url);
        self.job = serde_json::from_str(&self.job.to_string().replace(from, to)).unwrap();
    }

    pub(super) async fn close_session(&self) -> Reply {
        reply(self.client.close_session().await)
    }
}
