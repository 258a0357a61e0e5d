//! Orders of an administrator for a running orchestrator, and its reports to a service manager.

use std::fs;
use std::os::unix::net::UnixDatagram;

use dayfly_e2e::lab::LabProcess;
use dayfly_e2e::{Dayfly, Ended};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{Config, PATIENCE, jobs, plain_pool, registered, wait_for_event_of};

impl Config {
    /// Runs a command for the orchestrator of the file, e.g. `pause a`.
    fn order(&self, words: &[&str]) -> Ended {
        let path = self.path.display().to_string();
        Dayfly::new(words.iter().copied().chain(["--json", "--config", path.as_str()])).run()
    }

    /// Runs a command that succeeds, and returns the pools that it has changed, and those that were so already.
    fn changed(&self, words: &[&str]) -> (Value, Value) {
        let ended = self.order(words);
        ended.assert_status(0);
        let answer = ended.events().remove(0);
        assert_eq!(answer["outcome"], "steered", "{answer}");
        (answer["changed"].clone(), answer["already"].clone())
    }
}

/// Returns the rows of `dayfly ps` for a pool of an instance.
fn rows_of(instance: &Value, pool: &str) -> Vec<Value> {
    let ended = Dayfly::new(["ps", "--json"]).run();
    let rows: Vec<Value> = ended.events().remove(0).as_array().expect("rows").clone();
    rows.into_iter().filter(|row| row["instance"] == *instance && row["pool"] == pool).collect()
}

