//! Tests of `dayfly-guest mortal` as a process.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

#[test]
fn the_program_dies_with_its_parent() {
    let mut shell = Command::new("sh");
    // Without the last command, some shells would become the program instead of starting it.
    shell.args(["-c", "\"$0\" mortal sh -c 'echo up; exec sleep 60'; :", env!("CARGO_BIN_EXE_dayfly-guest")]);
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
