//! The worker: runs the steps of one job and reports them.
//!
//! ```text
//! Set up job -> step -> step ... -> Complete job -> log of the job -> completejob
//!                |  condition, script, files of commands, log, summary
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use dayfly_guest::runner_app::JobResult;
use dayfly_host::retry::FORGE_CALL;
use dayfly_lab::expression::{Object, Scope, Status, Value, parse};
use dayfly_lab::workflow::Conclusion;
use serde_json::{Value as Json, json};
use tokio::sync::watch;

use crate::client::{JobClient, Upload};
use crate::folders::Folders;
use crate::http::CallError;
use crate::log::Log;
use crate::message::{JobMessage, StepMessage, evaluate, mapping};
use crate::mood::Mood;
use crate::run_step::shell;
use crate::script::Order;
use crate::step::Step;
use crate::{Say, Settings, VERSION};

/// The parts of the listener that a worker needs.
pub(crate) struct Surroundings<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) say: Say<'a>,
    pub(crate) calls: &'a JobClient,
    pub(crate) runner_name: &'a str,
    pub(crate) work: PathBuf,
}

/// The end of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkerEnd {
    /// The job has this result.
    Done(JobResult),
    /// The app is gone in the middle of the job ([`Mood::VanishAtStep`]).
    Vanished,
}

/// A job that runs.
pub(crate) struct Worker<'a> {
    pub(crate) around: Surroundings<'a>,
    pub(crate) message: JobMessage,
    pub(crate) folders: Folders,
    pub(crate) log: Log,
    pub(crate) steps: Vec<Step>,
    /// The variables of workflow and job, and those that steps have added.
    pub(crate) env: BTreeMap<String, String>,
    /// The folders that steps have put before the search path, the last first.
    pub(crate) paths: Vec<String>,
    /// The `steps` context.
    pub(crate) results: Object,
    pub(crate) failed: bool,
    /// The order that this worker obeys already.
    pub(crate) order: Order,
    pub(crate) orders: watch::Receiver<Order>,
    change_order: u64,
}

/// Runs a job to its end, whatever happens to it.
pub(crate) async fn work(around: Surroundings<'_>, job: Json, orders: watch::Receiver<Order>) -> WorkerEnd {
    let (calls, say) = (around.calls, around.say);
    let crash = (around.settings.mood == Some(Mood::CrashBeforeSteps)).then(|| {
        // The worker of actions/runner 2.336.0 reported this when its tool cache could not be created (recorded).
        "System.UnauthorizedAccessException: Access to the path '/opt/hostedtoolcache' is denied.".to_owned()
    });
    let started = match crash {
        Some(reason) => Err(reason),
        None => Worker::start(around, job, orders),
    };
    match started {
        Ok(worker) => worker.run().await,
        Err(reason) => {
            let annotations = json!([{"level": "failure", "message": reason}]);
            let body = json!({"conclusion": "failed", "annotations": annotations});
            persist(|| calls.complete(body.clone()), "completejob", say).await;
            WorkerEnd::Done(JobResult::Failed)
        }
    }
}

/// Repeats a call that failed for a while. A call that keeps failing is reported and given up, as in actions/runner.
pub(crate) async fn persist<T, F: Future<Output = Result<T, CallError>>>(
    call: impl Fn() -> F,
    what: &str,
    say: Say<'_>,
) -> Option<T> {
    let mut failures = 0;
    loop {
        match call().await {
            Ok(answer) => return Some(answer),
            Err(error) => {
                failures += 1;
                match FORGE_CALL.pause_after(failures).filter(|_| error.is_temporary()) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => {
                        say(&format!("{what} failed {failures} times: {error}"));
                        return None;
                    }
                }
            }
        }
    }
}

