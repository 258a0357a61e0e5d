//! Measures an orchestrator that follows the demand: its cost with many runners, its delay, its throughput, a burst.
//!
//! All programs are the real ones. Except for the burst of machines, runners are processes of this host with the light
//! runner as their app, so that a thousand of them fit.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dayfly_e2e::lab::LabProcess;
use dayfly_e2e::{Dayfly, Running, image};
use dayfly_lab::LabEventKind;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::Error;
use crate::figures::Figure;
use crate::measure::{anonymous_mib, cpu_seconds, pss_mib};

/// Longest time that one orchestrator may run.
pub(crate) const LIMIT: Duration = Duration::from_secs(3600);
/// How long processor time is measured.
const IDLE: Duration = Duration::from_secs(60);
/// Numbers of idle runners, each in pools of [`POOL`].
const RUNNERS: [u32; 2] = [200, 1000];
/// Runners of one pool.
const POOL: u32 = 200;
/// A runner that is a process counts against the host's memory as a machine of its pool's size would.
const HOST: &str = "[host]\nmemory_overcommit = 64.0\n";
/// Jobs of the measurement of throughput; a matrix of GitHub has at most 256.
const JOBS: u32 = 256;
/// Runners of the burst.
const BURST: u32 = 30;

/// A configuration file for a lab, with an installation of the light runner.
pub(crate) struct Stage {
    pub(crate) lab: LabProcess,
    folder: TempDir,
}

impl Stage {
    pub(crate) fn new() -> Result<Self, Error> {
        let (lab, folder) = (LabProcess::start(), tempfile::tempdir()?);
        let token = folder.path().join("token");
        fs::write(&token, &lab.token)?;
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
        dayfly_light_runner::install(&light_runner()?, &folder.path().join("app"))?;
        Ok(Self { lab, folder })
    }

    /// Starts an orchestrator with these tables of pools.
    pub(crate) fn orchestrator(&self, pools: &str) -> Result<Running, Error> {
        let config = self.config(pools)?;
        Ok(Dayfly::new(["orchestrator", "--json", "--config", &config]).within(LIMIT).start())
    }

    /// Writes the configuration file with these tables of pools. Returns its path.
    pub(crate) fn config(&self, pools: &str) -> Result<String, Error> {
        let (path, token) = (self.folder.path().join("dayfly.toml"), self.folder.path().join("token"));
        let forge = format!("[forges.lab]\nurl = {:?}\ntoken_file = {token:?}\n", self.lab.url);
        fs::write(&path, forge + HOST + pools)?;
        Ok(path.display().to_string())
    }

    /// Returns the table of a pool of processes.
    pub(crate) fn pool(&self, name: &str, rest: &str) -> String {
        let app = self.folder.path().join("app");
        format!(
            "[pools.{name}]\nforge = 'lab'\nprincipal = 'o/r'\ndriver = 'process'\nlabels = ['{name}']\nprefix = '{name}'\n\
             settings = {{ RUNNER_INSTALL = {app:?} }}\n{rest}\n"
        )
    }

    /// Dispatches jobs. Returns their run, and the lab's time of the dispatch, ms.
    async fn dispatch(&self, labels: &str, count: u32) -> (u64, i64) {
        let numbers: Vec<String> = (1..=count).map(|number| number.to_string()).collect();
        let workflow = format!(
            "on: push\njobs:\n  a:\n    runs-on: {labels}\n    strategy: {{ matrix: {{ n: [{}] }} }}\n    steps:\n      - run: 'true'\n",
            numbers.join(", ")
        );
        let run = self.lab.dispatch(&workflow).await;
        let mut events = self.lab.events_of(run).await;
        loop {
            let event = events.next().await;
            if let LabEventKind::RunCreated { .. } = event.kind {
                return (run, event.at_ms);
            }
        }
    }

    /// Has a pool keep this number of runners idle. Returns the time of the order, ms.
    fn scale(&self, pool: &str, min_idle: u32) -> Result<f64, Error> {
        let config = self.folder.path().join("dayfly.toml").display().to_string();
        let begun = std::time::UNIX_EPOCH.elapsed()?.as_secs_f64() * 1000.0;
        let ended =
            Dayfly::new(["scale", pool, "--min-idle", &min_idle.to_string(), "--config", &config]).run();
        if ended.status == Some(0) { Ok(begun) } else { Err(ended.stderr.into()) }
    }

    pub(crate) async fn succeeds(&self, run: u64) -> Result<(), Error> {
        match self.lab.conclusion_of(run).await.as_str() {
            "success" => Ok(()),
            other => Err(format!("the jobs ended with {other}").into()),
        }
    }
}

/// Returns the program `light-runner`, which cargo builds beside this one.
fn light_runner() -> Result<PathBuf, Error> {
    let program = std::env::current_exe()?.with_file_name("light-runner");
    if program.is_file() { Ok(program) } else { Err(format!("{} is missing", program.display()).into()) }
}

