//! A made-up process with so many ended runs. Its names are those that hostile jobs would choose.

use std::sync::Arc;

use dayfly_fleet::RunnerId;
use dayfly_fleet::cause::Cause;
use dayfly_fleet::fact::{Fact, FactRecord, Moment, OverHow, RunnerRef, SeenJob, StartKind};
use dayfly_fleet::history::History;
use dayfly_fleet::orchestrator::{Budget, SLOTS_MAX, Wait};
use dayfly_fleet::run_log::RunLogs;
use dayfly_fleet::scratch::ScratchSummary;
use dayfly_fleet::status::Status;
use dayfly_forge::{Credential, RunnerScope};
use dayfly_guest::protocol::Source;
use dayfly_guest::runner_app::JobResult;
use dayfly_web::{
    Access, ForgeAccount, ListenAddress, PoolEntry, Publisher, Site, WebServer, channel, router,
};

use tempfile::TempDir;
use tokio::task::JoinSet;

const POOLS: [&str; 3] = ["linux", "linux (dayfly-4cpu-8gb)", "arm"];
/// A name that runs a script if a page takes it for HTML.
pub(crate) const HOSTILE: &str = "<script>window.hostile=1</script>";
const JOBS: [&str; 7] = [
    "build",
    "test (ubuntu, stable)",
    "lint",
    "deploy <b>now</b>",
    HOSTILE,
    "\"><img src=x onerror=\"window.hostile=1\">",
    "a \u{202e}long\u{202c} name of a job / with a matrix (1, 2, 3)",
];

/// A process that shows its page. It ends when this is dropped.
pub(crate) struct MadeUp {
    /// The address of the page.
    pub(crate) url: String,
    publisher: Publisher,
    status: Status,
    logs: RunLogs,
    busy: u32,
    round: u64,
    _state: TempDir,
    _tasks: JoinSet<()>,
}

