//! Registrations of runners, and how they are created.

use serde::{Deserialize, Serialize};

use super::LabState;
use super::runner::Runner;
use super::scale_set::scale_set_not_found;
use super::scope::Scope;
use crate::fault::{Call, Fault};
use crate::journal::Record;
use crate::keys::PublicKey;
use crate::refusal::Refusal;

const LABELS_MAX: usize = 100;
const LABEL_LEN_MAX: usize = 256;
const NAME_LEN_MAX: usize = 64;
const FOLDER_LEN_MAX: usize = 255;

/// The properties of a new registration.
#[derive(Debug, Clone)]
pub(crate) struct RegistrationRequest {
    pub(crate) scope: Scope,
    pub(crate) name: String,
    pub(crate) group_id: u64,
    pub(crate) labels: Vec<String>,
    pub(crate) work_folder: Option<String>,
    /// True if the runner runs only one job.
    pub(crate) ephemeral: bool,
    pub(crate) version: Option<String>,
    /// The scale set that creates the runner.
    pub(crate) scale_set: Option<u64>,
}

/// A registration, as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Registration {
    pub(crate) id: u64,
    pub(crate) scope: Scope,
    pub(crate) name: String,
    pub(crate) group_id: u64,
    pub(crate) labels: Vec<String>,
    pub(crate) work_folder: String,
    pub(crate) client_id: String,
    pub(crate) public_key: PublicKey,
    pub(crate) created_ms: i64,
    /// `unknown` until the runner connects.
    pub(crate) os: String,
    pub(crate) version: Option<String>,
    /// The runner's session. It is stored so that it survives a restart of the lab.
    pub(crate) session: Option<String>,
    /// True if the runner's job ended without a report from the runner, so that it gets no other job.
    pub(crate) used: bool,
    /// True if the registration is for one job. Journals from before persistent registrations existed lack this member.
    #[serde(default = "yes")]
    pub(crate) ephemeral: bool,
    /// The scale set whose jobs the runner gets. `None` for an ordinary runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scale_set: Option<u64>,
}

fn yes() -> bool {
    true
}

impl LabState {
    /// Registers a runner. The caller has generated its key or received it from the runner.
    pub(crate) fn register(
        &mut self,
        request: RegistrationRequest,
        public_key: PublicKey,
    ) -> Result<&Runner, Refusal> {
        self.check_registration(&request)?;
        if let Scope::Repository(name) = &request.scope {
            self.repository(name)?;
        }
        let mut labels: Vec<String> = Vec::new();
        for label in request.labels {
            if !labels.iter().any(|known| known.eq_ignore_ascii_case(&label)) {
                labels.push(label);
            }
        }
        let id = self.new_id();
        let registration = Registration {
            id,
            scope: request.scope,
            name: request.name,
            group_id: request.group_id,
            labels,
            work_folder: request.work_folder.unwrap_or_else(|| "_work".to_owned()),
            client_id: uuid::Uuid::new_v4().to_string(),
            public_key,
            created_ms: self.now_ms(),
            os: "unknown".to_owned(),
            version: request.version,
            session: None,
            used: false,
            ephemeral: request.ephemeral,
            scale_set: request.scale_set,
        };
        self.record(&Record::Runner(registration.clone()));
        Ok(self.runners.entry(id).or_insert(Runner::new(registration)))
    }

