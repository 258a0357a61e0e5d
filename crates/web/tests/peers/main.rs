//! The metrics and those who read them: the parser of the Prometheus project (PyPI prometheus-client, Apache-2.0), and a
//! Prometheus that scrapes them, evaluates the alert rules of `dist/prometheus`, and answers each query of the dashboard of
//! `dist/grafana`.
//!
//! `scripts/peers` fetches both before the tests, because they run without a network.

#![expect(clippy::unwrap_used, reason = "tests")]

mod process;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use process::{HOSTILE, Process, TOKEN};

const DASHBOARD: &str = include_str!("../../../../dist/grafana/dayfly.json");
/// Longest time that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the path that a variable holds. If there is nothing, the panic message says how to set it.
fn prepared(variable: &str, program: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.exists());
    path.unwrap_or_else(|| {
        panic!("fetch the program of others: export {variable}=$(scripts/peers {program})")
    })
}

fn prometheus(program: &str) -> Command {
    let mut command = Command::new(prepared("DAYFLY_TEST_PROMETHEUS", "prometheus").join(program));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../dist/prometheus/dayfly.rules.yml")
        .canonicalize()
        .unwrap()
}

/// Asks for a page. Returns the head and the body of the answer.
async fn get(address: SocketAddr, path: &str, token: Option<&str>) -> (String, String) {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n{token}\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = timeout(PATIENCE, ask).await.unwrap().unwrap_or_default();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (head.to_owned(), body.to_owned())
}

/// Returns the families of the metrics, as the official parser reads them.
async fn parsed(text: &str) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/parse.py");
    let mut python = Command::new(prepared("DAYFLY_TEST_OPENMETRICS", "openmetrics"))
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = python.stdin.take().unwrap();
    let ((), ended) = tokio::join!(
        async {
            input.write_all(text.as_bytes()).await.unwrap();
            drop(input);
        },
        timeout(PATIENCE, python.wait_with_output())
    );
    let ended = ended.unwrap().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn the_official_parser_reads_every_family_and_hostile_names_as_they_are() {
    let process = Process::start().await;
    let (head, text) = get(process.address(), "/metrics", Some(TOKEN)).await;
    assert!(head.contains("application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    let families = parsed(&text).await;
    let names: BTreeSet<&str> = families.iter().map(|family| family["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), families.len(), "each family once");
    let names: Vec<String> = families
        .iter()
        .map(|family| format!("{} {}", family["type"].as_str().unwrap(), family["name"].as_str().unwrap()))
        .collect();
    insta::assert_snapshot!(names.join("\n"));
    let hostile: String = HOSTILE.chars().filter(|c| !c.is_control()).collect();
    let jobs = families.iter().find(|family| family["name"] == "gha_started_jobs").unwrap();
    let has_hostile = |sample: &Value| sample[1]["job_name"] == hostile.as_str();
    assert!(jobs["samples"].as_array().unwrap().iter().any(has_hostile), "{jobs:#}");
    // The alerts use no name that does not exist.
    let rules = fs::read_to_string(rules()).unwrap();
    let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let used: BTreeSet<&str> = words.filter(|word| word.starts_with("dayfly_")).collect();
    assert!(used.len() > 8, "{used:?}");
    for name in used {
        assert!(text.contains(&format!("\n{name}")), "{name}");
    }
    let (head, _) = get(process.address(), "/metrics", None).await;
    assert!(head.starts_with("HTTP/1.0 401") || head.starts_with("HTTP/1.1 401"), "{head}");
}

/// A Prometheus that scrapes the process each second.
struct Prometheus {
    address: SocketAddr,
    _process: Child,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    async fn start(scraped: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (config, token) = (folder.path().join("prometheus.yml"), folder.path().join("token"));
        fs::write(&token, TOKEN).unwrap();
        let text = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [{}]\n\
             scrape_configs:\n\
             - job_name: dayfly\n  \
               authorization: {{ credentials_file: {} }}\n  \
               static_configs: [{{ targets: ['{scraped}'] }}]\n",
            rules().display(),
            token.display()
        );
        fs::write(&config, text).unwrap();
        // The port is free for the moment that Prometheus needs to take it.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = prometheus("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { address, _process: process, _folder: folder }
    }

    /// Returns the result of a query, or of another call.
    async fn ask(&self, path: &str) -> Option<Value> {
        let (_, body) = get(self.address, path, None).await;
        serde_json::from_str(&body).ok()
    }

    async fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let Some(answer) = self.ask(&format!("/api/v1/query?query={query}")).await else {
            return Ok(Vec::new());
        };
        match answer["data"]["result"].as_array() {
            Some(result) => Ok(result.clone()),
            None => Err(answer["error"].to_string()),
        }
    }

    /// Waits until a query has a result that is a number.
    async fn wait_for(&self, query: &str) {
        let found = async {
            loop {
                let result = self.query(query).await.unwrap_or_else(|error| panic!("{query}: {error}"));
                let is_number = |one: &Value| one["value"][1].as_str().is_some_and(|value| value != "NaN");
                if result.iter().any(is_number) {
                    return;
                }
                sleep(Duration::from_millis(300)).await;
            }
        };
        timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no result of {query}"));
    }
}

/// Returns the queries of the dashboard, with values for its variables.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    let queries = targets.map(|target| target["expr"].as_str().unwrap().to_owned());
    queries
        .map(|query| {
            let filled = ["$pool", "$set"].iter().fold(query, |query, name| query.replace(name, ".*"));
            filled.replace("$__rate_interval", "20s")
        })
        .collect()
}

#[tokio::test]
async fn a_prometheus_scrapes_the_metrics_and_has_data_for_each_query_of_the_dashboard() {
    let process = Process::start().await;
    let prometheus = Prometheus::start(process.address()).await;
    prometheus.wait_for("up{job=\"dayfly\"} == 1").await;
    let queries = queries();
    assert!(queries.len() >= 25, "{}", queries.len());
    for query in queries {
        assert!(!query.contains('$'), "{query}");
        prometheus.wait_for(&query).await;
    }
    // The alerts are evaluated without an error.
    let rules = prometheus.ask("/api/v1/rules").await.unwrap();
    let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap().clone();
    assert!(rules.len() >= 10, "{}", rules.len());
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule:#}");
    }
}

#[tokio::test]
async fn each_alert_fires_when_it_has_to() {
    let folder = tempfile::tempdir().unwrap();
    let cases = include_str!("alerts.yml").replace("RULES", &rules().display().to_string());
    let file = folder.path().join("alerts.yml");
    fs::write(&file, cases).unwrap();
    let ended = timeout(PATIENCE, prometheus("promtool").args(["test", "rules"]).arg(file).output());
    let ended = ended.await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{out}{err}");
}