impl MadeUp {
    /// Starts a process with so many ended runs at a port; 0 means any.
    pub(crate) fn start(runs: u64, port: u16) -> Self {
        let state = tempfile::tempdir().unwrap();
        let now = Moment::now().ms();
        let history = History::of(state.path());
        for at in 0..runs {
            history.keep(&life(at, now - at * (6 * 86_400_000 / runs.max(1)) - 200_000)).unwrap();
        }
        let (publisher, site, published) = channel(Site::default(), state.path(), None);
        site.send_replace(Arc::new(made_up(runs > 0)));
        let address: ListenAddress = format!("127.0.0.1:{port}").parse().unwrap();
        let server = WebServer::bind(&address).unwrap();
        let url = server.address().unwrap().url();
        let router = router(published, Access::new(&address, None).unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(server.serve(router, std::future::pending()));
        let logs = RunLogs::open(state.path()).unwrap();
        let busy = if runs > 0 { 20 } else { 0 };
        let status = Status::begin();
        let mut made = Self { url, publisher, status, logs, busy, round: 0, _state: state, _tasks: tasks };
        for slot in 1..=busy {
            let records = life_of(&live_run(slot), slot, u64::from(slot), now - 60_000);
            records.iter().take(8).for_each(|record| made.take(record));
        }
        if runs > 0 {
            made.troubles(now);
        }
        made.publish();
        made
    }

    /// Changes the number of jobs that wait, and adds a line to the log of a run that goes on.
    pub(crate) fn tick(&mut self) {
        if self.busy == 0 {
            return self.publish();
        }
        let (round, slot) = (self.round, u32::try_from(self.round % u64::from(self.busy)).unwrap() + 1);
        self.round += 1;
        self.jobs_wait(4 + slot % 2);
        let text = format!("\u{1b}[32mstep {round}\u{1b}[0m: compiling the part number {round} <of> many");
        self.line(slot, &text);
    }

    /// Adds a line to the log of the run of a slot.
    pub(crate) fn line(&mut self, slot: u32, text: &str) {
        let line = Fact::Line { number: self.round + 1, source: Source::Entrypoint, text: text.to_owned() };
        self.take(&record(&live_run(slot), slot, slot as usize % 3, Moment::now().ms(), line));
    }

    /// Tells that so many jobs wait.
    pub(crate) fn jobs_wait(&mut self, count: u32) {
        self.of_pool(Moment::now().ms(), 0, Fact::JobsWaiting { count });
        self.publish();
    }

    fn publish(&self) {
        self.publisher.publish(&self.status);
    }

    fn take(&mut self, record: &FactRecord) {
        self.publisher.take(record);
        self.logs.take(record).unwrap();
        self.status.take(record);
    }

    fn of_pool(&mut self, at_ms: u64, loop_index: u32, fact: Fact) {
        let pool = Some(POOLS[(loop_index / SLOTS_MAX) as usize].to_owned());
        self.take(&FactRecord { at: Moment::of_ms(at_ms), pool, loop_index, runner: None, fact });
    }

    fn troubles(&mut self, now: u64) {
        let scratch = Some(ScratchSummary { used_mib: 190_000, limit_mib: Some(204_800), is_whole: true });
        let seen = |id: u64| SeenJob {
            id,
            name: Some(JOBS[id as usize % JOBS.len()].to_owned()),
            repository: Some(format!("acme/app-{id}")),
            workflow: Some("CI".to_owned()),
            seen_ms: Some(now - id * 61_000),
            ..SeenJob::default()
        };
        let lost = || Fact::ForgeLost {
            source: "poll".to_owned(),
            cause: Cause::Unreachable,
            message: "connection refused".to_owned(),
        };
        let mut facts = vec![
            (0, Fact::JobsWaiting { count: 4 }),
            (0, Fact::PoolWaits { why: Some(Wait::Full { max: 12 }) }),
            (2 * SLOTS_MAX, lost()),
            (0, Fact::ScratchInUse { scratch }),
        ];
        facts.extend((1..=4).map(|id| (0, Fact::JobSeen { job: Box::new(seen(id)) })));
        facts.into_iter().for_each(|(loop_index, fact)| self.of_pool(now, loop_index, fact));
    }
}

/// Returns the id of the run that goes on in a slot.
pub(crate) fn live_run(slot: u32) -> String {
    format!("{slot}-{:07}", 9_000_000 + slot)
}

fn made_up(is_full: bool) -> Site {
    let pool = |name: &str| PoolEntry {
        name: name.to_owned(),
        scale_set: None,
        scope: RunnerScope::Organization("acme".to_owned()),
        min_idle: 1,
        max: 12,
        vcpus: 2,
        memory_mib: 2048,
    };
    let forges = vec![ForgeAccount { name: "main/acme".to_owned(), credential: Credential::token("ghp_x") }];
    let budget =
        Budget { machines: Some(24), vcpus: Some(64), memory_mib: Some(65_536), scratch_mib: Some(204_800) };
    let pools = if is_full { POOLS.map(pool).to_vec() } else { Vec::new() };
    Site { pools, budget, forges }
}

fn record(id: &str, slot: u32, pool: usize, at_ms: u64, fact: Fact) -> FactRecord {
    let id: RunnerId = id.parse().unwrap();
    let runner = Some(RunnerRef { name: id.name("GH-runner"), id });
    FactRecord {
        at: Moment::of_ms(at_ms),
        pool: Some(POOLS[pool].to_owned()),
        loop_index: u32::try_from(pool).unwrap() * SLOTS_MAX + slot,
        runner,
        fact,
    }
}

/// Returns the id of a run that has ended; the youngest is 0.
pub(crate) fn ended_run(at: u64) -> String {
    format!("{}-{at:07}", at % 900)
}

/// Returns the facts of a run that has ended.
fn life(at: u64, from_ms: u64) -> Vec<FactRecord> {
    life_of(&ended_run(at), u32::try_from(at % 900).unwrap(), at, from_ms)
}

fn life_of(id: &str, slot: u32, at: u64, from_ms: u64) -> Vec<FactRecord> {
    let job = JOBS[at as usize % JOBS.len()];
    let seen = SeenJob {
        id: at,
        name: Some(job.to_owned()),
        repository: Some(format!("acme/app-{}", at % 17)),
        workflow: Some("CI".to_owned()),
        seen_ms: Some(from_ms - 500 - at % 7 * 900),
        ..SeenJob::default()
    };
    let took = 20_000 + at * 7919 % 100_000;
    let result = if at.is_multiple_of(9) { JobResult::Failed } else { JobResult::Succeeded };
    let from = [StartKind::Fork, StartKind::Spare, StartKind::Boot][at as usize % 3];
    let how = if at.is_multiple_of(31) { OverHow::MachineLost } else { OverHow::JobDone };
    [
        (0, Fact::Registering),
        (90, Fact::Registered { registration: at }),
        (150, Fact::VmmStarted { pid: 4, from, template: None }),
        (420 + at % 5 * 200, Fact::AgentHello),
        (1500, Fact::RunnerUp),
        (2800, Fact::Listening),
        (2900, Fact::JobTaken { job: Box::new(seen) }),
        (3000, Fact::JobStarted { job: job.to_owned() }),
        (3000 + took, Fact::JobFinished { result }),
        (3100 + took, Fact::VmGone { exit: "powered off".to_owned() }),
        (3150 + took, Fact::Over { how, why: None, kind: None }),
    ]
    .map(|(after_ms, fact)| record(id, slot, at as usize % 3, from_ms + after_ms, fact))
    .to_vec()
}
