//! Deliveries become changes of a pool's demand. Pure: time is passed in.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use dayfly_forge::RunnerScope;
use dayfly_forge::webhook::{JobAction, JobDelivery};
use tokio::time::Instant;

use crate::demand::labels::PoolLabels;
use crate::demand::{DemandEvent, JobDemand, JobDetails};
use crate::job_end::{JobConclusion, JobEnd};

/// Most deliveries whose ids are remembered. A delivery that comes again after so many others changes nothing either, as long
/// as its job is remembered.
const DELIVERIES_MAX: usize = 4096;
/// Most jobs that are remembered. The job that was first reported goes first.
const JOBS_MAX: usize = 10_000;
/// Longest time that a job waits for a runner. GitHub fails it then (docs.github.com, "Limits for self-hosted runners").
const QUEUED_MAX: Duration = Duration::from_secs(24 * 3600);

/// The deliveries and jobs that concern a pool.
#[derive(Debug)]
pub(super) struct WebhookFold {
    scope: RunnerScope,
    labels: PoolLabels,
    /// False if another source reports how jobs ended.
    pub(super) tells_ends: bool,
    /// The ids of the last deliveries, also in the order in which they came.
    deliveries: HashSet<String>,
    delivery_order: VecDeque<String>,
    /// The last jobs, also in the order in which they were first reported.
    jobs: HashMap<u64, Known>,
    job_order: VecDeque<u64>,
}

/// A job that was reported.
#[derive(Debug, Clone, Copy)]
struct Known {
    stage: Stage,
    since: Instant,
}

/// The stage of a job. It never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Queued,
    Taken,
    Over,
}

impl WebhookFold {
    pub(super) fn new(scope: RunnerScope, labels: PoolLabels) -> Self {
        Self {
            scope,
            labels,
            tells_ends: true,
            deliveries: HashSet::new(),
            delivery_order: VecDeque::new(),
            jobs: HashMap::new(),
            job_order: VecDeque::new(),
        }
    }

    /// Returns the scope of the pool.
    pub(super) fn scope(&self) -> &RunnerScope {
        &self.scope
    }

    /// Returns the changes that a delivery reports; none if it is not about the pool, or says nothing new.
    pub(super) fn changes(&mut self, delivery: &JobDelivery, now: Instant) -> Vec<DemandEvent> {
        let stage = match delivery.action {
            JobAction::Waiting => return Vec::new(),
            JobAction::Queued => Stage::Queued,
            JobAction::InProgress => Stage::Taken,
            JobAction::Completed => Stage::Over,
        };
        if !self.concerns(delivery, stage) || !self.is_new(&delivery.id) {
            return Vec::new();
        }
        let before = self.jobs.get(&delivery.job).map(|known| known.stage);
        if before.is_some_and(|before| before >= stage) {
            return Vec::new();
        }
        let mut events = self.remember(delivery.job, Known { stage, since: now });
        match stage {
            Stage::Queued => events.push(DemandEvent::Queued(demand(delivery))),
            Stage::Taken => events.push(taken(delivery)),
            Stage::Over => {
                // The runner counts as busy before its end, even if the delivery that said so is late or lost.
                let was_taken = before == Some(Stage::Taken);
                events.extend(delivery.runner.is_some().then(|| taken(delivery)).filter(|_| !was_taken));
                events.push(self.ended(delivery));
            }
        }
        events
    }

    /// Forgets jobs that were said to wait, if they cannot wait any more.
    pub(super) fn forget(&mut self, now: Instant) -> Vec<DemandEvent> {
        let is_late =
            |known: &Known| known.stage == Stage::Queued && now.duration_since(known.since) >= QUEUED_MAX;
        let late = self.jobs.iter_mut().filter(|(_, known)| is_late(known));
        late.map(|(&job, known)| {
            known.stage = Stage::Over;
            DemandEvent::Settled { job }
        })
        .collect()
    }

    /// Returns a text about a queued job that can never have a runner of the pool, although it asks for its size.
    pub(super) fn mistake(&self, delivery: &JobDelivery) -> Option<String> {
        let is_queued = delivery.action == JobAction::Queued && self.serves(delivery);
        self.labels.mistake(delivery.job, &delivery.labels).filter(|_| is_queued)
    }

