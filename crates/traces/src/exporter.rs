//! The reading end: a task that sends the traces of ended runs.

use std::collections::HashMap;
use std::sync::Arc;

use dayfly_fleet::RunnerId;
use dayfly_fleet::history::{History, RunRecord};
use dayfly_forge::ForgeError;
use dayfly_host::quantity::quantity;
use dayfly_host::retry::{Retry, TRACES};
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::collector::{Collector, Refusal};
use crate::counts::TraceCounts;
use crate::endpoint::Endpoint;
use crate::headers::Headers;
use crate::held::{BATCH_MAX, Held};
use crate::open_runs::Told;
use crate::spans::request_of;
use crate::writer::TraceWriter;

/// Most ended runs that wait for the exporter, which sends one request at a time.
const QUEUE_LENGTH: usize = 512;

/// The repositories of the pools that serve only one, as owner/name, by the names of the pools.
pub type PoolRepositories = HashMap<String, String>;

/// The collector, and the host whose runs are traced.
#[derive(Debug)]
pub struct ExporterOptions {
    /// The address of the collector.
    pub endpoint: Endpoint,
    /// Headers for each request.
    pub headers: Headers,
    /// Name of this host.
    pub host: String,
    /// The history, which has the first facts of a run that was taken over.
    pub history: History,
}

/// Sends the traces of ended runs.
#[derive(Debug)]
pub struct Exporter {
    queue: mpsc::Receiver<Told>,
    counts: TraceCounts,
    /// Number of lost traces that the log has told.
    lost_told: u64,
    repositories: watch::Receiver<Arc<PoolRepositories>>,
    collector: Collector,
    endpoint: Endpoint,
    host: String,
    history: History,
    held: Held,
    /// The rule for requests that the collector does not take; tests have a faster one.
    pub(crate) rule: Retry,
    /// True after traces were lost, until one is taken again.
    is_troubled: bool,
}

/// An event that the exporter waits for.
enum Event {
    Told(Told),
    Due,
    Closed,
}

/// Creates both ends. The sender replaces the repositories after each change of the pools.
///
/// # Errors
/// TLS cannot be set up for an https address.
pub fn channel(
    options: ExporterOptions,
) -> Result<(TraceWriter, watch::Sender<Arc<PoolRepositories>>, Exporter), ForgeError> {
    let ExporterOptions { endpoint, headers, host, history } = options;
    let collector = Collector::new(&endpoint, &headers)?;
    let (sender, queue) = mpsc::channel(QUEUE_LENGTH);
    let (repositories_sender, repositories) = watch::channel(Arc::default());
    let counts = TraceCounts::default();
    let writer = TraceWriter::new(sender, counts.clone());
    let exporter = Exporter {
        queue,
        counts,
        lost_told: 0,
        repositories,
        collector,
        endpoint,
        host,
        history,
        held: Held::default(),
        rule: TRACES,
        is_troubled: false,
    };
    Ok((writer, repositories_sender, exporter))
}

impl Exporter {
    /// Returns the counts of this exporter and its writer.
    pub fn counts(&self) -> TraceCounts {
        self.counts.clone()
    }

    /// Sends traces until the writer is dropped, and then those that are left.
    pub async fn run(mut self) {
        loop {
            match self.next().await {
                Event::Told(told) => self.take(told).await,
                Event::Due => {}
                Event::Closed => break,
            }
            while self.held.len() < BATCH_MAX
                && let Ok(told) = self.queue.try_recv()
            {
                self.take(told).await;
            }
            self.send_due().await;
        }
        self.held.hurry(Instant::now());
        while self.held.len() > 0 {
            self.send_due().await;
        }
        self.tell_lost();
    }

    /// Returns the next event. Cancel-safe.
    async fn next(&mut self) -> Event {
        let due = self.held.due();
        let is_due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            told = self.queue.recv() => told.map_or(Event::Closed, Event::Told),
            () = is_due => Event::Due,
        }
    }

    async fn take(&mut self, told: Told) {
        let now = Instant::now();
        match told {
            Told::Ended(run) => self.hold(*run),
            Told::EndedTakenOver(runner) => match self.record_in_history(runner).await {
                Some(run) => self.hold(run),
                None => self.counts.lose(1),
            },
            Told::Concluded(report) => self.held.conclude(&report, now),
        }
    }

    fn hold(&mut self, mut run: RunRecord) {
        if run.repository.is_none() {
            let pool = run.pool.as_deref().unwrap_or_default();
            run.repository = self.repositories.borrow().get(pool).cloned();
        }
        self.held.hold(run, Instant::now());
    }

    /// Reads the record of a run that an earlier process began. This happens once for each run that was taken over.
    async fn record_in_history(&self, runner: RunnerId) -> Option<RunRecord> {
        let history = self.history.clone();
        let read = tokio::task::spawn_blocking(move || history.facts_of(runner.as_str())).await.ok()?;
        match read {
            Ok(facts) => RunRecord::of_log(&facts),
            Err(error) => {
                tracing::warn!("a run that was taken over has no trace: its history cannot be read: {error}");
                None
            }
        }
    }

    /// Sends the traces that are due. Those that the collector does not take after the last attempt are lost.
    async fn send_due(&mut self) {
        let runs = self.held.take_due(Instant::now());
        if runs.is_empty() {
            return;
        }
        let body = request_of(&runs, &self.host).encode_to_vec();
        match self.try_to_send(body).await {
            Ok(rejected) => {
                self.counts.send(runs.len());
                if std::mem::take(&mut self.is_troubled) {
                    tracing::info!("the collector {} takes traces again", self.endpoint);
                }
                if rejected > 0 {
                    let spans = quantity(rejected, "span", "spans");
                    tracing::warn!("the collector {} has rejected {spans}", self.endpoint);
                }
                self.tell_lost();
            }
            Err(why) => {
                self.counts.lose(runs.len());
                if !std::mem::replace(&mut self.is_troubled, true) {
                    tracing::warn!(
                        "the collector {} takes no traces, so they are lost until it does: {why}",
                        self.endpoint
                    );
                }
            }
        }
    }

    async fn try_to_send(&self, body: Vec<u8>) -> Result<u64, String> {
        for failures in 1.. {
            let (why, pause) = match self.collector.post(body.clone()).await {
                Ok(rejected) => return Ok(rejected),
                Err(Refusal::ForGood { why }) => return Err(why),
                Err(Refusal::ForNow { why, pause }) => (why, pause),
            };
            let Some(ours) = self.rule.pause_after(failures) else { return Err(why) };
            tokio::time::sleep(pause.unwrap_or(ours)).await;
        }
        Err("it was tried too often".to_owned())
    }

    /// Tells how many traces were lost since the last time.
    fn tell_lost(&mut self) {
        let lost = self.counts.lost();
        let since = lost - std::mem::replace(&mut self.lost_told, lost);
        if since > 0 {
            tracing::warn!(
                "{} lost because the collector {} was too slow or away",
                quantity(since, "trace was", "traces were"),
                self.endpoint
            );
        }
    }
}