/// A group of measurements.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Group {
    /// The cost of an orchestrator with one scale set, beside that of GitHub's own listener.
    Listeners,
    /// The jobs that go through in a minute.
    Throughput,
    /// The cost and the delay with many runners that wait.
    Waiting,
    /// A pool of machines that comes up from zero.
    Burst,
}

impl Group {
    /// All groups, in the order in which they run.
    pub(crate) const ALL: [Self; 4] = [Self::Listeners, Self::Throughput, Self::Waiting, Self::Burst];

    /// Returns its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Listeners => "demand-listeners",
            Self::Throughput => "demand-throughput",
            Self::Waiting => "demand-waiting",
            Self::Burst => "demand-burst",
        }
    }

    /// Measures it. `peer` is GitHub's client for scale sets.
    pub(crate) async fn measure(self, peer: Option<&Path>, samples: u32) -> Result<Vec<Figure>, Error> {
        match self {
            Self::Listeners => listeners(peer).await,
            Self::Throughput => throughput().await,
            Self::Waiting => {
                let mut figures = Vec::new();
                for runners in RUNNERS {
                    figures.extend(idle(runners, samples).await?);
                }
                Ok(figures)
            }
            Self::Burst => burst().await,
        }
    }
}

/// The cost of a process.
struct Cost {
    /// MiB (PSS).
    memory: f64,
    /// MiB of it that are no file's.
    anonymous: f64,
    /// Part of a core.
    cpu: f64,
}

impl Cost {
    /// Measures a process for [`IDLE`].
    async fn of(pid: u32) -> Result<Self, Error> {
        let (before, began) = (cpu_seconds(pid)?, Instant::now());
        tokio::time::sleep(IDLE).await;
        let cpu = (cpu_seconds(pid)? - before) / began.elapsed().as_secs_f64();
        Ok(Self { memory: pss_mib(pid)?, anonymous: anonymous_mib(pid)?, cpu })
    }

