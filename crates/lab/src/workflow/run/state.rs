//! The state machine of a run.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use jiff::{SignedDuration, Timestamp};

use super::github::GithubContext;
use super::group::Group;
use super::job::{CancelReason, Conclusion, JobIndex, JobRun, JobState, RunsOn};
use crate::expression::{Object, Scope, Value};
use crate::workflow::model::Workflow;
use crate::workflow::plan;

/// Longest time that a runner may take to stop a job; GitHub's figure.
pub const CANCEL_GRACE: Duration = Duration::from_secs(5 * 60);

/// The data that a run is created from.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRequest {
    /// The `github` context: the event, the repository, the commit.
    pub github: GithubContext,
    /// The `inputs` context, from [`Trigger::resolve_inputs`](crate::workflow::Trigger::resolve_inputs).
    pub inputs: Value,
    /// The repository's variables.
    pub vars: IndexMap<String, String>,
}

/// An event of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEvent {
    /// A runner acquired a queued job.
    JobStarted {
        /// The job's index.
        job: JobIndex,
    },
    /// A runner completed a job. Ignored if the job is over already.
    JobFinished {
        /// The job's index.
        job: JobIndex,
        /// The conclusion that the runner reported.
        conclusion: Conclusion,
        /// The job's outputs.
        outputs: IndexMap<String, String>,
    },
    /// The runner of a job is gone and will not complete it.
    RunnerLost {
        /// The job's index.
        job: JobIndex,
        /// The reason, as a message for users.
        reason: String,
    },
    /// A user cancels the run. Jobs whose `if` is still true then (`always()`, `cancelled()`) go on, as on GitHub.
    CancelRequested,
    /// The time of [`Run::next_deadline`] has come.
    TimePassed,
}

/// An action that the owner of a run must carry out.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Offer the job to runners.
    QueueJob {
        /// The job's index.
        job: JobIndex,
    },
    /// Withdraw a job that was offered to runners. An [`Action::JobCompleted`] follows.
    WithdrawJob {
        /// The job's index.
        job: JobIndex,
    },
    /// Send the job's runner a `JobCancellation`.
    CancelJob {
        /// The job's index.
        job: JobIndex,
        /// The reason.
        reason: CancelReason,
        /// The time that the runner may take; after it the run completes the job itself.
        grace: Duration,
    },
    /// Tell the user who started the run something.
    Notice {
        /// The text, with the position in the file that it is about.
        text: String,
    },
    /// The job is over; possibly no runner ever had it.
    JobCompleted {
        /// The job's index.
        job: JobIndex,
        /// The conclusion.
        conclusion: Conclusion,
    },
    /// The run is over; always the last action of a run.
    RunCompleted {
        /// The conclusion.
        conclusion: Conclusion,
    },
}

/// One run of a workflow.
#[derive(Debug, Clone)]
pub struct Run {
    workflow: Arc<Workflow>,
    request: RunRequest,
    github: Value,
    vars: Value,
    /// One group for each job of the workflow, in the order of the file.
    groups: Vec<Group>,
    jobs: Vec<JobRun>,
    cancel_requested: bool,
    conclusion: Option<Conclusion>,
}

impl Run {
    /// Creates a run and returns it with its first actions.
    pub fn start(workflow: Arc<Workflow>, request: RunRequest, now: Timestamp) -> (Self, Vec<Action>) {
        let groups = Group::all(&workflow);
        let github = request.github.to_value();
        let vars = Value::Object(request.vars.clone().into_iter().collect());
        let mut run = Self {
            workflow,
            request,
            github,
            vars,
            groups,
            jobs: Vec::new(),
            cancel_requested: false,
            conclusion: None,
        };
        let actions = run.handle(RunEvent::TimePassed, now);
        (run, actions)
    }

