//! Measures those who look at an orchestrator: pages, metrics, and the commands that ask.
//!
//! The orchestrator is the real one, with the history of ten thousand runs and with jobs that run and print.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use dayfly_e2e::lab::http;
use dayfly_e2e::{Dayfly, Running};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::demand::{self, end};
use crate::figures::{Figure, milliseconds};
use crate::measure::cpu_seconds;
use crate::{Error, history};

/// Runs in the history.
const RUNS: u64 = 10_000;
/// Jobs that run meanwhile, each of which prints a line a second.
const JOBS: u32 = 20;
/// Pages that are open at once.
const PAGES: u32 = 200;
/// Time over which the cost of open pages is measured, once with them and once without.
const SPAN: Duration = Duration::from_secs(30);
/// The title that the first frame of `dayfly top` begins with.
const TITLE: &[u8] = b"dayfly top";

/// Measures everything.
pub(crate) async fn measure(binary: &Path, samples: u32) -> Result<Vec<Figure>, Error> {
    let mut host = Host::start()?;
    let mut figures = Vec::from([
        host.answers("/", "overview, 10,000 runs: asked for -> first byte", "20 ms", samples).await?,
        host.answers("/runs", "list of runs, 10,000 runs: asked for -> first byte", "20 ms", samples).await?,
        host.answers("/metrics", "/metrics: asked for -> first byte", "10 ms", samples).await?,
    ]);
    figures.push(host.facts_on_a_page(samples).await?);
    let run = host.keep_busy().await?;
    for (name, arguments) in
        [("`dayfly ps`", vec!["ps"]), ("`dayfly runs`", vec!["runs"]), ("`dayfly jobs`", vec!["jobs"])]
    {
        figures.push(host.command(binary, name, &arguments, samples)?);
    }
    figures.push(host.first_frames(binary, samples)?);
    figures.push(host.open_pages().await?);
    host.stage.lab.cancel(run).await;
    end(host.orchestrator);
    host.stage.lab.stop();
    Ok(figures)
}

/// An orchestrator that serves the page, with a lab and a history.
struct Host {
    stage: demand::Stage,
    state: TempDir,
    orchestrator: Running,
    url: String,
}

impl Host {
    fn start() -> Result<Self, Error> {
        let state = tempfile::tempdir()?;
        history::fill(state.path(), RUNS)?;
        let stage = demand::Stage::new()?;
        let pool = format!("demand = 'scale-set'\nmin_idle = 1\nmax = {}", JOBS + 1);
        let config = stage.config(&stage.pool("seen", &pool))?;
        // Free for the moment; another program that takes it meanwhile ends the measurement with an error.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let arguments = ["orchestrator", "--json", "--config", &config, "--listen", &address];
        let dayfly = Dayfly::new(arguments).env("DAYFLY_STATE", state.path());
        let mut orchestrator = dayfly.within(demand::LIMIT).start();
        orchestrator.wait_for_event("listening");
        Ok(Self { stage, state, orchestrator, url: format!("http://{address}") })
    }

    /// Measures the time until the first byte of an answer.
    async fn answers(
        &self,
        path: &str,
        name: &'static str,
        goal: &'static str,
        samples: u32,
    ) -> Result<Figure, Error> {
        let (client, url) = (http(), format!("{}{path}", self.url));
        let mut all = Vec::new();
        // The first answer brings the index of the history up to date.
        for number in 0..=samples {
            let began = Instant::now();
            let mut response = client.get(&url).send().await?.error_for_status()?;
            response.chunk().await?;
            all.extend((number > 0).then(|| milliseconds(began)));
            while response.chunk().await?.is_some() {}
        }
        Ok(Figure::of(name, "ms", goal, all))
    }

    /// Measures the time from a fact, the start of a job, until an open page has it.
    async fn facts_on_a_page(&mut self, samples: u32) -> Result<Figure, Error> {
        let mut page = http().get(format!("{}/live", self.url)).send().await?.error_for_status()?;
        let mut all = Vec::new();
        for number in 0..samples {
            let job = format!("look{number}");
            let workflow =
                format!("on: push\njobs: {{ {job}: {{ runs-on: seen, steps: [{{ run: sleep 2 }}] }} }}");
            let run = self.stage.lab.dispatch(&workflow).await;
            let mut seen = String::new();
            while !shows_busy(&seen, &job) {
                let piece = page.chunk().await?.ok_or("the page has ended")?;
                seen.push_str(&String::from_utf8_lossy(&piece));
            }
            let arrived = UNIX_EPOCH.elapsed()?.as_secs_f64() * 1000.0;
            let started = self.orchestrator.wait_for("job_started", |fact| {
                fact["event"] == "job_started"
                    && fact["job"].as_str().is_some_and(|name| name.starts_with(&job))
            });
            all.push(arrived - started["at_ms"].as_f64().unwrap_or(f64::NAN));
            self.stage.succeeds(run).await?;
            self.orchestrator.wait_for_event("listening");
        }
        Ok(Figure::of("a job's start -> an open page shows it", "ms", "200 ms", all))
    }

