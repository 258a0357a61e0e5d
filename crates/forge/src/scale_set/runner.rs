//! Calls for the runners of a scale set.

use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;

use super::client::{PATH, ScaleSetClient, ServiceCall, deletion};
use super::fault::ServiceFault;
use super::wire::List;
use crate::jit::JitConfig;
use crate::{Deletion, ForgeError, NewRunner};

/// Path of runners below `_apis/`. The service ignores the pool.
const AGENTS: &str = "distributedtask/pools/0/agents";

/// A registered runner as the Actions Service knows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleSetRunner {
    /// Its id, the same as at the REST API.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// The id of its scale set; `None` or 0 if it belongs to none.
    #[serde(default)]
    pub runner_scale_set_id: Option<u64>,
}

/// The properties of a new runner of a scale set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewScaleSetRunner<'a> {
    /// Its name. Each attempt needs a new one.
    pub name: &'a str,
    /// The work folder of its jobs, usually `_work`.
    pub work_folder: &'a str,
    /// The address at which this runner reaches the lab, if it is not the lab's usual one. Only the lab knows this
    /// member; it is not sent if it is `None`.
    pub runner_url: Option<&'a str>,
}

impl ScaleSetClient {
    /// Registers a runner of a scale set and returns what its app needs. If the name belongs to another runner of the same
    /// scale set, which a lost answer may have left, that runner is removed and the call is sent once more. Otherwise the
    /// call is never repeated: if its answer is lost, the runner can be found by its name.
    ///
    /// # Errors
    /// [`ForgeError::Service`] with [`ServiceFault::RunnerExists`] if the name belongs to a runner of another scale set or to
    /// one that has a job: choose another name. For the rest see [`ForgeError`].
    pub async fn register_runner(
        &self,
        scale_set: u64,
        runner: &NewScaleSetRunner<'_>,
    ) -> Result<NewRunner, ForgeError> {
        let name = runner.name;
        let taken = match self.generate_jit_config(scale_set, runner).await {
            Err(error @ ForgeError::Service { fault: ServiceFault::RunnerExists, .. }) => error,
            outcome => return outcome,
        };
        if let Some(runner) = self.find_runner(name).await? {
            let is_own = runner.runner_scale_set_id == Some(scale_set);
            if !is_own || self.remove_runner(runner.id).await? == Deletion::Busy {
                return Err(taken);
            }
        }
        self.generate_jit_config(scale_set, runner).await
    }

    async fn generate_jit_config(
        &self,
        scale_set: u64,
        runner: &NewScaleSetRunner<'_>,
    ) -> Result<NewRunner, ForgeError> {
        #[derive(Deserialize)]
        struct Registered {
            runner: ScaleSetRunner,
            #[serde(rename = "encodedJITConfig")]
            encoded: SecretString,
        }
        let NewScaleSetRunner { name, work_folder, runner_url } = *runner;
        let what = self.what(&format!("register the runner \"{name}\" in"), scale_set);
        let call = ServiceCall::new(what, Method::POST, format!("{PATH}/{scale_set}/generatejitconfig"));
        let mut body = json!({"name": name, "workFolder": work_folder});
        if let Some(runner_url) = runner_url {
            body["runnerUrl"] = json!(runner_url);
        }
        let Registered { runner, encoded } = self.send(call.body(body)).await?.json()?;
        let config = JitConfig::decode(encoded.expose_secret())?;
        Ok(NewRunner { runner_id: runner.id, encoded, config })
    }

    /// Returns the runner with this name, or `None` if there is none.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn find_runner(&self, name: &str) -> Result<Option<ScaleSetRunner>, ForgeError> {
        let what = format!("look up the runner \"{name}\" at {}", self.scope);
        let call = ServiceCall::new(what, Method::GET, AGENTS.to_owned()).query("agentName", name);
        let found: List<ScaleSetRunner> = self.send(call).await?.json()?;
        Ok(found.value.into_iter().find(|runner| runner.name == name))
    }

    /// Removes the registration of a runner. A runner that has a job is busy, and its registration remains.
    ///
    /// # Errors
    /// See [`ForgeError`]. An answer other than 204 and 404 is an error.
    pub async fn remove_runner(&self, id: u64) -> Result<Deletion, ForgeError> {
        let what = format!("delete the runner {id} at {}", self.scope);
        match self.send(ServiceCall::new(what, Method::DELETE, format!("{AGENTS}/{id}"))).await {
            Err(ForgeError::Service { fault: ServiceFault::JobStillRunning, .. }) => Ok(Deletion::Busy),
            answer => deletion(answer),
        }
    }
}
