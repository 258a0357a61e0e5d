//! Sessions, registrations, and a broker that fails.

use std::time::{Duration, Instant};

use dayfly_forge::Deletion;
use dayfly_light_runner::{Exit, Mood, NewRegistration, Settings, register};
use secrecy::ExposeSecret as _;

use crate::gate::Gate;
use crate::stage::{Runner, Stage, one_job};

const HELLO: &str = "      - run: echo hello\n";

#[tokio::test]
async fn two_jobs_run_in_one_registration() {
    let mut stage = Stage::set().await;
    let token = stage.forge.registration_token(&Stage::scope()).await.unwrap().token;
    let new = NewRegistration {
        lab_url: &stage.url,
        page: "o/r",
        token: token.expose_secret(),
        name: "steady",
        labels: &["x"],
        ephemeral: false,
    };
    // Any key will do, and this one was generated already.
    let key = stage.config("unused").await.key;
    let runner = Runner::start(register(&new, key).await.unwrap(), stage.settings());
    for _ in 0..2 {
        let run = stage.start(&one_job(HELLO)).await;
        assert_eq!(stage.end_of(run).await.conclusion, "success");
    }
    let left = stage.forge.list_runners(&Stage::scope()).await.unwrap();
    let steady = left.iter().find(|runner| runner.name == "steady").unwrap();
    runner.says_twice("completed with result: Succeeded").await;
    assert!(!runner.has_exited(), "it waits for a third job");
    assert_eq!(stage.forge.delete_runner(&Stage::scope(), steady.id).await.unwrap(), Deletion::Deleted);
    let (exit, lines) = runner.exit().await;
    assert_eq!(
        (exit, lines.matches("completed with result: Succeeded").count()),
        (Exit::Success, 2),
        "{lines}"
    );
    assert!(lines.contains("The runner no longer exists on the server."), "{lines}");
}

#[tokio::test]
async fn an_idle_runner_that_is_stopped_closes_its_session_and_stays_registered() {
    let stage = Stage::set().await;
    let config = stage.config("idle").await;
    let runner = Runner::start(config.clone(), stage.settings());
    runner.says("Listening for Jobs").await;
    runner.stop();
    assert_eq!(runner.exit().await.0, Exit::Success);
    let left = stage.forge.list_runners(&Stage::scope()).await.unwrap();
    assert_eq!((left.len(), left[0].status.as_str()), (1, "offline"));
    // The session is closed, so the same registration can be used again at once.
    let again = Runner::start(config, stage.settings());
    again.says("Listening for Jobs").await;
    again.stop();
    assert!(!again.exit().await.1.contains("already exists"));
}

#[tokio::test]
async fn a_second_session_of_one_runner_is_given_up_after_some_tries() {
    let stage = Stage::set().await;
    let config = stage.config("twin").await;
    let first = Runner::start(config.clone(), stage.settings());
    first.says("Listening for Jobs").await;
    let (exit, lines) = Runner::start(config, stage.settings()).exit().await;
    assert_eq!(exit, Exit::SessionConflict);
    assert_eq!(lines.matches("A session for this runner already exists.").count(), 8, "{lines}");
    assert!(!first.has_exited());
}

#[tokio::test]
async fn a_lost_session_is_opened_again_in_the_middle_of_the_job() {
    let mut stage = Stage::set().await;
    let run = stage.start(&one_job("      - run: sleep 1; echo hello\n")).await;
    let settings = Settings { mood: Some(Mood::LoseSession), ..stage.settings() };
    let runner = Runner::start(stage.config("forgetful").await, settings);
    let outcome = stage.end_of(run).await;
    assert!(outcome.conclusion == "success" && outcome.has_line("hello"), "{outcome:?}");
    let (exit, lines) = runner.exit().await;
    assert!(exit == Exit::Success && lines.contains("completed with result: Succeeded"), "{lines}");
    stage.nothing_is_left().await;
}

#[tokio::test]
async fn a_registration_that_is_gone_ends_the_runner_at_once() {
    let stage = Stage::set().await;
    let config = stage.config("gone").await;
    let id = config.runner.agent_id.parse().unwrap();
    assert_eq!(stage.forge.delete_runner(&Stage::scope(), id).await.unwrap(), Deletion::Deleted);
    let (exit, lines) = Runner::start(config, stage.settings()).exit().await;
    assert_eq!(exit, Exit::Terminated);
    assert!(lines.contains("The runner registration has been deleted from the server"), "{lines}");
}

async fn behind_a_gate(stage: &Stage, pause: Duration) -> (Gate, Runner) {
    let gate = Gate::before(&stage.url).await;
    let mut config = stage.config("gated").await;
    for url in [&mut config.runner.server_url_v2, &mut config.credentials.data.authorization_url] {
        *url = url.replace(&stage.url, &gate.url);
    }
    let runner = Runner::start(config, Settings { pause, ..stage.settings() });
    runner.says("Listening for Jobs").await;
    (gate, runner)
}

#[tokio::test]
async fn a_broker_that_fails_for_a_while_is_polled_again() {
    let mut stage = Stage::set().await;
    let (gate, runner) = behind_a_gate(&stage, Duration::from_millis(20)).await;
    gate.shut(true);
    runner.says("Retrying until reconnected").await;
    gate.shut(false);
    let run = stage.start(&one_job(HELLO)).await;
    assert_eq!(stage.end_of(run).await.conclusion, "success");
    assert_eq!(runner.exit().await.0, Exit::Success);
}

#[tokio::test]
async fn a_broker_that_keeps_failing_ends_the_runner_after_ten_polls() {
    let stage = Stage::set().await;
    let (gate, runner) = behind_a_gate(&stage, Duration::from_millis(20)).await;
    let began = Instant::now();
    gate.shut(true);
    let (exit, lines) = runner.exit().await;
    assert_eq!(exit, Exit::Retryable, "{lines}");
    // The first failure is the poll that was cut, and the last request closes the session.
    assert!((9..=11).contains(&gate.refused()), "{} {lines}", gate.refused());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_lab_that_fails_in_the_middle_of_a_job_gets_the_report_once_it_is_back() {
    let mut stage = Stage::set().await;
    let run = stage.start(&one_job("      - run: sleep 1; echo hello\n")).await;
    let (gate, runner) = behind_a_gate(&stage, Duration::from_millis(400)).await;
    runner.says("Running job: a").await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    gate.shut(true);
    tokio::time::sleep(Duration::from_millis(500)).await;
    gate.shut(false);
    let outcome = stage.end_of(run).await;
    assert_eq!(outcome.conclusion, "success", "{}", runner.lines());
    assert!(stage.log(&outcome, "a").await.contains("hello"));
}
