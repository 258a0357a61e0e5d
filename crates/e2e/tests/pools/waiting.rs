//! A forge that does not answer at the start, beside one that does.

use dayfly_e2e::Dayfly;
use dayfly_e2e::lab::LabProcess;
use rustix::process::Signal;
use serde_json::json;

use crate::{Config, jobs, plain_pool};

#[tokio::test]
async fn a_forge_that_does_not_answer_holds_up_its_own_pools_only_and_they_start_as_soon_as_it_does() {
    let data = tempfile::tempdir().expect("a folder");
    let before = LabProcess::serve("o/late", data.path(), "127.0.0.1:0");
    let (url, token) = (before.url.clone(), before.token.clone());
    before.stop();
    let lab = LabProcess::start();
    let late = format!(
        "[forges.late]\nurl = {url:?}\ntoken_env = 'LATE_TOKEN'\n\
         [pools.late]\nforge = 'late'\nprincipal = 'o/late'\ndemand = 'scale-set'\nmax = 1\ndriver = 'process'\n"
    );
    let pools = |more: &str| plain_pool("first", more) + &late;
    let config = Config::new(&lab, &pools(""));
    let mut orchestrator = config.command().env("LATE_TOKEN", &token).start();
    orchestrator.wait_for_event("source_ready");
    let run = lab.dispatch(&jobs("first", 1, "echo done")).await;
    assert_eq!(lab.conclusion_of(run).await, "success");

    // It is seen by those who ask.
    let why = Dayfly::new(["why", "late"]).run();
    why.assert_status(0);
    assert!(why.stdout.contains("The forge cannot be used for the pool late since"), "{}", why.stdout);
    assert_eq!(pools_without_forge(), ["late"]);

    // A reload, and the orders of an administrator, know the pool that waits.
    config.write(&lab, &pools("weight = 7"));
    let (status, answer) = config.reload();
    assert_eq!((status, &answer["adjusted"]), (Some(0), &json!(["first"])), "{answer}");
    assert_eq!(answer["still_waiting"], json!(["late"]), "{answer}");
    let path = config.path.display().to_string();
    let refused = Dayfly::new(["pause", "late", "--config", &path]).run();
    refused.assert_status(2);
    assert!(
        refused.stderr.contains("late has not started, because its forge does not answer"),
        "{}",
        refused.stderr
    );

    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let forge = LabProcess::serve("o/late", data.path(), address);
    let ready = orchestrator.wait_for_event("source_ready");
    assert_eq!(ready["pool"], "late");
    let run = forge.dispatch(&jobs("late", 1, "echo done")).await;
    assert_eq!(forge.conclusion_of(run).await, "success");
    assert_eq!(pools_without_forge(), Vec::<String>::new());
    orchestrator.signal(Signal::TERM);
    let ended = orchestrator.wait();
    ended.assert_status(143).assert_nothing_left();
    assert!(ended.stderr.contains("the pool late waits for its forge"), "{}", ended.stderr);
    let lost = ended.events_of("forge_lost");
    assert!(!lost.is_empty(), "it is a fact");
    assert!(lost.iter().all(|fact| fact["pool"] == "late" && fact["cause"] == "unreachable"), "{lost:?}");
    assert_eq!(ended.events_of("forge_back").len(), 1);
    assert!(config.folder.path().exists());
    forge.stop();
    lab.stop();
}

/// Returns the names of the pools that `dayfly ps` lists as without their forge.
fn pools_without_forge() -> Vec<String> {
    let listed = Dayfly::new(["ps", "--json"]).run().events().remove(0);
    let rows = listed.as_array().expect("a list").iter().filter(|row| row["forge_lost"] == true);
    rows.map(|row| row["pool"].as_str().expect("a name").to_owned()).collect()
}
