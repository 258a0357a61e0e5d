//! A lab on a free port, and the runners of a test.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dayfly_forge::jit::JitConfig;
use dayfly_forge::{ApiBase, Dispatch, Forge, GithubJob, JitRequest, RunnerScope};
use dayfly_lab::{Clock, Lab, LabEvent, LabEventKind, LabEvents, LabSettings, Limits};
use dayfly_light_runner::{Exit, Settings, run};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longest time that a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A workflow of one job with these steps.
pub(crate) fn one_job(steps: &str) -> String {
    format!("on: workflow_dispatch\njobs:\n  a:\n    runs-on: x\n    steps:\n{steps}")
}

pub(crate) struct Stage {
    pub(crate) forge: Forge,
    pub(crate) url: String,
    pub(crate) clock: Clock,
    events: LabEvents,
    folder: TempDir,
}

/// A runner that runs.
pub(crate) struct Runner {
    running: JoinHandle<Exit>,
    lines: Arc<Mutex<Vec<String>>>,
    stop: watch::Sender<bool>,
}

/// The end of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) conclusion: String,
    pub(crate) events: Vec<LabEventKind>,
    pub(crate) jobs: Vec<GithubJob>,
}

impl Stage {
    pub(crate) async fn set() -> Self {
        Self::with_poll(Duration::from_secs(2)).await
    }

    /// Sets a stage with a lab that holds polls for so long.
    pub(crate) async fn with_poll(long_poll: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let clock = Clock::system();
        let settings = LabSettings {
            runner_url: Some(url.clone()),
            limits: Limits { long_poll, keys_ready: 1, ..Limits::default() },
            clock: clock.clone(),
            ..LabSettings::new(folder.path().join("lab"))
        };
        // The forge's client requires a crypto provider even if it uses none. Another test may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let lab = Lab::open(settings).unwrap();
        let forge = Forge::new(ApiBase::from_host_or_url(&url).unwrap(), lab.token().clone()).unwrap();
        let events = lab.subscribe();
        let served = lab.clone();
        tokio::spawn(async move { served.serve(listener, std::future::pending()).await.unwrap() });
        Self { forge, url, clock, events, folder }
    }

    pub(crate) fn scope() -> RunnerScope {
        RunnerScope::Repository { owner: "o".into(), name: "r".into() }
    }

    /// Returns the folder of the runners' installation.
    pub(crate) fn installation(&self) -> std::path::PathBuf {
        self.folder.path().join("app")
    }

