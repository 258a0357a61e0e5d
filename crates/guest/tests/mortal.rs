//! Tests of `dayfly-guest mortal` as a process.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

const GUEST: &str = env!("CARGO_BIN_EXE_dayfly-guest");

#[test]
fn a_program_whose_parent_has_exited_already_never_runs() {
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let late =
        Command::new(GUEST).args(["mortal", "--parent", &ended.id().to_string(), "echo", "up"]).output();
    let late = late.unwrap();
    assert_eq!((late.status.signal(), late.stdout.as_slice()), (Some(9), b"".as_slice()));
    let own = std::process::id().to_string();
    let output = Command::new(GUEST).args(["mortal", "--parent", &own, "echo", "up"]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"up\n".as_slice()));
    assert_eq!(
        Command::new(GUEST).args(["mortal", "--parent", "x", "true"]).status().unwrap().code(),
        Some(2)
    );
}

#[test]
fn the_program_dies_with_its_parent() {
    let mut shell = Command::new("sh");
    // Without the last command, some shells would become the program instead of starting it.
    shell.args(["-c", "\"$0\" mortal --parent $$ sh -c 'echo up; exec sleep 60'; :", GUEST]);
    let mut shell = shell.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(shell.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    shell.kill().unwrap();
    shell.wait().unwrap();
    // The pipe ends when the last process that holds it has ended.
    let began = std::time::Instant::now();
    assert_eq!(output.read_to_end(&mut Vec::new()).unwrap(), 0);
    assert!(began.elapsed().as_secs() < 30, "it outlived its parent");
}
