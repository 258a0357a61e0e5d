//! Tests of the files of the handshake, both valid and invalid.

use crate::stage::{ID, SECRET, Stage, UNTIL_STOPPED, jit_config, runner_lines};
use dayfly_guest::environment::NOTE_LENGTH_MAX;
use dayfly_guest::runner_app::Ending;
use rustix::fs::{FileType, Mode};
use rustix::process::Signal;
use std::path::Path;

#[test]
fn the_loops_word_stops_the_app_and_a_wrong_secret_does_not() {
    let stage = Stage::new(UNTIL_STOPPED);
    let mut entrypoint = stage.start();
    entrypoint.wait_for_line("Listening for Jobs");
    std::fs::write(stage.note("trm"), "wrong").unwrap();
    entrypoint.wait_for_line("is ignored: it does not hold this runner's secret");
    std::fs::write(stage.note("trm"), format!("{SECRET}\n")).unwrap();
    let (output, code) = entrypoint.end();
    assert!(runner_lines(&output).contains(&"stopped"), "{output}");
    assert_eq!(code, Some(Ending::StoppedByLoop.code()), "{output}");
    assert!(!stage.note("brk").exists(), "the loop asked, so there is nothing to tell it");
}

#[test]
fn the_word_of_a_loop_that_came_first_counts() {
    let stage = Stage::new(UNTIL_STOPPED);
    std::fs::write(stage.note("trm"), SECRET).unwrap();
    let (output, code) = stage.start().end();
    assert_eq!(code, Some(Ending::StoppedByLoop.code()), "{output}");
}

#[test]
fn what_stands_in_place_of_the_loops_word_is_ignored_unless_it_is_a_short_file() {
    let fifo =
        |path: &Path| rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
    let link = |path: &Path| std::os::unix::fs::symlink(path.with_file_name("elsewhere"), path).unwrap();
    let giant = |path: &Path| {
        let text = format!("{SECRET}\n{}", "x".repeat(NOTE_LENGTH_MAX));
        std::fs::write(path, text).unwrap();
    };
    let folder = |path: &Path| std::fs::create_dir(path).unwrap();
    for (make, problem) in [
        (&fifo as &dyn Fn(&Path), "not a regular file"),
        (&link, "symbolic links"),
        (&giant, "longer than"),
        (&folder, "not a regular file"),
    ] {
        let stage = Stage::new(UNTIL_STOPPED);
        std::fs::write(stage.path("environment/elsewhere"), SECRET).unwrap();
        make(&stage.note("trm"));
        let mut entrypoint = stage.start();
        entrypoint.wait_for(&[problem, "Listening for Jobs"]);
        entrypoint.signal(Signal::TERM);
        assert_eq!(entrypoint.end().1, Some(Ending::StoppedBySignal.code()));
    }
}

#[test]
fn another_runners_word_and_an_empty_one_stop_nobody() {
    let stage = Stage::new(UNTIL_STOPPED);
    let mut entrypoint = stage.start();
    entrypoint.wait_for_line("Listening for Jobs");
    std::fs::write(stage.path("environment/3-k3V9x0q.trm"), SECRET).unwrap();
    std::fs::write(stage.note("trm"), "").unwrap();
    entrypoint.wait_for_line("is ignored");
    std::fs::write(stage.note("trm"), SECRET).unwrap();
    assert_eq!(entrypoint.end().1, Some(Ending::StoppedByLoop.code()));
}

#[test]
fn the_secret_of_the_option_counts_where_the_env_file_has_none() {
    let stage = Stage::new(UNTIL_STOPPED);
    let env = format!("RUNNER_JITCONFIG={}\n", jit_config());
    std::fs::write(stage.note("env"), env).unwrap();
    let app = stage.path("app.sh");
    let mut entrypoint = stage.start_with(&["--app", app.to_str().unwrap(), "-S", "of the option"], &[]);
    entrypoint.wait_for_line("Listening for Jobs");
    std::fs::write(stage.note("trm"), SECRET).unwrap();
    entrypoint.wait_for_line("is ignored: it does not hold this runner's secret");
    std::fs::write(stage.note("trm"), "of the option").unwrap();
    let (output, code) = entrypoint.end();
    assert_eq!(code, Some(Ending::StoppedByLoop.code()), "{output}");
    assert!(!output.contains("of the option"), "{output}");
}

#[test]
fn the_secret_of_the_option_is_what_a_signal_writes() {
    let stage = Stage::new(UNTIL_STOPPED);
    std::fs::write(stage.note("env"), format!("RUNNER_JITCONFIG={}\n", jit_config())).unwrap();
    let app = stage.path("app.sh");
    let mut entrypoint = stage.start_with(&["--app", app.to_str().unwrap(), "--secret=of the option"], &[]);
    entrypoint.wait_for_line("Listening for Jobs");
    entrypoint.signal(Signal::TERM);
    assert_eq!(entrypoint.end().1, Some(Ending::StoppedBySignal.code()));
    assert_eq!(std::fs::read_to_string(stage.note("brk")).unwrap(), "of the option");
}

#[test]
fn what_stands_in_place_of_the_settings_is_removed_and_refused() {
    let fifo =
        |path: &Path| rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
    let link = |path: &Path| std::os::unix::fs::symlink("/etc/passwd", path).unwrap();
    let giant = |path: &Path| std::fs::write(path, "#".repeat(1024 * 1024)).unwrap();
    let binary = |path: &Path| std::fs::write(path, [0xff, 0, 1]).unwrap();
    for make in [&fifo as &dyn Fn(&Path), &link, &giant, &binary] {
        let stage = Stage::new("echo never");
        std::fs::remove_file(stage.note("env")).unwrap();
        make(&stage.note("env"));
        let (output, code) = stage.start().end();
        assert_eq!(code, Some(Ending::NotStarted.code()), "{output}");
        assert!(std::fs::symlink_metadata(stage.note("env")).is_err(), "it is still there: {output}");
        assert!(Path::new("/etc/passwd").exists() && runner_lines(&output).is_empty(), "{output}");
    }
}

#[test]
fn a_named_env_file_gives_the_id_and_must_be_there() {
    let stage = Stage::new("echo \"$RUNNER_ID\"\n");
    let named = stage.path(&format!("{ID}.env"));
    std::fs::rename(stage.note("env"), &named).unwrap();
    let (app, named) = (stage.path("app.sh"), named.to_str().unwrap().to_owned());
    let options = ["--app", app.to_str().unwrap(), "-E", &named, "-k", "note"];
    let run = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dayfly-guest"));
        command.args(["entrypoint", "-u", ""]).args(options).env_clear().current_dir(stage.path("."));
        command.env("RUNNER_LOGDIR", stage.path("logs"));
        command.arg("--environment").arg(stage.path("environment")).arg("--app-dir").arg(stage.path("app"));
        command.output().unwrap()
    };
    let output = run();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(runner_lines(&text), [ID], "{text}");
    assert_eq!(stage.text("note"), "GH-runner");
    let output = run();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(".env: No such file"), "{text}");
    assert_eq!(output.status.code(), Some(Ending::NotStarted.code()));
}
