//! Builds the job message, which a runner receives when it acquires a job.
//!
//! Its shape is that of actions/runner 2.336.0 (`AgentJobRequestMessage`), and github-act-runner 0.13.0 reads most of it.
//! Both ignore the case of names. If github-act-runner lacks something, the message contains a workaround that changes
//! nothing for the official runner, and a comment says so. Workarounds that would disturb the official runner are separate,
//! in [`adapt_to_github_act_runner`].

mod act_runner;
mod context;
mod mask;
mod step;
mod template;

pub use act_runner::adapt_to_github_act_runner;

use indexmap::IndexMap;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value as Json, json};

use super::model::{Job, Workflow};
use super::run::{JobIndex, JobRun, Run};
use super::token::Token;
use crate::expression::Value;
use context::context_data;
use template::template_token;

/// The parts of a job message that only the server knows: addresses, ids, tokens and secret values.
#[derive(Debug, Clone)]
pub struct Service {
    /// The server's address as the runner reaches it, without a trailing slash; the job's `github.server_url`.
    pub server_url: String,
    /// The run service's address, with a trailing slash; the runner appends `renewjob` and `completejob`.
    pub run_service_url: String,
    /// The results service's address, with a trailing slash. Without it the runner uploads no log.
    pub results_url: String,
    /// The live feed's address, `ws://...`. github-act-runner 0.13.0 panics without it.
    pub feed_stream_url: String,
    /// The job's access token for these services. It has the form of a JWT because actions/runner decodes it.
    pub job_token: SecretString,
    /// The value of `github.token` and `secrets.GITHUB_TOKEN`.
    pub github_token: SecretString,
    /// The id of the plan, a GUID; each run has one plan.
    pub plan_id: String,
    /// The id of the timeline, a GUID.
    pub timeline_id: String,
    /// The id of the job, a GUID.
    pub job_id: String,
    /// The request's number.
    pub request_id: u64,
    /// The time until which the job is reserved for the runner.
    pub locked_until: jiff::Timestamp,
    /// The ids of the job's steps, GUIDs, in the order of the steps.
    pub step_ids: Vec<String>,
    /// The secrets by name.
    pub secrets: IndexMap<String, SecretString>,
    /// The billing owner, which the runner sends back; may be empty.
    pub billing_owner_id: String,
}

/// Builds the answer to `acquirejob` for a job that [`Action::QueueJob`](super::Action) named. Returns JSON's `null` for a
/// job that the run never had.
pub fn job_message(workflow: &Workflow, run: &Run, job: JobIndex, service: &Service) -> Json {
    let Some(job_run) = run.job(job) else { return Json::Null };
    let Some(definition) = workflow.jobs.get(&job_run.job_id) else { return Json::Null };
    let github = run.request().github.at(&service.server_url).to_value();
    let known = run.known_scope(job_run).with_ref("github", &github);
    let source = step::StepSource { workflow, job: definition, known };
    let mut message = json!({
        "messageType": "RunnerJobRequest",
        "plan": { "scopeIdentifier": service.plan_id, "planType": "free", "version": 12, "planId": service.plan_id },
        "timeline": { "id": service.timeline_id },
        "jobId": service.job_id,
        "jobDisplayName": job_run.name,
        "jobName": job_run.job_id,
        "requestId": service.request_id,
        "lockedUntil": service.locked_until.to_string(),
        "resources": { "endpoints": [endpoint(service)] },
        "variables": variables(job_run, service),
        "mask": mask::hints(service.secrets.values().chain([&service.job_token, &service.github_token])),
        "fileTable": [run.request().github.workflow_path],
        "contextData": contexts(run, job_run, service, &github),
        "environmentVariables": environment(workflow, definition),
        "defaults": defaults(workflow, definition),
        "steps": step::steps(&source, service),
        "billingOwnerId": service.billing_owner_id,
    });
    if let Some(outputs) = &definition.outputs {
        message["jobOutputs"] = template_token(outputs);
    }
    message
}

fn endpoint(service: &Service) -> Json {
    json!({
        "name": "SystemVssConnection",
        "url": service.run_service_url,
        "authorization": { "scheme": "OAuth", "parameters": { "AccessToken": service.job_token.expose_secret() } },
        "data": {
            "ServerId": service.plan_id,
            "FeedStreamUrl": service.feed_stream_url,
            "ResultsServiceUrl": service.results_url,
        },
        "isShared": false,
        "isReady": true,
    })
}

/// Sends secrets as secret variables, because runners build the `secrets` context and the masks from them.
fn variables(job: &JobRun, service: &Service) -> Json {
    let plain = |value: &str| json!({ "value": value });
    let secret = |value: &SecretString| json!({ "value": value.expose_secret(), "isSecret": true });
    let mut variables = serde_json::Map::new();
    for (name, value) in &service.secrets {
        variables.insert(name.clone(), secret(value));
    }
    variables.insert("system.github.job".to_owned(), plain(&job.job_id));
    variables.insert("system.github.token".to_owned(), secret(&service.github_token));
    variables.insert("system.github.results_endpoint".to_owned(), plain(&service.results_url));
    variables.insert("system.phaseDisplayName".to_owned(), plain(&job.name));
    variables.insert("system.runnerEnvironment".to_owned(), plain("self-hosted"));
    variables.insert("github_token".to_owned(), secret(&service.github_token));
    Json::Object(variables)
}

fn contexts(run: &Run, job: &JobRun, service: &Service, github: &Value) -> Json {
    json!({
        "github": context_data(github),
        "needs": context_data(&job.needs),
        "strategy": context_data(&job.strategy),
        "matrix": context_data(&job.matrix),
        "inputs": context_data(&run.request().inputs),
        "vars": context_data(run.vars()),
        "job": context_data(&Value::from_json(&job_context(run, service))),
    })
}

/// Returns the members of the `job` context that the server knows; the official runner adds its own to them. The check run of
/// a job has the job's id.
fn job_context(run: &Run, service: &Service) -> Json {
    let github = &run.request().github;
    json!({
        "check_run_id": service.request_id,
        "workflow_ref": github.workflow_ref(),
        "workflow_sha": github.sha,
        "workflow_repository": github.repository,
        "workflow_file_path": github.workflow_path,
    })
}

/// Returns the mappings of the workflow and of the job. The runner evaluates them in this order, and later ones win.
fn environment(workflow: &Workflow, job: &Job) -> Vec<Json> {
    [&workflow.env, &job.env].into_iter().flatten().map(template_token).collect()
}

fn defaults(workflow: &Workflow, job: &Job) -> Vec<Json> {
    let levels = [&workflow.defaults, &job.defaults].into_iter().filter(|defaults| !defaults.is_empty());
    levels
        .map(|defaults| {
            let keys = [("shell", &defaults.shell), ("working-directory", &defaults.working_directory)];
            template::mapping([("run", template::mapping(present(keys)))])
        })
        .collect()
}

/// Returns the keys that have a value, with their values.
fn present<'a, const N: usize>(
    keys: [(&'a str, &'a Option<Token>); N],
) -> impl Iterator<Item = (&'a str, Json)> {
    keys.into_iter().filter_map(|(key, token)| Some((key, template_token(token.as_ref()?))))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
