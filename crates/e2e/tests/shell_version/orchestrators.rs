//! Tests of the orchestrator's own command lines, and of several orchestrators on one host.

use dayfly_e2e::{Dayfly, OwnState};
use rustix::process::Signal;
use serde_json::json;

use super::stage::{HELLO, REPOSITORY, Stage, listening, until};

#[tokio::test]
async fn the_shell_versions_first_example_works_under_another_name() {
    let stage = Stage::new();
    let token = stage.lab.token.clone();
    // `orchestrator.sh -v -n 2 -- -T ghp_XXXX -p efrecon/gh-runner-krunvm`
    let words = ["orchestrator", "-v", "-n", "2", "--json", "--", "-T", &token, "-p", REPOSITORY];
    let mut orchestrator = stage.dayfly(words).start();
    // The second loop waits until the first runner is up, and the second runner may listen before the first one does.
    let mut names = [listening(&mut orchestrator), listening(&mut orchestrator)];
    names.sort();
    assert!(names[0].starts_with("GH-runner-1-") && names[1].starts_with("GH-runner-2-"), "{names:?}");
    let log = stage.job(HELLO).await;
    assert!(names.iter().any(|name| log.contains(&format!("hello from {name}"))), "{log}");
    orchestrator.signal(Signal::TERM);
    let ended = orchestrator.wait();
    ended.assert_status(143);
    stage.assert_nothing_left(&ended).await;
    let warnings: Vec<_> = ended.stderr.lines().filter(|line| line.contains("-T:")).collect();
    assert_eq!(warnings.len(), 1, "one warning about the token among the arguments: {}", ended.stderr);
    assert!(!ended.stderr.contains(&token) && !ended.stdout.replace("\"token\"", "").contains(&token));
    assert!(ended.stderr.contains(" runner-1 "), "log lines name their loop: {}", ended.stderr);
    stage.lab.stop();
}

#[tokio::test]
async fn the_second_example_makes_one_runner_and_ends() {
    let stage = Stage::new();
    // `orchestrator.sh -v -- -r 1 -k 40 -p efrecon/gh-runner-krunvm`
    let words = ["orchestrator", "-v", "--json", "--", "-r", "1", "-k", "40", "-p", REPOSITORY];
    let orchestrator = stage.with_token(words).start();
    stage.job(HELLO).await;
    let ended = orchestrator.wait();
    ended.assert_status(0);
    stage.assert_nothing_left(&ended).await;
    assert_eq!(ended.events_of("listening").len(), 1);
    assert_eq!(ended.events_of("loop_ended").len(), 1);
    stage.lab.stop();
}

#[tokio::test]
async fn the_next_loop_starts_when_a_runner_of_the_last_one_is_up() {
    let stage = Stage::new();
    let words = ["orchestrator", "-n", "3", "--json", "--", "-p", REPOSITORY];
    let mut orchestrator = stage.with_token(words).start();
    for _ in 0..3 {
        listening(&mut orchestrator);
    }
    orchestrator.signal(Signal::INT);
    let ended = orchestrator.wait();
    ended.assert_status(130);
    let order: Vec<String> = ended
        .events()
        .iter()
        .filter(|event| event["event"] == "loop_started" || event["event"] == "runner_up")
        .map(|event| format!("{} {}", event["event"].as_str().expect("a kind"), event["loop"]))
        .collect();
    let place = |what: &str| order.iter().position(|line| line == what).expect(what);
    for index in 1..3 {
        assert!(
            place(&format!("runner_up {index}")) < place(&format!("loop_started {}", index + 1)),
            "{order:?}"
        );
    }
    stage.assert_nothing_left(&ended).await;
    stage.lab.stop();
}

#[tokio::test]
async fn without_isolation_loops_start_by_the_clock() {
    let stage = Stage::new();
    for (words, variable) in [(vec!["-I", "-s", "1"], "1"), (vec!["--sleep", "1"], "0")] {
        let head = ["orchestrator", "-n", "2", "--json"];
        let words = head.into_iter().chain(words).chain(["--", "-p", REPOSITORY]);
        let mut orchestrator = stage.with_token(words).env("ORCHESTRATOR_ISOLATION", variable).start();
        let at = |event: &serde_json::Value| event["at_ms"].as_u64().expect("a time");
        let started = |index: u32| {
            move |event: &serde_json::Value| event["event"] == "loop_started" && event["loop"] == index
        };
        let first = at(&orchestrator.wait_for("loop 1", started(1)));
        let second = at(&orchestrator.wait_for("loop 2", started(2)));
        assert!((1000..5000).contains(&(second - first)), "{} ms", second - first);
        orchestrator.signal(Signal::TERM);
        let ended = orchestrator.wait();
        ended.assert_status(143);
        stage.assert_nothing_left(&ended).await;
    }
    stage.lab.stop();
}

