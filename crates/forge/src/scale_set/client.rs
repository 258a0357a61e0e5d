//! [`ScaleSetClient`]: calls to the Actions Service, and those for scale sets and groups.

use std::sync::Arc;

use reqwest::{Method, Url};
use serde_json::{Value, json};

use super::connection::{Admin, Connection};
use super::fault::ServiceFault;
use super::wire::{List, ScaleSet, system_labels};
use crate::request::{ApiAnswer, Call};
use crate::{Deletion, Forge, ForgeError, RunnerScope};

/// Path of the scale sets below `_apis/`.
pub(super) const PATH: &str = "runtime/runnerscalesets";
/// The version of the service's API that the official client asks for.
const API_VERSION: (&str, &str) = ("api-version", "6.0-preview");
pub(super) const ACCEPT: &str = "application/json; api-version=6.0-preview";
/// Longest answer that is read. A scale set with a hundred labels needs 10 kB.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// The group that every scope has (the official client never looks it up).
const DEFAULT_GROUP: (&str, u64) = ("default", 1);

/// A client for the scale sets of a scope. Clones share connections and the admin token, so one client serves all scale sets
/// of a scope.
#[derive(Debug, Clone)]
pub struct ScaleSetClient {
    pub(super) forge: Forge,
    pub(super) scope: RunnerScope,
    connection: Arc<Connection>,
}

/// A scale set to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewScaleSet {
    /// Its name, unique in its group.
    pub name: String,
    /// The id of its runner group.
    pub group_id: u64,
    /// Its labels. Jobs may always ask for its name if this is empty. A GHES before 3.21 may keep only the first label.
    pub labels: Vec<String>,
}

/// A call to the Actions Service before it has an address and a token.
pub(super) struct ServiceCall {
    what: String,
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
}

impl ServiceCall {
    /// Creates a call. `path` follows `_apis/`. As at the REST API, each method but POST may be repeated.
    pub(super) fn new(what: String, method: Method, path: String) -> Self {
        Self { what, method, path, query: Vec::new(), body: None }
    }

    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    pub(super) fn body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    /// Returns the call for a service and a token.
    fn to(&self, admin: &Admin) -> Result<Call, ForgeError> {
        let url = service_url(&admin.service, &self.path, &self.query)?;
        let call = Call::new(self.what.clone(), self.method.clone(), url)
            .service_token("Bearer", &admin.token, &admin.service)
            .accept(ACCEPT)
            .answer_bytes_max(ANSWER_BYTES_MAX);
        Ok(match &self.body {
            Some(body) => call.body(body.clone()),
            None => call,
        })
    }
}

