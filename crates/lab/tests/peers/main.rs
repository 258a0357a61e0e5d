//! A lab and its clients: GitHub's own client for scale sets (github.com/actions/scaleset 0.4.0, MIT), GitHub's own client of
//! the REST API (Octokit, MIT), and dayfly's.
//!
//! `scripts/peers` builds the Go program in `scale-set/`, which contains that client and its listener. It is built before
//! the tests, because they run without a network.

#![expect(clippy::unwrap_used, reason = "tests")]

mod octokit;
mod own;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use dayfly_forge::jit::JitConfig;
use dayfly_lab::{Lab, LabSettings, Limits};
use dayfly_light_runner::{Exit, Settings, run};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Environment variable with the path of the Go program.
const PEER: &str = "DAYFLY_TEST_SCALE_SET_PEER";
/// Longest time that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(120);
const SCENARIOS: [&str; 9] =
    ["cancelled", "capacity", "gone", "jit", "listener", "queue", "refresh", "scale-set", "session"];

/// Returns the path that a variable holds. If there is nothing, the panic message says how to set it.
fn prepared(variable: &str, program: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.exists());
    path.unwrap_or_else(|| {
        panic!("build the program of others: export {variable}=$(scripts/peers {program})")
    })
}

/// Opens a lab on a free port. Returns its address.
async fn lab(folder: &TempDir) -> (Lab, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let settings = LabSettings {
        runner_url: Some(url.clone()),
        // The client waits for the end of each poll.
        limits: Limits { long_poll: Duration::from_millis(300), ..Limits::default() },
        ..LabSettings::new(folder.path().join("lab"))
    };
    let lab = Lab::open(settings).unwrap();
    let served = lab.clone();
    tokio::spawn(async move { served.serve(listener, std::future::pending()).await.unwrap() });
    (lab, url)
}

/// Light runners in this process.
struct Runners {
    settings: Settings,
    running: JoinSet<Exit>,
    stop: watch::Sender<bool>,
    started: usize,
}

impl Runners {
    fn new(folder: &Path) -> Self {
        let settings = Settings {
            env: vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())],
            pause: Duration::from_millis(20),
            ..Settings::new(folder.join("app"))
        };
        Self { settings, running: JoinSet::new(), stop: watch::channel(false).0, started: 0 }
    }

    /// Returns the number of runners that were started.
    fn len(&self) -> usize {
        self.started
    }

    fn start(&mut self, config: JitConfig) {
        let (settings, stopped) = (self.settings.clone(), self.stop.subscribe());
        self.running.spawn(async move { run(config, &settings, &|_| {}, stopped).await });
        self.started += 1;
    }

    /// Waits for the ends of all runners.
    async fn ends(&mut self) -> Vec<Exit> {
        let mut ends = Vec::new();
        while let Some(exit) = tokio::time::timeout(PATIENCE, self.running.join_next()).await.unwrap() {
            ends.push(exit.unwrap());
        }
        ends
    }
}

/// Runs all scenarios of the Go program in a scope. Its runners are light ones in this process.
async fn play(scope: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (lab, url) = lab(&folder).await;
    let mut program = Command::new(prepared(PEER, "scale-set"))
        .args(["-host", &url, "-scope", scope, "-repo", "o/r", "-deadline", "110s"])
        .env_clear()
        .env("TOKEN", lab.token().expose_secret())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let (mut runners, mut steps) = (Runners::new(folder.path()), Vec::new());
    while let Some(line) = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap() {
        let line: Value = serde_json::from_str(&line).unwrap();
        if let Some(config) = line["start_runner"].as_str() {
            runners.start(JitConfig::decode(config).unwrap());
        } else {
            steps.push(line);
        }
    }
    let status = tokio::time::timeout(PATIENCE, program.wait()).await.unwrap().unwrap();
    let failed: Vec<&Value> = steps.iter().filter(|step| step["ok"] != true).collect();
    assert!(status.success() && failed.is_empty(), "{scope}: {status}: {failed:#?}");
    let played: BTreeSet<&str> = steps.iter().map(|step| step["scenario"].as_str().unwrap()).collect();
    assert_eq!(played, BTreeSet::from(SCENARIOS), "{scope}");
    assert_eq!(runners.len(), 3, "{scope}: one runner for each job");
    assert_eq!(runners.ends().await, vec![Exit::Success; 3], "{scope}");
}

#[tokio::test]
async fn githubs_own_client_manages_the_scale_sets_of_a_repository() {
    play("o/r").await;
}

#[tokio::test]
async fn githubs_own_client_manages_the_scale_sets_of_an_organisation() {
    play("o").await;
}

#[tokio::test]
async fn githubs_own_client_manages_the_scale_sets_of_an_enterprise() {
    play("enterprises/big").await;
}
