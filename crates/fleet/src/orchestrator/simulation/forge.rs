//! The forge of a simulation: its jobs, its registrations, and what it tells a source of demand.

use std::collections::{BTreeMap, VecDeque};

use crate::demand::{DemandEvent, JobDemand};
use crate::fact::RegistrationEnd;

/// The way in which a source learns of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceKind {
    /// By the number of jobs that are assigned, as with a scale set.
    Counts,
    /// By single jobs, as with webhooks and lists.
    Lists,
}

/// The stage of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobStage {
    Queued,
    Runs,
    Done,
    Cancelled,
    /// A fault has ended its machine.
    Lost,
}

/// A runner that is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RegisteredRunner {
    pub(super) name: String,
    pub(super) job: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Forge {
    source: SourceKind,
    pub(super) jobs: Vec<JobStage>,
    pub(super) runners: BTreeMap<u64, RegisteredRunner>,
    /// Messages that the source has not taken yet.
    pub(super) messages: VecDeque<DemandEvent>,
    /// True if no call gets an answer.
    pub(super) is_down: bool,
    last_runner: u64,
}

impl Forge {
    pub(super) fn new(source: SourceKind) -> Self {
        Self {
            source,
            jobs: Vec::new(),
            runners: BTreeMap::new(),
            messages: VecDeque::new(),
            is_down: false,
            last_runner: 0,
        }
    }

    /// Queues another job.
    pub(super) fn queue(&mut self) {
        let job = self.jobs.len();
        self.jobs.push(JobStage::Queued);
        self.tell(DemandEvent::Queued(demand(job)));
    }

    /// Cancels a job that waits.
    pub(super) fn cancel(&mut self, job: usize) {
        self.jobs[job] = JobStage::Cancelled;
        self.tell(DemandEvent::Settled { job: job as u64 });
    }

    /// Registers a runner under a name. Returns its id.
    pub(super) fn register(&mut self, name: &str) -> u64 {
        self.last_runner += 1;
        self.runners.insert(self.last_runner, RegisteredRunner { name: name.to_owned(), job: None });
        self.last_runner
    }

    pub(super) fn find(&self, name: &str) -> Option<u64> {
        self.runners.iter().find(|(_, runner)| runner.name == name).map(|(&id, _)| id)
    }

    /// Deletes a registration unless its runner has a job.
    pub(super) fn delete(&mut self, id: u64) -> RegistrationEnd {
        match self.runners.get(&id) {
            None => RegistrationEnd::Gone,
            Some(runner) if runner.job.is_some() => RegistrationEnd::Busy,
            Some(_) => {
                self.runners.remove(&id);
                RegistrationEnd::Deleted
            }
        }
    }

    /// Returns the jobs that wait, the first one first.
    pub(super) fn queued(&self) -> impl Iterator<Item = usize> {
        self.jobs.iter().enumerate().filter(|(_, stage)| **stage == JobStage::Queued).map(|(job, _)| job)
    }

    /// Gives an idle runner the job that has waited longest. Returns the job.
    pub(super) fn assign(&mut self, id: u64) -> Option<usize> {
        let job = self.queued().next()?;
        let runner = self.runners.get_mut(&id).filter(|runner| runner.job.is_none())?;
        runner.job = Some(job);
        let runner = runner.name.clone();
        self.jobs[job] = JobStage::Runs;
        self.tell(DemandEvent::Taken { job: job as u64, runner });
        Some(job)
    }

    /// Ends the job of a runner. Its registration goes with it, because it is ephemeral.
    pub(super) fn end_job(&mut self, id: u64, stage: JobStage) {
        let Some(job) = self.runners.remove(&id).and_then(|runner| runner.job) else { return };
        self.jobs[job] = stage;
        self.tell(DemandEvent::Settled { job: job as u64 });
    }

    /// Returns the number of jobs that wait or run.
    pub(super) fn open_jobs(&self) -> u32 {
        let is_open = |stage: &&JobStage| matches!(stage, JobStage::Queued | JobStage::Runs);
        u32::try_from(self.jobs.iter().filter(is_open).count()).expect("a few jobs")
    }

    /// Tells a source everything: a new session begins with the number, and a poll sees the lists.
    pub(super) fn tell_all(&mut self) {
        if self.source == SourceKind::Counts {
            self.messages.push_back(DemandEvent::Assigned { jobs: self.open_jobs() });
            return;
        }
        for (job, stage) in self.jobs.clone().into_iter().enumerate() {
            let runner = self.runners.values().find(|runner| runner.job == Some(job));
            match (stage, runner) {
                (JobStage::Queued, _) => self.messages.push_back(DemandEvent::Queued(demand(job))),
                (JobStage::Runs, Some(runner)) => {
                    let runner = runner.name.clone();
                    self.messages.push_back(DemandEvent::Taken { job: job as u64, runner });
                }
                _ => self.messages.push_back(DemandEvent::Settled { job: job as u64 }),
            }
        }
    }

    /// Sends what has changed. A scale set's number comes with each message; of single jobs it only tells who has them.
    fn tell(&mut self, event: DemandEvent) {
        match (self.source, &event) {
            (SourceKind::Lists, _) | (SourceKind::Counts, DemandEvent::Taken { .. }) => {
                self.messages.push_back(event);
            }
            (SourceKind::Counts, _) => {}
        }
        if self.source == SourceKind::Counts {
            self.messages.push_back(DemandEvent::Assigned { jobs: self.open_jobs() });
        }
    }
}

fn demand(job: usize) -> JobDemand {
    JobDemand { job: job as u64, labels: vec!["a".to_owned()], group: 1 }
}