#[tokio::test]
async fn two_orchestrators_with_the_same_prefix_do_not_touch_each_other() {
    let stage = Stage::new();
    let words = ["orchestrator", "--json", "--", "-p", REPOSITORY];
    let mut first = stage.with_token(words).start();
    let mut second = stage.with_token(words).start();
    let name = listening(&mut first);
    listening(&mut second);
    second.signal(Signal::TERM);
    second.wait().assert_status(143);
    assert_eq!(
        stage.lab.registrations().await.as_slice(),
        std::slice::from_ref(&name),
        "the runner of the other orchestrator stays"
    );
    let log = stage.job(HELLO).await;
    assert!(log.contains(&format!("hello from {name}")), "{log}");
    first.signal(Signal::TERM);
    let ended = first.wait();
    ended.assert_status(143);
    stage.assert_nothing_left(&ended).await;
    stage.lab.stop();
}

#[tokio::test]
async fn after_kill_9_only_a_start_that_serves_the_same_takes_over() {
    let stage = Stage::new();
    let start = |prefix: &str, principal: &str| {
        let words = ["orchestrator", "--json", "-p", prefix, "--", "-p", principal];
        stage.with_token(words).start()
    };
    let mut killed = start("a", REPOSITORY);
    let name = listening(&mut killed);
    killed.signal(Signal::KILL);
    killed.wait();
    assert_eq!(stage.lab.registrations().await.as_slice(), std::slice::from_ref(&name));

    for (prefix, principal) in [("b", REPOSITORY), ("a", "efrecon/other")] {
        let mut other = start(prefix, principal);
        listening(&mut other);
        assert!(stage.lab.registrations().await.contains(&name), "{prefix} {principal} leaves it alone");
        other.signal(Signal::TERM);
        other.wait().assert_status(143);
    }
    let mut same = start("a", REPOSITORY);
    assert_eq!(same.wait_for_event("vm_taken_over")["name"], name.as_str());
    assert_eq!(stage.lab.registrations().await.as_slice(), std::slice::from_ref(&name));
    same.signal(Signal::TERM);
    let ended = same.wait();
    ended.assert_status(143);
    stage.assert_nothing_left(&ended).await;
    stage.lab.stop();
}

#[tokio::test]
async fn what_runs_is_listed_and_what_ran_is_told() {
    let stage = Stage::new();
    let mut orchestrator =
        stage.with_token(["orchestrator", "--json", "-n", "2", "--", "-p", REPOSITORY]).start();
    let name = listening(&mut orchestrator);
    listening(&mut orchestrator);
    let id = name.strip_prefix("GH-runner-").expect("the prefix").to_owned();
    super::stage::until("both loops are idle", || {
        let ended = stage.dayfly(["ps", "--json"]).run();
        let rows: Vec<serde_json::Value> = serde_json::from_str(ended.stdout.trim()).expect("JSON");
        rows.len() == 2 && rows.iter().all(|row| row["phase"] == "idle" && row["alive"] == true)
    })
    .await;
    let table = stage.dayfly(["ps"]).run();
    table.assert_status(0);
    assert!(table.stdout.contains(&id) && table.stdout.contains(REPOSITORY), "{}", table.stdout);
    orchestrator.signal(Signal::TERM);
    let ended = orchestrator.wait();
    stage.assert_nothing_left(&ended).await;

    // The runner has exited: its log is found by id and by name, and `-f` returns at once.
    for words in [vec!["logs", &id], vec!["logs", &name], vec!["logs", &id, "-f"]] {
        let logs = stage.dayfly(words).run();
        logs.assert_status(0);
        assert!(logs.stdout.contains("-- runner up") && logs.stdout.contains("-- ended"), "{}", logs.stdout);
    }
    let json = stage.dayfly(["logs", &id, "--json"]).run();
    assert!(json.events().iter().all(|event| event["name"] == name.as_str()), "{}", json.stdout);
    stage.dayfly(["logs", "1-aaaaaaa"]).run().assert_status(3);
    let none = stage.dayfly(["ps"]).run();
    assert!(none.stderr.contains("no loops run here"), "{}", none.stderr);
    stage.lab.stop();
}