/// Waits until a pool has no registered runner.
async fn no_runner(lab: &LabProcess, pool: &str) {
    let began = std::time::Instant::now();
    while !registered(lab, pool).await.is_empty() {
        assert!(began.elapsed() < PATIENCE, "runners are left: {:?}", registered(lab, pool).await);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_paused_pool_takes_no_job_until_it_is_resumed_and_a_reload_does_not_resume_it() {
    let lab = LabProcess::start();
    let pools = |more: &str| plain_pool("calm", more) + &plain_pool("other", "");
    let config = Config::new(&lab, &pools("min_idle = 1"));
    let mut orchestrator = config.orchestrator();
    wait_for_event_of(&mut orchestrator, "calm", "listening");
    assert_eq!(config.changed(&["pause", "calm"]), (json!(["calm"]), json!([])));
    wait_for_event_of(&mut orchestrator, "calm", "pool_paused");
    no_runner(&lab, "calm").await;
    assert_eq!(config.changed(&["pause", "calm"]), (json!([]), json!(["calm"])), "a second time");
    let run = lab.dispatch(&jobs("calm", 1, "echo done")).await;
    let waits = |value: &Value| value["event"] == "jobs_waiting" && value["pool"] == "calm";
    orchestrator.wait_for("a job that waits", |value| waits(value) && value["count"] == 1);

    // Another label replaces the pool; its successor is paused too.
    config.write(&lab, &pools("min_idle = 1\nlabels = ['more']"));
    let (status, reloaded) = config.reload();
    assert_eq!((status, &reloaded["replaced"]), (Some(0), &json!(["calm"])), "{reloaded}");
    assert_eq!(reloaded["still_paused"], json!(["calm"]), "{reloaded}");
    wait_for_event_of(&mut orchestrator, "calm", "pool_paused");
    orchestrator.wait_for("its job at the successor", |value| waits(value) && value["count"] == 1);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let rows = rows_of(&reloaded["instance"], "calm");
    let paused = rows.iter().find(|row| row["loop"].is_null()).expect("a row of the pool");
    assert_eq!((&paused["pool_state"], &paused["waiting"]), (&json!("paused"), &json!(1)), "{rows:?}");
    assert_eq!(registered(&lab, "calm").await, Vec::<String>::new());

    assert_eq!(config.changed(&["resume", "calm"]), (json!(["calm"]), json!([])));
    assert_eq!(lab.conclusion_of(run).await, "success");
    let unknown = config.order(&["pause", "clam"]);
    unknown.assert_status(2);
    assert!(unknown.stderr.contains("did you mean calm?"), "{}", unknown.stderr);
    orchestrator.signal(Signal::TERM);
    orchestrator.wait().assert_status(143).assert_nothing_left();
    lab.stop();
}

#[tokio::test]
async fn a_drain_waits_for_the_last_job_and_the_orchestrator_ends_with_the_last_pool() {
    let lab = LabProcess::start();
    let config = Config::new(&lab, &(plain_pool("busy", "") + &plain_pool("idle", "min_idle = 1")));
    let mut orchestrator = config.orchestrator();
    wait_for_event_of(&mut orchestrator, "idle", "listening");
    let gate = config.folder.path().join("gate");
    let run = lab.dispatch(&jobs("busy", 1, &format!("until test -e {gate:?}; do sleep 0.1; done"))).await;
    wait_for_event_of(&mut orchestrator, "busy", "job_started");

    let late = config.order(&["drain", "busy", "--wait", "--timeout", "2s"]);
    late.assert_status(1);
    let timeout = late.events_of("timeout");
    assert_eq!((&timeout[0]["runners"], &timeout[0]["jobs"]), (&json!(1), &json!(1)), "{timeout:?}");
    fs::write(&gate, "").expect("the gate");
    let over = config.order(&["drain", "busy", "--wait"]);
    over.assert_status(0);
    assert_eq!(over.events()[0]["already"], json!(["busy"]));
    assert_eq!(over.events_of("drained").len(), 1, "{over:?}");
    assert_eq!(lab.conclusion_of(run).await, "success");
    assert_eq!(registered(&lab, "busy").await, Vec::<String>::new());

    // A reload does not bring the pool back, and an order does.
    let (_, reloaded) = config.reload();
    assert_eq!((&reloaded["still_drained"], &reloaded["added"]), (&json!(["busy"]), &json!([])));
    assert_eq!(config.changed(&["resume", "busy"]), (json!(["busy"]), json!([])));
    let run = lab.dispatch(&jobs("busy", 1, "echo done")).await;
    assert_eq!(lab.conclusion_of(run).await, "success");

    let end = config.order(&["drain", "--wait"]);
    end.assert_status(0);
    assert_eq!(end.events()[0]["ends"], true, "{end:?}");
    assert_eq!(end.events_of("drained").len(), 1);
    orchestrator.wait().assert_status(0).assert_nothing_left();
    assert_eq!(lab.registrations().await, Vec::<String>::new());
    config.order(&["drain"]).assert_status(3);
    lab.stop();
}

#[tokio::test]
async fn the_numbers_of_an_administrator_count_until_the_next_reload() {
    let lab = LabProcess::start();
    let config = Config::new(&lab, &plain_pool("sized", "min_idle = 0"));
    let mut orchestrator = config.orchestrator();
    wait_for_event_of(&mut orchestrator, "sized", "source_ready");
    assert_eq!(config.changed(&["scale", "sized", "--min-idle", "2"]), (json!(["sized"]), json!([])));
    for _ in 0..2 {
        wait_for_event_of(&mut orchestrator, "sized", "listening");
    }
    assert_eq!(config.changed(&["scale", "sized", "--min-idle", "2"]), (json!([]), json!(["sized"])));
    config.order(&["scale", "sized", "--max", "1"]).assert_status(2);
    let (_, reloaded) = config.reload();
    assert_eq!(reloaded["adjusted"], json!(["sized"]), "{reloaded}");
    orchestrator.signal(Signal::TERM);
    orchestrator.wait().assert_status(143).assert_nothing_left();
    lab.stop();
}

#[tokio::test]
async fn a_service_manager_hears_of_the_start_a_reload_and_the_stop_and_that_the_loop_lives() {
    let lab = LabProcess::start();
    let config = Config::new(&lab, &plain_pool("served", ""));
    let path = config.folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let wait_for = |wanted: &str| {
        let mut bytes = [0; 512];
        loop {
            let length = socket.recv(&mut bytes).unwrap_or_else(|error| panic!("no {wanted}: {error}"));
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if text.starts_with(wanted) {
                return text;
            }
        }
    };
    let orchestrator = config.command().env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000000").start();
    wait_for("READY=1");
    for _ in 0..3 {
        wait_for("WATCHDOG=1");
    }
    orchestrator.signal(Signal::HUP);
    let reloading = wait_for("RELOADING=1");
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    wait_for("READY=1");
    wait_for("WATCHDOG=1");
    orchestrator.signal(Signal::TERM);
    wait_for("STOPPING=1");
    orchestrator.wait().assert_status(143).assert_nothing_left();
    lab.stop();
}
