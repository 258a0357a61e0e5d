//! Tests of `dayfly demo` with real machines: workflows that succeed, fail, or are stopped in some way.

use std::collections::HashSet;

use dayfly_e2e::{Dayfly, Ended, OwnState, processes_naming};
use rustix::process::{Pid, Signal};

/// Returns the path of a file of the repository, which need not be where these tests were built.
fn repository_file(name: &str) -> String {
    let built_in = || concat!(env!("CARGO_MANIFEST_DIR"), "/../..").to_owned();
    format!("{}/{name}", std::env::var("DAYFLY_TEST_REPOSITORY").unwrap_or_else(|_| built_in()))
}

/// Waits until the job of the only machine has printed a certain line, and returns the pid of that machine.
fn machine_in_the_middle_of_its_job(running: &mut dayfly_e2e::Running) -> Pid {
    let started = running
        .wait_for("start of a machine", |event| event["event"] == "runner" && event["what"] == "vmm_started");
    running.wait_for("line of the job", |event| {
        event["event"] == "log" && event["line"].as_str().is_some_and(|line| line.contains("in the middle"))
    });
    let pid = started["details"]["pid"].as_i64().expect("a pid");
    Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid")
}

const LONG: &str = "
on: workflow_dispatch
jobs:
  long:
    runs-on: self-hosted
    steps:
      - run: |
          echo 'in the middle'
          sleep 600
";

fn runners_of(ended: &Ended) -> Vec<String> {
    let done = ended.done();
    let runs = done["runs"].as_array().expect("runs");
    runs.iter().map(|run| run["runner"].as_str().expect("a runner").to_owned()).collect()
}

#[test]
fn the_demos_own_workflow_runs_each_job_in_a_machine_of_its_own() {
    let ended = Dayfly::new([
        "demo",
        "--json",
        "--parallel",
        "2",
        "--workflow",
        &repository_file("demo/workflow.yml"),
    ])
    .run();
    ended.assert_status(0).assert_nothing_left();
    assert_eq!(ended.done()["conclusion"], "success");
    let runners: HashSet<String> = runners_of(&ended).into_iter().collect();
    assert_eq!(runners.len(), 4, "{runners:?}");
    for flavour in ["plain", "spicy"] {
        let log = ended.log_of(&format!("build ({flavour})"));
        assert!(log.contains(&format!("a {flavour} program, compiled in a microVM")), "{log}");
        assert!(log.contains("Linux demo-"), "uname prints the machine's own host name: {log}");
    }
    let docker = ended.log_of("docker");
    assert!(docker.contains("both machines run Linux"), "the output of another job has arrived: {docker}");
    let heard = |line: &&str| line.contains("visitor") && line.ends_with("built with BuildKit");
    assert_eq!(docker.lines().filter(heard).count(), 1, "the visitor has heard the greeter: {docker}");
    for run in ended.done()["runs"].as_array().expect("runs") {
        // `make test-full` also runs this test with machines that are booted.
        let expected = if std::env::var_os("RUNNER_COLD").is_some() { "cold" } else { "fork" };
        assert_eq!(run["start"], expected);
        let phases = &run["phases"];
        let order = [
            "vmm_started",
            "agent_hello",
            "docker_ready",
            "runner_up",
            "job_acquired",
            "job_done",
            "vm_gone",
        ];
        let times: Vec<i64> = order
            .iter()
            .map(|name| phases[name].as_i64().unwrap_or_else(|| panic!("no {name}: {run}")))
            .collect();
        assert!(times.is_sorted(), "{run}");
        assert!(phases["registered"].is_i64() && phases["first_log_line"].is_i64(), "{run}");
    }
}

#[test]
fn a_failing_job_shows_its_exit_code_and_what_needs_it_is_skipped() {
    let workflow = r#"
on: { workflow_dispatch: { inputs: { who: { required: true } } } }
env: { LEVEL: workflow }
jobs:
  failing:
    runs-on: [self-hosted, linux, anything-at-all]
    defaults: { run: { working-directory: inner } }
    steps:
      - { run: mkdir -p inner, working-directory: . }
      - name: files of the runner
        env: { LEVEL: step }
        run: |
          echo "level $LEVEL in $(basename "$PWD") for ${{ inputs.who }} and ${{ vars.COLOUR }}"
          echo "FROM_ENV=through the environment" >>"$GITHUB_ENV"
          mkdir bin && printf '#!/bin/sh\necho through the path\n' >bin/handmade && chmod +x bin/handmade
          echo "$PWD/bin" >>"$GITHUB_PATH"
      - run: echo "$FROM_ENV, $(handmade), $LEVEL"
      - run: |
          echo "the secret is ${{ secrets.HUSH }}"
          echo "::add-mask::also-hidden"
          echo "said also-hidden"
      - { run: exit 7, continue-on-error: true }
      - { run: echo after a tolerated failure }
      - { run: exit 42 }
      - { run: echo never }
      - { run: echo the cleaner comes, if: always() }
      - { run: echo it failed, if: failure() }
  after:
    needs: failing
    runs-on: self-hosted
    steps: [{ run: echo never }]
"#;
    let arguments = ["--input", "who=you", "--var", "COLOUR=green", "--secret", "HUSH"];
    let ended = Dayfly::demo(workflow, arguments).env("HUSH", "s3cr3t-v4lue").run();
    ended.assert_status(1).assert_nothing_left();
    let done = ended.done();
    assert_eq!(done["conclusion"], "failure");
    let log = ended.log_of("failing");
    for expected in [
        "level step in inner for you and green",
        "through the environment, through the path, workflow",
        "the secret is ***",
        "said ***",
        "after a tolerated failure",
        "the cleaner comes",
        "it failed",
    ] {
        assert!(log.contains(expected), "no \"{expected}\" in:\n{log}");
    }
    assert!(log.contains("42"), "the log shows the exit code:\n{log}");
    assert!(!log.contains("never") && !ended.stdout.contains("s3cr3t-v4lue"), "{log}");
    let after =
        done["runs"].as_array().expect("runs").iter().find(|run| run["job"] == "after").expect("a result");
    assert_eq!(after["conclusion"], "skipped");
}

