//! Octokit makes the calls that dayfly and its users make, and checks each answer against GitHub's description of its API.

use std::process::Stdio;

use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio::process::Command;

use super::{PATIENCE, lab, prepared};

/// Environment variable with the folder of the program.
const PEER: &str = "DAYFLY_TEST_OCTOKIT_PEER";

/// Runs the program for a scope. Returns the number of its calls.
async fn play(scope: &str) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let (lab, url) = lab(&folder).await;
    let program = prepared(PEER, "octokit").join("scenario.mjs");
    let running = Command::new("node")
        .arg(program)
        .args([&url, scope])
        .env("TOKEN", lab.token().expose_secret())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    let steps: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let failed: Vec<&Value> = steps.iter().filter(|step| step["ok"] != true).collect();
    assert!(ended.status.success() && failed.is_empty(), "{scope}: {failed:#?}\n{err}");
    steps.len()
}

#[tokio::test]
async fn octokit_finds_githubs_api_at_a_repository() {
    assert_eq!(play("repos/o/r").await, 20);
}

#[tokio::test]
async fn octokit_finds_githubs_api_at_an_organisation() {
    assert_eq!(play("orgs/o").await, 14);
}

#[tokio::test]
async fn octokit_finds_githubs_api_at_an_enterprise() {
    assert_eq!(play("enterprises/big").await, 14);
}
