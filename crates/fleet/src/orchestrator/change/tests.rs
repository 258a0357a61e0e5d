use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dayfly_forge::{ApiBase, Forge, RunnerScope};
use dayfly_host::retry::RUNNER;
use dayfly_image::PullPolicy;
use dayfly_vm::{AccelChoice, Driver, KrunSettings, Launcher, Machine, VmHost};
use tokio::sync::mpsc;

use super::super::{CHANGES_MAX, FailureRule, Orchestration, orchestrate};
use super::*;
use crate::demand::{MinIdleSchedule, Scale, Source};
use crate::fact::FactRecord;
use crate::pool::{FetchSpec, Group, Limits, MachineSpec, Pool, PoolSpec, Registrar};
use crate::reaper::Leftovers;

#[test]
fn a_pool_gets_the_numbers_that_no_other_pool_has() {
    assert_eq!(free_range(&[]), 0);
    assert_eq!(free_range(&[0, 1000]), 2000);
    assert_eq!(free_range(&[2000, 0]), 1000);
}

const SCALE: Scale = Scale { min_idle: 0, max: 3, idle_timeout: Duration::from_secs(1) };

/// Returns a pool without jobs, and with a schedule as its source.
fn idle_pool(name: &str, state: &Path) -> PoolChange {
    let base = ApiBase::from_host_or_url("http://127.0.0.1:1").expect("an address");
    let machine = MachineSpec {
        driver: None,
        image: None,
        fetch: FetchSpec { pull: PullPolicy::Never, add_tools: false },
        max_age: None,
        cpus: 1,
        memory_mib: 512,
        disk_gib: 1,
        boot_limit: None,
        accel: AccelChoice::Auto,
        cpu_model: None,
        cold: true,
        spares: 0,
        warm_up: None,
    };
    let spec = PoolSpec::new(base.clone(), RunnerScope::Organization("o".to_owned()), machine);
    let spec = PoolSpec { name: Some(name.to_owned()), demand: Demand::Scaled(SCALE), ..spec };
    let (schedule, _) = MinIdleSchedule::new(Box::new(|| 0));
    let driver = Driver::Krunvm(KrunSettings { image: "x".to_owned() });
    PoolChange::Add(Box::new(PoolRun {
        pool: Pool {
            spec: Arc::new(spec),
            forge: Forge::new(base, "token").expect("a client"),
            registrar: Registrar::Rest,
            is_lab: true,
            group: Group::default_group(),
            labels: Vec::new(),
            machine: Machine {
                cpus: 1,
                memory_mib: 512,
                boot_limit: None,
                guest_binary: PathBuf::from("/x"),
                driver,
            },
            secret: None,
            runs: state.join("runs"),
            leftovers: Leftovers::default(),
            limits: Limits::default(),
        },
        rule: FailureRule { retry: RUNNER, is_strict: false },
        sources: vec![Source::Schedule(schedule)],
        inherited: Vec::new(),
    }))
}

/// Returns the next fact of a pool, as the pool, its first number, and the fact.
async fn next_of(facts: &mut mpsc::Receiver<FactRecord>) -> (String, u32, Fact) {
    let record = tokio::time::timeout(Duration::from_secs(60), facts.recv()).await;
    let record = record.expect("in time").expect("a fact");
    (record.pool.unwrap_or_default(), record.loop_index, record.fact)
}

#[tokio::test]
async fn pools_come_and_go_until_a_stop_order() {
    let state = tempfile::tempdir().expect("a folder");
    let launcher = Launcher { program: "/nonexistent".into(), args: Vec::new() };
    let host = VmHost::new(state.path().to_owned(), launcher);
    let (sink, mut facts) = crate::stream::channel();
    let (stop_sender, stop) = crate::stop::channel();
    let (changes, receiver) = mpsc::channel(CHANGES_MAX);
    let orchestration = Orchestration {
        pools: Vec::new(),
        budget: Budget::default(),
        environment: state.path().join("environment"),
        changes: Some(receiver),
    };
    let running = tokio::spawn(async move { orchestrate(orchestration, &host, &sink, None, stop).await });
    let mut expect = async |name: &str, first, fact| {
        assert_eq!(next_of(&mut facts).await, (name.to_owned(), first, fact));
    };
    let drain = |name: &str| PoolChange::Drain { pool: name.to_owned() };
    let add = |name: &str| idle_pool(name, state.path());

    changes.send(vec![add("a"), add("b")]).await.expect("it runs");
    expect("a", 0, Fact::PoolAdded).await;
    expect("b", 1000, Fact::PoolAdded).await;
    // A pool that drains has its numbers until its end, also if another one has its name by then.
    changes.send(vec![drain("a"), add("a"), drain("nothing")]).await.expect("it runs");
    expect("a", 0, Fact::PoolDraining).await;
    expect("a", 2000, Fact::PoolAdded).await;
    expect("a", 0, Fact::PoolDrained).await;
    let adjust = PoolChange::Adjust { pool: "a".to_owned(), demand: Demand::Scaled(SCALE), weight: 2 };
    changes.send(vec![adjust, add("c")]).await.expect("it runs");
    expect("a", 2000, Fact::PoolAdjusted).await;
    expect("c", 0, Fact::PoolAdded).await;

    stop_sender.order(StopOrder::Gently);
    running.await.expect("no panic");
    assert!(changes.send(Vec::new()).await.is_err(), "it has ended");
}