    /// Registers a runner that gets a JIT config. The caller has generated its key.
    pub(crate) fn register_by_jit(
        &mut self,
        request: RegistrationRequest,
        public_key: PublicKey,
    ) -> Result<Registration, Refusal> {
        let (call, name) = (jit_call(&request), request.name.clone());
        let registration = self.register(request, public_key)?.registration.clone();
        let life = self.fault(Fault::RegistrationExpiry, call, || format!("runner {name}"));
        if let (Some(seconds), Some(runner)) = (life, self.runners.get_mut(&registration.id)) {
            let life_ms = i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX / 4);
            runner.expires_ms = Some(registration.created_ms.saturating_add(life_ms));
        }
        Ok(registration)
    }

    /// Registers a runner and replaces an idle one of the same name, if there is one. The new runner gets a new id, so
    /// that the credentials of the old one become useless. `known` is the id that the caller expects the old one to have.
    pub(crate) fn register_or_replace(
        &mut self,
        request: RegistrationRequest,
        known: Option<u64>,
        public_key: PublicKey,
    ) -> Result<&Runner, Refusal> {
        self.check_form(&request)?;
        let taken = self.runner_named(&request.scope, &request.name);
        if known.is_some() && known != taken {
            return Err(Refusal::not_found());
        }
        if let Some(taken) = taken {
            self.delete_runner(&request.scope, taken)?;
        }
        self.register(request, public_key)
    }

    /// Returns an error if a JIT config is not possible. Called before a key is used for it.
    pub(crate) fn check_jit(&mut self, request: &RegistrationRequest) -> Result<(), Refusal> {
        self.check_registration(request)?;
        let name = &request.name;
        match self.fault(Fault::NameConflict, jit_call(request), || format!("runner {name}")) {
            Some(_) => Err(name_taken(name)),
            None => Ok(()),
        }
    }

    /// Returns an error if a registration is not possible.
    fn check_registration(&self, request: &RegistrationRequest) -> Result<(), Refusal> {
        self.check_form(request)?;
        let name = &request.name;
        if self.runner_named(&request.scope, name).is_some() {
            return Err(name_taken(name));
        }
        let runners_max = self.limits.runners_max;
        if self.runners.len() >= runners_max {
            return Err(Refusal::new(422, format!("The lab holds {runners_max} runners at most")));
        }
        Ok(())
    }

    fn check_form(&self, request: &RegistrationRequest) -> Result<(), Refusal> {
        let RegistrationRequest { name, labels, work_folder, .. } = request;
        if name.is_empty() || name.len() > NAME_LEN_MAX || name.chars().any(char::is_control) {
            let reason = format!("the runner's name must have 1 to {NAME_LEN_MAX} characters");
            return Err(Refusal::invalid([reason]));
        }
        if labels.is_empty() || labels.len() > LABELS_MAX {
            return Err(Refusal::invalid([format!("labels: 1 to {LABELS_MAX} are needed")]));
        }
        if let Some(label) = labels.iter().find(|label| !is_label(label)) {
            let label: String = label.chars().take(40).collect();
            return Err(Refusal::invalid([format!("\"{label}\" is no label")]));
        }
        if let Some(id) = request.scale_set.filter(|id| !self.scale_sets.contains_key(id)) {
            return Err(scale_set_not_found(id));
        }
        if self.group(request.group_id).is_none() {
            return Err(Refusal::not_found());
        }
        if work_folder.as_ref().is_some_and(|folder| folder.is_empty() || folder.len() > FOLDER_LEN_MAX) {
            let reason = format!("work_folder must have 1 to {FOLDER_LEN_MAX} characters");
            return Err(Refusal::invalid([reason]));
        }
        Ok(())
    }

    fn runner_named(&self, scope: &Scope, name: &str) -> Option<u64> {
        let mut registrations = self.runners.values().map(|runner| &runner.registration);
        registrations.find(|it| it.scope.same(scope) && it.name == name).map(|it| it.id)
    }

    /// Returns by how many seconds the clock of the token endpoint is ahead for this caller.
    pub(crate) fn clock_skew_s(&mut self, client_id: &str) -> i64 {
        let skew = self.fault(Fault::ClockSkew, Call::OAUTH, || format!("client {client_id}"));
        skew.and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0)
    }

    /// Returns the runner with this client id and the key that must verify its assertions.
    pub(crate) fn client_key(&self, client_id: &str) -> Option<(u64, PublicKey)> {
        let mut registrations = self.runners.values().map(|runner| &runner.registration);
        let registration = registrations.find(|it| it.client_id.eq_ignore_ascii_case(client_id))?;
        Some((registration.id, registration.public_key.clone()))
    }
}

/// Returns the call that requests a JIT config for this runner.
fn jit_call(request: &RegistrationRequest) -> Call {
    if request.scale_set.is_some() { Call::SERVICE_JIT } else { Call::JIT }
}

fn name_taken(name: &str) -> Refusal {
    Refusal::new(409, format!("Already exists - A runner with the name {name} already exists."))
}

/// Returns true if the text can be a label.
pub(super) fn is_label(label: &str) -> bool {
    !label.trim().is_empty()
        && label.len() <= LABEL_LEN_MAX
        && !label.contains(',')
        && !label.chars().any(char::is_control)
}
