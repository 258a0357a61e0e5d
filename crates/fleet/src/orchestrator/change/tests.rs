use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dayfly_forge::{ApiBase, Forge, RunnerScope};
use dayfly_host::retry::RUNNER;
use dayfly_image::PullPolicy;
use dayfly_vm::{AccelChoice, Driver, KrunSettings, Launcher, Machine, ProcessSettings, VmHost};
use tokio::sync::mpsc;

use super::super::{CHANGES_MAX, FailureRule, Heartbeat, Orchestration, orchestrate};
use super::*;
use crate::demand::{MinIdleSchedule, Scale, Source};
use crate::fact::FactRecord;
use crate::pool::{FetchSpec, Group, Limits, MachineSpec, Pool, PoolSpec, Registrar};
use crate::reaper::Leftovers;
use crate::scratch::MACHINE_MIN_MIB;
use crate::scratch::tests::filled;

#[test]
fn a_pool_gets_the_numbers_that_no_other_pool_has() {
    assert_eq!(free_range(&[]), 0);
    assert_eq!(free_range(&[0, 1000]), 2000);
    assert_eq!(free_range(&[2000, 0]), 1000);
}

const SCALE: Scale = Scale { min_idle: 0, max: 3, idle_timeout: Duration::from_secs(1) };

/// Returns a pool of plain processes that registers its runners in the repository o/r, and tries each thing once.
pub(crate) fn pool_of_processes(
    forge: Forge,
    (app, guest_binary): (PathBuf, PathBuf),
    runs: PathBuf,
) -> Pool {
    let scope = RunnerScope::Repository { owner: "o".to_owned(), name: "r".to_owned() };
    let spec = PoolSpec::new(forge.base().clone(), scope, machine_spec());
    let spec = PoolSpec { repeat: NonZeroU32::new(1), user: String::new(), ..spec };
    let driver = Driver::Process(ProcessSettings { app, in_use: None });
    let machine = Machine { cpus: 1, memory_mib: 512, boot_limit: None, guest_binary, driver };
    Pool { labels: vec!["plain".to_owned()], ..pool(spec, forge, machine, runs) }
}

fn pool(spec: PoolSpec, forge: Forge, machine: Machine, runs: PathBuf) -> Pool {
    Pool {
        spec: Arc::new(spec),
        forge,
        registrar: Registrar::Rest,
        is_lab: true,
        group: Group::default_group(),
        labels: Vec::new(),
        machine,
        secret: None,
        runs,
        leftovers: Leftovers::default(),
        limits: Limits::default(),
    }
}

fn machine_spec() -> MachineSpec {
    MachineSpec {
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
        require: Vec::new(),
        cold: true,
        spares: 0,
        warm_up: None,
    }
}

