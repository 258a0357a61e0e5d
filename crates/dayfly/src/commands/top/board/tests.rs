use dayfly_fleet::fact::SeenJob;
use dayfly_fleet::instance::Serves;
use dayfly_fleet::orchestrator::Wait;
use dayfly_fleet::status::{PoolStatus, Status};
use dayfly_forge::RunnerScope;
use dayfly_vm::Flow;

use super::*;

/// The time of all boards of tests: 08:00:00 UTC.
const NOW_MS: u64 = 1_800_000_000_000;
const MIB: u64 = 1 << 20;

fn serves(pool: Option<&str>, prefix: &str) -> Serves {
    Serves {
        pool: pool.map(str::to_owned),
        forge: "https://api.github.com/".to_owned(),
        scope: RunnerScope::Organization("owner".into()),
        prefix: prefix.to_owned(),
        private_lab: false,
        labels: Vec::new(),
    }
}

fn a_loop(pool: Option<&str>, runner: &str, phase: Phase, age_s: u64) -> LoopStatus {
    LoopStatus {
        pool: pool.map(str::to_owned),
        phase,
        since_ms: NOW_MS - age_s * 1000,
        runner: Some(runner.to_owned()),
        vmm: Some(42),
        ..LoopStatus::default()
    }
}

fn job(id: u64, name: &str, repository: &str) -> SeenJob {
    let text = |text: &str| Some(text.to_owned());
    SeenJob { id, name: text(name), repository: text(repository), workflow: text("ci"), ..SeenJob::default() }
}

fn used(cpu_percent: u64, memory_mib: u64) -> Usage {
    let flow = |inward, outward| Some(Flow { inward, outward });
    Usage {
        cpu_percent: Some(cpu_percent),
        memory: Some(memory_mib * MIB),
        traffic: flow(3 * MIB, 120_000),
        disk: flow(0, 40 * MIB),
        space: Some(900 * MIB),
    }
}

/// Returns an orchestrator with three pools: one that is full, one that is paused, and one that rests.
fn orchestrator() -> Process {
    let mut status = Status { pid: 7, ..Status::default() };
    let compile = LoopStatus {
        taken: Some(job(39, "compile (x86_64, release)", "owner/tool")),
        job: Some("compile (x86_64, release)".to_owned()),
        ..a_loop(Some("build"), "1001-k3V9x0q", Phase::Busy, 190)
    };
    status.loops.insert(1001, compile);
    let unit = LoopStatus {
        taken: Some(job(40, "unit tests", "owner/site")),
        job: Some("unit tests".to_owned()),
        ..a_loop(Some("build"), "1002-aB3dE5f", Phase::Busy, 12)
    };
    status.loops.insert(1002, unit);
    let full = PoolStatus {
        name: Some("build".to_owned()),
        waiting: 4,
        wait: Some(Wait::Full { max: 2 }),
        ..PoolStatus::default()
    };
    status.pools.insert(1000, full);
    let paused = PoolStatus {
        name: Some("docs".to_owned()),
        state: PoolState::Paused,
        since_ms: NOW_MS - 300_000,
        ..PoolStatus::default()
    };
    status.pools.insert(2000, paused);
    let serves = ["build", "docs", "lint"].map(|name| serves(Some(name), "p"));
    Process { instance: "k3V9x0q1".to_owned(), serves: serves.to_vec(), status }
}

/// Returns a process of one loop, as `dayfly runner` is.
fn one_loop() -> Process {
    let mut status = Status { pid: 8, ..Status::default() };
    status.loops.insert(1, a_loop(None, "1-zzzzzzz", Phase::Idle, 7_200));
    Process { instance: "Qm3vT8xA".to_owned(), serves: vec![serves(None, "GH-runner")], status }
}

/// Returns the board of three machines, of one of which the kernel counts nothing.
pub(in super::super) fn few() -> Board {
    let usages = [("1001-k3V9x0q", used(187, 1300)), ("1002-aB3dE5f", used(4, 2900))];
    let usages = usages.map(|(runner, usage)| (runner.to_owned(), usage));
    board(&[orchestrator(), one_loop()], &usages.into(), NOW_MS)
}

