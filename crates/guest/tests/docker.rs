//! Tests of the `docker` wrapper as a process, with a script in place of the real client.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Output};

const GUEST: &str = env!("CARGO_BIN_EXE_dayfly-guest");

/// Creates a folder with the link that images have, and a client that prints its arguments and exits with 7.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    symlink(GUEST, folder.path().join("docker")).unwrap();
    let path = folder.path().join("docker.orig");
    fs::write(&path, "#!/bin/sh\nfor arg; do echo \"<$arg>\"; done\ncat\nexit 7\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn run(mut command: Command, folder: &tempfile::TempDir) -> Output {
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    command.env_clear().env("PATH", path).stdin(fs::File::open("/dev/null").unwrap()).output().unwrap()
}

#[test]
fn by_its_name_it_becomes_the_real_client_with_the_network_added() {
    let folder = folder();
    let mut command = Command::new(folder.path().join("docker"));
    command.args(["-H", "unix:///x", "run", "--rm", "alpine", "echo", "a  b"]);
    let output = run(command, &folder);
    assert_eq!(output.status.code(), Some(7), "the client's own status");
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, "<-H>\n<unix:///x>\n<run>\n<--network>\n<host>\n<--rm>\n<alpine>\n<echo>\n<a  b>\n");
}

#[test]
fn as_a_command_it_does_the_same() {
    let folder = folder();
    let mut command = Command::new(GUEST);
    command.args(["docker", "compose", "run", "web", ""]);
    let output = run(command, &folder);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "<compose>\n<run>\n<web>\n<>\n");
}
