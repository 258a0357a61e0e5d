//! [`OpenJobs`]: the jobs of a repository that wait for a runner or have one, read again and again.
//!
//! GitHub has no call for the waiting jobs of a repository: one call lists its runs, and one for each run lists the jobs. An
//! answer that has not changed costs nothing of the rate limit, because the calls name the answer that is known already
//! (`If-None-Match`; docs.github.com, "Best practices for using the REST API").

use std::collections::HashMap;

use reqwest::Url;
use serde::Deserialize;

use super::Forge;
use super::address::part;
use super::answer::{GithubJob, GithubRun};
use super::budget::Importance;
use super::error::ForgeError;
use super::permission::ForgeUse;
use super::request::Call;

/// Most runs whose jobs are read in one look. GitHub lists the newest first, so the oldest are left out.
const RUNS_MAX: usize = 500;
/// Most pages of a list.
const PAGES_MAX: usize = 10;
/// The states of runs that have jobs which wait or run: a run in which one job runs may have others that wait.
const STATES: [&str; 2] = ["queued", "in_progress"];

/// The open jobs of a repository, and the answers that are known.
#[derive(Debug)]
pub struct OpenJobs {
    forge: Forge,
    owner: String,
    repo: String,
    known: HashMap<Url, Known>,
}

/// An answer, and its mark.
#[derive(Debug, Clone)]
struct Known {
    etag: Option<String>,
    body: Vec<u8>,
    next: Option<Url>,
}

#[derive(Deserialize)]
struct RunPage {
    workflow_runs: Vec<GithubRun>,
}

#[derive(Deserialize)]
struct JobPage {
    jobs: Vec<GithubJob>,
}

impl OpenJobs {
    /// Creates a view of a repository. It sends nothing yet.
    pub fn new(forge: Forge, owner: &str, repo: &str) -> Self {
        Self { forge, owner: owner.to_owned(), repo: repo.to_owned(), known: HashMap::new() }
    }

    /// Returns the repository, as owner/name.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.repo)
    }

    /// Returns the jobs that are queued or in progress now.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn look(&mut self) -> Result<Vec<GithubJob>, ForgeError> {
        let mut used = HashMap::new();
        let looked = self.look_and_use(&mut used).await;
        // Answers that were not asked for are those of runs that have ended. After a failure all stay.
        match &looked {
            Ok(_) => self.known = used,
            Err(_) => self.known.extend(used),
        }
        looked
    }

    async fn look_and_use(&self, used: &mut HashMap<Url, Known>) -> Result<Vec<GithubJob>, ForgeError> {
        let repository = format!("repos/{}/{}/actions/runs", part(&self.owner), part(&self.repo));
        let mut runs = Vec::new();
        for state in STATES {
            let what = format!("list the {state} runs of {}/{}", self.owner, self.repo);
            let path = format!("{repository}?status={state}&per_page=100");
            for page in self.pages::<RunPage>(&what, &path, used).await? {
                runs.extend(page.workflow_runs.into_iter().map(|run| run.id));
            }
        }
        runs.sort_unstable_by(|one, other| other.cmp(one));
        runs.dedup();
        let mut open = Vec::new();
        for run in runs.into_iter().take(RUNS_MAX) {
            let what = format!("list the jobs of the run {run} of {}/{}", self.owner, self.repo);
            let path = format!("{repository}/{run}/jobs?filter=latest&per_page=100");
            for page in self.pages::<JobPage>(&what, &path, used).await? {
                open.extend(page.jobs.into_iter().filter(|job| STATES.contains(&job.status.as_str())));
            }
        }
        Ok(open)
    }

    async fn pages<T: serde::de::DeserializeOwned>(
        &self,
        what: &str,
        path: &str,
        used: &mut HashMap<Url, Known>,
    ) -> Result<Vec<T>, ForgeError> {
        let mut pages = Vec::new();
        let mut url = Some(self.forge.base().join(path)?);
        for _ in 0..PAGES_MAX {
            let Some(page_url) = url else { break };
            let known = self.read(what, &page_url).await?;
            let page = serde_json::from_slice(&known.body);
            pages.push(
                page.map_err(|error| ForgeError::BadAnswer {
                    what: what.to_owned(),
                    why: error.to_string(),
                })?,
            );
            url = known.next.clone();
            used.insert(page_url, known);
        }
        Ok(pages)
    }

    /// Reads an address, or returns the answer that is known if it has not changed.
    async fn read(&self, what: &str, url: &Url) -> Result<Known, ForgeError> {
        let known = self.known.get(url);
        let etag = known.and_then(|known| known.etag.clone());
        let call = Call::get(what, url.clone()).importance(Importance::Poll).unless(etag);
        let answer =
            self.forge.send(call).await.map_err(|error| error.needing(&ForgeUse::Jobs.needed_right()))?;
        if let (304, Some(known)) = (answer.status, known) {
            return Ok(known.clone());
        }
        let etag = answer.headers.get("etag").and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        Ok(Known { etag, next: answer.next_page(), body: answer.body })
    }
}