    /// Returns true if the pool's runners serve the repository of a delivery and may run its job. A runner may also get a job
    /// that asks for a group alone; such a job is noticed once it is taken.
    fn concerns(&self, delivery: &JobDelivery, stage: Stage) -> bool {
        let fits = self.labels.fit(&delivery.labels) || (stage > Stage::Queued && delivery.labels.is_empty());
        self.serves(delivery) && fits
    }

    fn serves(&self, delivery: &JobDelivery) -> bool {
        match &self.scope {
            RunnerScope::Repository { owner, name } => {
                owner.eq_ignore_ascii_case(&delivery.owner) && name.eq_ignore_ascii_case(&delivery.repository)
            }
            RunnerScope::Organization(name) => name.eq_ignore_ascii_case(&delivery.owner),
            RunnerScope::Enterprise(name) => {
                delivery.enterprise.as_ref().is_some_and(|enterprise| enterprise.eq_ignore_ascii_case(name))
            }
        }
    }

    /// Remembers a delivery. Returns false if it is known.
    fn is_new(&mut self, id: &str) -> bool {
        if !self.deliveries.insert(id.to_owned()) {
            return false;
        }
        self.delivery_order.push_back(id.to_owned());
        if self.delivery_order.len() > DELIVERIES_MAX
            && let Some(oldest) = self.delivery_order.pop_front()
        {
            self.deliveries.remove(&oldest);
        }
        true
    }

    /// Remembers a job. A job that has to go for it no longer counts as waiting.
    fn remember(&mut self, job: u64, known: Known) -> Vec<DemandEvent> {
        if self.jobs.insert(job, known).is_none() {
            self.job_order.push_back(job);
        }
        if self.job_order.len() <= JOBS_MAX {
            return Vec::new();
        }
        let oldest = self.job_order.pop_front();
        let gone = oldest.and_then(|job| Some((job, self.jobs.remove(&job)?)));
        let waited = gone.filter(|(_, known)| known.stage == Stage::Queued);
        waited.map(|(job, _)| DemandEvent::Settled { job }).into_iter().collect()
    }

    fn ended(&self, delivery: &JobDelivery) -> DemandEvent {
        let conclusion = delivery.conclusion.as_deref().and_then(conclusion).filter(|_| self.tells_ends);
        match (conclusion, &delivery.runner) {
            (Some(conclusion), Some(runner)) => DemandEvent::Ended(JobEnd {
                job: delivery.job,
                name: delivery.name.clone(),
                runner: runner.clone(),
                conclusion,
                annotations: Vec::new(),
            }),
            _ => DemandEvent::Settled { job: delivery.job },
        }
    }
}

/// Returns what a delivery says about its job.
pub(super) fn described(delivery: &JobDelivery) -> DemandEvent {
    let JobDelivery { owner, repository, .. } = delivery;
    DemandEvent::Described(JobDetails {
        job: delivery.job,
        name: Some(delivery.name.clone()).filter(|name| !name.is_empty()),
        repository: Some(format!("{owner}/{repository}")),
        workflow: delivery.workflow.clone(),
        labels: delivery.labels.clone(),
        queued_ms: delivery.queued_ms,
        waits: false,
    })
}

fn demand(delivery: &JobDelivery) -> JobDemand {
    // The event does not name the group, and all runners of a scaled pool are alike.
    JobDemand { job: delivery.job, labels: delivery.labels.clone(), group: 1 }
}

/// Returns the event of a job that a runner has. Without the runner's name, it is only known that the job needs none any more.
fn taken(delivery: &JobDelivery) -> DemandEvent {
    let job = delivery.job;
    match &delivery.runner {
        Some(runner) => DemandEvent::Taken { job, runner: runner.clone() },
        None => DemandEvent::Settled { job },
    }
}

/// Returns the conclusion for GitHub's word; none for a word that says nothing about the run of a job.
fn conclusion(word: &str) -> Option<JobConclusion> {
    Some(match word {
        "success" => JobConclusion::Success,
        "failure" | "timed_out" => JobConclusion::Failure,
        "cancelled" => JobConclusion::Cancelled,
        "skipped" => JobConclusion::Skipped,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
