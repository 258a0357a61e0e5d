//! The occasions of faults: calls by their route, and events inside of the lab.

use axum::http::Method;
use serde::{Deserialize, Serialize};

use super::spec::FaultError;
use crate::nearest::nearest;

/// An occasion at which a fault can happen, or a group of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Every call of the REST API, with those that have a name of their own.
    Rest,
    /// Every call of the Actions Service, with those that have a name of their own.
    Service,
    /// Every call of a runner app, with those that have a name of their own.
    Runner,
    /// A JIT config, by the REST API or for a scale set.
    GenerateJitconfig,
    /// A registration token, or a token to remove runners.
    RegistrationToken,
    /// The deletion of a runner, by the REST API or at the Actions Service.
    DeleteRunner,
    /// A look at one runner, by the REST API or at the Actions Service.
    GetRunner,
    /// A list of runners, by the REST API or at the Actions Service.
    ListRunners,
    /// A list of runs, or of the jobs of a run.
    ListJobs,
    /// A token of a GitHub App's installation.
    AppToken,
    /// The exchange of a registration token for the token of the Actions Service (`runner-registration`).
    ServiceToken,
    /// A scale set is found, created, changed or deleted.
    ScaleSet,
    /// A listener opens a session.
    Session,
    /// A listener refreshes its session.
    RefreshSession,
    /// A listener ends its session.
    CloseSession,
    /// A listener polls.
    Message,
    /// A listener deletes a message.
    DeleteMessage,
    /// A listener acquires jobs, or asks which it could acquire.
    Acquire,
    /// A runner requests its access token.
    Oauth,
    /// A runner opens its session.
    RunnerSession,
    /// A runner polls.
    RunnerMessage,
    /// A runner acquires its job.
    AcquireJob,
    /// A runner renews its job.
    RenewJob,
    /// A runner completes its job.
    CompleteJob,
    /// A job is queued.
    Job,
    /// A webhook has a delivery about a job.
    Webhook,
    /// The lab gives out an id.
    NewId,
}

/// The interface that a call belongs to, which decides the form of its errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Rest,
    Service,
    /// The services for runner apps; those for its results are among them.
    Runner,
    /// No call: an event inside of the lab.
    Inside,
}

/// An occasion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) operation: Operation,
    pub(crate) side: Side,
}

const fn call(operation: Operation, side: Side) -> Call {
    Call { operation, side }
}

impl Call {
    pub(crate) const JIT: Self = call(Operation::GenerateJitconfig, Side::Rest);
    pub(crate) const SERVICE_JIT: Self = call(Operation::GenerateJitconfig, Side::Service);
    pub(crate) const DELETE_RUNNER: Self = call(Operation::DeleteRunner, Side::Rest);
    pub(crate) const SERVICE_DELETE_RUNNER: Self = call(Operation::DeleteRunner, Side::Service);
    pub(crate) const SESSION: Self = call(Operation::Session, Side::Service);
    pub(crate) const REFRESH_SESSION: Self = call(Operation::RefreshSession, Side::Service);
    pub(crate) const RUNNER_SESSION: Self = call(Operation::RunnerSession, Side::Runner);
    pub(crate) const OAUTH: Self = call(Operation::Oauth, Side::Runner);
    pub(crate) const JOB: Self = call(Operation::Job, Side::Inside);
    pub(crate) const WEBHOOK: Self = call(Operation::Webhook, Side::Inside);
    pub(crate) const NEW_ID: Self = call(Operation::NewId, Side::Inside);

    /// All occasions.
    pub(super) const ALL: [Self; 30] = [
        call(Operation::Rest, Side::Rest),
        Self::JIT,
        call(Operation::RegistrationToken, Side::Rest),
        Self::DELETE_RUNNER,
        call(Operation::GetRunner, Side::Rest),
        call(Operation::ListRunners, Side::Rest),
        call(Operation::ListJobs, Side::Rest),
        call(Operation::AppToken, Side::Rest),
        call(Operation::ServiceToken, Side::Rest),
        call(Operation::ScaleSet, Side::Service),
        Self::SERVICE_JIT,
        Self::SERVICE_DELETE_RUNNER,
        call(Operation::GetRunner, Side::Service),
        call(Operation::ListRunners, Side::Service),
        Self::SESSION,
        Self::REFRESH_SESSION,
        call(Operation::CloseSession, Side::Service),
        call(Operation::Message, Side::Service),
        call(Operation::DeleteMessage, Side::Service),
        call(Operation::Acquire, Side::Service),
        call(Operation::Runner, Side::Runner),
        Self::OAUTH,
        Self::RUNNER_SESSION,
        call(Operation::RunnerMessage, Side::Runner),
        call(Operation::AcquireJob, Side::Runner),
        call(Operation::RenewJob, Side::Runner),
        call(Operation::CompleteJob, Side::Runner),
        Self::JOB,
        Self::WEBHOOK,
        Self::NEW_ID,
    ];

