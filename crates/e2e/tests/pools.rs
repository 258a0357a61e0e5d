//! Tests of pools from a configuration file, fed by a scale set of the lab: the real `dayfly`, its listener, and its runners.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dayfly_e2e::lab::LabProcess;
use dayfly_e2e::{Dayfly, Running, image};
use rustix::process::Signal;
use tempfile::TempDir;

/// Longest time that a pool may take to scale down on a loaded host.
const PATIENCE: Duration = Duration::from_secs(120);

/// A configuration file for a lab, and the file of the lab's token.
struct Config {
    folder: TempDir,
    path: PathBuf,
}

impl Config {
    fn new(lab: &LabProcess, pools: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let token = folder.path().join("token");
        fs::write(&token, &lab.token).expect("the token");
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("its mode");
        let (url, path) = (&lab.url, folder.path().join("dayfly.toml"));
        let text = format!("[forges.lab]\nurl = {url:?}\ntoken_file = {token:?}\n{pools}");
        fs::write(&path, text).expect("the file");
        Self { folder, path }
    }

    fn orchestrator(&self) -> Running {
        Dayfly::new(["orchestrator", "--json", "--config", &self.path.display().to_string()]).start()
    }
}

fn jobs(labels: &str, count: u32, script: &str) -> String {
    let numbers: Vec<String> = (1..=count).map(|number| number.to_string()).collect();
    format!(
        "on: push\njobs:\n  a:\n    runs-on: {labels}\n    strategy: {{ matrix: {{ n: [{}] }} }}\n    steps:\n      - run: {script}\n",
        numbers.join(", ")
    )
}

