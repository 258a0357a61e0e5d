//! Test bench: a served lab with a clock that tests can advance, and a scripted runner.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::keys::tests::sign;
use crate::{Clock, Lab, LabEvent, LabEventKind, LabEvents, LabSettings, Limits};
use dayfly_forge::{ApiBase, Dispatch, Forge, JitRequest, NewRunner, RunnerScope};

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

    async fn open(folder: TempDir, limits: Limits, clock: Clock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let settings = LabSettings {
            runner_url: Some(url.clone()),
            limits,
            clock: clock.clone(),
            ..LabSettings::new(folder.path())
        };
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

/// A scripted runner, which starts from a JIT config.
pub(super) struct Script {
    pub(super) id: u64,
    config: dayfly_forge::jit::JitConfig,
    http: reqwest::Client,
    token: String,
    session: String,
    pub(super) job: Value,
}

type Reply = Result<Value, (u16, Value)>;

impl Script {
    pub(super) fn new(runner: NewRunner) -> Self {
        Self::with(runner.runner_id, runner.config)
    }

    pub(super) fn with(id: u64, config: dayfly_forge::jit::JitConfig) -> Self {
        let http = http();
        Self { id, config, http, token: String::new(), session: String::new(), job: Value::Null }
    }

    /// Signs in and opens the runner's session.
    pub(super) async fn connect(mut self) -> Self {
        self.sign_in().await.unwrap();
        self.open_session().await.unwrap();
        self
    }

    async fn send(request: reqwest::RequestBuilder) -> Reply {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let body = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null);
        if (200..300).contains(&status) { Ok(body) } else { Err((status, body)) }
    }

    fn broker(&self, path: &str) -> String {
        format!("{}{path}", self.config.runner.server_url_v2)
    }

    pub(super) async fn sign_in(&mut self) -> Reply {
        let data = &self.config.credentials.data;
        let now = jiff::Timestamp::now().as_second();
        let claims = json!({
            "sub": data.client_id, "iss": data.client_id, "aud": data.authorization_url,
            "jti": "1", "nbf": now - 10, "iat": now, "exp": now + 300,
        });
        let assertion = sign(&self.config.key, "PS256", &claims);
        let form = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", &assertion),
        ];
        let body = form.map(|(key, value)| format!("{key}={}", value.replace(':', "%3A"))).join("&");
        let request = self.http.post(&data.authorization_url).body(body);
        let answer = Self::send(request.header("content-type", "application/x-www-form-urlencoded")).await?;
        answer["access_token"].as_str().unwrap().clone_into(&mut self.token);
        Ok(answer)
    }

    pub(super) async fn open_session(&mut self) -> Reply {
        let body = json!({"ownerName": "script", "agent": {"id": self.id, "version": "2.336.0"}});
        let answer =
            Self::send(self.http.post(self.broker("session")).bearer_auth(&self.token).json(&body)).await?;
        answer["sessionId"].as_str().unwrap().clone_into(&mut self.session);
        Ok(answer)
    }

    /// Polls once. Returns `Null` if there is no message.
    pub(super) async fn poll(&self, status: &str) -> Reply {
        let url = format!("{}?sessionId={}&status={status}&os=Linux", self.broker("message"), self.session);
        Self::send(self.http.get(url).bearer_auth(&self.token)).await
    }

    /// Polls until a message arrives, checks its type and returns its body.
    pub(super) async fn message(&self, kind: &str) -> Value {
        for _ in 0..20 {
            let message =
                self.poll(if kind == "RunnerJobRequest" { "Online" } else { "Busy" }).await.unwrap();
            if message.is_object() {
                assert_eq!(message["messageType"], kind, "{message}");
                return serde_json::from_str(message["body"].as_str().unwrap()).unwrap();
            }
        }
        panic!("no {kind} comes");
    }

    pub(super) async fn acquire(&mut self, request: &str) -> Reply {
        let url = self.config.runner.server_url_v2.replace("/broker/", "/run/acquirejob");
        let body = json!({"jobMessageId": request, "runnerOS": "Linux"});
        let job = Self::send(self.http.post(url).bearer_auth(&self.token).json(&body)).await?;
        self.job = job.clone();
        Ok(job)
    }

    /// Waits for a job and acquires it.
    pub(super) async fn take_job(&mut self) {
        let body = self.message("RunnerJobRequest").await;
        self.acquire(body["runner_request_id"].as_str().unwrap()).await.unwrap();
    }

    fn endpoint(&self) -> &Value {
        &self.job["resources"]["endpoints"][0]
    }

    pub(super) fn job_token(&self) -> String {
        self.endpoint()["authorization"]["parameters"]["AccessToken"].as_str().unwrap().to_owned()
    }

    fn run_service(&self, call: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{call}", self.endpoint()["url"].as_str().unwrap());
        self.http.post(url).bearer_auth(self.job_token())
    }

    pub(super) async fn renew(&self) -> Reply {
        let body = json!({"planId": self.job["plan"]["planId"], "jobId": self.job["jobId"]});
        Self::send(self.run_service("renewjob").json(&body)).await
    }

    pub(super) async fn complete(&self, conclusion: &str, outputs: Value) -> Reply {
        self.complete_with(conclusion, json!({"outputs": outputs, "stepResults": []})).await
    }

    /// Completes the job; `body` holds the other members of `completejob`.
    pub(super) async fn complete_with(&self, conclusion: &str, mut body: Value) -> Reply {
        body["jobId"] = self.job["jobId"].clone();
        body["conclusion"] = conclusion.into();
        Self::send(self.run_service("completejob").json(&body)).await
    }

    pub(super) async fn twirp(&self, method: &str, body: Value) -> Reply {
        let base = self.job["variables"]["system.github.results_endpoint"]["value"].as_str().unwrap();
        let url = format!("{base}twirp/{method}");
        Self::send(self.http.post(url).bearer_auth(self.job_token()).json(&body)).await
    }

    pub(super) async fn update_steps(&self, steps: Value) {
        let method = "github.actions.results.api.v1.WorkflowStepUpdateService/WorkflowStepsUpdate";
        self.twirp(method, json!({"steps": steps, "change_order": 1})).await.unwrap();
    }

    /// Uploads one piece of the log of a step or, if `step` is `None`, of the job.
    pub(super) async fn upload(&self, step: Option<&str>, text: &str) {
        let method = if step.is_some() { "GetStepLogsSignedBlobURL" } else { "GetJobLogsSignedBlobURL" };
        let method = format!("results.services.receiver.Receiver/{method}");
        let answer = self.twirp(&method, json!({"step_backend_id": step.unwrap_or_default()})).await.unwrap();
        let url = format!("{}&comp=appendblock&seal=true", answer["logs_url"].as_str().unwrap());
        Self::send(self.http.put(url).body(text.to_owned())).await.unwrap();
    }

    /// Switches to the lab's new address. A real lab keeps its address over a restart.
    pub(super) fn moved(&mut self, from: &str, to: &str) {
        let swap = |text: &mut String| *text = text.replace(from, to);
        swap(&mut self.config.runner.server_url_v2);
        swap(&mut self.config.credentials.data.authorization_url);
        self.job = serde_json::from_str(&self.job.to_string().replace(from, to)).unwrap();
    }

    pub(super) async fn close_session(&self) -> Reply {
        Self::send(self.http.delete(self.broker("session")).bearer_auth(&self.token)).await
    }
}
