//! Tests of forks one after another, and of many at once: each starts as a fork with its own identity, and leaves nothing
//! behind.

use std::sync::Arc;

use dayfly_e2e::machines::Stage;
use dayfly_e2e::prepared;
use dayfly_vm::{StartedFrom, TemplateSettings};
use tokio::task::JoinSet;

use crate::footprint::{Footprint, memory_kib};
use crate::{alone, stage, until};

/// Number of machines that run before anything is compared, so that threads, buffers and rules that stay exist by then.
const BEFORE: usize = 5;
/// Memory that the process may have gained at the end, in KiB, because of fragmentation and of what the test itself stores.
/// The events and the output of one machine alone are more than a thousandth of it.
const GROWTH_MAX_KIB: u64 = 16 * 1024;

/// Runs a machine from its start to the removal of its last file, and asserts that it is a fork with its own name.
async fn fork(stage: &Stage, name: &str) -> StartedFrom {
    let said = stage.say(name, "echo hostname=$(hostname)").await;
    assert_eq!(said.value("hostname"), name);
    let [from @ (StartedFrom::Fork(_) | StartedFrom::Spare(_))] = &said.from[..] else {
        panic!("{name} is no fork: {said:#?}")
    };
    assert_eq!(said.cold, Vec::<String>::new());
    std::fs::remove_dir_all(stage.folder().join(name)).expect("its logs");
    from.clone()
}

/// Runs `count` forks at once.
async fn burst(stage: &Arc<Stage>, name: &str, count: usize) -> Vec<StartedFrom> {
    let mut forks = JoinSet::new();
    for number in 0..count {
        let (stage, name) = (Arc::clone(stage), format!("{name}-{number}"));
        forks.spawn(async move { fork(&stage, &name).await });
    }
    forks.join_all().await
}

fn assert_no_growth(before_kib: u64) {
    let after_kib = memory_kib();
    assert!(after_kib <= before_kib + GROWTH_MAX_KIB, "{before_kib} KiB before, {after_kib} KiB after");
}

fn folders_in(stage: &Stage) -> Vec<String> {
    let entries = std::fs::read_dir(stage.folder()).expect("read").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

async fn in_a_row(count: usize) {
    let _alone = alone().await;
    let stage = stage(&prepared("DAYFLY_STATE"), TemplateSettings::default()).await;
    for number in 0..BEFORE {
        fork(&stage, &format!("before-{number}")).await;
    }
    let (before, before_kib) = (Footprint::now(), memory_kib());
    for number in 0..count {
        fork(&stage, &format!("row-{number}")).await;
    }
    before.assert_back().await;
    assert_no_growth(before_kib);
    assert_eq!(folders_in(&stage), Vec::<String>::new());
}

/// Runs forks in bursts with two spares, which two machines of each burst are started from.
async fn in_bursts(bursts: usize, of: usize) {
    let _alone = alone().await;
    let mut stage = stage(&prepared("DAYFLY_STATE"), TemplateSettings::default()).await;
    for number in 0..BEFORE {
        fork(&stage, &format!("before-{number}")).await;
    }
    let before = Footprint::now();
    stage.machine = stage.machine_with(Some(TemplateSettings { spares: 2, ..TemplateSettings::default() }));
    let stage = Arc::new(stage);
    burst(&stage, "first", of).await;
    let before_kib = memory_kib();
    for number in 0..bursts {
        until("two spares are ready", || stage.host.spares.ready() == 2).await;
        let from = burst(&stage, &format!("burst-{number}"), of).await;
        let spares = from.iter().filter(|from| matches!(from, StartedFrom::Spare(_))).count();
        assert_eq!(spares, 2, "{from:?}");
    }
    until("two spares are ready", || stage.host.spares.ready() == 2).await;
    stage.host.spares.end().await;
    before.assert_back().await;
    assert_no_growth(before_kib);
    assert_eq!(folders_in(&stage), ["spares"]);
    assert_eq!(std::fs::read_dir(stage.folder().join("spares")).map_or(0, Iterator::count), 0);
}

#[tokio::test]
async fn twenty_forks_in_a_row_leave_nothing() {
    in_a_row(20).await;
}

#[tokio::test]
#[ignore = "kept for make test-full"]
async fn five_hundred_forks_in_a_row_leave_nothing() {
    in_a_row(500).await;
}

#[tokio::test]
async fn a_burst_of_ten_forks_loses_none_and_leaves_nothing() {
    in_bursts(1, 10).await;
}

#[tokio::test]
#[ignore = "kept for make test-full"]
async fn two_hundred_forks_in_bursts_lose_none_and_leave_nothing() {
    in_bursts(8, 25).await;
}