    /// Handles an event and returns the resulting actions. Every run ends if each job that it queues gets one `JobFinished`
    /// or `RunnerLost`; if a runner never answers, a `TimePassed` at each deadline replaces them.
    pub fn handle(&mut self, event: RunEvent, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.conclusion.is_some() {
            return actions;
        }
        match event {
            RunEvent::JobStarted { job } => self.started(job, now),
            RunEvent::JobFinished { job, conclusion, outputs } => {
                self.finished(job, conclusion, outputs, now, &mut actions)
            }
            RunEvent::RunnerLost { job, reason } => self.lost(job, &reason, now, &mut actions),
            RunEvent::CancelRequested => self.cancel(now, &mut actions),
            RunEvent::TimePassed => {}
        }
        self.enforce_deadlines(now, &mut actions);
        self.advance(now, &mut actions);
        actions
    }

    /// Returns the time at which the owner must send the next [`RunEvent::TimePassed`].
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let deadlines = self.jobs.iter().filter_map(|job| match job.state {
            JobState::Running { deadline, .. } | JobState::Cancelling { deadline, .. } => Some(deadline),
            _ => None,
        });
        deadlines.min()
    }

    /// Returns the conclusion if the run is over.
    pub fn conclusion(&self) -> Option<Conclusion> {
        self.conclusion
    }

    /// Returns the run's displayed title: `run-name:`, or the workflow's name.
    pub fn display_title(&self) -> String {
        plan::run_name(&self.workflow, &self.base_scope())
    }

    /// Returns the workflow.
    pub fn workflow(&self) -> &Arc<Workflow> {
        &self.workflow
    }

    /// Returns the request that the run was created from.
    pub fn request(&self) -> &RunRequest {
        &self.request
    }

    /// Returns the `github` context, without the members that are added for each job.
    pub fn github(&self) -> &Value {
        &self.github
    }

    /// Returns the `vars` context.
    pub fn vars(&self) -> &Value {
        &self.vars
    }

    /// Returns true if a user has cancelled the run.
    pub fn is_cancel_requested(&self) -> bool {
        self.cancel_requested
    }

    /// Returns the jobs that were created so far, in this order. A job is created when the jobs that it needs are over.
    pub fn jobs(&self) -> &[JobRun] {
        &self.jobs
    }

    /// Returns one job, or `None` if the run has no job with this index.
    pub fn job(&self, index: JobIndex) -> Option<&JobRun> {
        self.jobs.get(index.0)
    }

    /// Returns the contexts of a job that are known before a runner has it.
    pub(in crate::workflow) fn known_scope<'a>(&'a self, job: &'a JobRun) -> Scope<'a> {
        self.base_scope()
            .with_ref("needs", &job.needs)
            .with_ref("matrix", &job.matrix)
            .with_ref("strategy", &job.strategy)
    }

    fn base_scope(&self) -> Scope<'_> {
        Scope::new()
            .with_ref("github", &self.github)
            .with_ref("inputs", &self.request.inputs)
            .with_ref("vars", &self.vars)
    }

    fn started(&mut self, index: JobIndex, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(index.0) else { return };
        if matches!(job.state, JobState::Queued { .. }) {
            let deadline = after_minutes(now, job.timeout_minutes);
            job.state = JobState::Running { since: now, deadline };
        }
    }

    fn finished(
        &mut self,
        index: JobIndex,
        conclusion: Conclusion,
        outputs: IndexMap<String, String>,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let Some(job) = self.jobs.get_mut(index.0) else { return };
        let conclusion = match (job.state, conclusion) {
            (JobState::Completed { .. } | JobState::Waiting, _) => return,
            // A job that fails while it is being stopped counts as cancelled; one that succeeds meanwhile stays a success.
            (JobState::Cancelling { .. }, Conclusion::Failure | Conclusion::Skipped) => Conclusion::Cancelled,
            (_, conclusion) => conclusion,
        };
        job.outputs = outputs;
        self.complete(index, conclusion, now, actions);
    }

    fn lost(&mut self, index: JobIndex, reason: &str, now: Timestamp, actions: &mut Vec<Action>) {
        let Some(job) = self.jobs.get_mut(index.0) else { return };
        let conclusion = match job.state {
            JobState::Completed { .. } | JobState::Waiting => return,
            JobState::Cancelling { .. } => Conclusion::Cancelled,
            JobState::Queued { .. } | JobState::Running { .. } => Conclusion::Failure,
        };
        job.remark.get_or_insert_with(|| reason.to_owned());
        self.complete(index, conclusion, now, actions);
    }

    /// Cancels the run. As on GitHub, the `if` of every unfinished job is evaluated again, and a job goes on if it is true.
    fn cancel(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        self.cancel_requested = true;
        for index in 0..self.jobs.len() {
            let job = &self.jobs[index];
            if job.conclusion().is_none() && !self.still_holds(job) {
                self.stop(JobIndex(index), CancelReason::Requested, now, actions);
            }
        }
    }

    fn still_holds(&self, job: &JobRun) -> bool {
        let Some(definition) = self.workflow.jobs.get(&job.job_id) else { return false };
        let scope = self.base_scope().with_ref("needs", &job.needs).with_status(self.status_of(&job.job_id));
        definition.condition.expr.evaluate(&scope).is_ok_and(|value| value.is_truthy())
    }

    /// Stops a job: completes it if no runner has it, otherwise tells its runner to stop.
    pub(super) fn stop(
        &mut self,
        index: JobIndex,
        reason: CancelReason,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let job = &mut self.jobs[index.0];
        match job.state {
            JobState::Waiting => self.complete(index, Conclusion::Cancelled, now, actions),
            JobState::Queued { .. } => {
                actions.push(Action::WithdrawJob { job: index });
                self.complete(index, Conclusion::Cancelled, now, actions);
            }
            JobState::Running { since, .. } => {
                job.state = JobState::Cancelling { since, deadline: after(now, CANCEL_GRACE), reason };
                actions.push(Action::CancelJob { job: index, reason, grace: CANCEL_GRACE });
            }
            JobState::Cancelling { .. } | JobState::Completed { .. } => {}
        }
    }

    fn enforce_deadlines(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        for index in (0..self.jobs.len()).map(JobIndex) {
            let job = &mut self.jobs[index.0];
            match job.state {
                JobState::Running { deadline, .. } if deadline <= now => {
                    let minutes = Value::Number(job.timeout_minutes).to_text();
                    job.remark = Some(format!("the job took longer than its timeout of {minutes} minutes"));
                    self.stop(index, CancelReason::TimedOut, now, actions);
                }
                JobState::Cancelling { deadline, .. } if deadline <= now => {
                    job.remark.get_or_insert_with(|| "the runner did not stop the job in time".to_owned());
                    self.complete(index, Conclusion::Cancelled, now, actions);
                }
                _ => {}
            }
        }
    }

    pub(super) fn complete(
        &mut self,
        index: JobIndex,
        conclusion: Conclusion,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let job = &mut self.jobs[index.0];
        let started = match job.state {
            JobState::Running { since, .. } | JobState::Cancelling { since, .. } => Some(since),
            _ => None,
        };
        job.state = JobState::Completed { started, at: now, conclusion };
        actions.push(Action::JobCompleted { job: index, conclusion });
        let fails = conclusion == Conclusion::Failure && !job.continue_on_error;
        self.group_completed(index, fails, now, actions);
    }

    /// Expands every group that is ready, queues jobs, and completes the run if all groups are over.
    fn advance(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        while let Some(ready) = self.ready_group() {
            self.expand(ready, now, actions);
        }
        self.fill(now, actions);
        if self.groups.iter().all(|group| group.is_over(&self.jobs)) {
            let conclusion = self.overall();
            self.conclusion = Some(conclusion);
            actions.push(Action::RunCompleted { conclusion });
        }
    }

    /// Queues the waiting jobs that `max-parallel` allows to start.
    fn fill(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        for group in &self.groups {
            for index in group.startable(&self.jobs) {
                self.jobs[index.0].state = JobState::Queued { since: now };
                actions.push(Action::QueueJob { job: index });
            }
        }
    }

    fn overall(&self) -> Conclusion {
        let any = |wanted: Conclusion| {
            self.jobs.iter().any(|job| {
                job.conclusion() == Some(wanted) && !(wanted == Conclusion::Failure && job.continue_on_error)
            })
        };
        let all_skipped = self.jobs.iter().all(|job| job.conclusion() == Some(Conclusion::Skipped));
        if self.cancel_requested && (any(Conclusion::Cancelled) || any(Conclusion::Skipped)) {
            Conclusion::Cancelled
        } else if any(Conclusion::Failure) {
            Conclusion::Failure
        } else if any(Conclusion::Cancelled) {
            Conclusion::Cancelled
        } else if all_skipped {
            Conclusion::Skipped
        } else {
            Conclusion::Success
        }
    }

    fn ready_group(&self) -> Option<usize> {
        self.groups.iter().position(|group| {
            !group.expanded && group.needs.iter().all(|need| self.groups[*need].is_over(&self.jobs))
        })
    }

    /// Creates the run's jobs for a job of the workflow whose needs are over.
    fn expand(&mut self, group: usize, now: Timestamp, actions: &mut Vec<Action>) {
        let workflow = Arc::clone(&self.workflow);
        let Some((job_id, definition)) = workflow.jobs.get_index(group) else { return };
        let needs = self.needs_context(group);
        self.groups[group].expanded = true;
        let scope = self.base_scope().with_ref("needs", &needs);
        let condition =
            definition.condition.expr.evaluate(&scope.clone().with_status(self.status_of(job_id)));
        let planned = match condition {
            Ok(value) if !value.is_truthy() => {
                self.add_finished(group, needs, Conclusion::Skipped, None, now, actions);
                return;
            }
            Ok(_) => plan::strategy(&workflow.file, definition, &scope).map_err(|error| error.to_string()),
            Err(error) => {
                Err(format!("{}:{}: jobs.{job_id}.if: {error}", workflow.file, definition.condition.at))
            }
        };
        let plans = planned.and_then(|strategy| {
            let plans = Self::plan_instances(&workflow.file, definition, &strategy, &scope);
            plans.map(|plans| (strategy, plans)).map_err(|error| error.to_string())
        });
        match plans {
            Err(remark) => self.add_finished(group, needs, Conclusion::Failure, Some(remark), now, actions),
            Ok((strategy, plans)) => {
                self.groups[group].fail_fast = strategy.fail_fast;
                self.groups[group].max_parallel = strategy.max_parallel;
                actions.extend(
                    strategy.notices.iter().map(|notice| Action::Notice { text: notice.to_string() }),
                );
                for (plan, matrix, context) in plans {
                    self.add(group, plan, matrix, context, needs.clone());
                }
            }
        }
    }

    fn plan_instances(
        file: &str,
        definition: &crate::workflow::model::Job,
        strategy: &plan::StrategyPlan,
        scope: &Scope<'_>,
    ) -> Result<Vec<(plan::JobPlan, Value, Value)>, plan::PlanError> {
        let total = strategy.combinations.len();
        let plans = strategy.combinations.iter().enumerate().map(|(index, combination)| {
            let matrix =
                combination.as_ref().map_or(Value::Null, |matrix| Value::Object(matrix.values.clone()));
            let context = strategy_context(strategy, index, total);
            let scope = scope.clone().with_ref("matrix", &matrix).with_ref("strategy", &context);
            let plan = plan::job(file, definition, combination.as_ref(), &scope)?;
            Ok((plan, matrix, context))
        });
        plans.collect()
    }

    fn add(
        &mut self,
        group: usize,
        plan: plan::JobPlan,
        matrix: Value,
        strategy: Value,
        needs: Value,
    ) -> JobIndex {
        let index = JobIndex(self.jobs.len());
        let job_id = self.workflow.jobs.get_index(group).map(|(id, _)| id.clone()).unwrap_or_default();
        self.jobs.push(JobRun {
            index,
            job_id,
            name: plan.name,
            runs_on: plan.runs_on,
            matrix,
            strategy,
            needs,
            timeout_minutes: plan.timeout_minutes,
            continue_on_error: plan.continue_on_error,
            state: JobState::Waiting,
            outputs: IndexMap::new(),
            remark: None,
        });
        self.groups[group].jobs.push(index);
        index
    }

    /// Adds a job that is over before a runner could have it.
    fn add_finished(
        &mut self,
        group: usize,
        needs: Value,
        conclusion: Conclusion,
        remark: Option<String>,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let name =
            self.workflow.jobs.get_index(group).map(|(_, job)| plan::plain_name(job)).unwrap_or_default();
        let plan = plan::JobPlan {
            name,
            runs_on: RunsOn::default(),
            timeout_minutes: plan::TIMEOUT_MINUTES,
            continue_on_error: false,
        };
        let index = self.add(group, plan, Value::Null, Value::Null, needs);
        self.jobs[index.0].remark = remark;
        self.complete(index, conclusion, now, actions);
    }

    fn group_completed(&mut self, index: JobIndex, fails: bool, now: Timestamp, actions: &mut Vec<Action>) {
        let Some(group) = self.groups.iter_mut().find(|group| group.jobs.contains(&index)) else { return };
        group.merge_outputs(&self.jobs[index.0].outputs);
        if !(fails && group.fail_fast) {
            return;
        }
        for other in group.jobs.clone() {
            if other != index {
                self.stop(other, CancelReason::FailFast, now, actions);
            }
        }
    }

    /// Returns the `needs` context of a job: the results and outputs of the jobs that it needs directly.
    fn needs_context(&self, group: usize) -> Value {
        let mut needs = Object::new();
        for need in &self.groups[group].needs {
            let Some((id, _)) = self.workflow.jobs.get_index(*need) else { continue };
            let needed = &self.groups[*need];
            let mut entry = Object::new();
            entry.insert("result".to_owned(), Value::from(needed.result(&self.jobs).as_str()));
            entry.insert("outputs".to_owned(), Value::Object(needed.outputs.clone().into_iter().collect()));
            needs.insert(id.clone(), Value::Object(entry));
        }
        Value::Object(needs)
    }

    /// Returns the answers of a job's status functions, which depend on all jobs that it needs directly or indirectly.
    fn status_of(&self, job_id: &str) -> crate::expression::Status {
        let group = self.workflow.jobs.get_index_of(job_id).unwrap_or_default();
        let results: Vec<Conclusion> = self.groups[group]
            .ancestors
            .iter()
            .map(|ancestor| self.groups[*ancestor].result(&self.jobs))
            .collect();
        crate::expression::Status {
            success: !self.cancel_requested && results.iter().all(|result| *result == Conclusion::Success),
            failure: results.contains(&Conclusion::Failure),
            cancelled: self.cancel_requested,
        }
    }
}

fn strategy_context(strategy: &plan::StrategyPlan, index: usize, total: usize) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "at most 256")]
    let number = |count: usize| Value::Number(count as f64);
    let entries = [
        ("fail-fast", Value::Bool(strategy.fail_fast)),
        ("job-index", number(index)),
        ("job-total", number(total)),
        ("max-parallel", number(strategy.max_parallel)),
    ];
    Value::Object(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn after(now: Timestamp, duration: Duration) -> Timestamp {
    let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    now.checked_add(duration).unwrap_or(Timestamp::MAX)
}

fn after_minutes(now: Timestamp, minutes: f64) -> Timestamp {
    after(now, Duration::try_from_secs_f64(minutes * 60.0).unwrap_or(Duration::MAX))
}
