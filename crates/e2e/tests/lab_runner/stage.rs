//! A lab on a free port, and a runner app for every queued job.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dayfly_e2e::lab::RunEvents;
use dayfly_forge::{ApiBase, Deletion, Dispatch, Forge, JitRequest, RunnerScope};
use dayfly_lab::workflow::Conclusion;
use dayfly_lab::{Lab, LabEvent, LabEventKind, LabSettings};
use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// Longest time that a run may take, which normally takes some seconds. A test fails if its run hangs for longer.
const PATIENCE: Duration = Duration::from_secs(150);

/// The lab, and the folder of its runners.
pub(crate) struct Stage {
    pub(crate) forge: Forge,
    pub(crate) url: String,
    pub(crate) scope: RunnerScope,
    lab: Lab,
    folder: TempDir,
    app: PathBuf,
}

/// A runner app that is killed when this value is dropped.
pub(crate) struct App(Child);

impl App {
    /// Kills the app, which has no chance to clean up.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Returns whether the app exits with success, or `None` if it does not exit within `patience`.
    pub(crate) async fn ended(&mut self, patience: Duration) -> Option<bool> {
        let since = std::time::Instant::now();
        while since.elapsed() < patience {
            if let Some(status) = self.0.try_wait().unwrap() {
                return Some(status.success());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        None
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Stage {
    pub(crate) async fn set() -> Self {
        let app = std::env::var_os("DAYFLY_TEST_RUNNER_APP")
            .expect("DAYFLY_TEST_RUNNER_APP must name the github-act-runner binary: use `make test`");
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let settings =
            LabSettings { runner_url: Some(url.clone()), ..LabSettings::new(folder.path().join("lab")) };
        let lab = Lab::open(settings).unwrap();
        let forge = Forge::new(ApiBase::from_host_or_url(&url).unwrap(), lab.token().clone()).unwrap();
        let served = lab.clone();
        tokio::spawn(async move { served.serve(listener, std::future::pending()).await.unwrap() });
        let scope = RunnerScope::Repository { owner: "o".into(), name: "r".into() };
        Self { forge, url, scope, lab, folder, app: app.into() }
    }

    /// Runs a workflow to its end, with a runner for every job.
    pub(crate) async fn run(&self, workflow: &str) -> Outcome {
        let run = self.start(workflow).await;
        self.follow(run, |_, _| None::<std::future::Ready<()>>).await
    }

    pub(crate) async fn start(&self, workflow: &str) -> u64 {
        self.forge.put_workflow("o", "r", "ci.yml", workflow).await.unwrap();
        let dispatch = Dispatch { any_event: true, ..Dispatch::default() };
        self.forge.dispatch("o", "r", "ci.yml", &dispatch).await.unwrap()
    }

    /// Starts a runner for each job of a run, and collects the run's events. `react` may act on them.
    pub(crate) async fn follow<F: Future<Output = ()>>(
        &self,
        run: u64,
        react: impl FnMut(&LabEvent, &Forge) -> Option<F>,
    ) -> Outcome {
        self.collect(run, true, react).await
    }

    /// Collects the events of a run whose runners already exist.
    pub(crate) async fn watch(&self, run: u64) -> Outcome {
        self.collect(run, false, |_, _| None::<std::future::Ready<()>>).await
    }

    async fn collect<F: Future<Output = ()>>(
        &self,
        run: u64,
        make_runners: bool,
        mut react: impl FnMut(&LabEvent, &Forge) -> Option<F>,
    ) -> Outcome {
        let mut outcome = Outcome { run, conclusion: Conclusion::Skipped, events: Vec::new() };
        let mut apps = Vec::new();
        let mut events = RunEvents::of(&self.forge, self.lab.token().expose_secret(), run).await;
        let following = async {
            while outcome
                .events
                .last()
                .is_none_or(|event: &LabEvent| !matches!(event.kind, LabEventKind::RunCompleted { .. }))
            {
                let event = events.next().await;
                if let LabEventKind::JobQueued { job, labels, group_id, .. } = &event.kind
                    && make_runners
                {
                    apps.push(self.start_app(*job, labels, *group_id).await);
                }
                if let Some(reaction) = react(&event, &self.forge) {
                    reaction.await;
                }
                outcome.events.push(event);
            }
        };
        let ended = tokio::time::timeout(PATIENCE, following).await;
        assert!(ended.is_ok(), "the run did not end: {outcome}");
        if let Some(LabEventKind::RunCompleted { conclusion }) =
            outcome.events.last().map(|event| &event.kind)
        {
            outcome.conclusion = *conclusion;
        }
        outcome
    }

    /// Deletes the registration of an idle runner, and returns how many seconds its app took to exit.
    pub(crate) async fn delete_idle_runner_and_wait_for_its_end(&self) -> u64 {
        let mut app = self.start_app(1, &["idle".to_owned()], 1).await;
        let runner = loop {
            let runner = self.forge.find_runner_by_name(&self.scope, "runner-of-1").await.unwrap().unwrap();
            if runner.status == "online" {
                break runner;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let deleted = self.forge.delete_runner(&self.scope, runner.id).await.unwrap();
        assert_eq!(deleted, Deletion::Deleted);
        let since = std::time::Instant::now();
        app.ended(PATIENCE).await;
        since.elapsed().as_secs()
    }

    async fn start_app(&self, job: u64, labels: &[String], group_id: u64) -> App {
        let request = JitRequest {
            name: format!("runner-of-{job}"),
            group_id,
            labels: labels.to_vec(),
            work_folder: "_work".to_owned(),
            runner_url: None,
        };
        let runner = self.forge.generate_jit_config(&self.scope, &request).await.unwrap();
        let home = self.home(&format!("runner-{job}"));
        self.launch(&home, &["run", "--terminal=false", "--jitconfig", runner.encoded.expose_secret()], &[])
    }

    /// Creates a folder for a runner app.
    pub(crate) fn home(&self, name: &str) -> PathBuf {
        let home = self.folder.path().join(name);
        std::fs::create_dir(&home).unwrap();
        home
    }

    /// Starts the runner app in its folder, and appends its output to `out.txt` in that folder.
    pub(crate) fn launch(&self, home: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> App {
        let out = std::fs::File::options().create(true).append(true).open(home.join("out.txt")).unwrap();
        let child = Command::new(&self.app)
            .args(arguments)
            .current_dir(home)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", home)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(out.try_clone().unwrap())
            .stdout(out)
            .spawn()
            .unwrap();
        App(child)
    }

    /// Returns the job's log over REST, without timestamps.
    pub(crate) async fn log(&self, outcome: &Outcome, job: &str) -> Vec<String> {
        let jobs = self.forge.jobs("o", "r", outcome.run).await.unwrap();
        let id = jobs.iter().find(|it| it.name == job).unwrap().id;
        let log = self.forge.job_log("o", "r", id).await.unwrap();
        log.lines().map(|line| line.split_once(' ').map_or("", |(_, text)| text).to_owned()).collect()
    }

    pub(crate) async fn nothing_is_left(&self) {
        let left = self.forge.list_runners(&self.scope).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// The result and the events of a run.
pub(crate) struct Outcome {
    pub(crate) run: u64,
    pub(crate) conclusion: Conclusion,
    pub(crate) events: Vec<LabEvent>,
}

impl Outcome {
    fn id(&self, name: &str) -> Option<u64> {
        self.events.iter().find_map(|event| match &event.kind {
            LabEventKind::JobQueued { job, name: it, .. } if it == name => Some(*job),
            _ => None,
        })
    }

    pub(crate) fn job(&self, name: &str) -> Option<Conclusion> {
        self.events.iter().find_map(|event| match &event.kind {
            LabEventKind::JobCompleted { name: it, conclusion, .. } if it == name => Some(*conclusion),
            _ => None,
        })
    }

    pub(crate) fn step(&self, job: &str, step: &str) -> Option<String> {
        let id = self.id(job)?;
        self.events.iter().find_map(|event| match &event.kind {
            LabEventKind::StepCompleted { job, name, conclusion, .. } if *job == id && name == step => {
                Some(conclusion.clone())
            }
            _ => None,
        })
    }

    pub(crate) fn lines(&self, job: &str) -> Vec<String> {
        let id = self.id(job);
        let line = |event: &LabEvent| match &event.kind {
            LabEventKind::LogLine { job, line, .. } if Some(*job) == id => Some(line.clone()),
            _ => None,
        };
        self.events.iter().filter_map(line).collect()
    }

    pub(crate) fn has_line(&self, job: &str, text: &str) -> bool {
        self.lines(job).iter().any(|line| line == text)
    }

    pub(crate) fn place_of_line(&self, job: &str, text: &str) -> Option<usize> {
        let id = self.id(job);
        self.events.iter().position(
            |event| matches!(&event.kind, LabEventKind::LogLine { job, line, .. } if Some(*job) == id && line == text),
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}", self.conclusion)?;
        self.events.iter().try_for_each(|event| writeln!(f, "{:?}", event.kind))
    }
}
