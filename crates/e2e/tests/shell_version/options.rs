//! Tests of each option and variable of the loop.

use dayfly_e2e::Dayfly;
use dayfly_e2e::lab::http;
use dayfly_forge::RunnerScope;
use serde_json::{Value, json};

use super::stage::{HELLO, REPOSITORY, Stage, listening};

/// A job that searches for secrets in the environment of each process that it can inspect.
const LEAKS: &str = "
on: push
jobs:
  a:
    runs-on: self-hosted
    steps:
      - run: |
          env | grep RUNNER_ | sort
          echo leaks $(cat /proc/*/environ | tr '\\0' '\\n' | grep -c hus[h])
";

/// Returns the runners of a scope, as the lab's REST API lists them.
async fn runners(stage: &Stage, path: &str) -> Vec<Value> {
    let url = format!("{}/api/v3/{path}/actions/runners", stage.lab.url);
    let answer = http().get(url).bearer_auth(&stage.lab.token).send().await.expect("an answer");
    let text = answer.text().await.expect("a body");
    let list: Value = serde_json::from_str(&text).expect("JSON");
    list["runners"].as_array().expect("runners").clone()
}

fn labels(runner: &Value) -> Vec<&str> {
    let labels = runner["labels"].as_array().expect("labels");
    labels.iter().map(|label| label["name"].as_str().expect("a name")).collect()
}

#[tokio::test]
async fn a_runner_has_the_labels_the_group_and_the_scope_that_were_asked_for() {
    let stage = Stage::new();
    let url = format!("{}/api/v3/orgs/efrecon/actions/runner-groups", stage.lab.url);
    let body = json!({ "name": "Fast ones" }).to_string();
    let made = http().post(url).bearer_auth(&stage.lab.token).body(body).send().await;
    assert_eq!(made.expect("an answer").status().as_u16(), 201);

    let words = [
        "runner",
        "--json",
        "-s",
        "ORGANISATION",
        "-p",
        "efrecon",
        "-G",
        "fast ones",
        "-L",
        "gpu,big",
        "-r",
        "1",
    ];
    let mut runner = stage.with_token(words).start();
    let name = listening(&mut runner);
    assert!(name.starts_with("GH-runner-0-"), "{name}");
    let registered = runners(&stage, "orgs/efrecon").await;
    assert_eq!(labels(&registered[0]), ["self-hosted", "Linux", "X64", "gpu", "big"]);
    assert_ne!(registered[0]["runner_group_id"], 1);
    let log = stage
        .job("on: push\njobs: { a: { runs-on: { group: Fast ones, labels: gpu }, steps: [{ run: echo on $RUNNER_NAME }] } }")
        .await;
    assert!(log.contains(&format!("on {name}")), "{log}");
    let ended = runner.wait();
    ended.assert_status(0);
    stage.assert_nothing_left(&ended).await;
    assert_eq!(
        stage.registrations_of(&RunnerScope::Organization("efrecon".into())).await,
        Vec::<String>::new()
    );
    stage.lab.stop();
}

#[tokio::test]
async fn without_labels_a_runner_has_the_default_ones_and_the_loops_number() {
    let stage = Stage::new();
    let words = ["runner", "--json", "-p", REPOSITORY, "--", "7"];
    let dayfly = stage
        .with_token(words)
        .env("RUNNER_PREFIX", "mine")
        .env("RUNNER_DISTRO", "guix")
        .env("RUNNER_LABELS", "");
    let mut runner = dayfly.start();
    let name = listening(&mut runner);
    assert!(name.starts_with("mine-7-"), "{name}");
    let registered = runners(&stage, &format!("repos/{REPOSITORY}")).await;
    assert_eq!(labels(&registered[0]), ["self-hosted", "Linux", "X64", "krun", "guix", "dayfly"]);
    runner.signal(rustix::process::Signal::INT);
    let ended = runner.wait();
    ended.assert_status(130);
    stage.assert_nothing_left(&ended).await;
    stage.lab.stop();
}

#[tokio::test]
async fn a_loop_makes_as_many_runners_as_asked_for() {
    let stage = Stage::new();
    let runner = stage.with_token(["runner", "--json", "-p", REPOSITORY]).env("RUNNER_REPEAT", "2").start();
    stage.job(HELLO).await;
    stage.job(HELLO).await;
    let ended = runner.wait();
    ended.assert_status(0);
    assert_eq!(ended.events_of("job_finished").len(), 2);
    stage.assert_nothing_left(&ended).await;
    stage.lab.stop();
}

#[tokio::test]
async fn a_lifetime_ends_an_idle_runner_and_a_busy_one_and_the_loop_with_it() {
    let stage = Stage::new();
    for busy in [false, true] {
        let words = ["runner", "--json", "-p", REPOSITORY, "-k", "3"];
        let mut runner = stage.with_token(words).start();
        listening(&mut runner);
        let run = match busy {
            true => Some(
                stage
                    .lab
                    .dispatch("on: push\njobs: { a: { runs-on: self-hosted, steps: [{ run: sleep 600 }] } }")
                    .await,
            ),
            false => None,
        };
        let ended = runner.wait();
        ended.assert_status(0);
        let stopping = ended.events_of("stopping");
        assert_eq!(stopping[0]["reason"], "it has lived for 3 s");
        assert_eq!(ended.events_of("entrypoint_exited")[0]["code"], 5, "by .trm");
        if let Some(run) = run {
            assert_eq!(ended.events_of("job_started").len(), 1);
            assert_ne!(stage.lab.conclusion_of(run).await, "success");
        }
        stage.assert_nothing_left(&ended).await;
    }
    stage.lab.stop();
}

#[tokio::test]
async fn a_runner_registers_itself_with_a_token_where_that_is_asked_for() {
    let stage = Stage::new();
    let words = ["runner", "--json", "-p", REPOSITORY, "-r", "1", "--registration", "token", "-L", "self"];
    let mut runner = stage.with_token(words).start();
    let name = listening(&mut runner);
    let registered = runners(&stage, &format!("repos/{REPOSITORY}")).await;
    assert_eq!(
        (registered[0]["name"].as_str(), registered[0]["ephemeral"].as_bool()),
        (Some(&*name), Some(true))
    );
    assert_eq!(labels(&registered[0]), ["self-hosted", "Linux", "X64", "self"]);
    let log = stage.job(HELLO).await;
    assert!(log.contains(&format!("hello from {name}")), "{log}");
    let ended = runner.wait();
    ended.assert_status(0);
    stage.assert_nothing_left(&ended).await;
    stage.lab.stop();
}

#[tokio::test]
async fn job_after_job_runs_in_one_machine_where_runners_are_not_ephemeral() {
    let stage = Stage::new();
    let words = ["runner", "--json", "-p", REPOSITORY];
    let mut runner = stage.with_token(words).env("RUNNER_EPHEMERAL", "0").start();
    let name = listening(&mut runner);
    for _ in 0..2 {
        let log = stage.job(HELLO).await;
        assert!(log.contains(&format!("hello from {name}")), "{log}");
    }
    runner.signal(rustix::process::Signal::TERM);
    let ended = runner.wait();
    ended.assert_status(143);
    assert_eq!(ended.machines().len(), 1, "{:?}", ended.machines());
    assert!(ended.stderr.contains("RUNNER_EPHEMERAL=0"), "a warning: {}", ended.stderr);
    stage.assert_nothing_left(&ended).await;
    let jit = ["runner", "-p", REPOSITORY, "--registration", "jit"];
    stage.with_token(jit).env("RUNNER_EPHEMERAL", "0").run().assert_status(2);
    stage.lab.stop();
}

#[tokio::test]
async fn the_users_own_variables_reach_jobs_and_no_secret_does() {
    let stage = Stage::new();
    let runner = stage
        .with_token(["runner", "--json", "-r", "1"])
        .env("RUNNER_PRINCIPAL", REPOSITORY)
        .env("RUNNER_FLAVOUR", "sweet and 'sour'")
        .env("RUNNER_DEPLOY_KEY", "hush-key")
        .env("RUNNER_SECRET", "hush-secret")
        .env("RUNNER_NOTE", "ghp_hush")
        .start();
    let log = stage.job(LEAKS).await;
    assert!(log.contains("RUNNER_FLAVOUR=sweet and 'sour'"), "{log}");
    assert!(log.contains("leaks 0\n"), "{log}");
    for secret in ["hush", &stage.lab.token, "RUNNER_PAT", "JITCONFIG"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
    let ended = runner.wait();
    ended.assert_status(0);
    stage.assert_nothing_left(&ended).await;
    stage.lab.stop();
}

#[tokio::test]
async fn the_entrypoint_is_taken_from_a_folder_of_this_host() {
    let stage = Stage::new();
    let folder = tempfile::tempdir().expect("a folder");
    let entrypoint = folder.path().join("dayfly-guest");
    let guest = dayfly_e2e::prepared("DAYFLY_BINARY").with_file_name("dayfly-guest");
    std::fs::copy(guest, &entrypoint).expect("a copy");
    let at = folder.path().to_str().expect("text");
    let words = ["runner", "--json", "-p", REPOSITORY, "-r", "1", "-D", "/local", "--guest-dir", at];
    let mut runner = stage.with_token(words).start();
    listening(&mut runner);
    let theirs = entrypoint.to_str().expect("text");
    assert_eq!(dayfly_e2e::processes_naming(theirs).len(), 1, "the entrypoint runs from {theirs}");
    stage.job(HELLO).await;
    let ended = runner.wait();
    ended.assert_status(0);
    stage.assert_nothing_left(&ended).await;
    stage.lab.stop();
}

#[tokio::test]
async fn log_lines_go_where_they_should() {
    let stage = Stage::new();
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    std::fs::write(&log, "first\n").expect("a line");
    let log_text = log.to_str().expect("text");
    let words = ["orchestrator", "--json", "-l", log_text, "--", "-p", REPOSITORY, "-r", "1"];
    let runner = stage.with_token(words).env("ORCHESTRATOR_VERBOSE", "1").start();
    stage.job(HELLO).await;
    let ended = runner.wait();
    ended.assert_status(0);
    assert_eq!(ended.stderr, "", "nothing on standard error");
    let text = std::fs::read_to_string(&log).expect("the log");
    assert!(text.starts_with("first\n") && text.contains(" INFO ") && text.contains("runner-1"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours in a file: {text}");

    let quiet = stage.with_token(["orchestrator", "--", "-p", REPOSITORY, "-r", "1"]).start();
    stage.job(HELLO).await;
    let ended = quiet.wait();
    assert_eq!(
        (ended.stdout.as_str(), ended.stderr.as_str()),
        ("", ""),
        "only warnings and errors are logged, and there are none"
    );
    stage.lab.stop();
}

#[tokio::test]
async fn a_registration_token_is_printed_for_those_who_register_by_hand() {
    let stage = Stage::new();
    let token = |words: &[&'static str]| {
        stage
            .dayfly(std::iter::once("token").chain(words.iter().copied()))
            .env("TOKEN_GITHUB", &stage.lab.url)
            .env("TOKEN_PAT", &stage.lab.token)
            .run()
    };
    let printed = token(&["-p", REPOSITORY]);
    printed.assert_status(0);
    assert_eq!((printed.stdout.lines().count(), printed.stderr.as_str()), (1, ""));
    let json: Value =
        serde_json::from_str(&token(&["-s", "org", "-p", "efrecon", "--json"]).stdout).expect("JSON");
    assert!(json["token"].is_string() && json["expires_at"].is_string(), "{json}");
    token(&["-s", "org"]).assert_status(2);
    let words = ["token", "-p", REPOSITORY, "-g", &stage.lab.url, "-T", "wrong"];
    let refused = stage.dayfly(words).run();
    refused.assert_status(3);
    assert!(refused.stderr.contains("Administration"), "{}", refused.stderr);
    stage.lab.stop();
}

#[tokio::test]
async fn help_shows_what_is_in_force_and_never_a_secret() {
    let stage = Stage::new();
    let runner = stage.with_token(["runner", "-c", "3", "-h"]).env("RUNNER_SECRET", "hush").run();
    runner.assert_status(0);
    assert!(
        runner.stdout.contains("RUNNER_CPUS=3") && runner.stdout.contains("RUNNER_PAT=set"),
        "{}",
        runner.stdout
    );
    assert!(
        !runner.stdout.contains("hush") && !runner.stdout.contains(&stage.lab.token),
        "{}",
        runner.stdout
    );
    let loops = stage.with_token(["orchestrator", "--", "-L", "gpu", "-h"]).run();
    loops.assert_status(0);
    assert!(loops.stdout.contains("RUNNER_LABELS=gpu"), "{}", loops.stdout);
    let orchestrator = stage.dayfly(["orchestrator", "-n", "4", "-h"]).run();
    assert!(orchestrator.stdout.contains("ORCHESTRATOR_RUNNERS=4"), "{}", orchestrator.stdout);
    stage.lab.stop();
}

/// An option with its value, and the variable and value that mean the same.
type Said = (&'static [&'static str], &'static str, &'static str);

const OF_ORCHESTRATOR: &[Said] = &[
    (&["-n", "3"], "ORCHESTRATOR_RUNNERS", "3"),
    (&["-s", "7"], "ORCHESTRATOR_SLEEP", "7"),
    (&["--isolation", "0"], "ORCHESTRATOR_ISOLATION", "0"),
    (&["-p", "mine"], "ORCHESTRATOR_PREFIX", "mine"),
    (&["-R", "krunvm"], "ORCHESTRATOR_RUNTIME", "krunvm"),
    (&["-l", "1"], "ORCHESTRATOR_LOG", "1"),
    (&["--verbosity", "2"], "ORCHESTRATOR_VERBOSE", "2"),
    (&["--environment", "/e"], "ORCHESTRATOR_ENVIRONMENT", "/e"),
];

const OF_RUNNER: &[Said] = &[
    (&["-c", "3"], "RUNNER_CPUS", "3"),
    (&["-m", "2048"], "RUNNER_MEMORY", "2048"),
    (&["-d", "9.9.9.9"], "RUNNER_DNS", "9.9.9.9"),
    (&["-i", "mine"], "RUNNER_IMAGE", "mine"),
    (&["-M", "/a:/b", "-M", "/c:/d:ro"], "RUNNER_MOUNT", "/a:/b\n/c:/d:ro"),
    (&["-g", "ghes.example"], "RUNNER_GITHUB", "ghes.example"),
    (&["-s", "org"], "RUNNER_SCOPE", "org"),
    (&["-p", "acme"], "RUNNER_PRINCIPAL", "acme"),
    (&["-G", "fast"], "RUNNER_GROUP", "fast"),
    (&["-L", "gpu,big"], "RUNNER_LABELS", "gpu,big"),
    (&["-u", "me"], "RUNNER_USER", "me"),
    (&["-U"], "RUNNER_UPDATE", "1"),
    (&["-T", "x"], "RUNNER_PAT", "x"),
    (&["--app-id", "x"], "RUNNER_APP_ID", "x"),
    (&["--app-installation", "7"], "RUNNER_APP_INSTALLATION", "7"),
    (&["--app-key-file", "/k"], "RUNNER_APP_KEY_FILE", "/k"),
    (&["-r", "4"], "RUNNER_REPEAT", "4"),
    (&["-k", "40"], "RUNNER_TERMINATE", "40"),
    (&["-S", "x"], "RUNNER_SECRET", "x"),
    (&["-D", "/local"], "RUNNER_DIR", "/local"),
    (&["--entrypoint", "/e"], "RUNNER_ENTRYPOINT", "/e"),
    (&["-R", "podman+krun"], "RUNNER_RUNTIME", "podman+krun"),
    (&["-l", "1"], "RUNNER_LOG", "1"),
    (&["--verbosity", "2"], "RUNNER_VERBOSE", "2"),
    (&["--environment", "/e"], "RUNNER_ENVIRONMENT", "/e"),
    (&["--prefix", "mine"], "RUNNER_PREFIX", "mine"),
    (&["--ephemeral", "0"], "RUNNER_EPHEMERAL", "0"),
];

const OF_TOKEN: &[Said] = &[
    (&["-g", "ghes.example"], "TOKEN_GITHUB", "ghes.example"),
    (&["-s", "org"], "TOKEN_SCOPE", "org"),
    (&["-p", "acme"], "TOKEN_PRINCIPAL", "acme"),
    (&["-T", "x"], "TOKEN_PAT", "x"),
    (&["--app-id", "x"], "TOKEN_APP_ID", "x"),
    (&["--app-installation", "7"], "TOKEN_APP_INSTALLATION", "7"),
    (&["--app-key-file", "/k"], "TOKEN_APP_KEY_FILE", "/k"),
    (&["--api-version", "v4"], "TOKEN_API_VERSION", "v4"),
    (&["-l", "1"], "TOKEN_LOG", "1"),
    (&["--verbosity", "2"], "TOKEN_VERBOSE", "2"),
];

#[test]
fn each_variable_says_what_its_option_says_and_the_option_wins() {
    for (command, said) in [("orchestrator", OF_ORCHESTRATOR), ("runner", OF_RUNNER), ("token", OF_TOKEN)] {
        let plain = Dayfly::new([command, "-h"]).run().stdout;
        for (option, variable, value) in said {
            let words = || std::iter::once(command).chain(option.iter().copied()).chain(["-h"]);
            let by_option = Dayfly::new(words()).run();
            by_option.assert_status(0);
            let by_variable = Dayfly::new([command, "-h"]).env(variable, value).run();
            assert_eq!(by_option.stdout, by_variable.stdout, "{command} {option:?} {variable}");
            assert_ne!(by_option.stdout, plain, "{command} {option:?}");
            let empty = Dayfly::new([command, "-h"]).env(variable, "").run();
            assert_eq!(empty.stdout, plain, "an empty {variable} is the same as none");
            if option.len() == 2 && !["RUNNER_PAT", "RUNNER_SECRET", "TOKEN_PAT"].contains(variable) {
                // `0` is valid for each variable that is compared, and differs from the option's value unless that is `0`.
                let both = Dayfly::new(words()).env(variable, if *value == "0" { "1" } else { "0" }).run();
                let numbers_only = ["RUNNER_DNS", "RUNNER_CPUS", "RUNNER_MEMORY", "ORCHESTRATOR_RUNNERS"];
                if !numbers_only.contains(variable) {
                    assert_eq!(both.stdout, by_option.stdout, "{command} {option:?} wins over {variable}");
                }
            }
        }
    }
}

#[tokio::test]
async fn user_and_update_reach_the_machine_and_the_token_comes_from_a_file() {
    let stage = Stage::new();
    let folder = tempfile::tempdir().expect("a folder");
    let pat = folder.path().join("pat");
    std::fs::write(&pat, format!("{}\n", stage.lab.token)).expect("the token");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&pat, private).expect("its mode");
    let file = pat.to_str().expect("text");
    let words =
        ["orchestrator", "--json", "-R", "auto", "--", "-R", "process", "--pat-file", file, "-p", REPOSITORY];
    let runner = stage.dayfly(words.into_iter().chain(["-r", "1", "-U", "-u", "somebody"])).start();
    let log = stage
        .job("on: push\njobs: { a: { runs-on: self-hosted, steps: [{ run: echo as $RUNNER_USER update $RUNNER_UPDATE }] } }")
        .await;
    // The runtime `process` does not change the user, but jobs see the requested one nevertheless.
    assert!(log.contains("as somebody update 1"), "{log}");
    let ended = runner.wait();
    ended.assert_status(0);
    assert!(!ended.stderr.contains("-T:"), "no warning about a token among the arguments: {}", ended.stderr);
    stage.assert_nothing_left(&ended).await;
    stage.lab.stop();
}
