//! Calls for runners: JIT configs, lookups, deletion.

use std::collections::HashSet;

use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;

use super::Forge;
use super::address::part;
use super::answer::GithubRunner;
use super::error::ForgeError;
use super::registration::needing_right;
use super::request::Call;
use super::scope::RunnerScope;
use crate::jit::JitConfig;

/// Longest list that is read, in pages of 100 runners.
const PAGES_MAX: usize = 200;
/// Longest list that is read, in bytes of all its pages. A runner with its labels needs about one KiB.
const LIST_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The properties of a new runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JitRequest {
    /// Its name. Each attempt needs a new one.
    pub name: String,
    /// The id of its group. 1 is the default group, which is the only group of a repository.
    pub group_id: u64,
    /// Its labels, 1 to 100. The forge adds none.
    pub labels: Vec<String>,
    /// The work folder of its jobs, usually `_work`.
    pub work_folder: String,
    /// The address at which this runner reaches the lab, if it is not the lab's usual one. Only the lab knows this
    /// member; it is not sent if it is `None`.
    pub runner_url: Option<String>,
}

/// A newly registered runner.
#[derive(Debug, Clone)]
pub struct NewRunner {
    /// Its id, which is needed to delete it.
    pub runner_id: u64,
    /// The JIT config in the form that the runner app takes.
    pub encoded: SecretString,
    /// The decoded JIT config.
    pub config: JitConfig,
}

/// The outcome of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The registration was removed, so its VM may be destroyed.
    Deleted,
    /// The runner has a job, so its registration remains.
    Busy,
    /// The registration did not exist or had already been removed.
    Gone,
}

impl Forge {
    /// Registers a runner and returns what its app needs. The call is never repeated: if its answer is lost, the runner
    /// may be registered nevertheless, and can be found by its name.
    ///
    /// # Errors
    /// [`ForgeError::Conflict`] if the name is taken; choose another one. Permission errors name the permission that the
    /// token needs. For the rest see [`ForgeError`].
    pub async fn generate_jit_config(
        &self,
        scope: &RunnerScope,
        request: &JitRequest,
    ) -> Result<NewRunner, ForgeError> {
        #[derive(Deserialize)]
        struct JitAnswer {
            runner: Registered,
            encoded_jit_config: SecretString,
        }
        #[derive(Deserialize)]
        struct Registered {
            id: u64,
        }
        let url = self.base().join(&format!("{}/actions/runners/generate-jitconfig", scope.api_path()))?;
        let mut body = json!({
            "name": request.name,
            "runner_group_id": request.group_id,
            "labels": request.labels,
            "work_folder": request.work_folder,
        });
        if let Some(runner_url) = &request.runner_url {
            body["runner_url"] = json!(runner_url);
        }
        let what = format!("register the runner \"{}\" at {scope}", request.name);
        let call = Call::new(what, Method::POST, url).body(body);
        let answer = self.send(call).await.map_err(|error| needing_right(error, scope))?;
        let answer: JitAnswer = answer.json()?;
        let config = JitConfig::decode(answer.encoded_jit_config.expose_secret())?;
        Ok(NewRunner { runner_id: answer.runner.id, encoded: answer.encoded_jit_config, config })
    }

    /// Returns the runner with this id, or `None` if there is none.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn get_runner(&self, scope: &RunnerScope, id: u64) -> Result<Option<GithubRunner>, ForgeError> {
        let url = self.base().join(&format!("{}/actions/runners/{id}", scope.api_path()))?;
        match self.send(Call::get(format!("look up the runner {id} at {scope}"), url)).await {
            Ok(answer) => Ok(Some(answer.json()?)),
            Err(ForgeError::NotFound { .. }) => Ok(None),
            Err(error) => Err(needing_right(error, scope)),
        }
    }

    /// Returns the runner with this name, or `None` if there is none.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn find_runner_by_name(
        &self,
        scope: &RunnerScope,
        name: &str,
    ) -> Result<Option<GithubRunner>, ForgeError> {
        let query = format!("?per_page=100&name={}", part(name));
        let found = self.collect_runners(scope, &query).await?;
        // Some forges also return runners whose name only contains `name`.
        Ok(found.into_iter().find(|runner| runner.name == name))
    }

    /// Returns all runners of a scope.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn list_runners(&self, scope: &RunnerScope) -> Result<Vec<GithubRunner>, ForgeError> {
        self.collect_runners(scope, "?per_page=100").await
    }

    async fn collect_runners(
        &self,
        scope: &RunnerScope,
        query: &str,
    ) -> Result<Vec<GithubRunner>, ForgeError> {
        #[derive(Deserialize)]
        struct Page {
            runners: Vec<GithubRunner>,
        }
        let mut url = Some(self.base().join(&format!("{}/actions/runners{query}", scope.api_path()))?);
        let what = format!("list the runners of {scope}");
        let (mut runners, mut known, mut room) = (Vec::new(), HashSet::new(), LIST_BYTES_MAX);
        for _ in 0..PAGES_MAX {
            let Some(page_url) = url else { break };
            let call = Call::get(what.clone(), page_url);
            let most = call.answer_bytes_max.min(room);
            let answer =
                self.send(call.answer_bytes_max(most)).await.map_err(|error| needing_right(error, scope))?;
            room -= answer.body.len();
            // Runners come and go between two requests, so the same runner may be on two pages.
            let page = answer.json::<Page>()?.runners;
            runners.extend(page.into_iter().filter(|runner: &GithubRunner| known.insert(runner.id)));
            url = answer.next_page();
        }
        Ok(runners)
    }

    /// Deletes a registration. GitHub answers 204 if it did, and 422 if the runner has a job. No other success status counts
    /// as a deletion, because a proxy's page has one too.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn delete_runner(&self, scope: &RunnerScope, id: u64) -> Result<Deletion, ForgeError> {
        let url = self.base().join(&format!("{}/actions/runners/{id}", scope.api_path()))?;
        let what = format!("delete the runner {id} at {scope}");
        match self.send(Call::new(what.clone(), Method::DELETE, url)).await {
            Ok(answer) if answer.status == 204 => Ok(Deletion::Deleted),
            Ok(answer) => {
                let why = format!("its status is {} instead of 204", answer.status);
                Err(ForgeError::BadAnswer { what, why })
            }
            Err(ForgeError::NotFound { .. }) => Ok(Deletion::Gone),
            Err(ForgeError::Invalid { .. }) => Ok(Deletion::Busy),
            Err(error) => Err(needing_right(error, scope)),
        }
    }
}
