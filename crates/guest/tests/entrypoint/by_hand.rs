//! Tests of options that a user gives by hand, and of commands in place of the runner app.

use crate::stage::{ID, SECRET, Stage, mode, runner_lines};
use dayfly_guest::runner_app::Ending;
use std::process::Command;

#[test]
fn wrong_usage_is_status_two() {
    let run = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_dayfly-guest")).args(args).output().unwrap();
    assert_eq!(run(&["entrypoint"]).status.code(), Some(2));
    assert_eq!(run(&[]).status.code(), Some(2));
    assert!(String::from_utf8_lossy(&run(&["entrypoint", "-x"]).stderr).contains("-x is no option"));
}

#[test]
fn the_help_shows_no_secret_and_leaves_the_settings_alone() {
    let stage = Stage::new("");
    let environment = [("RUNNER_TOKEN", "hidden-token"), ("RUNNER_LABELS", "big")];
    let mut command = stage.command(&["-T", "ghp_XXXX", "-S", SECRET, "-h"], &environment);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(text.contains("[RUNNER_TOKEN=set]") && text.contains("[RUNNER_LABELS=big]"), "{text}");
    for secret in ["hidden-token", "ghp_", SECRET] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(stage.note("env").exists());
}

#[test]
fn a_command_runs_in_place_of_the_app_and_its_status_counts() {
    for (script, ending) in [("exit 0", Ending::JobDone), ("exit 7", Ending::Failed)] {
        let stage = Stage::new("echo never");
        stage.write_env(&[("RUNNER_MINE", "here")]);
        let script = format!("cat ../environment/*.tkn; echo; echo \"$RUNNER_MINE $1 $PWD\"; {script}");
        let (output, code) = stage.start_with(&["--", "sh", "-c", &script, "sh", "-x"], &[]).end();
        let place = format!("here -x {}", stage.path("app").display());
        assert_eq!(runner_lines(&output), ["GH-runner", &place], "{output}");
        assert_eq!(code, Some(ending.code()), "{output}");
    }
}

#[test]
fn a_command_needs_no_env_file_and_no_environment_directory() {
    let stage = Stage::new("");
    std::fs::remove_dir_all(stage.path("environment")).unwrap();
    let (output, code) = stage.start_with(&["--", "echo", "hello"], &[]).end();
    assert_eq!((runner_lines(&output), code), (vec!["hello"], Some(Ending::JobDone.code())), "{output}");
    let (output, code) = Stage::new("").start_with(&["--", "no-such-program"], &[]).end();
    assert!(output.contains("cannot start no-such-program: No such file"), "{output}");
    assert_eq!(code, Some(Ending::NotStarted.code()), "{output}");
}

#[test]
fn only_root_becomes_another_user() {
    use std::os::unix::fs::PermissionsExt as _;
    let stage = Stage::new("");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(stage.path("."), open).unwrap();
    let (output, code) = stage.start_with(&["-u", "nobody", "--", "id", "-un"], &[]).end();
    let own = Command::new("id").arg("-un").output().unwrap();
    let own = String::from_utf8(own.stdout).unwrap();
    let wanted = if rustix::process::geteuid().is_root() { "nobody" } else { own.trim() };
    assert_eq!((runner_lines(&output), code), (vec![wanted], Some(Ending::JobDone.code())), "{output}");
    if rustix::process::geteuid().is_root() {
        let stage = Stage::new("");
        let (output, code) = stage.start_with(&["-u", "no-such-user", "--", "id"], &[]).end();
        assert!(output.contains("there is no user no-such-user in /etc/passwd"), "{output}");
        assert_eq!(code, Some(Ending::NotStarted.code()));
    }
}

#[test]
fn a_pat_by_hand_reaches_the_configuration_alone() {
    let stage = Stage::new(
        "echo \"$1: pat=$ACTIONS_RUNNER_INPUT_PAT\" | tr g G\ntr '\\0' ' ' </proc/$$/cmdline\necho\n",
    );
    std::fs::remove_file(stage.note("env")).unwrap();
    let app = stage.path("app.sh");
    let options =
        ["--app", app.to_str().unwrap(), "-T", "ghp_XXXX", "-p", "o/r", "-n", "by-hand", "-g", "http://h:1"];
    let (output, code) = stage.start_with(&options, &[]).end();
    assert!(output.contains("[configuration@runner-2-k3V9x0q] confiGure: pat=Ghp_XXXX"), "{output}");
    assert!(output.contains("--url http://h:1/o/r --name by-hand"), "{output}");
    assert_eq!(runner_lines(&output)[0], "run: pat=", "{output}");
    assert!(!output.contains("ghp_"), "the PAT is an argument, or was printed: {output}");
    assert_eq!(std::fs::read_to_string(stage.note("tkn")).unwrap(), "by-hand");
    assert_eq!((mode(&stage.note("tkn")), code), (0o600, Some(Ending::NoJob.code())));
}

#[test]
fn a_pat_beside_an_env_file_is_refused() {
    let stage = Stage::with_token("echo never");
    let app = stage.path("app.sh");
    let (output, code) = stage.start_with(&["--app", app.to_str().unwrap(), "-T", "ghp_XXXX"], &[]).end();
    assert!(output.contains("-T is for a run by hand") && output.contains("dayfly token"), "{output}");
    assert!(!stage.note("env").exists() && !output.contains("ghp_"), "{output}");
    assert_eq!(code, Some(Ending::NotStarted.code()));
}

#[test]
fn without_any_registration_it_says_what_was_looked_for() {
    let stage = Stage::new("echo never");
    std::fs::remove_file(stage.note("env")).unwrap();
    let (output, code) = stage.start().end();
    assert!(output.contains(&format!("no env file at {}", stage.note("env").display())), "{output}");
    assert_eq!((code, ID), (Some(Ending::NotStarted.code()), "2-k3V9x0q"));
}
