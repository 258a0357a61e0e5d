//! The `github` context.

use crate::expression::{Object, Value};

/// The data of a run's `github` context; `github.job` and similar members are added for each job.
#[derive(Debug, Clone, PartialEq)]
pub struct GithubContext {
    /// `owner/name`.
    pub repository: String,
    /// The repository's id.
    pub repository_id: u64,
    /// The id of the repository's owner.
    pub repository_owner_id: u64,
    /// The run's id, unique on the server.
    pub run_id: u64,
    /// The run's number within its workflow, from 1.
    pub run_number: u64,
    /// The number of the attempt, from 1.
    pub run_attempt: u64,
    /// The user who started the run.
    pub actor: String,
    /// The user's id.
    pub actor_id: u64,
    /// The event, such as `workflow_dispatch`.
    pub event_name: String,
    /// The event's payload, as a webhook would carry it.
    pub event: serde_json::Value,
    /// The full ref, such as `refs/heads/main`.
    pub git_ref: String,
    /// The commit, 40 hex digits.
    pub sha: String,
    /// The workflow's file within the repository, such as `.github/workflows/ci.yml`.
    pub workflow_path: String,
    /// The workflow's name, from [`Workflow::display_name`](crate::workflow::Workflow::display_name).
    pub workflow: String,
    /// The server's address, such as `http://10.0.2.2:8080`. Its APIs have the same paths as on GHES.
    pub server_url: String,
}

impl GithubContext {
    /// Returns the same context for a server that is reached under another address, `server`, without a trailing slash.
    pub fn at(&self, server: &str) -> Self {
        Self { server_url: server.to_owned(), ..self.clone() }
    }

    /// Returns the workflow's file with its repository and ref, such as `o/r/.github/workflows/ci.yml@refs/heads/main`.
    pub fn workflow_ref(&self) -> String {
        format!("{}/{}@{}", self.repository, self.workflow_path, self.git_ref)
    }

    /// Returns the context as expressions see it. As on GitHub, its numbers are strings.
    pub fn to_value(&self) -> Value {
        let owner = self.repository.split('/').next().unwrap_or_default();
        let (ref_type, ref_name) = if let Some(name) = self.git_ref.strip_prefix("refs/heads/") {
            ("branch", name)
        } else if let Some(name) = self.git_ref.strip_prefix("refs/tags/") {
            ("tag", name)
        } else {
            ("branch", self.git_ref.strip_prefix("refs/pull/").unwrap_or(&self.git_ref))
        };
        let texts = [
            ("ref", self.git_ref.clone()),
            ("sha", self.sha.clone()),
            ("repository", self.repository.clone()),
            ("repository_owner", owner.to_owned()),
            ("repository_owner_id", self.repository_owner_id.to_string()),
            (
                "repositoryUrl",
                format!("{}/{}.git", self.server_url.replacen("http", "git", 1), self.repository),
            ),
            ("run_id", self.run_id.to_string()),
            ("run_number", self.run_number.to_string()),
            ("retention_days", "90".to_owned()),
            ("run_attempt", self.run_attempt.to_string()),
            ("artifact_cache_size_limit", "10".to_owned()),
            ("repository_visibility", "private".to_owned()),
            ("repository_id", self.repository_id.to_string()),
            ("actor_id", self.actor_id.to_string()),
            ("actor", self.actor.clone()),
            ("triggering_actor", self.actor.clone()),
            ("workflow", self.workflow.clone()),
            ("head_ref", String::new()),
            ("base_ref", String::new()),
            ("event_name", self.event_name.clone()),
            ("server_url", self.server_url.clone()),
            ("api_url", format!("{}/api/v3", self.server_url)),
            ("graphql_url", format!("{}/api/graphql", self.server_url)),
            ("ref_name", ref_name.to_owned()),
            ("ref_type", ref_type.to_owned()),
            ("secret_source", "Actions".to_owned()),
            ("workflow_ref", self.workflow_ref()),
            ("workflow_sha", self.sha.clone()),
        ];
        let mut github: Object =
            texts.into_iter().map(|(key, text)| (key.to_owned(), Value::String(text))).collect();
        github.insert("ref_protected".to_owned(), Value::Bool(false));
        github.insert("event".to_owned(), Value::from_json(&self.event));
        Value::Object(github)
    }
}