#[test]
fn what_is_wrong_is_told_before_anything_is_made() {
    let stage = Stage::new();
    for (words, status, text) in [
        (vec!["orchestrator", "--bogus"], 2, "--bogus"),
        (vec!["orchestrator", "--", "--bogus"], 2, "--bogus"),
        (vec!["orchestrator", "-n", "100000"], 2, "three digits"),
        (vec!["orchestrator", "-n", "0"], 2, "1 to 999"),
        (vec!["orchestrator", "--", "-s", "org"], 2, "needs a principal"),
        (vec!["orchestrator", "--", "-s", "team", "-p", "x"], 2, "is no scope"),
        (vec!["orchestrator", "--", "-p", "norepo"], 2, "names no repository"),
        (vec!["orchestrator", "--", "-p", REPOSITORY, "-M", "/nonexistent/x:/y"], 2, "is not there"),
        (vec!["orchestrator", "--", "-p", REPOSITORY, "-G", "fast"], 2, "fast"),
        (vec!["orchestrator", "--", "-p", REPOSITORY, "-R", "qemu", "-m", "64"], 2, "too few"),
        (vec!["orchestrator", "--", "-p", REPOSITORY, "-R", "xen"], 2, "is no driver"),
        (vec!["orchestrator", "--", "-p", REPOSITORY, "--", "7"], 2, "numbers its loops"),
        (vec!["orchestrator", "-l", "77", "--", "-p", REPOSITORY], 2, "descriptor 77"),
        (vec!["runner", "-p", REPOSITORY, "--pat-file", "/nonexistent/pat"], 2, "/nonexistent/pat"),
    ] {
        let ended = stage.with_token(words.iter().copied()).run();
        ended.assert_status(status);
        assert!(ended.stderr.contains(text), "{words:?}: {}", ended.stderr);
        assert!(!stage.state.path().join("instances").exists(), "{words:?} made an instance");
    }
    let refused = stage.dayfly(["orchestrator", "--", "-p", REPOSITORY]).env("RUNNER_PAT", "wrong").run();
    refused.assert_status(3);
    assert!(refused.stderr.contains("Administration"), "it names the missing right: {}", refused.stderr);
    stage.lab.stop();
}

#[tokio::test]
async fn a_forge_that_is_not_there_at_the_start_is_waited_for_and_said_and_a_signal_ends_the_wait() {
    let state = OwnState::new();
    let log = state.path().join("log");
    let to_log = log.to_str().expect("text");
    let words = ["orchestrator", "-l", to_log, "--", "-p", REPOSITORY, "-g", "http://127.0.0.1:1", "-T", "x"];
    let waiting = Dayfly::new(words).env("DAYFLY_STATE", state.path()).start();
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    until("the second attempt", || said().matches("the start waits for the forge").count() >= 2).await;
    assert!(said().contains("does not answer"), "{}", said());
    waiting.signal(Signal::TERM);
    waiting.wait().assert_status(143).assert_nothing_left();
    assert!(!state.path().join("instances").exists());
}

#[tokio::test]
async fn an_orchestrator_without_a_file_takes_the_orders_of_an_administrator_for_its_prefix() {
    let stage = Stage::new();
    let words = ["orchestrator", "--json", "--", "-p", REPOSITORY];
    let mut orchestrator = stage.with_token(words).start();
    listening(&mut orchestrator);
    let order = |words: &[&str]| {
        let ended = stage.dayfly(words.iter().copied().chain(["--json"])).run();
        ended.assert_status(0);
        ended.events().remove(0)
    };
    let paused = order(&["pause"]);
    assert_eq!((&paused["changed"], paused.get("file")), (&json!(["GH-runner"]), None), "{paused}");
    orchestrator.wait_for_event("pool_paused");
    orchestrator.wait_for_event("loop_ended");
    assert_eq!(stage.lab.registrations().await, Vec::<String>::new());
    assert_eq!(order(&["scale", "GH-runner", "--runners", "2"])["changed"], json!(["GH-runner"]));
    assert_eq!(order(&["resume", "GH-runner"])["changed"], json!(["GH-runner"]));
    for _ in 0..2 {
        listening(&mut orchestrator);
    }
    let unknown = stage.dayfly(["drain", "GH-runer"]).run();
    unknown.assert_status(2);
    assert!(unknown.stderr.contains("did you mean GH-runner?"), "{}", unknown.stderr);
    let reload = stage.dayfly(["reload"]).run();
    reload.assert_status(3);
    for text in ["it was started without a file", "no orchestrator of this host runs from a file"] {
        assert!(reload.stderr.contains(text), "{}", reload.stderr);
    }
    // Its drain is that of the only pool, and so that of the orchestrator.
    let drained = order(&["drain", "GH-runner", "--wait"]);
    assert_eq!((&drained["changed"], &drained["ends"]), (&json!(["GH-runner"]), &json!(true)));
    let ended = orchestrator.wait();
    ended.assert_status(0);
    stage.assert_nothing_left(&ended).await;
    stage.lab.stop();
}

/// Starts a proxy to a lab, and returns the proxy's URL. The lab's proof then is for another connection than the caller's.
async fn go_between(to: String) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.2:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut here, _)) = listener.accept().await {
            let Ok(mut there) = tokio::net::TcpStream::connect(&to).await else { return };
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut here, &mut there).await });
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn what_would_hold_no_job_in_serves_a_proven_lab_alone() {
    let stage = Stage::new();
    let url = go_between(stage.lab.url.trim_start_matches("http://").to_owned()).await;
    let words = ["orchestrator", "--", "-p", REPOSITORY, "-g", &url];
    let dayfly = stage.with_token(words);
    let refused = tokio::task::spawn_blocking(|| dayfly.run()).await.expect("it ended");
    refused.assert_status(3);
    assert!(refused.stderr.contains("for the lab only"), "{}", refused.stderr);
    assert_eq!(stage.lab.registrations().await, Vec::<String>::new());
    stage.lab.stop();
}
