//! Reads a delivery whose signature is good. Everything that dayfly does not need may be missing or null, because older
//! servers leave members out (docs.github.com, "Webhook events and payloads", `workflow_job`).

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;

use crate::answer::milliseconds;

/// Longest id of a delivery, bytes. GitHub's are UUIDs.
const ID_LENGTH_MAX: usize = 128;
/// The event about a job.
const JOB: &str = "workflow_job";

/// The headers of a delivery; none for one that is missing or no text.
#[derive(Debug, Clone, Copy, Default)]
pub struct WebhookHeaders<'a> {
    /// The kind of the event, `X-GitHub-Event`.
    pub event: Option<&'a str>,
    /// The id of the delivery, `X-GitHub-Delivery`.
    pub delivery: Option<&'a str>,
    /// The type of the body, `Content-Type`.
    pub content_type: Option<&'a str>,
}

/// A delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Webhook {
    /// The hook was created, or an admin tests it.
    Ping,
    /// A job has changed.
    Job(Arc<JobDelivery>),
    /// Something else has happened.
    Other,
}

/// A change of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDelivery {
    /// Id of the delivery; the same again if the forge delivers it again.
    pub id: String,
    /// The change.
    pub action: JobAction,
    /// Owner of the repository.
    pub owner: String,
    /// Name of the repository.
    pub repository: String,
    /// Name of the enterprise, if the event says one.
    pub enterprise: Option<String>,
    /// Id of the job.
    pub job: u64,
    /// Name of the job; empty if the event has none.
    pub name: String,
    /// Labels of `runs-on`, as they are written.
    pub labels: Vec<String>,
    /// `success`, `failure`, `cancelled`, `skipped`, `timed_out` ..., of a completed job.
    pub conclusion: Option<String>,
    /// Name of the runner that has or had the job.
    pub runner: Option<String>,
    /// Name of the workflow, if the event says it.
    pub workflow: Option<String>,
    /// Time at which the job was queued, milliseconds since 1970-01-01 UTC, if the event says it.
    pub queued_ms: Option<u64>,
}

/// The change of a job. It counts, and not the job's own `status`, which is older in some events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobAction {
    /// It waits for an approval, not for a runner.
    Waiting,
    /// It waits for a runner.
    Queued,
    /// A runner has it.
    InProgress,
    /// It is over, whether it ran or not.
    Completed,
}

/// The reason why a request is no delivery.
#[derive(Debug, Error)]
pub enum WebhookError {
    /// A header is missing.
    #[error("the header {name} is missing or too long")]
    Header {
        /// Its name.
        name: &'static str,
    },
    /// The body is in another form.
    #[error("the content type is {given:?}, not application/json or application/x-www-form-urlencoded")]
    ContentType {
        /// The type in the request.
        given: String,
    },
    /// The form does not contain the event.
    #[error("the form has no field \"payload\"")]
    NoPayload,
    /// The body is not the event that the header names.
    #[error("the body is no event \"{event}\": {source}")]
    Body {
        /// The event.
        event: &'static str,
        /// The cause.
        source: serde_json::Error,
    },
    /// The repository has no owner or no name.
    #[error("{name:?} is no repository: OWNER/NAME is needed")]
    Repository {
        /// The name in the event.
        name: String,
    },
}

#[derive(Deserialize)]
struct Payload {
    action: String,
    workflow_job: Job,
    repository: Repository,
    enterprise: Option<Enterprise>,
}

#[derive(Deserialize)]
struct Job {
    id: u64,
    labels: Vec<String>,
    name: Option<String>,
    conclusion: Option<String>,
    runner_name: Option<String>,
    workflow_name: Option<String>,
    created_at: Option<String>,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

#[derive(Deserialize)]
struct Enterprise {
    slug: Option<String>,
}

impl Webhook {
    /// Reads a delivery. The caller has verified the signature of the body.
    ///
    /// # Errors
    /// A header is missing, or the body of an event that is of interest cannot be read.
    pub fn read(headers: &WebhookHeaders<'_>, body: &[u8]) -> Result<Self, WebhookError> {
        let header = |name, value: Option<_>| value.ok_or(WebhookError::Header { name });
        let event = header("X-GitHub-Event", headers.event)?;
        let is_id = |id: &&str| (1..=ID_LENGTH_MAX).contains(&id.len());
        let id = header("X-GitHub-Delivery", headers.delivery.filter(is_id))?;
        match event {
            "ping" => parse::<IgnoredAny>("ping", headers, body).map(|_| Self::Ping),
            JOB => JobDelivery::read(id, parse(JOB, headers, body)?),
            _ => Ok(Self::Other),
        }
    }
}

impl JobDelivery {
    fn read(id: &str, payload: Payload) -> Result<Webhook, WebhookError> {
        let Payload { action, workflow_job: job, repository, enterprise } = payload;
        let action = match action.as_str() {
            "waiting" => JobAction::Waiting,
            "queued" => JobAction::Queued,
            "in_progress" => JobAction::InProgress,
            "completed" => JobAction::Completed,
            // A later version of the forge may have more.
            _ => return Ok(Webhook::Other),
        };
        let (owner, name) = match repository.full_name.split_once('/') {
            Some((owner, name)) if !owner.is_empty() && !name.is_empty() && !name.contains('/') => {
                (owner, name)
            }
            _ => return Err(WebhookError::Repository { name: repository.full_name }),
        };
        Ok(Webhook::Job(Arc::new(Self {
            id: id.to_owned(),
            action,
            owner: owner.to_owned(),
            repository: name.to_owned(),
            enterprise: enterprise.and_then(|enterprise| enterprise.slug),
            job: job.id,
            name: job.name.unwrap_or_default(),
            labels: job.labels,
            conclusion: job.conclusion,
            runner: job.runner_name.filter(|name| !name.is_empty()),
            workflow: job.workflow_name,
            queued_ms: job.created_at.as_deref().and_then(milliseconds),
        })))
    }
}

/// Parses the JSON of a body, which may be the field of a form.
fn parse<T: for<'de> Deserialize<'de>>(
    event: &'static str,
    headers: &WebhookHeaders<'_>,
    body: &[u8],
) -> Result<T, WebhookError> {
    let given = headers.content_type.unwrap_or_default();
    let kind = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let parsed = match kind.as_str() {
        "application/json" => serde_json::from_slice(body),
        "application/x-www-form-urlencoded" => {
            let mut fields = form_urlencoded::parse(body);
            let payload = fields.find(|(name, _)| name == "payload").ok_or(WebhookError::NoPayload)?;
            serde_json::from_str(&payload.1)
        }
        _ => return Err(WebhookError::ContentType { given: given.chars().take(100).collect() }),
    };
    parsed.map_err(|source| WebhookError::Body { event, source })
}
