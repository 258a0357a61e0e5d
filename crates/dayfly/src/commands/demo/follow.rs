//! From the dispatched run to the verdict: events come in, machines are started and let go, and in the end nothing is left.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dayfly_fleet::fact::{Fact, FactRecord};
use dayfly_fleet::stop::{StopOrder, StopSender};
use dayfly_fleet::{LoopEnd, RunnerEnd, run_loop};
use dayfly_lab::{LabEvent, LabEventKind, Lagged};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::phases::Progress;
use super::setup::{Demo, OWNER, REPOSITORY, scope};
use super::slots::{Slots, Wanted};
use super::view::{Kept, Remains};
use crate::exit::{Failure, Outcome, Result, Signal};
use crate::signals::Signals;

/// After the run's end, how long its runners may take to end by themselves before they are asked to.
const RUNNERS_END: Duration = Duration::from_secs(30);

/// What happened, named before anybody decides about it.
enum Happening {
    Lab(std::result::Result<Arc<LabEvent>, Lagged>),
    LabGone,
    Fleet(FactRecord),
    LoopEnded(u32, Box<LoopEnd>),
    LoopPanicked(tokio::task::JoinError),
    Signal(Signal),
    RunnersOverdue,
}

/// A demo that runs.
struct Following {
    demo: Demo,
    progress: Progress,
    slots: Slots,
    loops: JoinSet<(u32, LoopEnd)>,
    stops: HashMap<u32, StopSender>,
    /// What each loop's machine was started for, for those who watch before a job is taken.
    wanted_by: HashMap<u32, u64>,
    pids: HashMap<String, u32>,
    kept: Vec<Kept>,
    conclusion: Option<String>,
    runners_due: Option<Instant>,
    signal: Option<Signal>,
    failure: Option<Failure>,
}

impl Demo {
    /// Follows the run to its end.
    pub(super) async fn follow(self, signals: &mut Signals) -> Result<Outcome> {
        let slots = Slots::new(self.parallel);
        let mut following = Following {
            demo: self,
            progress: Progress::default(),
            slots,
            loops: JoinSet::new(),
            stops: HashMap::new(),
            wanted_by: HashMap::new(),
            pids: HashMap::new(),
            kept: Vec::new(),
            conclusion: None,
            runners_due: None,
            signal: None,
            failure: None,
        };
        while following.conclusion.is_none() || !following.slots.is_empty() {
            following.start_machines();
            let happening = following.next(signals).await;
            following.take(happening).await;
            following.let_surplus_go();
        }
        following.end().await
    }
}

impl Following {
    fn start_machines(&mut self) {
        while let Some((index, wanted)) = self.slots.start_next() {
            let settings = self.demo.loop_settings(index, wanted.runner_labels(), wanted.group);
            let (sender, stop) = dayfly_fleet::stop::channel();
            self.stops.insert(index, sender);
            self.wanted_by.insert(index, wanted.job);
            let host = self.demo.host.clone();
            let forge = self.demo.lab.forge.clone();
            let facts = self.demo.facts.clone();
            self.loops.spawn(async move { (index, run_loop(settings, &host, &forge, &facts, stop).await) });
        }
    }

    async fn next(&mut self, signals: &mut Signals) -> Happening {
        let overdue = async {
            match self.runners_due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // In this order, so that a job's last lines are shown before its machine's end.
            biased;
            signal = signals.next() => Happening::Signal(signal),
            event = self.demo.lab_events.next(), if self.conclusion.is_none() => {
                event.map_or(Happening::LabGone, Happening::Lab)
            }
            Some(record) = self.demo.fleet_facts.recv() => Happening::Fleet(record),
            Some(ended) = self.loops.join_next() => match ended {
                Ok((index, end)) => Happening::LoopEnded(index, Box::new(end)),
                Err(error) => Happening::LoopPanicked(error),
            },
            () = overdue => Happening::RunnersOverdue,
        }
    }

    async fn take(&mut self, happening: Happening) {
        match happening {
            Happening::Lab(Ok(event)) => self.take_lab(&event),
            Happening::Lab(Err(lagged)) => {
                self.demo.view.warning(&format!("{lagged}; the whole log is in the lab until the end"));
            }
            Happening::LabGone => self.fail(Failure::cannot("the lab has ended by itself")).await,
            Happening::Fleet(record) => self.take_fleet(&record),
            Happening::LoopEnded(index, end) => self.take_loop_end(index, *end).await,
            Happening::LoopPanicked(error) => {
                self.fail(Failure::cannot(format!("a loop has panicked: {error}; please report this"))).await;
                self.slots.close();
            }
            Happening::Signal(signal) => self.take_signal(signal).await,
            Happening::RunnersOverdue => {
                self.runners_due = None;
                self.order_all(StopOrder::Gently);
            }
        }
    }