/// Returns a pool without jobs, and with a schedule as its source, which wants this number of idle runners.
fn idle_pool(name: &str, min_idle: u32, state: &Path) -> PoolChange {
    let base = ApiBase::from_host_or_url("http://127.0.0.1:1").expect("an address");
    let spec = PoolSpec::new(base.clone(), RunnerScope::Organization("o".to_owned()), machine_spec());
    let demand = Demand::Scaled(Scale { min_idle, ..SCALE });
    let spec = PoolSpec { name: Some(name.to_owned()), demand, ..spec };
    let (schedule, _) = MinIdleSchedule::new(Box::new(move || min_idle));
    let driver = Driver::Krunvm(KrunSettings { image: "x".to_owned() });
    let forge = Forge::new(base, "token").expect("a client");
    let machine =
        Machine { cpus: 1, memory_mib: 512, boot_limit: None, guest_binary: PathBuf::from("/x"), driver };
    PoolChange::Add(Box::new(PoolRun {
        pool: pool(spec, forge, machine, state.join("runs")),
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

/// An orchestrator that runs without pools at first.
struct Stage {
    state: tempfile::TempDir,
    changes: mpsc::Sender<Changes>,
    facts: mpsc::Receiver<FactRecord>,
    stop: StopSender,
    running: tokio::task::JoinHandle<()>,
}

impl Stage {
    fn new() -> Self {
        Self::with_heartbeat(None)
    }

    fn with_heartbeat(heartbeat: Option<Heartbeat>) -> Self {
        let state = tempfile::tempdir().expect("a folder");
        let launcher = Launcher { program: "/nonexistent".into(), args: Vec::new() };
        let host = VmHost::new(state.path().to_owned(), launcher);
        let (sink, facts) = crate::stream::channel();
        let (stop_sender, stop) = crate::stop::channel();
        let (changes, receiver) = mpsc::channel(CHANGES_MAX);
        let orchestration = Orchestration {
            pools: Vec::new(),
            budget: Budget::default(),
            environment: state.path().join("environment"),
            changes: Some(receiver),
            ends_with_demand: false,
            heartbeat,
        };
        let running = tokio::spawn(async move { orchestrate(orchestration, &host, &sink, None, stop).await });
        Self { state, changes, facts, stop: stop_sender, running }
    }

    fn add(&self, name: &str) -> PoolChange {
        idle_pool(name, 0, self.state.path())
    }

    async fn change(&self, changes: Changes) {
        self.changes.send(changes).await.expect("it runs");
    }

    /// Waits for the next fact, which is this one about this pool.
    async fn expect(&mut self, name: &str, first: u32, fact: Fact) {
        assert_eq!(next_of(&mut self.facts).await, (name.to_owned(), first, fact));
    }

    /// Waits for the orchestrator's end.
    async fn ended(self) {
        tokio::time::timeout(Duration::from_secs(60), self.running)
            .await
            .expect("in time")
            .expect("no panic");
        assert!(self.changes.send(Vec::new()).await.is_err(), "it has ended");
    }
}

#[tokio::test]
async fn pools_come_and_go_until_a_stop_order() {
    let mut stage = Stage::new();
    let drain = |name: &str| PoolChange::Drain { pool: name.to_owned() };
    stage.change(vec![stage.add("a"), stage.add("b")]).await;
    stage.expect("a", 0, Fact::PoolAdded).await;
    stage.expect("b", 1000, Fact::PoolAdded).await;
    // A pool that drains has its numbers until its end, also if another one has its name by then.
    stage.change(vec![drain("a"), stage.add("a"), drain("nothing")]).await;
    stage.expect("a", 0, Fact::PoolDraining).await;
    stage.expect("a", 2000, Fact::PoolAdded).await;
    stage.expect("a", 0, Fact::PoolDrained).await;
    let adjust = PoolChange::Adjust {
        pool: "a".to_owned(),
        demand: Demand::Scaled(SCALE),
        weight: 2,
        scratch_mib: None,
    };
    stage.change(vec![adjust, stage.add("c")]).await;
    stage.expect("a", 2000, Fact::PoolAdjusted).await;
    stage.expect("c", 0, Fact::PoolAdded).await;
    stage.stop.order(StopOrder::Gently);
    stage.ended().await;
}

#[tokio::test]
async fn a_pool_that_is_paused_twice_says_so_once_and_its_end_needs_no_resumption() {
    let mut stage = Stage::new();
    let pause = |name: &str| PoolChange::Pause { pool: name.to_owned() };
    let resume = |name: &str| PoolChange::Resume { pool: name.to_owned() };
    stage.change(vec![stage.add("a"), stage.add("b"), pause("a"), pause("a"), pause("nothing")]).await;
    stage.expect("a", 0, Fact::PoolAdded).await;
    stage.expect("b", 1000, Fact::PoolAdded).await;
    stage.expect("a", 0, Fact::PoolPaused).await;
    stage.change(vec![resume("b"), resume("a"), resume("a"), pause("b")]).await;
    stage.expect("a", 0, Fact::PoolResumed).await;
    stage.expect("b", 1000, Fact::PoolPaused).await;
    stage.change(vec![PoolChange::Drain { pool: "b".to_owned() }]).await;
    stage.expect("b", 1000, Fact::PoolDraining).await;
    stage.expect("b", 1000, Fact::PoolDrained).await;
    stage.stop.order(StopOrder::Gently);
    stage.ended().await;
}

#[tokio::test]
async fn an_end_drains_all_pools_and_then_the_orchestrator() {
    let mut stage = Stage::new();
    stage.change(vec![stage.add("a"), stage.add("b"), PoolChange::End]).await;
    stage.expect("a", 0, Fact::PoolAdded).await;
    stage.expect("b", 1000, Fact::PoolAdded).await;
    stage.expect("a", 0, Fact::PoolDraining).await;
    stage.expect("b", 1000, Fact::PoolDraining).await;
    stage.expect("a", 0, Fact::PoolDrained).await;
    stage.expect("b", 1000, Fact::PoolDrained).await;
    stage.ended().await;
}

#[tokio::test]
async fn a_machine_that_the_scratch_space_has_no_room_for_starts_once_the_limit_is_raised() {
    let mut stage = Stage::new();
    filled(&stage.state.path().join("instances/other/runs/0-aaaaaaa"), 3);
    let limit = |mib| PoolChange::Budget(Budget { scratch_mib: Some(mib), ..Budget::default() });
    stage.change(vec![limit(MACHINE_MIN_MIB), idle_pool("a", 1, stage.state.path())]).await;
    stage.expect("a", 0, Fact::PoolAdded).await;
    for limit_mib in [MACHINE_MIN_MIB, 100] {
        let (_, _, told) = next_of(&mut stage.facts).await;
        let Fact::ScratchInUse { scratch: Some(scratch) } = &told else { panic!("{told:?}") };
        assert!(scratch.used_mib >= 3 && scratch.limit_mib == Some(limit_mib), "{told:?}");
        stage.change(vec![limit(100)]).await;
    }
    stage.expect("a", 1, Fact::LoopStarted { for_job: None }).await;
    stage.stop.order(StopOrder::Gently);
    stage.ended().await;
}

#[tokio::test]
async fn an_orchestrator_without_anything_to_do_still_gives_signs_of_life_until_its_end() {
    let (sender, mut beats) = mpsc::unbounded_channel();
    let beat = move || {
        let _ = sender.send(());
    };
    let mut stage = Stage::with_heartbeat(Some(Heartbeat::new(Duration::from_millis(5), beat)));
    for _ in 0..5 {
        let beaten = tokio::time::timeout(Duration::from_secs(60), beats.recv()).await;
        assert_eq!(beaten.expect("in time"), Some(()));
    }
    stage.change(vec![stage.add("a"), PoolChange::End]).await;
    for fact in [Fact::PoolAdded, Fact::PoolDraining, Fact::PoolDrained] {
        stage.expect("a", 0, fact).await;
    }
    stage.ended().await;
    while beats.recv().await.is_some() {}
}
