//! Follows a run from its dispatch to its conclusion: passes jobs to the pool, and the pool's facts to the view.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dayfly_fleet::demand::{DemandEvent, JobDemand, PoolDemandSender};
use dayfly_fleet::fact::{Fact, FactRecord};
use dayfly_fleet::orchestrator::orchestrate;
use dayfly_fleet::stop::{StopOrder, StopSender};
use dayfly_lab::{LabEvent, LabEventKind, Lagged};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::phases::Progress;
use super::setup::{Demo, OWNER, REPOSITORY, scope};
use super::view::{KeptMachine, Remains};
use crate::exit::{Failure, Outcome, Result, Signal};
use crate::signals::Signals;

/// Time that the runners have after the run's end to exit by themselves, before they are stopped.
const RUNNERS_END: Duration = Duration::from_secs(30);

/// The next thing that the demo has to react to.
enum DemoInput {
    Lab(std::result::Result<Arc<LabEvent>, Lagged>),
    LabGone,
    Fleet(FactRecord),
    PoolEnded(std::result::Result<(), JoinError>),
    Signal(Signal),
    RunnersOverdue,
}

/// A running demo.
struct Following {
    demo: Demo,
    progress: Progress,
    jobs: PoolDemandSender,
    stop: StopSender,
    /// The pool; none once it has ended.
    pool: Option<JoinHandle<()>>,
    /// The job that each loop's machine was started for. It is shown until the runner takes a job.
    wanted_by: HashMap<u32, u64>,
    pids: HashMap<String, u32>,
    kept: Vec<KeptMachine>,
    conclusion: Option<String>,
    runners_due: Option<Instant>,
    signal: Option<Signal>,
    failure: Option<Failure>,
}

impl Demo {
    /// Follows the run to its end.
    pub(super) async fn follow(self, signals: &mut Signals) -> Result<Outcome> {
        let (senders, demand) = dayfly_fleet::demand::channel();
        let (stop_sender, stop) = dayfly_fleet::stop::channel();
        let pool = self.pool_run();
        let jobs = senders.of(0);
        let orchestration = self.orchestration(pool);
        let (host, facts) = (self.host.clone(), self.facts.clone());
        let pool = tokio::spawn(async move {
            orchestrate(orchestration, &host, &facts, Some(demand), stop).await;
        });
        let mut following = Following {
            demo: self,
            progress: Progress::default(),
            jobs,
            stop: stop_sender,
            pool: Some(pool),
            wanted_by: HashMap::new(),
            pids: HashMap::new(),
            kept: Vec::new(),
            conclusion: None,
            runners_due: None,
            signal: None,
            failure: None,
        };
        while following.conclusion.is_none() || following.pool.is_some() {
            let input = following.next(signals).await;
            following.take(input).await;
        }
        following.end().await
    }
}

