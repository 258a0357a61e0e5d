//! A test with a lab, a runner of plain processes, and a loop whose task panics: the test starts that task itself.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_forge::{ApiBase, Forge};
use dayfly_guest::runner_app::JobResult;
use dayfly_host::retry::RUNNER;
use dayfly_lab::{Lab, LabSettings, Limits};
use dayfly_vm::{Launcher, VmHost};
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::super::tests::pool_of_processes;
use super::super::{Budget, FailureRule, Orchestration, Orchestrator, PoolRun};
use super::*;
use crate::fact::{FactRecord, RegistrationEnd};
use crate::orchestrator::slots::Purpose;
use crate::runner_loop::run_slot;
use crate::slot::Slot;
use crate::state::Phase;
use crate::stop::StopSender;

/// Longest wait for a fact, far more than any takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A lab, and an orchestrator with one pool of one runner, whose loop's task panics on demand.
struct Stage {
    folder: tempfile::TempDir,
    facts: mpsc::Receiver<FactRecord>,
    panic: Option<oneshot::Sender<()>>,
    stop: StopSender,
    running: tokio::task::JoinHandle<()>,
    _lab: JoinSet<()>,
}

impl Stage {
    /// Starts an orchestrator whose runner app is this script. `GO` in it is the path of the file that [`Stage::go`] creates.
    async fn new(app: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (forge, lab) = lab(&folder.path().join("lab")).await;
        let script = folder.path().join("app.sh");
        fs::write(&script, app.replace("GO", &go(folder.path()).display().to_string())).expect("a script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its mode");
        let runs = folder.path().join("instance/runs");
        let pool = pool_of_processes(forge, (script, guest_binary()), runs);
        let launcher = Launcher { program: "/nonexistent".into(), args: Vec::new() };
        let host = VmHost::new(folder.path().to_owned(), launcher);
        let (sink, facts) = crate::stream::channel();
        let (stop_sender, stop) = crate::stop::channel();
        let rule = FailureRule { retry: RUNNER, is_strict: false };
        let orchestration = Orchestration {
            pools: vec![PoolRun { pool, rule, sources: Vec::new(), inherited: Vec::new() }],
            budget: Budget::default(),
            environment: folder.path().join("environment"),
            changes: None,
            ends_with_demand: true,
            heartbeat: None,
        };
        let mut orchestrator = Orchestrator::new(orchestration, &host, &sink, None, stop);
        let (panic, on) = oneshot::channel();
        start_task_that_panics(&mut orchestrator, on);
        let running = tokio::spawn(async move { orchestrator.run().await });
        Self { folder, facts, panic: Some(panic), stop: stop_sender, running, _lab: lab }
    }

    fn panic(&mut self) {
        self.panic.take().expect("once").send(()).expect("its task runs");
    }

    fn go(&self) {
        fs::write(go(self.folder.path()), "").expect("written");
    }

    /// Returns the facts up to the first one that is wanted.
    async fn facts_until(&mut self, wanted: impl Fn(&Fact) -> bool) -> Vec<FactRecord> {
        let mut seen = Vec::new();
        loop {
            let next = tokio::time::timeout(PATIENCE, self.facts.recv()).await;
            let record = next.unwrap_or_else(|_| panic!("not in time, after {seen:#?}")).expect("a fact");
            let is_last = wanted(&record.fact);
            seen.push(record);
            if is_last {
                return seen;
            }
        }
    }

    /// Waits for the orchestrator's end, and checks that nothing is left.
    async fn ended(self) {
        tokio::time::timeout(PATIENCE, self.running).await.expect("in time").expect("no panic");
        let runs = self.folder.path().join("instance/runs");
        assert_eq!(fs::read_dir(runs).expect("a folder").count(), 0);
    }
}

/// Starts the only slot as the orchestrator does, except that its task panics on demand.
fn start_task_that_panics(orchestrator: &mut Orchestrator, on: oneshot::Receiver<()>) {
    let pool = &mut orchestrator.pools[0];
    pool.slots.started(1, Purpose::Place, true, Instant::now());
    let running = RunningSlot::new(1, None);
    let slot = Slot::new(&pool.pool, 1, pool.environment_of(&orchestrator.environment, 1));
    let (pool, host, stop) = (pool.pool.clone(), orchestrator.host.clone(), running.stop());
    let facts = orchestrator.facts.noting_lines(&running.last_line);
    orchestrator.tasks.spawn(running, async move {
        tokio::select! {
            end = run_slot((&pool, &slot, &host), None, &facts, stop) => end,
            end = panic_on(on) => end,
        }
    });
}

/// Panics while it is polled, so that the panic drops everything that its task holds.
async fn panic_on(order: oneshot::Receiver<()>) -> LoopEnd {
    let _ = order.await;
    panic!("a bug, on purpose")
}

/// Returns the path of the file that a runner app waits for.
fn go(folder: &Path) -> PathBuf {
    folder.join("go")
}

/// Starts a lab, which ends with the tasks, and returns a client of it.
pub(crate) async fn lab(folder: &Path) -> (Forge, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let limits = Limits { keys_ready: 1, ..Limits::default() };
    let settings = LabSettings { limits, runner_url: Some(url.clone()), ..LabSettings::new(folder) };
    let lab = Lab::open(settings).expect("a lab");
    let base = ApiBase::from_host_or_url(&url).expect("an address");
    let forge = Forge::new(base, lab.token().expose_secret()).expect("a client");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { lab.serve(listener, std::future::pending()).await.expect("served") });
    (forge, tasks)
}

