//! An orchestrator is killed, and the next one goes on with its pools.

use dayfly_e2e::lab::LabProcess;
use rustix::process::Signal;

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
    let of_first = wait_for_event_of(&mut next, "first", "vm_taken_over");
    assert_eq!(
        (of_first["name"].as_str(), of_first["phase"].as_str()),
        (Some(idle[0].as_str()), Some("idle"))
    );
    let of_second = wait_for_event_of(&mut next, "second", "vm_taken_over");
    assert_eq!(
        (of_second["name"].as_str(), of_second["phase"].as_str()),
        (Some(busy[0].as_str()), Some("busy"))
    );
    std::fs::write(done, "").expect("written");
    assert_eq!(lab.conclusion_of(run).await, "success");

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
