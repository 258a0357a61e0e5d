//! The `github` context.

use crate::expression::{Object, Value};

/// What the `github` context of a run is made of; `github.job` and the like are added for each job.
#[derive(Debug, Clone, PartialEq)]
pub struct GithubContext {
    /// `owner/name`.
    pub repository: String,
    /// The repository's number.
    pub repository_id: u64,
    /// The owner's number.
    pub repository_owner_id: u64,
    /// The run's number across the server.
    pub run_id: u64,
    /// The run's number within its workflow, from 1.
    pub run_number: u64,
    /// From 1.
    pub run_attempt: u64,
    /// Who started it.
    pub actor: String,
    /// That one's number.
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
    /// What [`Workflow::display_name`](crate::workflow::Workflow::display_name) says.
    pub workflow: String,
    /// Such as `http://10.0.2.2:8080`; the addresses of its APIs are those of GHES.
    pub server_url: String,
}

impl GithubContext {
    /// The same, reached under another address: `server` without a slash at its end.
    pub fn at(&self, server: &str) -> Self {
        Self { server_url: server.to_owned(), ..self.clone() }
    }

    /// The context as expressions see it. GitHub gives numbers as strings here.
    pub fn to_value(&self) -> Value {
        let owner = self.repository.split('/').next().unwrap_or_default();
        let (ref_type, ref_name) = if let Some(name) = self.git_ref.strip_prefix("refs/heads/") {
            ("branch", name)
        } else if let Some(name) = self.git_ref.strip_prefix("refs/tags/") {
            ("tag", name)
        } else {
            ("branch", self.git_ref.strip_prefix("refs/pull/").unwrap_or(&self.git_ref))
        };
        let workflow_ref = format!("{}/{}@{}", self.repository, self.workflow_path, self.git_ref);
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
            ("workflow_ref", workflow_ref),
            ("workflow_sha", self.sha.clone()),
        ];
        let mut github: Object =
            texts.into_iter().map(|(key, text)| (key.to_owned(), Value::String(text))).collect();
        github.insert("ref_protected".to_owned(), Value::Bool(false));
        github.insert("event".to_owned(), Value::from_json(&self.event));
        Value::Object(github)
    }
}
