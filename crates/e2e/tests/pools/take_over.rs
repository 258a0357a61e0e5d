//! An orchestrator is killed, and the next one goes on with its pools.

use dayfly_e2e::lab::LabProcess;
use rustix::process::Signal;
use serde_json::json;

use crate::{Config, jobs, plain_pool, registered, wait_for_event_of};

#[tokio::test]
async fn a_killed_orchestrator_is_followed_by_one_that_takes_over_its_runners_and_its_scale_sets() {
    let lab = LabProcess::start();
    let config = Config::new(&lab, &(plain_pool("first", "min_idle = 1") + &plain_pool("second", "")));
    let mut killed = config.orchestrator();
    wait_for_event_of(&mut killed, "first", "listening");
    let idle = registered(&lab, "first").await;
    let folder = tempfile::tempdir().expect("a folder");
    let done = folder.path().join("done");
    let script = format!("\"until [ -e {} ]; do sleep 0.1; done\"", done.display());
    let run = lab.dispatch(&jobs("second", 1, &script)).await;
    wait_for_event_of(&mut killed, "second", "job_started");
    let busy = registered(&lab, "second").await;
    killed.signal(Signal::KILL);
    assert_eq!(killed.wait().status, None);

    let mut next = config.orchestrator();
    let mut taken_over = Vec::new();
    for _ in 0..2 {
        let taken = next.wait_for("a runner that goes on", |value| value["event"] == "vm_taken_over");
        taken_over.push((taken["pool"].clone(), taken["name"].clone(), taken["phase"].clone()));
    }
    taken_over.sort_by_key(|(pool, ..)| pool.to_string());
    let expected = [("first", &idle[0], "idle"), ("second", &busy[0], "busy")];
    assert_eq!(taken_over, expected.map(|(pool, name, phase)| (json!(pool), json!(name), json!(phase))));
    std::fs::write(done, "").expect("written");
    assert_eq!(lab.conclusion_of(run).await, "success", "{:?}", lab.logs_of(run).await);

    // The lab keeps a session for four minutes, so these jobs would wait if the dead process's sessions were not ended.
    for pool in ["first", "second"] {
        let run = lab.dispatch(&jobs(pool, 2, "echo done")).await;
        assert_eq!(lab.conclusion_of(run).await, "success", "{pool}");
    }
    next.signal(Signal::TERM);
    let ended = next.wait();
    ended.assert_status(143).assert_nothing_left();
    assert_eq!(ended.events_of("source_trouble"), Vec::<serde_json::Value>::new());
    assert_eq!(lab.registrations().await, Vec::<String>::new());
    lab.stop();
}