impl<'a> Worker<'a> {
    fn start(around: Surroundings<'a>, job: Json, orders: watch::Receiver<Order>) -> Result<Self, String> {
        let message: JobMessage =
            serde_json::from_value(job).map_err(|error| format!("the job's message: {error}"))?;
        let repository = text_of(&message.context("github"), "repository");
        let folders = Folders::create(&around.work, around.runner_name, &repository)
            .map_err(|error| format!("the job's folders in {}: {error}", around.work.display()))?;
        let event = match message.context("github") {
            Value::Object(github) => github.get("event").map_or(Json::Null, Value::to_json),
            _ => Json::Null,
        };
        folders.write("event.json", &event.to_string()).map_err(|error| format!("event.json: {error}"))?;
        let mut worker = Self {
            log: Log::new(message.masked()),
            steps: Vec::new(),
            env: BTreeMap::new(),
            paths: Vec::new(),
            results: Object::new(),
            failed: false,
            order: Order::GoOn,
            change_order: 0,
            around,
            message,
            folders,
            orders,
        };
        worker.list_steps();
        Ok(worker)
    }

    /// Lists the steps with their names, which may hold expressions.
    fn list_steps(&mut self) {
        let new_id = || uuid::Uuid::new_v4().to_string();
        let mut steps = vec![Step::new(new_id(), 1, "Set up job".to_owned(), "setup_job")];
        for step in &self.message.steps {
            let name = evaluate(&step.display_name_token, &self.scope(None)).map(|name| name.to_text());
            let name = name.unwrap_or_else(|_| step.context_name.clone());
            let name = name.trim_start().lines().next().unwrap_or_default().to_owned();
            steps.push(Step::new(step.id.clone(), steps.len() + 1, name, "sh"));
        }
        let number = steps.len() + 1;
        steps.push(Step::new(new_id(), number, "Complete job".to_owned(), "complete_job"));
        self.steps = steps;
    }

    async fn run(mut self) -> WorkerEnd {
        self.set_up().await;
        for place in 0..self.message.steps.len() {
            if self.around.settings.mood == Some(Mood::VanishAtStep(place + 1)) {
                return WorkerEnd::Vanished;
            }
            self.step(place).await;
        }
        let outputs = self.complete().await;
        let result = self.result();
        let upload = self.log.upload_whole();
        self.send(|calls| calls.upload(Upload::JobLog, &upload), "the upload of the job's log").await;
        let results: Vec<Json> = self.steps.iter().map(Step::result).collect();
        let conclusion = format!("{result:?}").to_lowercase();
        let body = json!({
            "conclusion": conclusion, "outputs": outputs, "stepResults": results, "annotations": [],
        });
        // The forge has ended an abandoned job already.
        if self.order == Order::Abandon {
            return WorkerEnd::Done(result);
        }
        self.send(|calls| calls.complete(body.clone()), "completejob").await;
        WorkerEnd::Done(result)
    }

    fn result(&self) -> JobResult {
        match self.order {
            Order::ShutDown => JobResult::Failed,
            Order::Cancel | Order::Abandon => JobResult::Canceled,
            Order::GoOn if self.failed => JobResult::Failed,
            Order::GoOn => JobResult::Succeeded,
        }
    }

    async fn set_up(&mut self) {
        self.steps[0].begin();
        let runner = self.around.runner_name;
        let lines = [
            format!("Current runner version: '{VERSION}'"),
            format!("Runner name: '{runner}'"),
            "Secret source: Actions".to_owned(),
            "Prepare workflow directory".to_owned(),
            format!("Complete job name: {}", self.message.job_display_name),
        ];
        lines.iter().for_each(|line| self.log.line(line));
        for token in std::mem::take(&mut self.message.environment_variables) {
            match mapping(&token, &self.scope(None)) {
                Ok(pairs) => self.env.extend(pairs.into_iter().map(|(name, value)| (name, value.to_text()))),
                Err(error) => {
                    self.explain(0, &format!("env: {error}"));
                    self.failed = true;
                }
            }
        }
        self.end_step(0, if self.failed { Conclusion::Failure } else { Conclusion::Success }).await;
    }