    /// Returns the settings of a sound runner, with short pauses.
    pub(crate) fn settings(&self) -> Settings {
        let env = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("INHERITED", "yes")];
        Settings {
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            pause: Duration::from_millis(20),
            ..Settings::new(self.installation())
        }
    }

    /// Registers a runner with the label `x`.
    pub(crate) async fn config(&self, name: &str) -> JitConfig {
        let request = JitRequest {
            name: name.to_owned(),
            group_id: 1,
            labels: vec!["x".to_owned()],
            work_folder: "_work".to_owned(),
            runner_url: None,
        };
        self.forge.generate_jit_config(&Self::scope(), &request).await.unwrap().config
    }

    /// Registers and starts a sound runner.
    pub(crate) async fn runner(&self, name: &str) -> Runner {
        Runner::start(self.config(name).await, self.settings())
    }

    pub(crate) async fn start(&self, workflow: &str) -> u64 {
        self.forge.put_workflow("o", "r", "ci.yml", workflow).await.unwrap();
        self.forge.dispatch("o", "r", "ci.yml", &Dispatch::default()).await.unwrap()
    }

    /// Waits until a run of this lab is over.
    pub(crate) async fn end_of(&mut self, run: u64) -> Outcome {
        let mut events = Vec::new();
        loop {
            let event = self.next_event().await;
            events.push(event.kind.clone());
            if event.run == run && matches!(event.kind, LabEventKind::RunCompleted { .. }) {
                break;
            }
        }
        let conclusion = self.forge.run("o", "r", run).await.unwrap().conclusion.unwrap();
        Outcome { conclusion, events, jobs: self.forge.jobs("o", "r", run).await.unwrap() }
    }

    async fn next_event(&mut self) -> Arc<LabEvent> {
        let event = tokio::time::timeout(PATIENCE, self.events.next()).await.expect("no event comes");
        event.unwrap().unwrap()
    }

    /// Waits until a line is in a log of the lab.
    pub(crate) async fn wait_for(&mut self, what: &str, is_it: impl Fn(&LabEventKind) -> bool) {
        loop {
            let event = self.next_event().await;
            if is_it(&event.kind) {
                return;
            }
            assert!(!matches!(event.kind, LabEventKind::RunCompleted { .. }), "{what} did not come");
        }
    }

    pub(crate) async fn log(&self, outcome: &Outcome, job: &str) -> String {
        let id = outcome.jobs.iter().find(|it| it.name == job).unwrap().id;
        self.forge.job_log("o", "r", id).await.unwrap()
    }

    /// Asserts that no registration and no work folder is left.
    pub(crate) async fn nothing_is_left(&self) {
        assert!(self.forge.list_runners(&Self::scope()).await.unwrap().is_empty());
        let left = std::fs::read_dir(self.installation().join("_work")).unwrap().count();
        assert_eq!(left, 0, "work folders are left");
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Runner {
    pub(crate) fn start(config: JitConfig, settings: Settings) -> Self {
        let (stop, stopped) = watch::channel(false);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let said = Arc::clone(&lines);
        let running = tokio::spawn(async move {
            let say = |line: &str| said.lock().unwrap().push(line.to_owned());
            run(config, &settings, &say, stopped).await
        });
        Self { running, lines, stop }
    }

    pub(crate) fn lines(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Waits until the runner has printed a text.
    pub(crate) async fn says(&self, text: &str) {
        self.says_times(text, 1).await;
    }

    /// Waits until the runner has printed a text two times.
    pub(crate) async fn says_twice(&self, text: &str) {
        self.says_times(text, 2).await;
    }

    async fn says_times(&self, text: &str, times: usize) {
        let waiting = async {
            while self.lines().matches(text).count() < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "it does not say {text:?}: {}", self.lines());
    }

    /// Tells the runner to stop, as a signal does.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub(crate) fn has_exited(&self) -> bool {
        self.running.is_finished()
    }

    /// Waits for the runner's exit. Returns it with the lines.
    pub(crate) async fn exit(self) -> (Exit, String) {
        let exit = tokio::time::timeout(PATIENCE, self.running).await;
        let lines = self.lines.lock().unwrap().join("\n");
        (exit.unwrap_or_else(|_| panic!("it does not exit: {lines}")).unwrap(), lines)
    }
}

impl Outcome {
    /// Returns true if a log of the run has this line.
    pub(crate) fn has_line(&self, text: &str) -> bool {
        self.lines().contains(&text)
    }

    pub(crate) fn lines(&self) -> Vec<&str> {
        let lines = self.events.iter().filter_map(|event| match event {
            LabEventKind::LogLine { line, .. } => Some(line.as_str()),
            _ => None,
        });
        lines.collect()
    }

    /// Returns the annotations: level, message, and number of the step.
    pub(crate) fn annotations(&self) -> Vec<(&str, &str, Option<u64>)> {
        let annotations = self.events.iter().filter_map(|event| match event {
            LabEventKind::Annotation { level, message, step, .. } => {
                Some((level.as_str(), message.as_str(), *step))
            }
            _ => None,
        });
        annotations.collect()
    }

    /// Returns the names of a job's steps with their conclusions.
    pub(crate) fn steps(&self, job: &str) -> Vec<(&str, &str)> {
        let job = self.jobs.iter().find(|it| it.name == job).unwrap();
        let steps = job.steps.iter();
        steps.map(|step| (step.name.as_str(), step.conclusion.as_deref().unwrap_or_default())).collect()
    }
}