    fn take_lab(&mut self, event: &LabEvent) {
        if event.run != self.demo.run {
            return;
        }
        self.progress.lab(event);
        self.demo.view.lab(event, &self.progress);
        match &event.kind {
            LabEventKind::JobQueued { job, labels, group_id, .. } if self.failure.is_none() => {
                self.slots.queued(Wanted { job: *job, labels: labels.clone(), group: *group_id });
            }
            LabEventKind::JobAssigned { job, runner_name, .. } => self.slots.assigned(*job, runner_name),
            LabEventKind::JobCompleted { job, .. } | LabEventKind::JobSkipped { job, .. } => {
                self.slots.settled(*job)
            }
            LabEventKind::RunCompleted { conclusion } => {
                self.conclusion = Some(conclusion.to_string());
                self.runners_due = Some(Instant::now() + RUNNERS_END);
                self.slots.close();
            }
            _ => {}
        }
    }

    fn take_fleet(&mut self, record: &FactRecord) {
        if let Some(logs) = &mut self.demo.logs
            && let Err(error) = logs.take(record)
        {
            tracing::warn!("logs of runners are not kept: {error}");
            self.demo.logs = None;
        }
        self.progress.fleet(record);
        match &record.fact {
            Fact::Registering => self.slots.named(record.loop_index, record.name()),
            Fact::VmmStarted { pid, .. } => {
                self.pids.insert(record.name().to_owned(), *pid);
            }
            Fact::VmGone { .. } => {
                self.pids.remove(record.name());
            }
            Fact::VmKept { folder } => {
                let process = self.pids.remove(record.name()).unwrap_or_default();
                let console = folder.join("console.sock");
                self.kept.push(Kept { machine: record.name().to_owned(), process, console });
            }
            _ => {}
        }
        let wanted_by = self.wanted_by.get(&record.loop_index).map(|job| self.progress.job_name(*job));
        self.demo.view.fleet(record, wanted_by.as_deref(), &self.progress);
    }

    async fn take_loop_end(&mut self, index: u32, end: LoopEnd) {
        self.stops.remove(&index);
        match end {
            LoopEnd::Failed(error) => {
                // What it still told is shown before its end is judged.
                self.slots.close();
                let _ = self.slots.ended(index);
                self.fail(Failure::cannot(error)).await;
            }
            LoopEnd::Finished(_) | LoopEnd::Broken => {
                if let LoopEnd::Finished(RunnerEnd::MachineLost { exit }) = &end {
                    self.demo.view.warning(&format!("a machine has ended in the middle of its work: {exit}"));
                }
                if let Err(gave_up) = self.slots.ended(index) {
                    self.fail(Failure::cannot(gave_up)).await;
                }
            }
            LoopEnd::Stopped => {
                let _ = self.slots.ended(index);
            }
        }
    }

    async fn take_signal(&mut self, signal: Signal) {
        let first = self.signal.is_none();
        self.signal = self.signal.or(Some(signal));
        self.slots.close();
        if first {
            self.demo.view.warning("stopping: machines are being ended (once more to end them at once)");
            self.cancel_run().await;
            self.order_all(StopOrder::Gently);
        } else {
            self.order_all(StopOrder::AtOnce);
            self.conclusion.get_or_insert_with(|| "cancelled".to_owned());
        }
    }

    /// The run cannot go on: the first reason is the one that is told.
    async fn fail(&mut self, failure: Failure) {
        if self.failure.is_none() {
            self.failure = Some(failure);
            self.cancel_run().await;
        }
        self.order_all(StopOrder::Gently);
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

    fn order_all(&self, order: StopOrder) {
        for stop in self.stops.values() {
            stop.order(order);
        }
    }

    fn let_surplus_go(&mut self) {
        for index in self.slots.surplus() {
            if let Some(stop) = self.stops.get(&index) {
                stop.order(StopOrder::Gently);
            }
        }
    }

    async fn end(mut self) -> Result<Outcome> {
        // The loops' last events: everything was sent before they ended.
        while let Ok(record) = self.demo.fleet_facts.try_recv() {
            self.take_fleet(&record);
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
            // All its jobs were skipped: nothing failed. GitHub's checks pass with it, too.
            (None, None) if conclusion == "success" || conclusion == "skipped" => Ok(Outcome::Success),
            (None, None) => Ok(Outcome::NotSucceeded),
        }
    }

    /// Machines that were started, have not been told gone, and whose process is still there.
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

/// What is left of the instance's folder. A kept machine keeps its folder: the next demo removes both.
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
