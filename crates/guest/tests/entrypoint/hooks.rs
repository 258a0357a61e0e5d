//! Tests of the hooks of jobs, with scripts in place of the official app.

use crate::stage::{Stage, jit_config, runner_lines};
use dayfly_guest::hooks::Hooks;
use dayfly_guest::runner_app::Ending;
use std::os::unix::fs::PermissionsExt as _;

/// Runs the hooks as the app does, and reports a job.
const JOB: &str = "sh -e \"$ACTIONS_RUNNER_HOOK_JOB_STARTED\" && echo job\n\
    test -z \"$ACTIONS_RUNNER_HOOK_JOB_COMPLETED\" || sh -e \"$ACTIONS_RUNNER_HOOK_JOB_COMPLETED\"\n\
    echo '2026-01-02 03:06:00Z: Job build completed with result: Succeeded'\n";

fn with_hooks(hooks: &Hooks) -> Stage {
    let stage = Stage::new("");
    let hooks = serde_json::to_string(hooks).unwrap();
    stage.write_env(&[("RUNNER_JITCONFIG", &jit_config()), ("RUNNER_HOOKS", &hooks)]);
    stage
}

fn run(stage: &Stage) -> (String, Option<i32>) {
    stage.start_with(&[], &[("RUNNER_INSTALL", stage.path("install").to_str().unwrap())]).end()
}

fn script(text: &str) -> Option<String> {
    Some(Hooks::encode(format!("#!/bin/sh\n{text}\n").as_bytes()))
}

#[test]
fn the_scripts_of_the_pool_and_the_hooks_of_the_image_run_around_the_job() {
    let hooks = Hooks {
        job_started: script("echo pool started"),
        job_completed: script("echo pool completed"),
        allow_forks: true,
    };
    let stage = with_hooks(&hooks);
    stage.write_script("install/bin/Runner.Listener", JOB);
    stage.write_script("own.sh", "echo own started\n");
    let own = stage.path("own.sh");
    let env = format!("LANG=C\nACTIONS_RUNNER_HOOK_JOB_STARTED={}\n", own.display());
    std::fs::write(stage.path("install/.env"), env).unwrap();
    let (output, code) = run(&stage);
    assert_eq!(code, Some(Ending::JobDone.code()), "{output}");
    let lines = runner_lines(&output);
    assert_eq!(lines[..4], ["pool started", "own started", "job", "pool completed"], "{output}");
    assert_eq!(stage.text("install/.env"), "LANG=C\n", "the app would take its own variable");
    for file in ["job-started.sh", "pool-job-started"] {
        let mode = std::fs::metadata(stage.path("hooks").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "{file}");
    }
}

#[test]
fn a_job_does_not_start_if_the_script_of_the_pool_fails() {
    let stage = with_hooks(&Hooks { job_started: script("echo no; exit 7"), ..Hooks::default() });
    stage.write_script("install/bin/Runner.Listener", JOB);
    let (output, _) = run(&stage);
    let lines = runner_lines(&output);
    assert!(lines.contains(&"no") && !lines.contains(&"job"), "{output}");
}

/// Runs a job of an event in a worker, and returns the lines of the app.
fn job_of(event: &str, allow_forks: bool) -> String {
    let stage = with_hooks(&Hooks { allow_forks, job_started: script("true"), ..Hooks::default() });
    std::fs::write(stage.path("event.json"), event).unwrap();
    std::fs::copy("/bin/sh", stage.path("Runner.Worker")).unwrap();
    let worker = stage.path("Runner.Worker");
    stage.write_script(
        "install/bin/Runner.Listener",
        &format!(
            "export GITHUB_EVENT_NAME=pull_request GITHUB_EVENT_PATH={} GITHUB_REPOSITORY=acme/app\n\
             {} -c 'sh -e \"$ACTIONS_RUNNER_HOOK_JOB_STARTED\"; echo steps'\necho worker: $?\n\
             echo '2026-01-02 03:06:00Z: Job build completed with result: Failed'\n",
            stage.path("event.json").display(),
            worker.display()
        ),
    );
    run(&stage).0
}

fn pull_request(from: &str) -> String {
    format!(
        r#"{{"repository":{{"full_name":"acme/app"}},"pull_request":{{"head":{{"repo":{{"full_name":"{from}"}}}}}}}}"#
    )
}

#[test]
fn a_job_of_a_fork_is_ended_before_its_first_step_even_if_the_step_always_runs() {
    let output = job_of(&pull_request("eve/app"), false);
    let lines = runner_lines(&output);
    let error = "::error title=dayfly::these runners do not run jobs of forks, and this pull request comes from eve/app.";
    assert!(lines.iter().any(|line| line.starts_with(error)), "{output}");
    assert!(!lines.contains(&"steps") && lines.contains(&"worker: 137"), "{output}");
}

#[test]
fn other_jobs_and_those_of_forks_that_a_pool_allows_run() {
    for (event, allow_forks) in [(pull_request("acme/app"), false), (pull_request("eve/app"), true)] {
        let output = job_of(&event, allow_forks);
        let lines = runner_lines(&output);
        assert!(lines.contains(&"steps") && lines.contains(&"worker: 0"), "{output}");
    }
}

#[test]
fn a_job_of_a_pull_request_whose_event_cannot_be_read_is_ended() {
    let output = job_of("{", false);
    assert!(output.contains("its event cannot be read") && output.contains("worker: 137"), "{output}");
}

#[test]
fn an_app_without_hooks_is_not_started_in_a_pool_that_has_some() {
    let stage = with_hooks(&Hooks { job_completed: script("true"), ..Hooks::default() });
    let (output, code) = stage.start().end();
    assert_eq!(code, Some(Ending::NotStarted.code()), "{output}");
    assert!(output.contains("only the official runner app runs hooks"), "{output}");
    // The word about forks alone is no reason: the app has no way to follow it.
    let stage = with_hooks(&Hooks::default());
    let (output, code) = stage.start().end();
    assert!(code != Some(Ending::NotStarted.code()), "{output}");
}
