//! The job message: what a runner gets when it acquires a job.

use indexmap::IndexMap;

use super::model::Workflow;
use super::run::{JobIndex, Run};

/// What only the server knows about a job: addresses, ids, tokens and secret values.
#[derive(Debug, Clone)]
pub struct Service {
    /// The run service, with a slash at its end; the runner appends `renewjob` and `completejob`.
    pub run_service_url: String,
    /// The results service, with a slash at its end; without it no log is uploaded.
    pub results_url: String,
    /// The live feed, `ws://...`; github-act-runner 0.13.0 panics without it.
    pub feed_stream_url: String,
    /// The job's access token for those; shaped as a JWT, since actions/runner decodes it.
    pub job_token: String,
    /// What `github.token` and `secrets.GITHUB_TOKEN` are.
    pub github_token: String,
    /// The plan (one a run), a GUID.
    pub plan_id: String,
    /// The timeline, a GUID.
    pub timeline_id: String,
    /// The job, a GUID.
    pub job_id: String,
    /// The request's number.
    pub request_id: u64,
    /// Until when the job is reserved for the runner.
    pub locked_until: jiff::Timestamp,
    /// The ids of the steps, GUIDs, one for each step of the job in its order.
    pub step_ids: Vec<String>,
    /// The secrets by name.
    pub secrets: IndexMap<String, String>,
    /// The repository variables are in the run ([`RunRequest::vars`](super::RunRequest)).
    /// The runner group's and runner's billing owner, sent back by the runner; may be empty.
    pub billing_owner_id: String,
}

/// Builds the answer to `acquirejob` for a job that [`Action::QueueJob`](super::Action) named.
pub fn job_message(workflow: &Workflow, run: &Run, job: JobIndex, service: &Service) -> serde_json::Value {
    let _ = (workflow, run, job, service);
    unimplemented!("being written")
}
