//! The program itself, as dayfly's entrypoint starts it.

use std::process::{Output, Stdio};
use std::time::Duration;

use dayfly_guest::runner_app::{JobResult, Observation, observe};
use dayfly_light_runner::install;
use rustix::process::{Pid, Signal, kill_process};
use secrecy::ExposeSecret as _;
use tokio::process::{Child, Command};

use crate::stage::{PATIENCE, Stage, one_job};

/// Largest memory of a runner with a job, in KiB, also without optimisation. Thousands of runners share a host.
const MEMORY_KIB_MAX: u64 = 16 * 1024;

/// Starts an installed program for a new registration.
async fn start(stage: &Stage, name: &str, env: &[(&str, &str)]) -> Child {
    let folder = stage.installation();
    install(env!("CARGO_BIN_EXE_light-runner").as_ref(), &folder).unwrap();
    let config = stage.config(name).await.encode();
    Command::new(folder.join("bin/Runner.Listener"))
        .arg("run")
        .env("ACTIONS_RUNNER_INPUT_JITCONFIG", config.expose_secret())
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn end(child: Child) -> (Output, String) {
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it exits").unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

#[tokio::test]
async fn the_program_runs_a_job_in_little_memory_and_says_what_dayfly_reads() {
    let mut stage = Stage::set().await;
    let steps = "      - run: |
          grep VmHWM /proc/$PPID/status
          env | grep -c -e ACTIONS_RUNNER_INPUT -e RUNNER_LIGHT || true
";
    let run = stage.start(&one_job(steps)).await;
    let runner = start(&stage, "program", &[("RUNNER_LIGHT_SLOW_MS", "1")]).await;
    let outcome = stage.end_of(run).await;
    assert!(outcome.conclusion == "success" && outcome.has_line("0"), "{:?}", outcome.lines());
    let peak = outcome.lines().into_iter().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < MEMORY_KIB_MAX, "{peak}");
    let (output, text) = end(runner).await;
    assert_eq!(output.status.code(), Some(0), "{text}");
    let seen: Vec<Observation> = text.lines().filter_map(observe).collect();
    let expected = [
        Observation::Listening,
        Observation::JobStarted { name: "a".to_owned() },
        Observation::JobFinished { result: JobResult::Succeeded },
    ];
    assert_eq!(seen, expected, "{text}");
    stage.nothing_is_left().await;
}

#[tokio::test]
async fn a_signal_fails_the_job_of_the_program_and_it_exits_with_status_zero() {
    let mut stage = Stage::set().await;
    let run = stage.start(&one_job("      - run: echo before; sleep 60\n")).await;
    let runner = start(&stage, "program", &[]).await;
    let is_started = |event: &_| matches!(event, dayfly_lab::LabEventKind::StepStarted { number: 2, .. });
    stage.wait_for("the step", is_started).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let pid = Pid::from_raw(runner.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(stage.end_of(run).await.conclusion, "failure");
    let (output, text) = end(runner).await;
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("Job a completed with result: Failed"), "{text}");
}

#[tokio::test]
async fn a_program_in_the_mood_to_vanish_is_killed() {
    use std::os::unix::process::ExitStatusExt as _;
    let stage = Stage::set().await;
    let _run = stage.start(&one_job("      - run: echo never\n")).await;
    let (output, text) = end(start(&stage, "lost", &[("RUNNER_LIGHT_MOOD", "vanish-at-step=1")]).await).await;
    assert_eq!(output.status.signal(), Some(9), "{text}");
}

#[tokio::test]
async fn a_config_or_a_mood_that_is_none_is_refused() {
    let stage = Stage::set().await;
    let (output, _) = end(start(&stage, "odd", &[("RUNNER_LIGHT_MOOD", "angry")]).await).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("\"angry\" is no mood"), "{said}");
    let junk = [("ACTIONS_RUNNER_INPUT_JITCONFIG", "%%%")];
    let (output, _) = end(start(&stage, "junk", &junk).await).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("is not base64"), "{said}");
}
