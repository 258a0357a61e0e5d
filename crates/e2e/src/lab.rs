//! A lab in a separate process, as an admin would run it.

use std::path::Path;
use std::time::{Duration, Instant};

use dayfly_forge::{ApiBase, Dispatch, Forge, RunnerScope};
use dayfly_lab::LabEvent;
use rustix::process::Signal;
use tokio::sync::mpsc;

use crate::{Dayfly, Running};

/// Longest time that a machine may take to start and run a small job on a loaded host.
const PATIENCE: Duration = Duration::from_secs(300);

/// A lab in a separate process, and one of its repositories.
pub struct LabProcess {
    process: Running,
    /// The URL that it listens at.
    pub url: String,
    /// Its admin token.
    pub token: String,
    /// A client of the lab.
    pub forge: Forge,
    /// `OWNER/NAME` of its repository.
    pub principal: String,
    owner: String,
    repository: String,
}

/// Returns an HTTP client for requests that [`Forge`] has no method for.
pub fn http() -> reqwest::Client {
    // reqwest requires a crypto provider even if it uses none. A second installation fails, because there already is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// The events of one run of a lab from its beginning, over HTTP as other clients would read them.
pub struct RunEvents(mpsc::Receiver<LabEvent>);

impl RunEvents {
    /// Starts to read the events of a run.
    pub async fn of(forge: &Forge, token: &str, run: u64) -> Self {
        let mut response = http()
            .get(forge.base().url().join("/lab/v1/events").expect("an address"))
            .query(&[("since", "0".to_owned()), ("run", run.to_string())])
            .bearer_auth(token)
            .send()
            .await
            .expect("the stream of events");
        let (sender, receiver) = mpsc::channel(1000);
        tokio::spawn(async move {
            let mut text = Vec::new();
            while let Ok(Some(piece)) = response.chunk().await {
                text.extend_from_slice(&piece);
                while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = text.drain(..=end).collect();
                    let event = serde_json::from_slice(&line).expect("an event");
                    if sender.send(event).await.is_err() {
                        return;
                    }
                }
            }
        });
        Self(receiver)
    }

    /// Returns the next event.
    pub async fn next(&mut self) -> LabEvent {
        self.0.recv().await.expect("the lab's stream of events goes on")
    }
}

impl LabProcess {
    /// Returns the events of a run, from its beginning.
    pub async fn events_of(&self, run: u64) -> RunEvents {
        RunEvents::of(&self.forge, &self.token, run).await
    }

    /// Starts a lab for the repository `o/r`.
    pub fn start() -> Self {
        Self::for_repository("o/r")
    }

    /// Starts a lab for a repository `OWNER/NAME`.
    pub fn for_repository(name: &str) -> Self {
        Self::serve(name, Path::new("lab"), "127.0.0.1:0")
    }

    /// Starts a lab that has its records in a folder and listens at an `ADDRESS:PORT`.
    pub fn serve(name: &str, data: &Path, listen: &str) -> Self {
        let data = data.display().to_string();
        let arguments = ["lab", "serve", "--data", &data, "--listen", listen, "--json"];
        let mut process = Dayfly::new(arguments).start();
        let listening = process.wait_for_event("listening");
        let url = listening["url"].as_str().expect("a url").to_owned();
        let token = listening["token"].as_str().expect("a token").to_owned();
        let base = ApiBase::from_host_or_url(&url).expect("an address");
        let forge = Forge::new(base, token.as_str()).expect("a client");
        let (owner, repository) = name.split_once('/').expect("OWNER/NAME");
        Self {
            process,
            url,
            token,
            forge,
            principal: name.to_owned(),
            owner: owner.to_owned(),
            repository: repository.to_owned(),
        }
    }

    /// Returns the scope that runners of its repository register for.
    pub fn scope(&self) -> RunnerScope {
        RunnerScope::Repository { owner: self.owner.clone(), name: self.repository.clone() }
    }

    /// Starts a loop for its repository, with JSON output.
    pub fn runner<'a>(&'a self, arguments: impl IntoIterator<Item = &'a str>) -> Running {
        self.runner_command(arguments).start()
    }

    /// Creates the command of such a loop. Passes the token in the environment, not as an argument.
    pub fn runner_command<'a>(&'a self, arguments: impl IntoIterator<Item = &'a str>) -> Dayfly {
        let all = ["runner", "--json", "-g", &self.url, "-p", &self.principal];
        Dayfly::new(all.into_iter().chain(arguments)).env("RUNNER_PAT", &self.token)
    }

    /// Dispatches a workflow and returns the id of its run.
    pub async fn dispatch(&self, workflow: &str) -> u64 {
        self.forge
            .put_workflow(&self.owner, &self.repository, "ci.yml", workflow)
            .await
            .expect("the lab accepts the workflow");
        let dispatch = Dispatch { any_event: true, ..Dispatch::default() };
        self.forge.dispatch(&self.owner, &self.repository, "ci.yml", &dispatch).await.expect("a run")
    }

    /// Creates a webhook of its repository, which tells an address each change of a job.
    pub async fn make_hook(&self, address: &str, secret: &str) {
        let hooks = format!("api/v3/repos/{}/hooks", self.principal);
        let url = reqwest::Url::parse(&self.url).and_then(|url| url.join(&hooks)).expect("an address");
        let config = serde_json::json!({"url": address, "content_type": "json", "secret": secret});
        let body = serde_json::json!({"name": "web", "events": ["workflow_job"], "config": config});
        let made = http().post(url).bearer_auth(&self.token).body(body.to_string()).send().await;
        assert_eq!(made.expect("an answer").status().as_u16(), 201);
    }

    /// Cancels a run.
    pub async fn cancel(&self, run: u64) {
        assert!(self.forge.cancel_run(&self.owner, &self.repository, run).await.expect("cancel"));
    }

    /// Waits until a run has ended, and returns its conclusion.
    pub async fn conclusion_of(&self, run: u64) -> String {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let run = self.forge.run(&self.owner, &self.repository, run).await.expect("the run");
            if let Some(conclusion) = run.conclusion {
                return conclusion;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("run {run} has not ended");
    }

    /// Returns the logs of a run's jobs, each with the job's name.
    pub async fn logs_of(&self, run: u64) -> Vec<(String, String)> {
        let mut logs = Vec::new();
        for job in self.forge.jobs(&self.owner, &self.repository, run).await.expect("jobs") {
            let log = self.forge.job_log(&self.owner, &self.repository, job.id).await.expect("its log");
            logs.push((job.name, log));
        }
        logs
    }

    /// Returns the names of the runners that are registered for a scope.
    pub async fn registrations_of(&self, scope: &RunnerScope) -> Vec<String> {
        let runners = self.forge.list_runners(scope).await.expect("the list");
        runners.into_iter().map(|runner| runner.name).collect()
    }

    /// Returns the names of the runners that are registered for its repository.
    pub async fn registrations(&self) -> Vec<String> {
        self.registrations_of(&self.scope()).await
    }

    /// Stops the lab.
    pub fn stop(self) {
        self.process.signal(Signal::TERM);
        self.process.wait().assert_status(143);
    }
}
