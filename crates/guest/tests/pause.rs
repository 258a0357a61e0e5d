//! Tests of `dayfly-guest pause` and `dayfly-guest resume` as processes, as a step and a person's shell start them.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const GUEST: &str = env!("CARGO_BIN_EXE_dayfly-guest");

fn guest(runner: &str, args: &[&str]) -> Command {
    let mut command = Command::new(GUEST);
    command.args(args).env("RUNNER_ID", runner).stdin(Stdio::null());
    command
}

fn run(runner: &str, args: &[&str]) -> Output {
    guest(runner, args).output().unwrap()
}

/// Returns an id that no other test on this host has.
fn runner(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

#[test]
fn a_step_that_is_paused_goes_on_when_a_person_resumes_it() {
    let runner = runner("resumed");
    let began = Instant::now();
    let mut step = guest(&runner, &["pause", "--for", "5m"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(step.stdout.take().unwrap());
    let mut text = String::new();
    for _ in 0..3 {
        lines.read_line(&mut text).unwrap();
    }
    assert!(text.contains("paused for 5 min") && text.contains(&format!("dayfly shell {runner}")), "{text}");
    assert!(step.try_wait().unwrap().is_none(), "it does not wait");
    let file = format!("/tmp/dayfly-pause-{runner}-{}", step.id());
    assert!(text.contains(&file) && Path::new(&file).exists(), "{text}");

    let resumed = run(&runner, &["resume"]);
    assert!(resumed.status.success() && String::from_utf8_lossy(&resumed.stdout).contains(&file));
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "dayfly: the job goes on, because it was resumed\n");
    assert!(step.wait().unwrap().success() && began.elapsed() < Duration::from_secs(60));
    assert!(!Path::new(&file).exists());
}

#[test]
fn a_pause_that_is_not_resumed_ends_with_its_time() {
    let began = Instant::now();
    let output = run(&runner("alone"), &["pause", "-f1s"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.ends_with("its pause of 1 s is over\n"), "{text}");
    assert!((Duration::from_secs(1)..Duration::from_secs(30)).contains(&began.elapsed()));
}

#[test]
fn what_is_wrong_is_said_and_nothing_waits() {
    let runner = runner("wrong");
    for (args, code, said) in [
        (&["pause", "--for", "7h"][..], 2, "not a time from 1s to 6h"),
        (&["pause", "5m"], 2, "one word too many for pause"),
        (&["resume", "it"], 2, "takes no arguments"),
        (&["resume"], 1, "no job of this machine is paused"),
    ] {
        let output = run(&runner, args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && text.contains(said), "{args:?}: {text}");
    }
    let help = run(&runner, &["pause", "-h"]);
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("--for TIME"));
}