/// Waits until no runner is registered any more.
async fn scaled_down(lab: &LabProcess) {
    let began = Instant::now();
    while !lab.registrations().await.is_empty() {
        assert!(began.elapsed() < PATIENCE, "runners are left: {:?}", lab.registrations().await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Returns the most runners that ran at the same time, by the facts of an orchestrator.
fn most_at_once(facts: &[serde_json::Value]) -> usize {
    let (mut alive, mut most) = (0_usize, 0);
    for fact in facts {
        match fact["event"].as_str() {
            Some("loop_started") => alive += 1,
            Some("loop_ended") => alive -= 1,
            _ => {}
        }
        most = most.max(alive);
    }
    most
}

#[tokio::test]
async fn a_scale_set_brings_a_pool_up_from_zero_and_back_to_zero() {
    let lab = LabProcess::start();
    let config = Config::new(
        &lab,
        "[pools.plain]\nforge = 'lab'\nprincipal = 'o/r'\ndemand = 'scale-set'\nmax = 2\ndriver = 'process'\n\
         timeouts = { idle = '1s' }\n",
    );
    let mut orchestrator = config.orchestrator();
    let ready = orchestrator.wait_for_event("source_ready");
    assert_eq!((ready["pool"].as_str(), ready["source"].as_str()), (Some("plain"), Some("scale set")));
    assert_eq!(lab.registrations().await, Vec::<String>::new(), "no job, no runner");
    for labels in ["plain", "[self-hosted, PLAIN]"] {
        let run = lab.dispatch(&jobs(labels, 3, "echo done")).await;
        assert_eq!(lab.conclusion_of(run).await, "success", "{labels}");
    }
    scaled_down(&lab).await;
    orchestrator.signal(Signal::TERM);
    let ended = orchestrator.wait();
    ended.assert_status(143).assert_nothing_left();
    let facts = ended.events();
    let concluded: Vec<_> = facts.iter().filter(|fact| fact["event"] == "job_concluded").collect();
    assert_eq!(concluded.len(), 6, "the forge's word about each job: {concluded:?}");
    assert!(concluded.iter().all(|fact| fact["conclusion"] == "success" && fact["pool"] == "plain"));
    assert_eq!(most_at_once(&facts), 2);

    // The session was ended, so the next orchestrator does not wait for the forge to give it up.
    let mut next = config.orchestrator();
    let again = next.wait_for_event("source_ready");
    assert!(again["message"].as_str().is_some_and(|message| message.starts_with("found")), "{again}");
    let run = lab.dispatch(&jobs("plain", 1, "echo done")).await;
    assert_eq!(lab.conclusion_of(run).await, "success");
    next.signal(Signal::TERM);
    let ended = next.wait();
    ended.assert_status(143).assert_nothing_left();
    assert!(ended.events_of("source_trouble").is_empty(), "{:?}", ended.events_of("source_trouble"));
    assert!(config.folder.path().exists());
    lab.stop();
}

#[tokio::test]
async fn two_pools_of_forked_machines_share_a_host_and_one_keeps_a_runner_ready() {
    let lab = LabProcess::start();
    let image = image();
    let config = Config::new(
        &lab,
        &format!(
            "[pools.ready]\nforge = 'lab'\nprincipal = 'o/r'\ndemand = 'scale-set'\nmin_idle = 1\nmax = 2\n\
             accel = 'tcg'\nimage = '{image}'\nprefix = 'ready'\n\
             [pools.rare]\nforge = 'lab'\nprincipal = 'o/r'\ndemand = 'scale-set'\nmax = 2\naccel = 'tcg'\n\
             image = '{image}'\nprefix = 'rare'\ntimeouts = {{ idle = '1s' }}\n\
             [host]\nmax_machines = 2\n"
        ),
    );
    let mut orchestrator = config.orchestrator();
    let waiting = orchestrator.wait_for_event("listening");
    assert_eq!(waiting["pool"], "ready", "it waits before there is a job");
    let run = lab.dispatch(&jobs("rare", 2, "docker version")).await;
    assert_eq!(lab.conclusion_of(run).await, "success");
    let run = lab.dispatch(&jobs("ready", 1, "echo done")).await;
    assert_eq!(lab.conclusion_of(run).await, "success");
    orchestrator.signal(Signal::TERM);
    let ended = orchestrator.wait();
    ended.assert_status(143).assert_nothing_left();
    let facts = ended.events();
    assert_eq!(most_at_once(&facts), 2, "the host has room for two machines");
    let started = ended.events_of("vmm_started");
    assert!(started.iter().any(|fact| fact["from"] == "fork"), "{started:?}");
    assert!(started.iter().all(|fact| fact["name"].as_str().is_some_and(|name| {
        name.starts_with(&format!("{}-", fact["pool"].as_str().unwrap_or_default()))
    })));
    assert_eq!(lab.registrations().await, Vec::<String>::new());
    lab.stop();
}

#[tokio::test]
async fn the_lists_of_a_repositorys_jobs_bring_a_pool_up_and_it_takes_no_other_jobs() {
    let lab = LabProcess::start();
    let config = Config::new(
        &lab,
        "[pools.polled]\nforge = 'lab'\nprincipal = 'o/r'\ndemand = 'poll'\nlabels = ['polled']\nmax = 2\n\
         driver = 'process'\ntimeouts = { idle = '1s' }\n",
    );
    let other = lab.dispatch(&jobs("[self-hosted, another]", 1, "echo done")).await;
    let run = lab.dispatch(&jobs("[self-hosted, Polled]", 2, "echo done")).await;
    let mut orchestrator = config.orchestrator();
    let ready = orchestrator.wait_for_event("source_ready");
    assert_eq!((ready["pool"].as_str(), ready["source"].as_str()), (Some("polled"), Some("poll")));
    assert_eq!(lab.conclusion_of(run).await, "success");
    scaled_down(&lab).await;
    lab.cancel(other).await;
    orchestrator.signal(Signal::TERM);
    let ended = orchestrator.wait();
    ended.assert_status(143).assert_nothing_left();
    assert_eq!(ended.events_of("loop_started").len(), 2, "one runner for each of its two jobs");
    lab.stop();
}