    /// Returns the occasion that a request is. `None` for the lab's own calls, which never fail, and for the live feed, which
    /// is a stream.
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts[..] {
            ["runner", "feed"] => None,
            ["runner", "broker", "_apis", "runtime" | "distributedtask", ..] if is_of_service(&parts) => {
                Some(call(service(method, &parts[3..]), Side::Service))
            }
            ["runner", ref rest @ ..] => Some(call(runner(method, rest), Side::Runner)),
            ["api", "v3", ref rest @ ..] => Some(call(of_rest(method, rest), Side::Rest)),
            _ => None,
        }
    }
}

/// Returns true for the paths of the Actions Service. Sessions and messages of pools are those of runner apps.
fn is_of_service(parts: &[&str]) -> bool {
    parts[3] == "runtime" || matches!(parts[4..], ["pools", _, "agents", ..])
}

fn of_rest(method: &Method, parts: &[&str]) -> Operation {
    let is_get = method == Method::GET;
    match parts {
        [.., "actions", "runners", "generate-jitconfig"] => Operation::GenerateJitconfig,
        [.., "actions", "runners", "registration-token" | "remove-token"] => Operation::RegistrationToken,
        [.., "actions", "runners"] if is_get => Operation::ListRunners,
        [.., "actions", "runners", _] if is_get => Operation::GetRunner,
        [.., "actions", "runners", _] if method == Method::DELETE => Operation::DeleteRunner,
        [.., "actions", "runs"] | [.., "actions", "runs", _, "jobs"] if is_get => Operation::ListJobs,
        ["app", "installations", _, "access_tokens"] => Operation::AppToken,
        ["actions", "runner-registration"] => Operation::ServiceToken,
        _ => Operation::Rest,
    }
}

fn service(method: &Method, parts: &[&str]) -> Operation {
    match parts {
        ["distributedtask", "pools", _, "agents"] => Operation::ListRunners,
        ["distributedtask", "pools", _, "agents", _] if method == Method::DELETE => Operation::DeleteRunner,
        ["distributedtask", ..] => Operation::GetRunner,
        [.., "generatejitconfig"] => Operation::GenerateJitconfig,
        [.., "acquirejobs" | "acquirablejobs"] => Operation::Acquire,
        [.., "sessions"] => Operation::Session,
        [.., "sessions", _] if method == Method::DELETE => Operation::CloseSession,
        [.., "sessions", _] => Operation::RefreshSession,
        [.., "messages"] => Operation::Message,
        [.., "messages", _] => Operation::DeleteMessage,
        _ => Operation::ScaleSet,
    }
}

fn runner(method: &Method, parts: &[&str]) -> Operation {
    let is_get = method == Method::GET;
    match parts {
        ["oauth", "token"] => Operation::Oauth,
        ["broker", "session"] | ["broker", .., "sessions"] if method == Method::POST => {
            Operation::RunnerSession
        }
        ["broker", "message"] | ["broker", .., "messages"] if is_get => Operation::RunnerMessage,
        ["run", "acquirejob"] => Operation::AcquireJob,
        ["run", "renewjob"] => Operation::RenewJob,
        ["run", "completejob"] => Operation::CompleteJob,
        _ => Operation::Runner,
    }
}

impl Operation {
    /// All operations, in the order of the documentation.
    pub const ALL: [Self; 27] = [
        Self::Rest,
        Self::Service,
        Self::Runner,
        Self::GenerateJitconfig,
        Self::RegistrationToken,
        Self::DeleteRunner,
        Self::GetRunner,
        Self::ListRunners,
        Self::ListJobs,
        Self::AppToken,
        Self::ServiceToken,
        Self::ScaleSet,
        Self::Session,
        Self::RefreshSession,
        Self::CloseSession,
        Self::Message,
        Self::DeleteMessage,
        Self::Acquire,
        Self::Oauth,
        Self::RunnerSession,
        Self::RunnerMessage,
        Self::AcquireJob,
        Self::RenewJob,
        Self::CompleteJob,
        Self::Job,
        Self::Webhook,
        Self::NewId,
    ];

