//! Tests of a runner that is already registered: its app gets files, and a clean environment.

use crate::stage::{SECRET, Stage, jit_config, mode, runner_lines};
use dayfly_guest::runner_app::{Ending, Observation, observe};
use std::time::{Duration, Instant};

#[test]
fn an_app_gets_its_files_and_a_clean_environment_and_a_finished_job_is_success() {
    let stage = Stage::new(
        "stat -c '%a %n' . .runner .credentials .credentials_rsaparams\ncat .runner\necho\nenv | cut -d= -f1 | sort\n\
         echo \"args: $*\"\necho \"x ( http://h/o/r ): Finished Job 'j' with Status Failed\"\necho err >&2\n",
    );
    let (output, code) = stage.start().end();
    let lines = runner_lines(&output);
    assert_eq!(
        lines[..5],
        ["700 .", "600 .runner", "600 .credentials", "600 .credentials_rsaparams", r#"{"AgentName":"n"}"#]
    );
    let environment: Vec<_> =
        lines[5..].iter().take_while(|line| !line.starts_with("args")).copied().collect();
    // The shell adds PWD and similar variables.
    for name in ["LEAK", "RUNNER_SECRET", "RUNNER_JITCONFIG"] {
        assert!(!environment.contains(&name), "{name} in {environment:?}");
    }
    assert!(environment.contains(&"HOME") && environment.contains(&"PATH"), "{environment:?}");
    assert!(lines.contains(&"args: run"), "{output}");
    assert!(lines.contains(&"err"), "{output}");
    assert!(
        lines.iter().any(|line| matches!(observe(line), Some(Observation::JobFinished { .. }))),
        "{output}"
    );
    assert_eq!(code, Some(Ending::JobDone.code()), "{output}");
    assert!(!output.contains(SECRET), "{output}");
}

#[test]
fn the_settings_are_gone_before_the_app_starts_and_the_note_is_there() {
    let stage = Stage::new("ls ../environment\ncat ../environment/*.tkn\n");
    let (output, code) = stage.start().end();
    assert_eq!(runner_lines(&output), ["2-k3V9x0q.tkn", "GH-runner"]);
    assert_eq!(mode(&stage.note("tkn")), 0o600);
    assert_eq!(code, Some(Ending::NoJob.code()), "exit 0 without a job proves nothing:\n{output}");
    assert!(!stage.path("app/.credentials_rsaparams").exists(), "the key outlives its runner");
}

#[test]
fn what_an_app_leaves_in_its_group_does_not_hold_the_end_up() {
    let stage = Stage::new("sleep 60 &\nexit 7\n");
    let start = Instant::now();
    let (output, code) = stage.start().end();
    assert!(start.elapsed() < Duration::from_secs(10), "{output}");
    assert_eq!(code, Some(Ending::Failed.code()), "{output}");
}

#[test]
fn settings_that_are_refused_are_removed_all_the_same() {
    let stage = Stage::new("echo never");
    std::fs::write(stage.note("env"), "RUNNER_NAME=$(touch /tmp/x)\n").unwrap();
    let (output, code) = stage.start().end();
    assert_eq!(code, Some(Ending::NotStarted.code()));
    assert!(output.contains("line 1: '$' in the value of RUNNER_NAME needs quotes"), "{output}");
    assert!(!stage.note("env").exists() && !stage.note("tkn").exists());
    assert_eq!(runner_lines(&output), [""; 0]);
}

#[test]
fn an_app_that_is_not_there_is_said_and_no_note_is_written() {
    let stage = Stage::new("echo never");
    std::fs::remove_file(stage.path("app.sh")).unwrap();
    let (output, code) = stage.start().end();
    assert_eq!(code, Some(Ending::NotStarted.code()));
    assert!(output.contains("app.sh: No such file"), "{output}");
    assert!(!stage.note("tkn").exists());
}

#[test]
fn jobs_see_the_users_settings_and_nothing_that_is_secret() {
    let stage = Stage::new("env\n");
    let (jit_config, mine) = (jit_config(), "two words");
    stage.write_env(&[
        ("RUNNER_JITCONFIG", &jit_config),
        ("RUNNER_MINE", mine),
        ("RUNNER_DEPLOY_KEY", "k"),
        ("RUNNER_NOTE", "ghp_XXXX"),
        ("OTHER", "x"),
    ]);
    let (output, _) = stage.start().end();
    let lines = runner_lines(&output);
    assert!(lines.contains(&"RUNNER_MINE=two words") && lines.contains(&"RUNNER_NAME=GH-runner"), "{output}");
    for text in ["DEPLOY_KEY", "ghp_", "OTHER", "JITCONFIG", "SECRET", &jit_config] {
        assert!(!output.contains(text), "{text} in {output}");
    }
}

#[test]
fn a_jit_config_is_for_one_job_and_for_nothing_beside_it() {
    let jit_config = jit_config();
    for (more, message) in [
        (("RUNNER_EPHEMERAL", "0"), "RUNNER_EPHEMERAL=0 needs a registration token"),
        (("RUNNER_TOKEN", "t"), "both RUNNER_JITCONFIG and RUNNER_TOKEN"),
        (("RUNNER_PAT", "ghp_XXXX"), "holds RUNNER_PAT, which must never leave the host"),
    ] {
        let stage = Stage::new("echo never");
        stage.write_env(&[("RUNNER_JITCONFIG", &jit_config), more]);
        let (output, code) = stage.start().end();
        assert!(output.contains(message), "{output}");
        assert_eq!(code, Some(Ending::NotStarted.code()), "{output}");
        assert!(!stage.note("env").exists() && !stage.note("tkn").exists());
        assert!(!output.contains("ghp_") && runner_lines(&output).is_empty(), "{output}");
    }
}

#[test]
fn lines_are_kept_in_files_and_go_to_the_log_too() {
    let stage = Stage::new("echo hello\n");
    std::fs::write(stage.path("log"), "before\n").unwrap();
    let app = stage.path("app.sh");
    let options =
        ["--app", app.to_str().unwrap(), "-v", "-l", stage.path("log").to_str().unwrap()].map(str::to_owned);
    let (output, _) = stage.start_with(&options.each_ref().map(String::as_str), &[]).end();
    assert_eq!(stage.text("log"), format!("before\n{output}"));
    assert_eq!(stage.text("logs/2-k3V9x0q.runner.log"), "hello\n");
    assert!(stage.text("logs/2-k3V9x0q.entrypoint.log").contains("end: NoJob"));
}

#[test]
fn a_number_as_log_is_an_open_descriptor() {
    let stage = Stage::new("echo hello\n");
    let app = stage.path("app.sh");
    let run = |log: &str| {
        let mut command = stage.command(&["--app", app.to_str().unwrap(), "-l", log], &[]);
        let output = command.stderr(std::process::Stdio::piped()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let (stdout, stderr) = run("2");
    assert!(stdout.contains("[runner@runner-2-k3V9x0q] hello"), "{stdout}");
    assert_eq!(stdout, stderr);
    let (stdout, _) = run("77");
    assert!(stdout.contains("cannot write the log 77: Bad file descriptor"), "{stdout}");
}