/// Returns the path of the guest binary that `make build` creates.
fn guest_binary() -> PathBuf {
    let here = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release/dayfly");
    let dayfly = std::env::var_os("DAYFLY_BINARY").map_or_else(here, PathBuf::from);
    let guest = dayfly.with_file_name("dayfly-guest");
    assert!(guest.is_file(), "{} is not there: `make build` makes it", guest.display());
    guest
}

fn lines(facts: &[FactRecord]) -> Vec<(u64, &str)> {
    facts
        .iter()
        .filter_map(|record| match &record.fact {
            Fact::Line { number, text, .. } => Some((*number, text.as_str())),
            _ => None,
        })
        .collect()
}

fn is_line(text: &str) -> impl Fn(&Fact) -> bool {
    move |fact| matches!(fact, Fact::Line { text: line, .. } if line.ends_with(text))
}

fn vmm(facts: &[FactRecord]) -> Option<u32> {
    facts.iter().find_map(|record| match record.fact {
        Fact::VmmStarted { pid, .. } => Some(pid),
        _ => None,
    })
}

#[tokio::test]
async fn a_loop_whose_task_panics_loses_no_job_and_no_line() {
    let mut stage = Stage::new(
        "#!/bin/sh\necho 'Listening for Jobs'\necho 'Running job: build'\necho before\n\
         until [ -e GO ]; do sleep 0.02; done\necho after\necho 'Job build completed with result: Succeeded'\n",
    )
    .await;
    let mut facts = stage.facts_until(is_line("before")).await;
    stage.panic();
    let again = stage.facts_until(|fact| matches!(fact, Fact::VmTakenOver { .. })).await;
    let warnings: Vec<_> = again.iter().map(|record| &record.fact).collect();
    assert!(
        matches!(&warnings[..], [Fact::Warning { message }, Fact::VmTakenOver { .. }]
        if message.contains("a bug in dayfly") && message.contains("a bug, on purpose")
            && message.ends_with("goes on")),
        "{again:#?}"
    );
    let (pid, name) = (vmm(&facts).expect("a machine"), again[1].name().to_owned());
    assert!(
        matches!(&again[1].fact, Fact::VmTakenOver { pid: same, phase: Phase::Busy, job: Some(job), .. }
        if *same == pid && job == "build"),
        "{again:#?}"
    );
    facts.extend(again);
    stage.go();
    facts.extend(stage.facts_until(|fact| matches!(fact, Fact::LoopEnded { .. })).await);
    let told = |wanted: &Fact| facts.iter().filter(|record| record.fact == *wanted).count();
    let succeeded = Fact::JobFinished { result: JobResult::Succeeded };
    let deleted = Fact::RegistrationEnded { how: RegistrationEnd::Deleted };
    assert_eq!([&succeeded, &deleted, &Fact::Ended].map(told), [1, 1, 1], "{facts:#?}");
    assert!(
        facts.iter().all(|record| [name.as_str(), ""].contains(&record.name())),
        "one runner: {facts:#?}"
    );
    let lines = lines(&facts);
    assert!(lines.is_sorted_by(|(before, _), (after, _)| before < after), "each line once: {lines:#?}");
    assert!(lines.iter().any(|(_, text)| text.ends_with("after")));
    stage.ended().await;
}

#[tokio::test]
async fn a_runner_whose_secret_cannot_be_read_goes_on_and_that_is_said() {
    let script = "#!/bin/sh\necho 'Listening for Jobs'\nuntil [ -e GO ]; do sleep 0.02; done\n";
    let mut stage = Stage::new(script).await;
    stage.facts_until(|fact| *fact == Fact::Listening).await;
    let runs = fs::read_dir(stage.folder.path().join("instance/runs")).expect("a folder");
    let secret = runs.flatten().next().expect("a run").path().join("secret");
    fs::write(&secret, "").expect("lost");
    stage.panic();
    let facts = stage.facts_until(|fact| matches!(fact, Fact::VmTakenOver { .. })).await;
    let named = |record: &FactRecord| {
        matches!(&record.fact, Fact::Warning { message }
            if message.starts_with(&*secret.to_string_lossy()) && message.contains("cannot be read"))
    };
    assert!(facts.iter().any(named), "{facts:#?}");
    stage.go();
    stage.facts_until(|fact| *fact == Fact::Ended).await;
}

#[tokio::test]
async fn a_slot_whose_task_has_panicked_still_follows_its_orders() {
    let mut stage = Stage::new(
        "#!/bin/sh\ntrap 'echo stopped; exit 0' TERM\necho 'Listening for Jobs'\nwhile :; do sleep 0.05; done\n",
    )
    .await;
    stage.facts_until(|fact| *fact == Fact::Listening).await;
    stage.panic();
    stage.facts_until(|fact| matches!(fact, Fact::VmTakenOver { .. })).await;
    stage.stop.order(StopOrder::Gently);
    let facts = stage.facts_until(|fact| matches!(fact, Fact::LoopEnded { .. })).await;
    assert!(lines(&facts).iter().any(|(_, text)| text.ends_with("stopped")), "{facts:#?}");
    stage.ended().await;
}