    /// Returns the name in commands, in JSON and in the documentation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Service => "service",
            Self::Runner => "runner",
            Self::GenerateJitconfig => "generate-jitconfig",
            Self::RegistrationToken => "registration-token",
            Self::DeleteRunner => "delete-runner",
            Self::GetRunner => "get-runner",
            Self::ListRunners => "list-runners",
            Self::ListJobs => "list-jobs",
            Self::AppToken => "app-token",
            Self::ServiceToken => "service-token",
            Self::ScaleSet => "scale-set",
            Self::Session => "session",
            Self::RefreshSession => "refresh-session",
            Self::CloseSession => "close-session",
            Self::Message => "message",
            Self::DeleteMessage => "delete-message",
            Self::Acquire => "acquire",
            Self::Oauth => "oauth",
            Self::RunnerSession => "runner-session",
            Self::RunnerMessage => "runner-message",
            Self::AcquireJob => "acquire-job",
            Self::RenewJob => "renew-job",
            Self::CompleteJob => "complete-job",
            Self::Job => "job",
            Self::Webhook => "webhook",
            Self::NewId => "new-id",
        }
    }

    /// Returns the operation with this name.
    ///
    /// # Errors
    /// [`FaultError::UnknownOperation`] with the nearest name.
    pub fn parse(name: &str) -> Result<Self, FaultError> {
        let found = Self::ALL.into_iter().find(|operation| operation.name() == name);
        found.ok_or_else(|| FaultError::UnknownOperation {
            name: name.chars().take(60).collect(),
            nearest: nearest(name, Self::ALL.map(Self::name)),
        })
    }

    /// Returns true if the occasion is this operation, or one of this group.
    pub(super) fn covers(self, call: Call) -> bool {
        match self {
            Self::Rest => call.side == Side::Rest,
            Self::Service => call.side == Side::Service,
            Self::Runner => call.side == Side::Runner,
            operation => operation == call.operation,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn each_route_is_an_operation() {
        let table = [
            (
                "POST",
                "/api/v3/repos/o/r/actions/runners/generate-jitconfig",
                "generate-jitconfig",
                Side::Rest,
            ),
            ("POST", "/api/v3/orgs/o/actions/runners/registration-token", "registration-token", Side::Rest),
            ("DELETE", "/api/v3/enterprises/e/actions/runners/7", "delete-runner", Side::Rest),
            ("GET", "/api/v3/repos/o/r/actions/runners/7", "get-runner", Side::Rest),
            ("GET", "/api/v3/repos/o/r/actions/runners", "list-runners", Side::Rest),
            ("GET", "/api/v3/repos/o/r/actions/runs/7/jobs", "list-jobs", Side::Rest),
            ("POST", "/api/v3/app/installations/7/access_tokens", "app-token", Side::Rest),
            ("PUT", "/api/v3/repos/o/r/contents/.github/workflows/ci.yml", "rest", Side::Rest),
            ("POST", "/api/v3/actions/runner-registration", "service-token", Side::Rest),
            ("POST", "/runner/broker/_apis/runtime/runnerscalesets", "scale-set", Side::Service),
            (
                "POST",
                "/runner/broker/_apis/runtime/runnerscalesets/7/generatejitconfig",
                "generate-jitconfig",
                Side::Service,
            ),
            ("POST", "/runner/broker/_apis/runtime/runnerscalesets/7/sessions", "session", Side::Service),
            (
                "PATCH",
                "/runner/broker/_apis/runtime/runnerscalesets/7/sessions/a",
                "refresh-session",
                Side::Service,
            ),
            (
                "DELETE",
                "/runner/broker/_apis/runtime/runnerscalesets/7/sessions/a",
                "close-session",
                Side::Service,
            ),
            ("GET", "/runner/broker/_apis/runtime/runnerscalesets/7/messages", "message", Side::Service),
            (
                "DELETE",
                "/runner/broker/_apis/runtime/runnerscalesets/7/messages/8",
                "delete-message",
                Side::Service,
            ),
            ("POST", "/runner/broker/_apis/runtime/runnerscalesets/7/acquirejobs", "acquire", Side::Service),
            (
                "DELETE",
                "/runner/broker/_apis/distributedtask/pools/0/agents/7",
                "delete-runner",
                Side::Service,
            ),
            ("POST", "/runner/broker/_apis/distributedtask/pools/1/sessions", "runner-session", Side::Runner),
            ("POST", "/runner/broker/session", "runner-session", Side::Runner),
            ("GET", "/runner/broker/message", "runner-message", Side::Runner),
            ("POST", "/runner/oauth/token", "oauth", Side::Runner),
            ("POST", "/runner/run/acquirejob", "acquire-job", Side::Runner),
            ("DELETE", "/runner/broker/session", "runner", Side::Runner),
        ];
        for (method, path, operation, side) in table {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let expected = Call { operation: Operation::parse(operation).unwrap(), side };
            assert_eq!(Call::of(&method, path), Some(expected), "{method} {path}");
        }
    }

    #[test]
    fn the_labs_own_calls_never_fail() {
        for path in
            ["/lab/v1/faults", "/lab/v1/proof", "/lab/v1/events", "/runner/feed", "/settings/apps/new"]
        {
            assert_eq!(Call::of(&Method::GET, path), None, "{path}");
        }
    }

    #[test]
    fn an_operation_has_one_name_in_json_and_in_commands() {
        for operation in Operation::ALL {
            assert_eq!(serde_json::to_value(operation).unwrap(), operation.name());
            assert_eq!(Operation::parse(operation.name()).unwrap(), operation);
        }
    }
}
