//! Runners: JIT configs, lookups, deletion.

use std::fmt;

use reqwest::Method;
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

/// Pages of a list that are read before it is given up: 100 runners each.
const PAGES_MAX: usize = 200;

/// What a new runner is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JitRequest {
    /// Its name; a new one for each attempt.
    pub name: String,
    /// Its group; 1 is the default group, and the only one of a repository.
    pub group_id: u64,
    /// Its labels, 1 to 100; none is added by the forge.
    pub labels: Vec<String>,
    /// The folder of its jobs, `_work` as a rule.
    pub work_folder: String,
    /// The lab's own: the address under which this runner reaches the lab, where that is not the lab's usual one.
    /// `None` sends no such member, which no other forge knows.
    pub runner_url: Option<String>,
}

/// A runner that was registered.
#[derive(Clone)]
pub struct NewRunner {
    /// Its number, by which it is deleted.
    pub runner_id: u64,
    /// The JIT config as the runner app takes it. Secret.
    pub encoded: String,
    /// The same, read.
    pub config: JitConfig,
}

impl fmt::Debug for NewRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("NewRunner");
        out.field("runner_id", &self.runner_id)
            .field("encoded", &"secret")
            .field("config", &self.config)
            .finish()
    }
}

/// What came of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The registration is removed; its VM may be destroyed.
    Deleted,
    /// The runner has a job, and keeps its registration.
    Busy,
    /// There was none (any more).
    Gone,
}

impl Forge {
    /// Registers a runner and answers what its app needs. Never made twice: when the answer is lost, the runner may be
    /// registered all the same, to be found by its name.
    ///
    /// # Errors
    /// [`ForgeError::Conflict`] when the name is taken; take another. A refusal says which right is needed. For the rest
    /// see [`ForgeError`].
    pub async fn generate_jit_config(
        &self,
        scope: &RunnerScope,
        request: &JitRequest,
    ) -> Result<NewRunner, ForgeError> {
        #[derive(Deserialize)]
        struct Answer {
            runner: Registered,
            encoded_jit_config: String,
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
        let answer: Answer = answer.json()?;
        let config = JitConfig::decode(&answer.encoded_jit_config)?;
        Ok(NewRunner { runner_id: answer.runner.id, encoded: answer.encoded_jit_config, config })
    }

    /// A runner by its number. `None` when there is none.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn get_runner(&self, scope: &RunnerScope, id: u64) -> Result<Option<GithubRunner>, ForgeError> {
        let url = self.base().join(&format!("{}/actions/runners/{id}", scope.api_path()))?;
        match self.send(Call::get(format!("look up the runner {id} at {scope}"), url)).await {
            Ok(answer) => Ok(Some(answer.json()?)),
            Err(ForgeError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A runner by its name. `None` when there is none.
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
        // Some forges take the name for a part of it.
        Ok(found.into_iter().find(|runner| runner.name == name))
    }

    /// All runners of a scope.
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
        let mut runners: Vec<GithubRunner> = Vec::new();
        for _ in 0..PAGES_MAX {
            let Some(page_url) = url else { break };
            let answer = self.send(Call::get(format!("list the runners of {scope}"), page_url)).await?;
            // Runners come and go between pages, so one may be on two of them.
            for runner in answer.json::<Page>()?.runners {
                if !runners.iter().any(|known| known.id == runner.id) {
                    runners.push(runner);
                }
            }
            url = answer.next_page();
        }
        Ok(runners)
    }

    /// Deletes a registration. GitHub answers 422 for a runner that has a job.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn delete_runner(&self, scope: &RunnerScope, id: u64) -> Result<Deletion, ForgeError> {
        let url = self.base().join(&format!("{}/actions/runners/{id}", scope.api_path()))?;
        match self.send(Call::new(format!("delete the runner {id} at {scope}"), Method::DELETE, url)).await {
            Ok(_) => Ok(Deletion::Deleted),
            Err(ForgeError::NotFound { .. }) => Ok(Deletion::Gone),
            Err(ForgeError::Invalid { .. }) => Ok(Deletion::Busy),
            Err(error) => Err(error),
        }
    }
}
