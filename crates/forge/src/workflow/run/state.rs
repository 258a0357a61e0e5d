//! The state machine.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use jiff::Timestamp;

use super::github::GithubContext;
use super::job::{CancelReason, Conclusion, JobIndex, JobRun};
use crate::expression::Value;
use crate::workflow::model::Workflow;

/// What a run is made for.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRequest {
    /// The event and its surroundings.
    pub github: GithubContext,
    /// The `inputs` context, from [`Trigger::resolve_inputs`](crate::workflow::Trigger::resolve_inputs).
    pub inputs: Value,
    /// The repository's variables.
    pub vars: IndexMap<String, String>,
}

/// What happened to a run.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEvent {
    /// A runner acquired a queued job.
    JobStarted {
        /// Which.
        job: JobIndex,
    },
    /// A runner completed a job. Ignored for a job that is over already.
    JobFinished {
        /// Which.
        job: JobIndex,
        /// What the runner said.
        conclusion: Conclusion,
        /// The job's outputs.
        outputs: IndexMap<String, String>,
    },
    /// The runner of a job is gone and will not complete it.
    RunnerLost {
        /// Which.
        job: JobIndex,
        /// In words for people.
        reason: String,
    },
    /// Someone cancels the run.
    CancelRequested,
    /// Nothing, but [`Run::next_deadline`] has come.
    TimePassed,
}

/// What the owner of a run is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Offer the job to runners.
    QueueJob {
        /// Which.
        job: JobIndex,
    },
    /// The job was offered and is not to be had any more; a [`Action::JobCompleted`] follows.
    WithdrawJob {
        /// Which.
        job: JobIndex,
    },
    /// Tell the job's runner to stop (`JobCancellation`).
    CancelJob {
        /// Which.
        job: JobIndex,
        /// Why.
        reason: CancelReason,
        /// How long the runner may take; the run ends the job itself after that.
        grace: Duration,
    },
    /// The job is over, whether or not a runner ever had it.
    JobCompleted {
        /// Which.
        job: JobIndex,
        /// How.
        conclusion: Conclusion,
    },
    /// The run is over; always the last action of a run.
    RunCompleted {
        /// How.
        conclusion: Conclusion,
    },
}

/// One run of a workflow.
#[derive(Debug, Clone)]
pub struct Run {
    workflow: Arc<Workflow>,
    request: RunRequest,
    jobs: Vec<JobRun>,
}

impl Run {
    /// Makes a run and its first actions.
    pub fn start(workflow: Arc<Workflow>, request: RunRequest, now: Timestamp) -> (Self, Vec<Action>) {
        let mut run = Self { workflow, request, jobs: Vec::new() };
        let actions = run.handle(RunEvent::TimePassed, now);
        (run, actions)
    }

    /// Takes in what happened and says what to do. Every run ends: each job it queues needs one `JobFinished` or
    /// `RunnerLost`, and `TimePassed` at each deadline replaces those of runners that never answer.
    pub fn handle(&mut self, event: RunEvent, now: Timestamp) -> Vec<Action> {
        let _ = (event, now);
        unimplemented!("being written")
    }

    /// When to send [`RunEvent::TimePassed`] next.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        unimplemented!("being written")
    }

    /// How the run ended, once it did.
    pub fn conclusion(&self) -> Option<Conclusion> {
        unimplemented!("being written")
    }

    /// What people see as the run's title: `run-name:`, else the workflow's name.
    pub fn display_title(&self) -> String {
        unimplemented!("being written")
    }

    /// The workflow it runs.
    pub fn workflow(&self) -> &Arc<Workflow> {
        &self.workflow
    }

    /// What it was made for.
    pub fn request(&self) -> &RunRequest {
        &self.request
    }

    /// The jobs that came into being so far, in that order. A job whose needs are not over is not among them.
    pub fn jobs(&self) -> &[JobRun] {
        &self.jobs
    }

    /// One job. `None` for an index that this run never gave out.
    pub fn job(&self, index: JobIndex) -> Option<&JobRun> {
        self.jobs.get(index.0)
    }
}