#[test]
fn a_job_over_its_time_is_cancelled() {
    let workflow = LONG.replace("runs-on: self-hosted", "runs-on: self-hosted\n    timeout-minutes: 0.3");
    let ended = Dayfly::demo(&workflow, []).run();
    ended.assert_status(1).assert_nothing_left();
    assert_eq!(ended.done()["runs"][0]["conclusion"], "cancelled");
    assert!(ended.log_of("long").contains("in the middle"));
}

#[test]
fn ctrl_c_in_the_middle_of_a_job_leaves_nothing() {
    let mut running = Dayfly::demo(LONG, []).start();
    machine_in_the_middle_of_its_job(&mut running);
    running.signal(Signal::INT);
    let ended = running.wait();
    ended.assert_status(130).assert_nothing_left();
    assert_eq!(ended.done()["conclusion"], "cancelled");
}

#[test]
fn a_second_ctrl_c_ends_the_machines_at_once() {
    let mut running = Dayfly::demo(LONG, []).start();
    machine_in_the_middle_of_its_job(&mut running);
    running.signal(Signal::TERM);
    running.wait_for("warning", |event| event["event"] == "warning");
    running.signal(Signal::INT);
    running.wait().assert_status(143).assert_nothing_left();
}

#[test]
fn a_machine_that_is_killed_fails_its_job() {
    let mut running = Dayfly::demo(LONG, []).start();
    let pid = machine_in_the_middle_of_its_job(&mut running);
    rustix::process::kill_process(pid, Signal::KILL).expect("it runs");
    let ended = running.wait();
    ended.assert_status(1).assert_nothing_left();
    assert_eq!(ended.done()["conclusion"], "failure");
}

#[test]
fn a_guest_whose_kernel_panics_fails_its_job() {
    let workflow = LONG.replace("sleep 600", "sleep 1; echo c | sudo tee /proc/sysrq-trigger; sleep 600");
    let ended = Dayfly::demo(&workflow, []).run();
    ended.assert_status(1).assert_nothing_left();
    assert_eq!(ended.done()["conclusion"], "failure");
}

#[test]
fn after_kill_9_the_next_start_clears_up() {
    let state = OwnState::new();
    let mut running = Dayfly::demo(LONG, []).env("DAYFLY_STATE", state.path()).start();
    let folder = running.wait_for_event("instance")["folder"].as_str().expect("a folder").to_owned();
    let machine = machine_in_the_middle_of_its_job(&mut running);
    running.signal(Signal::KILL);
    assert_eq!(running.wait().status, None);
    rustix::process::test_kill_process(machine).expect("the machine survives its dayfly");

    let ended = Dayfly::demo(
        "on: workflow_dispatch\njobs: { a: { runs-on: self-hosted, steps: [{ run: echo hi }] } }",
        [],
    )
    .env("DAYFLY_STATE", state.path())
    .run();
    ended.assert_status(0).assert_nothing_left();
    assert!(!std::path::Path::new(&folder).exists(), "{folder} is left");
    assert!(rustix::process::test_kill_process(machine).is_err(), "the machine is left");
}

/// Types a command into the shell on a console, and returns true if its output arrives.
fn says_hello(console: &str) -> bool {
    use std::io::{Read as _, Write as _};
    let mut stream = std::os::unix::net::UnixStream::connect(console).expect("the console listens");
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("a timeout");
    stream.write_all(b"\necho he''llo from $(id -un)\n").expect("typed");
    let (mut seen, mut piece) = (Vec::new(), [0; 1024]);
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        seen.extend_from_slice(&piece[..length]);
        if String::from_utf8_lossy(&seen).contains("hello from root") {
            return true;
        }
    }
    false
}

#[test]
fn a_kept_machine_runs_on_until_the_next_start() {
    let workflow = "on: push\njobs: { a: { runs-on: self-hosted, steps: [{ run: echo hi }] } }";
    let state = OwnState::new();
    let ended = Dayfly::demo(workflow, ["--keep"]).env("DAYFLY_STATE", state.path()).run();
    ended.assert_status(0);
    let runner = runners_of(&ended).remove(0);
    assert_eq!(processes_naming(&runner).len(), 1, "the machine is still running");
    let kept = ended.events_of("left").remove(0)["kept"].clone();
    assert_eq!(kept[0]["machine"], runner, "{kept}");
    let console = kept[0]["console"].as_str().expect("a socket");
    assert!(says_hello(console), "a shell answers on {console}");

    let next = Dayfly::demo(workflow, []).env("DAYFLY_STATE", state.path()).run();
    next.assert_status(0).assert_nothing_left();
    assert_eq!(processes_naming(&runner), Vec::<u32>::new());
}
