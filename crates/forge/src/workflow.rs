//! Calls for workflows: files, runs, jobs and logs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use indexmap::IndexMap;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::Forge;
use super::address::part;
use super::answer::{GithubJob, GithubRun};
use super::error::ForgeError;
use super::permission::ForgeUse;
use super::request::Call;

const LOG_BYTES_MAX: usize = 256 * 1024 * 1024;
const PAGES_MAX: usize = 100;
/// The permission for starting and cancelling runs, which only the tests of a lab do (docs.github.com, "REST API endpoints for
/// workflow runs").
const STEERING_RUNS: &str = "the classic scope \"repo\", or the repository permission \"Actions\" (write) of a fine-grained \
                             token or a GitHub App";

/// The parameters of a new run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dispatch {
    /// The branch or tag; `main` if empty.
    pub git_ref: String,
    /// The inputs of `workflow_dispatch`.
    pub inputs: IndexMap<String, String>,
    /// Uses the workflow's first event if the workflow does not list `workflow_dispatch`. Only the lab knows this member.
    pub any_event: bool,
}

impl Forge {
    /// Puts a workflow file into a repository of the lab. `file` is its name below `.github/workflows`.
    ///
    /// # Errors
    /// [`ForgeError::Invalid`] with one text for each error in the file. For the rest see [`ForgeError`].
    pub async fn put_workflow(
        &self,
        owner: &str,
        repo: &str,
        file: &str,
        text: &str,
    ) -> Result<(), ForgeError> {
        let path = format!("repos/{}/{}/contents/.github/workflows/{}", part(owner), part(repo), part(file));
        let body = json!({"message": format!("put {file}"), "content": BASE64.encode(text)});
        let call = Call::new(
            format!("put the workflow {file} into {owner}/{repo}"),
            Method::PUT,
            self.base().join(&path)?,
        );
        self.send(call.body(body)).await.map(drop)
    }

    /// Sets a variable of a repository of the lab.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn put_variable(
        &self,
        owner: &str,
        repo: &str,
        name: &str,
        value: &str,
    ) -> Result<(), ForgeError> {
        self.put_value(owner, repo, "variables", name, value).await
    }

    /// Sets a secret of a repository of the lab.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn put_secret(
        &self,
        owner: &str,
        repo: &str,
        name: &str,
        value: &str,
    ) -> Result<(), ForgeError> {
        self.put_value(owner, repo, "secrets", name, value).await
    }

    async fn put_value(
        &self,
        owner: &str,
        repo: &str,
        kind: &str,
        name: &str,
        value: &str,
    ) -> Result<(), ForgeError> {
        let path = format!("repos/{}/{}/actions/{kind}/{}", part(owner), part(repo), part(name));
        let call = Call::new(
            format!("set {name} in the {kind} of {owner}/{repo}"),
            Method::PUT,
            self.base().join(&path)?,
        );
        self.send(call.body(json!({"value": value}))).await.map(drop)
    }

    /// Starts a run of a workflow and returns its id. The call is never repeated.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn dispatch(
        &self,
        owner: &str,
        repo: &str,
        file: &str,
        dispatch: &Dispatch,
    ) -> Result<u64, ForgeError> {
        #[derive(Deserialize)]
        struct Details {
            workflow_run_id: u64,
        }
        let path =
            format!("repos/{}/{}/actions/workflows/{}/dispatches", part(owner), part(repo), part(file));
        let git_ref = if dispatch.git_ref.is_empty() { "main" } else { &dispatch.git_ref };
        let mut body = json!({"ref": git_ref, "inputs": dispatch.inputs, "return_run_details": true});
        if dispatch.any_event {
            body["any_event"] = true.into();
        }
        let what = format!("start the workflow {file} of {owner}/{repo}");
        let call = Call::new(&what, Method::POST, self.base().join(&path)?).body(body);
        let answer = self.send(call).await.map_err(|error| error.needing(STEERING_RUNS))?;
        if answer.status == 204 {
            let why = "it does not name the run".to_owned();
            return Err(ForgeError::BadAnswer { what, why });
        }
        Ok(answer.json::<Details>()?.workflow_run_id)
    }

    /// Returns a run.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn run(&self, owner: &str, repo: &str, id: u64) -> Result<GithubRun, ForgeError> {
        let url = self.base().join(&format!("repos/{}/{}/actions/runs/{id}", part(owner), part(repo)))?;
        let call = Call::get(format!("look up the run {id} of {owner}/{repo}"), url);
        self.send(call).await.map_err(|error| error.needing(&ForgeUse::Jobs.needed_right()))?.json()
    }

    /// Returns the jobs of a run that exist so far.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn jobs(&self, owner: &str, repo: &str, run: u64) -> Result<Vec<GithubJob>, ForgeError> {
        #[derive(Deserialize)]
        struct Page {
            jobs: Vec<GithubJob>,
        }
        let path = format!(
            "repos/{}/{}/actions/runs/{run}/jobs?filter=latest&per_page=100",
            part(owner),
            part(repo)
        );
        let mut url = Some(self.base().join(&path)?);
        let mut jobs = Vec::new();
        for _ in 0..PAGES_MAX {
            let Some(page_url) = url else { break };
            let answer = self
                .send(Call::get(format!("list the jobs of the run {run} of {owner}/{repo}"), page_url))
                .await
                .map_err(|error| error.needing(&ForgeUse::Jobs.needed_right()))?;
            jobs.extend(answer.json::<Page>()?.jobs);
            url = answer.next_page();
        }
        Ok(jobs)
    }

    /// Returns the log of a job, each line with its time before it.
    ///
    /// # Errors
    /// [`ForgeError::NotFound`] if there is no log yet. For the rest see [`ForgeError`].
    pub async fn job_log(&self, owner: &str, repo: &str, job: u64) -> Result<String, ForgeError> {
        let url =
            self.base().join(&format!("repos/{}/{}/actions/jobs/{job}/logs", part(owner), part(repo)))?;
        let call = Call::get(format!("read the log of the job {job} of {owner}/{repo}"), url);
        let answer = self.send(call.answer_bytes_max(LOG_BYTES_MAX)).await;
        let answer = answer.map_err(|error| error.needing(&ForgeUse::Jobs.needed_right()))?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// Cancels a run and asks its runners to stop. Returns true if there was something to cancel.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn cancel_run(&self, owner: &str, repo: &str, run: u64) -> Result<bool, ForgeError> {
        self.post_cancel(owner, repo, run, "cancel").await
    }

    /// Cancels a run without waiting for its runners. Returns true if there was something to cancel.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn force_cancel_run(&self, owner: &str, repo: &str, run: u64) -> Result<bool, ForgeError> {
        self.post_cancel(owner, repo, run, "force-cancel").await
    }

    async fn post_cancel(&self, owner: &str, repo: &str, run: u64, verb: &str) -> Result<bool, ForgeError> {
        let url =
            self.base().join(&format!("repos/{}/{}/actions/runs/{run}/{verb}", part(owner), part(repo)))?;
        let call =
            Call::new(format!("cancel the run {run} of {owner}/{repo}"), Method::POST, url).repeatable();
        match self.send(call).await {
            Ok(_) => Ok(true),
            Err(ForgeError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.needing(STEERING_RUNS)),
        }
    }
}