/// Returns the board of so many machines of one pool, which has jobs of as many repositories.
pub(in super::super) fn many(count: u32) -> Board {
    let mut process = orchestrator();
    process.status.loops.clear();
    let mut usages = BTreeMap::new();
    for number in 0..count {
        let runner = format!("{}-aaaaaaa", 1001 + number);
        let busy = LoopStatus {
            taken: Some(job(number.into(), &format!("job {number}"), &format!("owner/repository-{number}"))),
            ..a_loop(Some("build"), &runner, Phase::Busy, u64::from(count - number) * 60)
        };
        usages.insert(runner, used(u64::from(number % 200), u64::from(number) * 20));
        process.status.loops.insert(1001 + number, busy);
    }
    board(&[process], &usages, NOW_MS)
}

/// Returns a board in which everything that a guest, a forge or a file can name is hostile.
pub(in super::super) fn hostile() -> Board {
    let text = "\u{1b}[2J\u{1b}]0;x\u{7}\u{202e}gnp.exe\u{2066}\u{200b}\n\r構築\t\u{9b}31m";
    let mut process = orchestrator();
    let busy = process.status.loops.get_mut(&1001).expect("a loop");
    busy.pool = Some(text.to_owned());
    busy.job = Some(text.repeat(1000));
    busy.taken = Some(job(1, text, text));
    let failing = process.status.loops.get_mut(&1002).expect("a loop");
    (failing.phase, failing.job, failing.taken) = (Phase::Pausing, None, None);
    failing.trouble = Some(text.to_owned());
    process.status.pools.get_mut(&1000).expect("a pool").name = Some(text.to_owned());
    process.serves[0].pool = Some(text.to_owned());
    board(&[process], &BTreeMap::new(), NOW_MS)
}

fn pool<'a>(board: &'a Board, name: &str) -> &'a PoolRow {
    board.pools.iter().find(|row| row.key.pool == name).expect("a pool")
}

#[test]
fn each_pool_of_the_configuration_has_a_row_and_its_reason_if_it_waits_or_is_stopped() {
    let board = few();
    let names: Vec<&str> = board.pools.iter().map(|row| row.key.pool.as_str()).collect();
    assert_eq!(names, ["build", "docs", "lint", "GH-runner"], "a pool of a command line has its prefix");
    let build = pool(&board, "build");
    assert_eq!((build.waiting, build.busy, build.machines), (4, 2, 2));
    assert!(build.reasons[0].text.contains("2 runners"), "{:?}", build.reasons);
    assert_eq!(pool(&board, "docs").reasons[0].reason, "paused");
    assert!(pool(&board, "lint").reasons.is_empty());
    assert_eq!(pool(&board, "GH-runner").idle, 1);
}

#[test]
fn a_pool_of_a_command_line_has_its_reason_too() {
    let mut process = one_loop();
    let waits = PoolStatus { waiting: 1, wait: Some(Wait::Turn), ..PoolStatus::default() };
    process.status.pools.insert(0, waits);
    let board = board(&[process], &BTreeMap::new(), NOW_MS);
    assert_eq!(board.pools.len(), 1);
    assert!(!board.pools[0].reasons.is_empty());
}

#[test]
fn a_machine_has_the_use_of_its_own_runner_and_none_once_it_is_gone() {
    let usages = BTreeMap::from([("1001-k3V9x0q".to_owned(), used(50, 10))]);
    let mut process = orchestrator();
    assert_eq!(board(&[process.clone()], &usages, NOW_MS).machines[0].usage, used(50, 10));
    assert_eq!(board(&[process.clone()], &usages, NOW_MS).machines[1].usage, Usage::default());
    process.status.loops.get_mut(&1001).expect("a loop").vmm = None;
    assert_eq!(board(&[process], &usages, NOW_MS).machines[0].usage, Usage::default());
}

#[test]
fn loops_that_have_ended_are_not_listed() {
    let mut process = orchestrator();
    process.status.loops.get_mut(&1001).expect("a loop").phase = Phase::Ended;
    let rows = board(&[process], &BTreeMap::new(), NOW_MS).machines;
    assert_eq!(rows.iter().map(|row| row.key.index).collect::<Vec<_>>(), [1002]);
}
