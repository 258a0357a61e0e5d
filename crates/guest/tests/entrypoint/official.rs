//! Tests of the official actions/runner's command line, with a script in place of `bin/Runner.Listener`.

use crate::stage::{SECRET, Stage, jit_config, lines_of, runner_lines};
use dayfly_guest::runner_app::Ending;

/// Runs the entrypoint with the stage's installation. Returns its output and its exit status.
fn run(stage: &Stage) -> (String, Option<i32>) {
    stage.start_with(&[], &[("RUNNER_INSTALL", stage.path("install").to_str().unwrap())]).end()
}

const DONE: &str = "echo '2026-01-02 03:06:00Z: Job build completed with result: Succeeded'\n";

#[test]
fn the_newest_version_gets_its_jit_config_by_environment() {
    let stage = Stage::new("");
    stage.write_script("install/runner-2.9.0/bin/Runner.Listener", "echo old");
    let listener = "install/runner-2.10.0/bin/Runner.Listener";
    stage.write_script(
        listener,
        &format!("echo \"$*\"\necho \"$ACTIONS_RUNNER_INPUT_JITCONFIG\"\npwd\n{DONE}"),
    );
    let (output, code) = run(&stage);
    let lines = runner_lines(&output);
    assert_eq!(lines[..2], ["run", &jit_config()], "{output}");
    assert!(lines[2].ends_with("/install/runner-2.10.0"), "{output}");
    assert_eq!(code, Some(Ending::JobDone.code()), "{output}");
}

#[test]
fn an_app_that_updates_itself_is_started_again() {
    let stage = Stage::new("");
    let script = format!("test -e ../once && {{ {DONE}exit 0; }}\ntouch ../once update.finished\nexit 4\n");
    stage.write_script("install/runner-2.9.0/bin/Runner.Listener", &script);
    let (output, code) = run(&stage);
    assert!(output.contains("starting the runner app again"), "{output}");
    assert_eq!(code, Some(Ending::JobDone.code()), "{output}");
    assert!(!stage.path("install/runner-2.9.0/update.finished").exists());
}

#[test]
fn an_app_that_only_updates_itself_is_not_started_for_ever() {
    let stage = Stage::new("");
    stage.write_script(
        "install/bin/Runner.Listener",
        "echo start >>../starts\ntouch update.finished\nexit 3\n",
    );
    let (output, code) = run(&stage);
    assert_eq!(stage.text("starts").lines().count(), 10, "{output}");
    assert_eq!(code, Some(Ending::Failed.code()), "{output}");
}

#[test]
fn a_signal_ends_the_wait_for_an_update() {
    let stage = Stage::new("");
    stage.write_script("install/bin/Runner.Listener", "exit 3\n");
    let install = stage.path("install");
    let mut entrypoint = stage.start_with(&[], &[("RUNNER_INSTALL", install.to_str().unwrap())]);
    entrypoint.wait_for_line("the runner app ended");
    std::fs::write(stage.note("trm"), SECRET).unwrap();
    let (output, code) = entrypoint.end();
    assert_eq!(code, Some(Ending::StoppedByLoop.code()), "{output}");
}

#[test]
fn a_version_that_the_forge_refuses_is_told_as_that() {
    let stage = Stage::new("");
    stage.write_script(
        "install/bin/Runner.Listener",
        "exit \"$((6 + ${ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE:-0}))\"\n",
    );
    let (output, code) = run(&stage);
    assert!(output.contains("refuses this version of the runner app as too old"), "{output}");
    assert_eq!(code, Some(Ending::Failed.code()), "{output}");
}

#[test]
fn it_registers_itself_like_the_other_and_is_stopped_by_an_interrupt() {
    let stage = Stage::with_token("");
    stage.write_script(
        "install/bin/Runner.Listener",
        "echo \"$* $ACTIONS_RUNNER_INPUT_TOKEN\"\ntest $1 = configure && { echo '{}' >.runner; exit 0; }\n\
         trap 'echo interrupted; exit 0' INT\necho up\nwhile :; do sleep 0.05; done\n",
    );
    let install = stage.path("install");
    let mut entrypoint = stage.start_with(&[], &[("RUNNER_INSTALL", install.to_str().unwrap())]);
    entrypoint.wait_for_line("] up");
    std::fs::write(stage.note("trm"), SECRET).unwrap();
    let (output, code) = entrypoint.end();
    let configuration = lines_of("configuration", &output)[0];
    assert!(configuration.starts_with("configure --unattended --url http://10.0.2.2:8080/o/r "), "{output}");
    assert!(configuration.ends_with(" AAAA-registration"), "{output}");
    assert_eq!(runner_lines(&output), ["run ", "up", "interrupted"], "{output}");
    assert_eq!(code, Some(Ending::StoppedByLoop.code()), "{output}");
    assert!(!stage.path("install/.runner").exists(), "its registration outlives it");
}

#[test]
fn an_app_that_is_configured_already_is_refused() {
    let stage = Stage::new("");
    stage.write_script("install/bin/Runner.Listener", "echo never");
    std::fs::write(stage.path("install/.runner"), "{}").unwrap();
    let (output, code) = run(&stage);
    assert!(output.contains("install/.runner: this runner app is configured already"), "{output}");
    assert_eq!(code, Some(Ending::NotStarted.code()), "{output}");
}