impl Following {
    async fn next(&mut self, signals: &mut Signals) -> DemoInput {
        let overdue = async {
            match self.runners_due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let pool_ended = async {
            match &mut self.pool {
                Some(pool) => pool.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // In this order, so that a job's last lines are shown before its machine's end.
            biased;
            signal = signals.next() => DemoInput::Signal(signal),
            event = self.demo.lab_events.next(), if self.conclusion.is_none() => {
                event.map_or(DemoInput::LabGone, DemoInput::Lab)
            }
            Some(record) = self.demo.fleet_facts.recv() => DemoInput::Fleet(record),
            ended = pool_ended => DemoInput::PoolEnded(ended),
            () = overdue => DemoInput::RunnersOverdue,
        }
    }

    async fn take(&mut self, input: DemoInput) {
        match input {
            DemoInput::Lab(Ok(event)) => self.take_lab(&event),
            DemoInput::Lab(Err(lagged)) => {
                self.demo.view.warning(&format!("{lagged}; the whole log is in the lab until the end"));
            }
            DemoInput::LabGone => self.fail(Failure::cannot("the lab has stopped unexpectedly")).await,
            DemoInput::Fleet(record) => {
                if let Some(failure) = self.take_fleet(&record) {
                    self.fail(failure).await;
                }
            }
            DemoInput::PoolEnded(ended) => {
                self.pool = None;
                if let Err(error) = ended {
                    let what = format!("the pool has panicked: {error}; please report this");
                    self.fail(Failure::cannot(what)).await;
                }
            }
            DemoInput::Signal(signal) => self.take_signal(signal).await,
            DemoInput::RunnersOverdue => {
                self.runners_due = None;
                self.stop.order(StopOrder::Gently);
            }
        }
    }

    fn take_lab(&mut self, event: &LabEvent) {
        if event.run != self.demo.run {
            return;
        }
        self.progress.lab(event);
        self.demo.view.lab(event, &self.progress);
        let demand = match &event.kind {
            LabEventKind::JobQueued { job, labels, group_id, .. } => {
                DemandEvent::Queued(JobDemand { job: *job, labels: labels.clone(), group: *group_id })
            }
            LabEventKind::JobAssigned { job, runner_name, .. } => {
                DemandEvent::Taken { job: *job, runner: runner_name.clone() }
            }
            LabEventKind::JobCompleted { job, conclusion, remark, .. } => {
                self.progress.ended(*job, *conclusion, remark.as_deref())
            }
            LabEventKind::JobSkipped { job, .. } => DemandEvent::Settled { job: *job },
            LabEventKind::RunCompleted { conclusion } => {
                self.conclusion = Some(conclusion.to_string());
                self.runners_due = Some(Instant::now() + RUNNERS_END);
                DemandEvent::Closed
            }
            _ => return,
        };
        self.jobs.send(demand);
    }

    /// Takes in a fact of the pool. Returns a failure if the run cannot go on.
    fn take_fleet(&mut self, record: &FactRecord) -> Option<Failure> {
        if let Some(logs) = &mut self.demo.logs
            && let Err(error) = logs.take(record)
        {
            tracing::warn!("the logs of runners cannot be written: {error}");
            self.demo.logs = None;
        }
        self.progress.fleet(record);
        match &record.fact {
            Fact::LoopStarted { for_job: Some(job) } => {
                self.wanted_by.insert(record.loop_index, *job);
            }
            Fact::GaveUp { why } => return Some(Failure::cannot(why.clone())),
            Fact::Warning { message } if record.runner.is_none() => self.demo.view.warning(message),
            Fact::VmmStarted { pid, .. } => {
                self.pids.insert(record.name().to_owned(), *pid);
            }
            Fact::VmGone { .. } => {
                self.pids.remove(record.name());
            }
            Fact::VmKept { folder } => {
                let process = self.pids.remove(record.name()).unwrap_or_default();
                let console = folder.join("console.sock");
                self.kept.push(KeptMachine { machine: record.name().to_owned(), process, console });
            }
            _ => {}
        }
        // The facts of a loop as a whole are the orchestrator's; the demo shows runners.
        if record.runner.is_some() {
            let wanted_by = self.wanted_by.get(&record.loop_index).map(|job| self.progress.job_name(*job));
            self.demo.view.fleet(record, wanted_by.as_deref(), &self.progress);
        }
        None
    }

    async fn take_signal(&mut self, signal: Signal) {
        let first = self.signal.is_none();
        self.signal = self.signal.or(Some(signal));
        if first {
            self.demo.view.warning("stopping the machines (a second signal kills them at once)");
            self.cancel_run().await;
            self.stop.order(StopOrder::Gently);
        } else {
            self.stop.order(StopOrder::AtOnce);
            self.conclusion.get_or_insert_with(|| "cancelled".to_owned());
        }
    }

    /// Stops all runners because the run cannot go on. Only the first failure is reported.
    async fn fail(&mut self, failure: Failure) {
        if self.failure.is_none() {
            self.failure = Some(failure);
            self.cancel_run().await;
        }
        self.stop.order(StopOrder::Gently);
        self.conclusion.get_or_insert_with(|| "cancelled".to_owned());
    }

    async fn cancel_run(&mut self) {
        if self.conclusion.is_some() {
            return;
        }
        if let Err(error) = self.demo.lab.forge.cancel_run(OWNER, REPOSITORY, self.demo.run).await {
            self.demo.view.warning(&format!("the run could not be cancelled: {error}"));
            self.conclusion = Some("cancelled".to_owned());
        }
    }

    async fn end(mut self) -> Result<Outcome> {
        // The pool has ended, so all of its facts are in the queue.
        while let Ok(record) = self.demo.fleet_facts.try_recv() {
            let failure = self.take_fleet(&record);
            self.failure = self.failure.or(failure);
        }
        let conclusion = self.conclusion.clone().unwrap_or_else(|| "cancelled".to_owned());
        let mut remains = Remains { kept: std::mem::take(&mut self.kept), ..Remains::default() };
        remains.machines = self.machines_left();
        remains.registrations = self.registrations_left().await;
        let Self { demo, progress, signal, failure, .. } = self;
        demo.lab.end().await;
        demo.host.spares.end().await;
        let folder = demo.instance.folder().to_owned();
        let removed = demo.instance.remove();
        remains.files = files_left(&folder, !remains.kept.is_empty(), removed.err());
        demo.view.end(&conclusion, &progress.report(), &remains);
        match (failure, signal) {
            (Some(failure), _) => Err(failure),
            (None, Some(signal)) => Ok(Outcome::StoppedBy(signal)),
            // If all jobs were skipped, nothing failed. GitHub's checks pass with it, too.
            (None, None) if conclusion == "success" || conclusion == "skipped" => Ok(Outcome::Success),
            (None, None) => Ok(Outcome::NotSucceeded),
        }
    }

    /// Returns the machines that were started, were not reported gone, and whose process still exists.
    fn machines_left(&self) -> Vec<String> {
        let alive = |pid: u32| Path::new("/proc").join(pid.to_string()).exists();
        self.pids
            .iter()
            .filter(|(_, pid)| alive(**pid))
            .map(|(name, pid)| format!("{name} (process {pid})"))
            .collect()
    }

    async fn registrations_left(&self) -> Vec<String> {
        let kept: HashSet<&str> = self.kept.iter().map(|kept| kept.machine.as_str()).collect();
        match self.demo.lab.forge.list_runners(&scope()).await {
            Ok(runners) => runners
                .into_iter()
                .map(|runner| runner.name)
                .filter(|name| !kept.contains(name.as_str()))
                .collect(),
            Err(error) => vec![format!("cannot be listed: {error}")],
        }
    }
}

/// Returns the rest of the instance's folder, or the error of its removal. The folder of a kept machine does not count,
/// because the next demo removes both.
fn files_left(
    folder: &Path,
    kept: bool,
    error: Option<dayfly_fleet::instance::InstanceError>,
) -> Vec<String> {
    match error {
        Some(error) => vec![error.to_string()],
        None if folder.exists() && !kept => vec![folder.display().to_string()],
        None => Vec::new(),
    }
}