    /// Returns the figures of memory, anonymous memory and CPU, with these names.
    fn figures(&self, names: [&'static str; 3], reach: &'static str) -> [Figure; 3] {
        [
            Figure::of(names[0], "MiB", reach, vec![self.memory]),
            Figure::of(names[1], "MiB", reach, vec![self.anonymous]),
            Figure::of(names[2], "core", reach, vec![self.cpu]),
        ]
    }
}

pub(crate) fn end(orchestrator: Running) {
    // The second signal ends the runners at once.
    orchestrator.signal(Signal::TERM);
    orchestrator.signal(Signal::TERM);
    orchestrator.wait();
}

/// Compares an orchestrator that holds one scale set with GitHub's own listener, at the same time.
async fn listeners(peer: Option<&Path>) -> Result<Vec<Figure>, Error> {
    let stage = Stage::new()?;
    let mut orchestrator = stage.orchestrator(&stage.pool("one", "demand = 'scale-set'"))?;
    orchestrator.wait_for_event("source_ready");
    let theirs = peer.map(|peer| Peer::hold(peer, &stage.lab)).transpose()?;
    let their_cost = async {
        match &theirs {
            Some(peer) => Some(Cost::of(peer.0.id()).await),
            None => None,
        }
    };
    let (ours, their_cost) = tokio::join!(Cost::of(orchestrator.pid()), their_cost);
    let mut figures = Vec::from(ours?.figures(OURS, "< theirs"));
    if let Some(cost) = their_cost {
        figures.extend(cost?.figures(THEIRS, "-"));
    }
    drop(theirs);
    end(orchestrator);
    stage.lab.stop();
    Ok(figures)
}

const OURS: [&str; 3] = [
    "orchestrator with one scale set: memory (PSS)",
    "orchestrator with one scale set: memory that is no file's",
    "orchestrator with one scale set: CPU",
];
const THEIRS: [&str; 3] = [
    "GitHub's own listener: memory (PSS)",
    "GitHub's own listener: memory that is no file's",
    "GitHub's own listener: CPU",
];

/// GitHub's listener, which holds a scale set of its own until it is dropped.
struct Peer(Child);

impl Peer {
    fn hold(program: &Path, lab: &LabProcess) -> Result<Self, Error> {
        let mut command = Command::new(program);
        command.args(["-host", &lab.url, "-scope", "o/r", "-hold", "-deadline", "10m"]);
        let peer = command.env("TOKEN", &lab.token).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        Ok(Self(peer))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures an orchestrator with this number of registered runners that wait: its cost, and its delay for one job more.
async fn idle(runners: u32, samples: u32) -> Result<Vec<Figure>, Error> {
    let stage = Stage::new()?;
    let waiting = format!("max = {POOL}\nstart = {{ parallel = 16 }}");
    let mut pools: String =
        (0..runners / POOL).map(|number| stage.pool(&format!("idle{number}"), &waiting)).collect();
    pools += &stage.pool("next", "demand = 'scale-set'\nmax = 4\ntimeouts = { idle = '1s' }");
    let mut orchestrator = stage.orchestrator(&pools)?;
    orchestrator.wait_for_event("source_ready");
    let begin = pss_mib(orchestrator.pid())?;
    for _ in 0..runners {
        orchestrator.wait_for_event("listening");
    }
    let Cost { memory, cpu, .. } = Cost::of(orchestrator.pid()).await?;
    let (mut delays, mut own_delays) = (Vec::new(), Vec::new());
    for _ in 0..samples {
        let (run, dispatched) = stage.dispatch("next", 1).await;
        let mut next = |event: &str| {
            let fact = orchestrator.wait_for(event, |fact| fact["event"] == event && fact["pool"] == "next");
            fact["at_ms"].as_f64().unwrap_or(f64::NAN)
        };
        let seen = next("job_seen");
        let started = next("loop_started");
        own_delays.push(started - seen);
        delays.push(started - dispatched as f64);
        stage.succeeds(run).await?;
        next("loop_ended");
    }
    end(orchestrator);
    stage.lab.stop();
    let each = (memory - begin) / f64::from(runners);
    let names = match runners {
        1000 => NAMES_OF_1000,
        _ => NAMES_OF_200,
    };
    Ok(vec![
        Figure::of(names[0], "MiB", "64 MiB of 1000", vec![memory]),
        Figure::of(names[1], "MiB", "2 MiB", vec![each]),
        Figure::of(names[2], "core", "0.03 core of 1000", vec![cpu]),
        Figure::of(names[3], "ms", "5 ms", own_delays),
        Figure::of(names[4], "ms", "-", delays),
    ])
}

const NAMES_OF_200: [&str; 5] = [
    "orchestrator with 200 waiting runners: memory (PSS)",
    "the same for each of them",
    "orchestrator with 200 waiting runners: CPU",
    "with 200 waiting runners: assigned message of a scale set -> runner asked for",
    "with 200 waiting runners: job dispatched -> runner asked for",
];
const NAMES_OF_1000: [&str; 5] = [
    "orchestrator with 1000 waiting runners: memory (PSS)",
    "the same for each of them",
    "orchestrator with 1000 waiting runners: CPU",
    "with 1000 waiting runners: assigned message of a scale set -> runner asked for",
    "with 1000 waiting runners: job dispatched -> runner asked for",
];

/// Measures how many jobs go through lab and orchestrator in a minute.
async fn throughput() -> Result<Vec<Figure>, Error> {
    let stage = Stage::new()?;
    let mut orchestrator = stage.orchestrator(&stage.pool("many", "demand = 'scale-set'\nmax = 16"))?;
    orchestrator.wait_for_event("source_ready");
    let began = Instant::now();
    let (run, _) = stage.dispatch("many", JOBS).await;
    stage.succeeds(run).await?;
    let a_minute = f64::from(JOBS) / began.elapsed().as_secs_f64() * 60.0;
    end(orchestrator);
    stage.lab.stop();
    Ok(vec![Figure::of("jobs through lab and orchestrator in a minute", "", "600", vec![a_minute])])
}

/// Measures a pool of forked machines that comes up from zero: runners that wait for jobs, and jobs that wait for runners.
async fn burst() -> Result<Vec<Figure>, Error> {
    let stage = Stage::new()?;
    let table = format!(
        "[pools.burst]\nforge = 'lab'\nprincipal = 'o/r'\nimage = '{}'\ndemand = 'scale-set'\nmax = {BURST}\n\
         prefix = 'burst'\ntimeouts = {{ idle = '1s' }}\n",
        image()
    );
    let mut orchestrator = stage.orchestrator(&table)?;
    orchestrator.wait_for_event("source_ready");
    // The pool's template is prepared at the start.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (run, _) = stage.dispatch("burst", 1).await;
    orchestrator.wait_for_event("listening");
    stage.succeeds(run).await?;
    orchestrator.wait_for_event("loop_ended");

    let begun = stage.scale("burst", BURST)?;
    let registered = last_of(&mut orchestrator, "listening") - begun;
    stage.scale("burst", 0)?;
    last_of(&mut orchestrator, "loop_ended");
    let (run, dispatched) = stage.dispatch("burst", BURST).await;
    let taken = last_of(&mut orchestrator, "listening") - dispatched as f64;
    stage.succeeds(run).await?;
    end(orchestrator);
    stage.lab.stop();
    Ok(vec![
        Figure::of(
            "burst: 30 idle runners asked for -> all registered and waiting",
            "s",
            "20 s",
            vec![registered / 1000.0],
        ),
        Figure::of(
            "burst: 30 jobs dispatched -> the 30th machine waits (others work)",
            "s",
            "-",
            vec![taken / 1000.0],
        ),
    ])
}

/// Returns the time of the last fact of this kind, of [`BURST`] runners, ms.
fn last_of(orchestrator: &mut Running, event: &str) -> f64 {
    let mut last = f64::NAN;
    for _ in 0..BURST {
        last = orchestrator.wait_for_event(event)["at_ms"].as_f64().unwrap_or(f64::NAN);
    }
    last
}
