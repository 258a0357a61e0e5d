//! A test over loopback: a lab sends deliveries, the server takes them, and a pool gets its demand.

use std::num::NonZeroU32;
use std::time::Duration;

use dayfly_forge::webhook::{WebhookOptions, WebhookQueues, WebhookSecret, WebhookServer};
use dayfly_forge::{ApiBase, Dispatch, Forge, JitRequest, RunnerScope, Url};
use dayfly_lab::{Lab, LabSettings, Limits};
use dayfly_light_runner::{Client, RunnerStatus};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;
use crate::demand::{DemandReceiver, JobDemand};
use crate::job_end::{JobConclusion, JobEnd};
use crate::stop;

const SECRET: &str = "s3cret";
const WORKFLOW: &str =
    "on: workflow_dispatch\njobs:\n  a:\n    runs-on: [self-hosted, big]\n    steps:\n      - run: echo\n";

/// A lab with a hook, the server that takes its deliveries, and a source that one pool has.
struct Stage {
    forge: Forge,
    url: String,
    token: String,
    demand: DemandReceiver,
    facts: mpsc::Receiver<crate::fact::FactRecord>,
    stop: stop::StopSender,
    source: tokio::task::JoinHandle<()>,
    _tasks: JoinSet<()>,
    _folder: TempDir,
}

fn scope() -> RunnerScope {
    RunnerScope::Repository { owner: "o".into(), name: "r".into() }
}

impl Stage {
    async fn new() -> Self {
        let mut tasks = JoinSet::new();
        let folder = tempfile::tempdir().expect("folder");
        let limits = Limits { keys_ready: 1, ..Limits::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let settings =
            LabSettings { limits, runner_url: Some(url.clone()), ..LabSettings::new(folder.path()) };
        let lab = Lab::open(settings).expect("a lab");
        let token = lab.token().expose_secret().to_owned();
        let forge = Forge::new(ApiBase::from_host_or_url(&url).expect("an address"), token.as_str());
        tasks.spawn(async move { lab.serve(listener, std::future::pending()).await.expect("served") });

        let options = WebhookOptions {
            path: "/webhook".to_owned(),
            secret: WebhookSecret::new(SECRET.into()).expect("a secret"),
            requests_per_second: NonZeroU32::new(100).expect("not zero"),
            tls: None,
        };
        let queues = WebhookQueues::default();
        let any_port = "127.0.0.1:0".parse().expect("an address");
        let server = WebhookServer::bind(any_port, options, queues.clone()).expect("a port");
        let labels = PoolLabels::of_pool(["self-hosted", "big"].map(str::to_owned).to_vec());
        let mut source = WebhookSource::new(queues.subscribe(), server.url(), scope(), labels);
        let hook = server.url();
        tasks.spawn(server.serve(mpsc::channel(1).0, std::future::pending()));
        let (sender, demand) = mpsc::unbounded_channel();
        let sender = PoolDemandSender { pool: 0, sender };
        let (sink, facts) = crate::stream::channel();
        let (stop, stopped) = stop::channel();
        let source = tokio::spawn(async move { source.run(&sender, &mut sink.of_loop(0), stopped).await });
        let forge = forge.expect("a client");
        let stage = Self { forge, url, token, demand, facts, stop, source, _tasks: tasks, _folder: folder };
        stage.make_hook(&hook).await;
        stage
    }

    async fn make_hook(&self, hook: &str) {
        let url: Url = format!("{}/api/v3/repos/o/r/hooks", self.url).parse().expect("an address");
        let config = json!({"url": hook, "content_type": "form", "secret": SECRET});
        let body = json!({"name": "web", "events": ["workflow_job"], "config": config});
        let client = dayfly_forge::delivery_client(&url).expect("a client");
        let made = client.post(url).bearer_auth(&self.token).body(body.to_string()).send().await;
        assert_eq!(made.expect("an answer").status().as_u16(), 201);
    }

    async fn start_run(&self) -> u64 {
        self.forge.put_workflow("o", "r", "ci.yml", WORKFLOW).await.expect("put");
        self.forge.dispatch("o", "r", "ci.yml", &Dispatch::default()).await.expect("a run")
    }

    async fn next(&mut self) -> DemandEvent {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(20), self.demand.recv()).await;
            match next.expect("in time").expect("an event").event {
                // The details of the job come before each change.
                DemandEvent::Described(details) => assert_eq!(details.repository.as_deref(), Some("o/r")),
                event => return event,
            }
        }
    }
}

#[tokio::test]
async fn the_deliveries_of_a_lab_become_the_demand_of_a_pool() {
    let mut stage = Stage::new().await;
    let ready = stage.facts.recv().await.expect("a fact").fact;
    assert!(
        matches!(&ready, Fact::SourceReady { source, message }
        if source == "webhook" && message.starts_with("takes the jobs of o/r from the deliveries at http://127.0.0.1:")),
        "{ready:?}"
    );
    let run = stage.start_run().await;
    let job = stage.forge.jobs("o", "r", run).await.expect("jobs")[0].clone();
    let queued = JobDemand { job: job.id, labels: job.labels.clone(), group: 1 };
    assert_eq!(stage.next().await, DemandEvent::Queued(queued));

    let request = JitRequest {
        name: "vm-1".to_owned(),
        group_id: 1,
        labels: job.labels.clone(),
        work_folder: "_work".to_owned(),
        runner_url: None,
    };
    let runner = stage.forge.generate_jit_config(&scope(), &request).await.expect("a runner");
    let client = Client::new(runner.config);
    client.sign_in().await.expect("signed in");
    client.open_session().await.expect("a session");
    let message = client.poll(RunnerStatus::Online).await.expect("an answer").expect("the job");
    let url = client.config().runner.server_url_v2.replace("/broker/", "/run/");
    let request = message.body["runner_request_id"].as_str().expect("an id");
    let message = client.acquire(&url, request).await.expect("the job");
    assert_eq!(stage.next().await, DemandEvent::Taken { job: job.id, runner: "vm-1".to_owned() });
    let calls = client.of_job(&message).expect("its calls");
    calls.complete(json!({"conclusion": "failed", "outputs": {}, "stepResults": []})).await.expect("done");
    let end = JobEnd {
        job: job.id,
        name: "a".to_owned(),
        runner: "vm-1".to_owned(),
        conclusion: JobConclusion::Failure,
        annotations: Vec::new(),
    };
    assert_eq!(stage.next().await, DemandEvent::Ended(end));

    let run = stage.start_run().await;
    assert!(matches!(stage.next().await, DemandEvent::Queued(_)));
    stage.forge.cancel_run("o", "r", run).await.expect("cancelled");
    assert!(matches!(stage.next().await, DemandEvent::Settled { .. }));
    stage.stop.order(StopOrder::Gently);
    tokio::time::timeout(Duration::from_secs(10), stage.source).await.expect("in time").expect("it ends");
}