    /// Runs a step if its condition holds. `place` counts the steps of the message from 0.
    async fn step(&mut self, place: usize) {
        let number = place + 1;
        self.log.begin_step();
        self.look_for_orders();
        self.steps[number].begin();
        let conclusion = match self.condition(place) {
            Ok(false) => Conclusion::Skipped,
            Ok(true) => {
                self.report(&[number]).await;
                self.run_step(place).await
            }
            Err(error) => {
                self.explain(number, &error);
                Conclusion::Failure
            }
        };
        let step = &self.message.steps[place];
        let tolerated = conclusion == Conclusion::Failure
            && evaluate(&step.continue_on_error, &self.scope(None)).is_ok_and(|value| value.is_truthy());
        self.failed |= conclusion == Conclusion::Failure && !tolerated;
        let shown = if tolerated { Conclusion::Success } else { conclusion };
        self.remember(place, conclusion, shown);
        self.end_step(number, shown).await;
    }

    /// Takes over an order that came while no script was running.
    fn look_for_orders(&mut self) {
        self.order = *self.orders.borrow_and_update();
    }

    fn condition(&self, place: usize) -> Result<bool, String> {
        // After a shutdown not even `always()` steps run (recorded: all of them are skipped).
        if matches!(self.order, Order::ShutDown | Order::Abandon) {
            return Ok(false);
        }
        let step: &StepMessage = &self.message.steps[place];
        let condition = parse(&step.condition).and_then(|condition| condition.evaluate(&self.scope(None)));
        condition.map(|value| value.is_truthy()).map_err(|error| format!("if: {error}"))
    }

    /// Puts a step into the `steps` context.
    fn remember(&mut self, place: usize, outcome: Conclusion, conclusion: Conclusion) {
        let name = self.message.steps[place].context_name.clone();
        let outputs = match self.results.get(&name) {
            Some(Value::Object(step)) => step.get("outputs").cloned().unwrap_or_default(),
            _ => Value::Object(Object::new()),
        };
        let entries = [
            ("outputs".to_owned(), outputs),
            ("outcome".to_owned(), outcome.as_str().into()),
            ("conclusion".to_owned(), conclusion.as_str().into()),
        ];
        self.results.insert(name, Value::Object(entries.into_iter().collect()));
    }

    /// Evaluates the job's outputs, and ends the job's last step.
    async fn complete(&mut self) -> Json {
        let last = self.steps.len() - 1;
        self.log.begin_step();
        self.look_for_orders();
        self.steps[last].begin();
        let mut outputs = json!({});
        if let Some(token) = self.message.job_outputs.take() {
            self.log.line("Evaluate and set job outputs");
            match mapping(&token, &self.scope(None)) {
                Ok(pairs) => pairs.iter().for_each(|(name, value)| self.output(&mut outputs, name, value)),
                Err(error) => {
                    self.explain(last, &format!("outputs: {error}"));
                    self.failed = true;
                }
            }
        }
        self.log.line("Complete job");
        self.end_step(last, Conclusion::Success).await;
        outputs
    }

    fn output(&mut self, outputs: &mut Json, name: &str, value: &Value) {
        let value = value.to_text();
        if self.log.masked(&value) == value {
            self.log.line(&format!("Set output '{name}'"));
            outputs[name] = json!({"value": value});
        } else {
            self.log.line(&format!("Skip output '{name}' since it may contain secret."));
        }
    }

    /// Writes an error into the log and the annotations of a step.
    pub(crate) fn explain(&mut self, number: usize, message: &str) {
        self.log.line(&format!("##[error]{message}"));
        self.steps[number].annotate("failure", message, self.log.step_lines());
    }

    /// Ends a step: reports it, and uploads its log.
    async fn end_step(&mut self, number: usize, conclusion: Conclusion) {
        self.steps[number].end(conclusion);
        let waiting: Vec<usize> = if number == 0 { (0..self.steps.len()).collect() } else { vec![number] };
        self.report(&waiting).await;
        let part = self.log.step();
        if !part.is_empty() {
            let (id, upload) = (self.steps[number].id.clone(), self.log.upload(part));
            self.send(|calls| calls.upload(Upload::StepLog(&id), &upload), "the upload of a step's log")
                .await;
        }
    }

