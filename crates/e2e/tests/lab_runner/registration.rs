//! The real runner app registers itself with a token from its environment.

use std::path::PathBuf;
use std::time::Duration;

use dayfly_forge::RunnerScope;
use dayfly_lab::workflow::Conclusion;
use secrecy::ExposeSecret as _;

use super::stage::{App, Stage};

const PATIENCE: Duration = Duration::from_secs(60);

const SPEAK: &str = r#"
on: workflow_dispatch
jobs:
  speak:
    runs-on: [self-hosted, big]
    steps:
      - run: echo "server is ${{ github.server_url }}"
"#;

const TWO: &str = r#"
on: workflow_dispatch
jobs:
  first:
    runs-on: big
    steps:
      - run: echo one
  second:
    needs: first
    runs-on: big
    steps:
      - run: echo two
"#;

/// A runner app in its own folder, and its registration.
struct Registered<'a> {
    stage: &'a Stage,
    home: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl<'a> Registered<'a> {
    /// Runs `configure` with a registration token for that scope.
    async fn new(stage: &'a Stage, scope: &RunnerScope, name: &str, more: &[&str]) -> Self {
        let token = stage.forge.registration_token(scope).await.unwrap().token;
        let environment = vec![
            ("ACTIONS_RUNNER_INPUT_TOKEN", token.expose_secret().to_owned()),
            ("ACTIONS_RUNNER_INPUT_URL", format!("{}/{}", stage.url, scope.web_path())),
            ("ACTIONS_RUNNER_INPUT_NAME", name.to_owned()),
            ("ACTIONS_RUNNER_INPUT_UNATTENDED", "1".to_owned()),
        ];
        let registered = Self { stage, home: stage.home(name), environment };
        let mut arguments = vec!["configure", "--no-default-labels", "--labels", "self-hosted,big"];
        arguments.extend(more);
        assert_eq!(registered.to_end(&arguments).await, Some(true), "{}", registered.said());
        registered
    }

    async fn to_end(&self, arguments: &[&str]) -> Option<bool> {
        let environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(key, value)| (*key, value.as_str())).collect();
        self.stage.launch(&self.home, arguments, &environment).ended(PATIENCE).await
    }

    /// Removes the registration token from `settings.json`, which `configure` has written and every job can read.
    fn forget_token(&self) {
        let path = self.home.join("settings.json");
        let mut settings: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let token = &mut settings["Instances"][0]["Auth"]["token"];
        assert_eq!(*token, self.environment[0].1);
        *token = "".into();
        std::fs::write(&path, settings.to_string()).unwrap();
    }

    /// Starts `run`, which needs no token.
    fn run(&self) -> App {
        self.stage.launch(&self.home, &["run", "--terminal=false"], &[])
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.home.join("out.txt")).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ephemeral_runner_registers_itself_runs_its_job_and_is_gone() {
    let stage = Stage::set().await;
    let runner = Registered::new(&stage, &stage.scope, "once", &["--ephemeral"]).await;
    runner.forget_token();
    let mut app = runner.run();
    let run = stage.start(SPEAK).await;
    let outcome = stage.watch(run).await;
    assert_eq!(outcome.conclusion, Conclusion::Success, "{outcome} {}", runner.said());
    assert!(outcome.has_line("speak", &format!("server is {}", stage.url)), "{outcome}");
    assert_eq!(app.ended(PATIENCE).await, Some(true), "{}", runner.said());
    stage.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_not_ephemeral_runs_job_after_job_until_it_is_removed() {
    let stage = Stage::set().await;
    let runner = Registered::new(&stage, &stage.scope, "steady", &[]).await;
    let mut app = runner.run();
    for _ in 0..2 {
        let run = stage.start(TWO).await;
        let outcome = stage.watch(run).await;
        assert_eq!(outcome.conclusion, Conclusion::Success, "{outcome} {}", runner.said());
    }
    let left = stage.forge.list_runners(&stage.scope).await.unwrap();
    assert_eq!((left.len(), left[0].busy), (1, false));
    assert_eq!(app.ended(Duration::ZERO).await, None, "the app waits for the next job: {}", runner.said());

    assert_eq!(runner.to_end(&["remove"]).await, Some(true), "{}", runner.said());
    stage.nothing_is_left().await;
    assert!(app.ended(PATIENCE).await.is_some(), "the app exits after its removal: {}", runner.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_was_killed_in_a_job_fails_it_as_it_starts_again_and_takes_the_next() {
    let stage = Stage::set().await;
    let runner = Registered::new(&stage, &stage.scope, "hurt", &[]).await;
    let mut app = runner.run();
    let run = stage.start(&SPEAK.replace("echo", "echo started; exec sleep 5; echo")).await;
    while stage.forge.jobs("o", "r", run).await.unwrap().iter().all(|job| job.status != "in_progress") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    while !runner.home.join("jobrun.json").exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    app.kill();
    let _again = runner.run();
    let outcome = stage.watch(run).await;
    assert_eq!(outcome.conclusion, Conclusion::Failure, "{outcome} {}", runner.said());
    let next = stage.start(SPEAK).await;
    let outcome = stage.watch(next).await;
    assert_eq!(outcome.conclusion, Conclusion::Success, "{outcome} {}", runner.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn runners_of_a_group_of_an_organisation_and_of_an_enterprise_run_a_repositorys_job() {
    let stage = Stage::set().await;
    let workflow = "on: workflow_dispatch\njobs:\n  a:\n    runs-on: {group: fast, labels: big}\n    steps:\n      - run: echo hi\n";
    // The lab creates a group when the first job requests it.
    let first = stage.start(workflow).await;
    let group = ["--ephemeral", "--runnergroup", "fast"];
    for (run, scope) in
        [(Some(first), RunnerScope::Organization("o".into())), (None, RunnerScope::Enterprise("big".into()))]
    {
        let run = match run {
            Some(run) => run,
            None => stage.start(workflow).await,
        };
        let runner = Registered::new(&stage, &scope, &format!("of-{}", scope.kind().word()), &group).await;
        let mut app = runner.run();
        let outcome = stage.watch(run).await;
        assert_eq!(outcome.conclusion, Conclusion::Success, "{outcome} {}", runner.said());
        assert_eq!(app.ended(PATIENCE).await, Some(true), "{}", runner.said());
        assert!(stage.forge.list_runners(&scope).await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_is_refused_and_replaced_on_demand() {
    let stage = Stage::set().await;
    let first = Registered::new(&stage, &stage.scope, "twin", &["--ephemeral"]).await;
    let again = ["configure", "--no-default-labels", "--labels", "big", "--ephemeral"];
    std::fs::remove_file(first.home.join("settings.json")).unwrap();
    assert_eq!(first.to_end(&again).await, Some(false));
    assert!(first.said().contains("Already exists"), "{}", first.said());
    assert_eq!(first.to_end(&[&again[..], &["--replace"]].concat()).await, Some(true), "{}", first.said());
    assert_eq!(stage.forge.list_runners(&stage.scope).await.unwrap().len(), 1);
}