/// Returns the address of a call. The service's own path is kept as a prefix.
pub(super) fn service_url(
    service: &Url,
    path: &str,
    query: &[(&'static str, String)],
) -> Result<Url, ForgeError> {
    let path = format!("_apis/{path}");
    let mut url =
        service.join(&path).map_err(|error| ForgeError::BadAddress { text: path, why: error.to_string() })?;
    let version = (API_VERSION.0, API_VERSION.1.to_owned());
    url.query_pairs_mut().extend_pairs(query.iter().chain([&version]));
    Ok(url)
}

impl ScaleSetClient {
    /// Creates a client for the scale sets of `scope`. It sends nothing yet. Its token needs the rights that registering
    /// runners needs.
    pub fn new(forge: Forge, scope: RunnerScope) -> Self {
        Self { forge, scope, connection: Arc::default() }
    }

    /// Returns the scope.
    pub fn scope(&self) -> &RunnerScope {
        &self.scope
    }

    /// Returns the access to the service, for calls that have another token.
    pub(super) async fn admin(&self) -> Result<Admin, ForgeError> {
        self.connection.admin(&self.forge, &self.scope).await
    }

    /// Sends a call with the admin token. If the service refuses the token, it is renewed and the call is sent once more.
    pub(super) async fn send(&self, call: ServiceCall) -> Result<ApiAnswer, ForgeError> {
        let admin = self.admin().await?;
        match self.forge.send(call.to(&admin)?).await {
            Err(ForgeError::ServiceToken { .. }) => {
                let admin = self.connection.renewed(&self.forge, &self.scope, Some(&admin)).await?;
                self.forge.send(call.to(&admin)?).await
            }
            outcome => outcome,
        }
    }

    /// Returns the id of a runner group by its name. A repository has only `Default`.
    ///
    /// # Errors
    /// [`ForgeError::RepositoryGroup`] and [`ForgeError::UnknownGroup`], which lists the groups that exist. For the rest see
    /// [`ForgeError`].
    pub async fn group_id(&self, name: &str) -> Result<u64, ForgeError> {
        #[derive(serde::Deserialize)]
        struct Group {
            id: u64,
        }
        if name.eq_ignore_ascii_case(DEFAULT_GROUP.0) {
            return Ok(DEFAULT_GROUP.1);
        }
        if let RunnerScope::Repository { .. } = self.scope {
            return self.forge.group_id(&self.scope, name).await;
        }
        let what = format!("look up the runner group \"{name}\" of {}", self.scope);
        let call = ServiceCall::new(what, Method::GET, "runtime/runnergroups/".to_owned());
        let groups: List<Group> = self.send(call.query("groupName", name)).await?.json()?;
        match groups.value.first() {
            Some(group) => Ok(group.id),
            // The REST API knows the groups' names, which the error lists.
            None => self.forge.group_id(&self.scope, name).await,
        }
    }

    /// Returns the scale set with this name in a group, or `None` if there is none.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn find_scale_set(&self, group_id: u64, name: &str) -> Result<Option<ScaleSet>, ForgeError> {
        let what = format!("look up the scale set \"{name}\" of {}", self.scope);
        let call = ServiceCall::new(what, Method::GET, PATH.to_owned())
            .query("runnerGroupId", group_id.to_string())
            .query("name", name);
        let found: List<ScaleSet> = self.send(call).await?.json()?;
        Ok(found.value.into_iter().find(|scale_set| scale_set.name.eq_ignore_ascii_case(name)))
    }

    /// Returns the scale set with this id, or `None` if there is none.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn get_scale_set(&self, id: u64) -> Result<Option<ScaleSet>, ForgeError> {
        let call = ServiceCall::new(self.what("look up", id), Method::GET, format!("{PATH}/{id}"));
        match self.send(call).await {
            Ok(answer) => answer.json().map(Some),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a scale set. The call is never repeated; if its answer is lost, the scale set can be found by its name.
    ///
    /// # Errors
    /// [`ForgeError::Service`] with [`ServiceFault::ScaleSetExists`] if the name is taken. For the rest see [`ForgeError`].
    pub async fn create_scale_set(&self, new: &NewScaleSet) -> Result<ScaleSet, ForgeError> {
        let what = format!("create the scale set \"{}\" of {}", new.name, self.scope);
        let own = [new.name.clone()];
        let labels: &[String] = if new.labels.is_empty() { &own[..] } else { &new.labels };
        let body = json!({
            "name": new.name,
            "runnerGroupId": new.group_id,
            "labels": system_labels(labels),
            // dayfly replaces the machine of each job, so an update of the runner app would only delay the job.
            "RunnerSetting": {"disableUpdate": true},
        });
        self.send(ServiceCall::new(what, Method::POST, PATH.to_owned()).body(body)).await?.json()
    }

    /// Replaces the labels of a scale set and returns it as the service has it now. A GHES before 3.21 may drop all but the
    /// first label without an error: see [`ScaleSet::missing_labels`].
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn set_labels(&self, scale_set: &ScaleSet, labels: &[String]) -> Result<ScaleSet, ForgeError> {
        let changed = ScaleSet { labels: system_labels(labels), ..scale_set.clone() };
        let what = self.what("change the labels of", scale_set.id);
        let call = ServiceCall::new(what, Method::PATCH, format!("{PATH}/{}", scale_set.id));
        self.send(call.body(json!(changed))).await?.json()
    }

    /// Deletes a scale set. Its session and the registrations of its runners end with it.
    ///
    /// # Errors
    /// See [`ForgeError`]. An answer other than 204 and 404 is an error.
    pub async fn delete_scale_set(&self, id: u64) -> Result<Deletion, ForgeError> {
        let call = ServiceCall::new(self.what("delete", id), Method::DELETE, format!("{PATH}/{id}"));
        deletion(self.send(call).await)
    }

    pub(super) fn what(&self, action: &str, scale_set: u64) -> String {
        format!("{action} the scale set {scale_set} of {}", self.scope)
    }
}

/// Returns true if the object of a call does not exist. An error of the exchange of tokens ([`ForgeError::Shared`]) says
/// nothing about the object.
pub(super) fn is_gone(error: &ForgeError) -> bool {
    matches!(
        error,
        ForgeError::NotFound { .. }
            | ForgeError::Service {
                fault: ServiceFault::ScaleSetNotFound | ServiceFault::RunnerNotFound,
                ..
            }
    )
}

/// Converts the answer to a DELETE. No other success than 204 counts as a deletion, because a proxy's page has one too.
pub(super) fn deletion(answer: Result<ApiAnswer, ForgeError>) -> Result<Deletion, ForgeError> {
    match answer {
        Ok(answer) if answer.status == 204 => Ok(Deletion::Deleted),
        Ok(answer) => Err(answer.bad(format!("its status is {} instead of 204", answer.status))),
        Err(error) if is_gone(&error) => Ok(Deletion::Gone),
        Err(error) => Err(error),
    }
}