    /// Starts the jobs that run meanwhile. Returns their run.
    async fn keep_busy(&mut self) -> Result<u64, Error> {
        let numbers: Vec<String> = (1..=JOBS).map(|number| number.to_string()).collect();
        let workflow = format!(
            "on: push\njobs:\n  a:\n    runs-on: seen\n    strategy: {{ matrix: {{ n: [{}] }} }}\n    steps:\n      \
             - run: while sleep 1; do echo a line of a job; done\n",
            numbers.join(", ")
        );
        let run = self.stage.lab.dispatch(&workflow).await;
        for _ in 0..JOBS {
            self.orchestrator.wait_for_event("job_started");
        }
        Ok(run)
    }

    /// Returns a command about this host.
    fn asking(&self, binary: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary);
        command.args(arguments).env("DAYFLY_STATE", self.state.path()).env("NO_COLOR", "1");
        command
    }

    /// Measures a command from its start to its end.
    fn command(
        &self,
        binary: &Path,
        name: &'static str,
        arguments: &[&str],
        samples: u32,
    ) -> Result<Figure, Error> {
        let mut all = Vec::new();
        for _ in 0..samples {
            let began = Instant::now();
            let output = self.asking(binary, arguments).stdin(Stdio::null()).output()?;
            all.push(milliseconds(began));
            if !output.status.success() {
                return Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)).into());
            }
        }
        Ok(Figure::of(name, "ms", "50 ms", all))
    }

    /// Measures `dayfly top` from its start to its first frame.
    fn first_frames(&self, binary: &Path, samples: u32) -> Result<Figure, Error> {
        let mut all = Vec::new();
        for _ in 0..samples {
            let (mut terminal, other_end) = terminal()?;
            let mut command = self.asking(binary, &["top"]);
            command
                .env("TERM", "xterm-256color")
                .stdin(other_end.try_clone()?)
                .stdout(other_end.try_clone()?);
            let began = Instant::now();
            let top = Program(command.stderr(other_end).spawn()?);
            // Its own copies of the other end go, so that the end of the program ends the reading.
            drop(command);
            let mut shown = Vec::new();
            while !shown.windows(TITLE.len()).any(|part| part == TITLE) {
                let mut piece = [0; 4096];
                let count = terminal.read(&mut piece)?;
                shown.extend_from_slice(&piece[..count]);
            }
            all.push(milliseconds(began));
            drop(top);
        }
        Ok(Figure::of("`dayfly top`: first frame", "ms", "50 ms", all))
    }

    /// Measures what open pages cost the orchestrator.
    async fn open_pages(&self) -> Result<Figure, Error> {
        let without = self.cpu().await?;
        let mut pages = JoinSet::new();
        for _ in 0..PAGES {
            let mut page = http().get(format!("{}/live", self.url)).send().await?.error_for_status()?;
            pages.spawn(async move { while let Ok(Some(_)) = page.chunk().await {} });
        }
        let with = self.cpu().await?;
        if pages.try_join_next().is_some() {
            return Err("a page has ended".into());
        }
        Ok(Figure::of(
            "200 open pages, 20 jobs run: CPU above that without pages",
            "core",
            "0.05 core",
            vec![with - without],
        ))
    }

    /// Returns the share of a core that the orchestrator uses.
    async fn cpu(&self) -> Result<f64, Error> {
        let (before, began) = (cpu_seconds(self.orchestrator.pid())?, Instant::now());
        tokio::time::sleep(SPAN).await;
        Ok((cpu_seconds(self.orchestrator.pid())? - before) / began.elapsed().as_secs_f64())
    }
}

/// Returns true if the last row that names the job is the one of a busy runner.
fn shows_busy(page: &str, job: &str) -> bool {
    let row = page.rsplit_once(job).and_then(|(_, after)| after.split("</tr>").next());
    row.is_some_and(|row| row.contains("data-word=\"busy\""))
}

/// A program that is killed when it is dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns both ends of a new terminal of 80 columns.
fn terminal() -> Result<(File, File), Error> {
    let own = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&own)?;
    unlockpt(&own)?;
    tcsetwinsize(&own, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 })?;
    let other = ptsname(&own, Vec::new())?.into_string()?;
    Ok((File::from(own), fs::File::options().read(true).write(true).open(other)?))
}