    async fn report(&mut self, numbers: &[usize]) {
        self.change_order += 1;
        let steps: Vec<Json> = numbers.iter().map(|number| self.steps[*number].update()).collect();
        let order = self.change_order;
        self.send(|calls| calls.update_steps(steps.clone().into(), order), "WorkflowStepsUpdate").await;
    }

    /// Sends a call of the job, after the pause of a slow runner.
    pub(crate) async fn send<T, F>(&self, call: impl Fn(&'a JobClient) -> F, what: &str)
    where
        F: Future<Output = Result<T, CallError>>,
    {
        tokio::time::sleep(self.around.settings.slowness).await;
        let calls = self.around.calls;
        persist(|| call(calls), what, self.around.say).await;
    }

    /// Returns the contexts and the status for expressions. `env` holds a step's own variables.
    pub(crate) fn scope(&self, env: Option<&BTreeMap<String, String>>) -> Scope<'_> {
        let cancelled = self.order != Order::GoOn;
        let status =
            Status { success: !self.failed && !cancelled, failure: self.failed && !cancelled, cancelled };
        let word = if cancelled {
            "cancelled"
        } else if self.failed {
            "failure"
        } else {
            "success"
        };
        let job: Object = [("status".to_owned(), Value::from(word))].into_iter().collect();
        let env: Object = env.unwrap_or(&self.env).clone().into_iter().collect();
        let mut scope = Scope::new()
            .with("github", self.github())
            .with("job", Value::Object(job))
            .with("env", Value::Object(env))
            .with("steps", Value::Object(self.results.clone()))
            .with("runner", Value::Object(self.runner().into_iter().collect()))
            .with("secrets", Value::Object(self.message.secrets()))
            .with_status(status);
        for name in ["needs", "strategy", "matrix", "inputs", "vars"] {
            scope = scope.with(name, self.message.context(name));
        }
        scope
    }

    /// Returns the `github` context with the members that a runner adds.
    pub(crate) fn github(&self) -> Value {
        let mut github = match self.message.context("github") {
            Value::Object(github) => github,
            _ => Object::new(),
        };
        let variable =
            |name: &str| self.message.variables.get(name).map_or(String::new(), |it| it.value.clone());
        github.insert("token".to_owned(), variable("system.github.token").into());
        github.insert("job".to_owned(), variable("system.github.job").into());
        github.insert("workspace".to_owned(), self.folders.workspace.display().to_string().into());
        let event = self.folders.temp.join("event.json");
        github.insert("event_path".to_owned(), event.display().to_string().into());
        Value::Object(github)
    }

    /// Returns the members of the `runner` context, which are also variables (`RUNNER_OS` ...).
    pub(crate) fn runner(&self) -> Vec<(String, String)> {
        let inherited = |name: &str| {
            let found = self.around.settings.env.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone())
        };
        let text = |path: &PathBuf| path.display().to_string();
        [
            ("os", "Linux".to_owned()),
            ("arch", "X64".to_owned()),
            ("name", self.around.runner_name.to_owned()),
            ("environment", "self-hosted".to_owned()),
            ("temp", text(&self.folders.temp)),
            ("tool_cache", inherited("RUNNER_TOOL_CACHE").unwrap_or_else(|| text(&self.folders.tools))),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Returns the shell's command line of a step, with `{0}` for the script.
    pub(crate) fn shell(&self, named: &str, env: &[(String, String)]) -> String {
        let path = env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_str());
        shell(named, path.unwrap_or_default())
    }
}

/// Returns a text of a context; empty if there is none.
pub(crate) fn text_of(context: &Value, member: &str) -> String {
    match context {
        Value::Object(object) => object.get(member).map(Value::to_text).unwrap_or_default(),
        _ => String::new(),
    }
}
