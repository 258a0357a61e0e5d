//! Jobs as the REST API and webhooks show them.

use serde_json::{Value, json};

use super::{Job, LabState, StepRecord, github_time};
use crate::workflow::{JobIndex, JobState};

impl LabState {
    /// Returns a job as GitHub's REST API and its webhooks show it. `base` is the address of the lab.
    pub(crate) fn show_job(&self, job: &Job, base: &str) -> Option<Value> {
        let record = &job.record;
        let run = self.runs.get(&record.run)?;
        let job_run = run.run.job(JobIndex(record.index))?;
        let name = run.record.repository.full_name();
        let url = format!("{base}/api/v3/repos/{name}/actions/jobs/{}", record.id);
        let status = match job_run.state {
            JobState::Waiting => "pending",
            JobState::Queued { .. } => "queued",
            JobState::Running { .. } | JobState::Cancelling { .. } => "in_progress",
            JobState::Completed { .. } => "completed",
        };
        let step = |(place, step): (usize, &StepRecord)| {
            let status = match (&step.conclusion, &step.started_at) {
                (Some(_), _) => "completed",
                (None, Some(_)) => "in_progress",
                (None, None) => "queued",
            };
            json!({
                "number": place + 1, "name": step.name, "status": status, "conclusion": step.conclusion,
                "started_at": step.started_at, "completed_at": step.completed_at,
            })
        };
        let runner = record.runner.as_ref();
        Some(json!({
            "id": record.id,
            "run_id": record.run,
            "run_url": format!("{base}/api/v3/repos/{name}/actions/runs/{}", record.run),
            "run_attempt": 1,
            "node_id": format!("job-{}", record.id),
            "head_sha": run.record.sha,
            "head_branch": run.record.git_ref.strip_prefix("refs/heads/").unwrap_or(&run.record.git_ref),
            "url": url,
            "html_url": format!("{base}/{name}/actions/runs/{}/job/{}", record.run, record.id),
            "check_run_url": format!("{base}/api/v3/repos/{name}/check-runs/{}", record.id),
            "name": job_run.name,
            "workflow_name": run.run.workflow().display_name(),
            "status": status,
            "conclusion": job_run.conclusion().map(|conclusion| conclusion.as_str()),
            "created_at": github_time(record.created_ms),
            "started_at": github_time(record.started_ms.unwrap_or(record.created_ms)),
            "completed_at": record.completed_ms.map(github_time),
            "labels": job_run.runs_on.labels,
            "runner_id": runner.map(|runner| runner.id),
            "runner_name": runner.map(|runner| runner.name.clone()),
            "runner_group_id": runner.map(|runner| runner.group_id),
            "runner_group_name": runner.map(|runner| runner.group_name.clone()),
            "steps": record.steps.iter().enumerate().map(step).collect::<Vec<_>>(),
            // Members of the lab only. GitHub has annotations for the first, and nothing for the others.
            "remark": job_run.remark,
            "group": job_run.runs_on.group,
            "summary_url": format!("{base}/lab/v1/jobs/{}/summary", record.id),
        }))
    }
}
