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
fn the_app_finds_what_the_log_of_its_job_says_about_the_machine() {
    let stage = Stage::new("");
    let origin =
        r#"{"host":"build-7","machine":"GH-runner-2-k3V9x0q","size":"2 CPUs","image":"ubuntu:24.04"}"#;
    stage.write_env(&[("RUNNER_JITCONFIG", &jit_config()), ("RUNNER_ORIGIN", origin)]);
    let show = format!("cat .setup_info; echo; echo \"origin:$RUNNER_ORIGIN\"\n{DONE}");
    stage.write_script("install/bin/Runner.Listener", &show);
    let own = stage.path("install/.setup_info");
    std::fs::write(&own, r#"[{"group":"Runner Image","detail":"ubuntu"}]"#).unwrap();
    let install = stage.path("install");
    let environment =
        [("RUNNER_INSTALL", install.to_str().unwrap()), ("DAYFLY_START", "fork of template 0f3c")];
    let (output, code) = stage.start_with(&[], &environment).end();
    assert_eq!(code, Some(Ending::JobDone.code()), "{output}");
    let groups: serde_json::Value = serde_json::from_str(runner_lines(&output)[0]).unwrap();
    assert_eq!(groups[0]["detail"], "ubuntu");
    let detail = "Host: build-7\nMachine: GH-runner-2-k3V9x0q\nSize: 2 CPUs\nImage: ubuntu:24.04\n\
                  Start: fork of template 0f3c";
    assert_eq!((&groups[1]["group"], &groups[1]["detail"]), (&"dayfly machine".into(), &detail.into()));
    assert!(output.contains("] origin:\n"), "jobs see it in their log alone: {output}");
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

/// Writes log files as the app does, then `end`.
fn with_logs(end: &str) -> String {
    format!(
        "mkdir _diag\necho old >_diag/Runner_1-utc.log\ntouch -d '1 hour ago' _diag/Runner_1-utc.log\n\
         printf '%s\\n' first \"jit $ACTIONS_RUNNER_INPUT_JITCONFIG\" \"token AAAA-registration {SECRET}\" >_diag/Runner_2-utc.log\n\
         seq 1 300 >_diag/Worker_3-utc.log\necho hello\n{end}"
    )
}

#[test]
fn after_a_failure_the_ends_of_its_log_files_are_shown_without_secrets() {
    let ends = [
        ("exit 1", Ending::Failed),
        ("exit 0", Ending::NoJob),
        ("echo '2026-01-02 03:06:00Z: Job build completed with result: Failed'", Ending::JobDone),
    ];
    for (end, ending) in ends {
        let stage = Stage::new("");
        stage.write_script("install/bin/Runner.Listener", &with_logs(end));
        let (output, code) = run(&stage);
        assert_eq!(code, Some(ending.code()), "{output}");
        let lines = lines_of("app-log", &output);
        let listener = ["the last 3 lines of _diag/Runner_2-utc.log:", "first", "jit ***"];
        assert_eq!(lines[..3], listener, "{output}");
        assert_eq!(
            lines[3..6],
            ["token AAAA-registration ***", "the last 200 lines of _diag/Worker_3-utc.log:", "101"]
        );
        assert_eq!((lines.len(), lines.last()), (205, Some(&"300")), "{output}");
        assert_eq!(stage.text("logs/2-k3V9x0q.app-log.log").lines().count(), 205);
    }
}

#[test]
fn after_a_success_or_a_stop_its_log_files_are_not_shown() {
    let stage = Stage::new("");
    stage.write_script("install/bin/Runner.Listener", &with_logs(DONE));
    let (output, _) = run(&stage);
    assert_eq!(lines_of("app-log", &output), Vec::<&str>::new(), "{output}");
    let stage = Stage::new("");
    let until_stopped = with_logs("trap 'exit 1' INT\nwhile :; do sleep 0.05; done\n");
    stage.write_script("install/bin/Runner.Listener", &until_stopped);
    let install = stage.path("install");
    let mut entrypoint = stage.start_with(&[], &[("RUNNER_INSTALL", install.to_str().unwrap())]);
    entrypoint.wait_for_line("] hello");
    std::fs::write(stage.note("trm"), SECRET).unwrap();
    let (output, _) = entrypoint.end();
    assert_eq!(lines_of("app-log", &output), Vec::<&str>::new(), "{output}");
}

#[test]
fn what_a_job_puts_in_the_place_of_log_files_is_not_followed() {
    let stage = Stage::new("");
    std::fs::write(stage.path("other"), "of another user\n").unwrap();
    let script = "mkdir _diag\nln -s ../../other _diag/Runner_2-utc.log\nln ../other _diag/Runner_3-utc.log\n\
        mkfifo _diag/Worker_2-utc.log\nexit 1\n";
    stage.write_script("install/bin/Runner.Listener", script);
    let (output, code) = run(&stage);
    assert!(!output.contains("of another user"), "{output}");
    assert_eq!(lines_of("app-log", &output), Vec::<&str>::new(), "{output}");
    assert_eq!(code, Some(Ending::Failed.code()), "{output}");
    let stage = Stage::new("");
    stage.write_script("elsewhere/Runner_1-utc.log", "of another user\n");
    stage.write_script("install/bin/Runner.Listener", "ln -s ../elsewhere _diag\nexit 1\n");
    let (output, _) = run(&stage);
    assert_eq!(lines_of("app-log", &output), Vec::<&str>::new(), "{output}");
}

#[test]
fn a_registration_that_fails_shows_the_log_files_without_its_token() {
    let stage = Stage::with_token("");
    stage.write_script("install/bin/Runner.Listener", &with_logs("exit 1\n"));
    let (output, code) = run(&stage);
    let lines = lines_of("app-log", &output);
    assert!(lines.contains(&"token *** ***"), "{output}");
    assert_eq!(code, Some(Ending::NotStarted.code()), "{output}");
}
