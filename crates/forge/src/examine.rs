//! Questions about a credential and its forge, for a check before the first runner. Each is one call that changes nothing and is
//! sent once, within a time limit.

use std::collections::HashMap;
use std::time::Duration;

use reqwest::header::HeaderMap;
use serde::Deserialize;

use super::Forge;
use super::app::{AppError, Installation};
use super::budget::{Importance, RateLimit};
use super::error::ForgeError;
use super::permission::ForgeUse;
use super::request::Call;
use super::scope::RunnerScope;

/// Longest time that one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest answer, bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Most scopes of a token that are read. GitHub has about 40.
const SCOPES_MAX: usize = 60;
/// The limits that dayfly's calls are counted for.
const LIMITS: [&str; 2] = ["core", "actions_runner_registration"];

/// The facts that a forge states about the token of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenFacts {
    /// The scopes of a classic token; `None` if the forge states none, because the token has permissions instead.
    pub scopes: Option<Vec<String>>,
    /// The version of a GHES; `None` at github.com.
    pub server_version: Option<String>,
}

/// The facts about a repository or an organisation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// True if the repository is archived, so that no workflow of it runs.
    pub archived: bool,
    /// True if the forge has disabled the repository.
    pub disabled: bool,
    /// True if GitHub Actions are on; `None` if the credential may not see it.
    pub actions: Option<bool>,
}

impl Forge {
    /// Asks for any answer, without the credential. Each answer of a forge counts, also a refusal; so an error is one of the
    /// connection, the certificate, the address or the forge.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn reach(&self) -> Result<(), ForgeError> {
        match self.send(question("reach the forge", self, "")?.anonymous()).await {
            Ok(_)
            | Err(
                ForgeError::Unauthorized { .. }
                | ForgeError::Forbidden { .. }
                | ForgeError::NotFound { .. }
                | ForgeError::RateLimited { .. },
            ) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Asks whether the forge accepts the credential, and what it says about it.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn token_facts(&self) -> Result<TokenFacts, ForgeError> {
        let answer = self.send(question("check the credential", self, "")?).await?;
        Ok(TokenFacts {
            scopes: header(&answer.headers, "x-oauth-scopes").map(listed),
            server_version: header(&answer.headers, "x-github-enterprise-version").map(str::to_owned),
        })
    }

    /// Returns the name of the GitHub App that the credential belongs to; `None` if it is a token. This checks the private key.
    ///
    /// # Errors
    /// See [`AppError`].
    pub async fn app_name(&self) -> Result<Option<String>, AppError> {
        match self.credential().app_tokens() {
            Some(tokens) => tokens.name(self).await.map(Some),
            None => Ok(None),
        }
    }

    /// Returns the installation of the credential's GitHub App that a scope belongs to; `None` if the credential is a token.
    ///
    /// # Errors
    /// See [`AppError`].
    pub async fn installation(&self, scope: &RunnerScope) -> Result<Option<Installation>, AppError> {
        match self.credential().app_tokens() {
            Some(tokens) => tokens.installation(self, scope).await.map(Some),
            None => Ok(None),
        }
    }

    /// Looks up the repository or the organisation of a scope. No call shows an enterprise, so that it counts as found.
    ///
    /// # Errors
    /// [`ForgeError::NotFound`] if it does not exist or the credential may not see it. For the rest see [`ForgeError`].
    pub async fn place(&self, scope: &RunnerScope) -> Result<Place, ForgeError> {
        #[derive(Deserialize)]
        struct Shown {
            #[serde(default)]
            archived: bool,
            #[serde(default)]
            disabled: bool,
        }
        if let RunnerScope::Enterprise(_) = scope {
            return Ok(Place::default());
        }
        let call = question(&format!("look up {scope}"), self, &scope.api_path())?;
        let Shown { archived, disabled } = self.send(call).await?.json()?;
        Ok(Place { archived, disabled, actions: self.actions_are_on(scope).await? })
    }

    async fn actions_are_on(&self, scope: &RunnerScope) -> Result<Option<bool>, ForgeError> {
        #[derive(Deserialize)]
        struct Shown {
            enabled: Option<bool>,
            enabled_repositories: Option<String>,
        }
        let path = format!("{}/actions/permissions", scope.api_path());
        let what = format!("look up whether GitHub Actions are on for {scope}");
        match self.send(question(&what, self, &path)?).await {
            Ok(answer) => {
                let Shown { enabled, enabled_repositories } = answer.json()?;
                Ok(enabled.or(enabled_repositories.map(|which| which != "none")))
            }
            // A credential that only manages the runners of an organisation may not see this.
            Err(ForgeError::Forbidden { .. } | ForgeError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks whether the credential may do what a use begins with: list one runner, or one run of a workflow.
    ///
    /// # Errors
    /// [`ForgeError::Unauthorized`], [`ForgeError::Forbidden`] and [`ForgeError::NotFound`] name the permission. For the rest see
    /// [`ForgeError`].
    pub async fn try_use(&self, scope: &RunnerScope, one: ForgeUse) -> Result<(), ForgeError> {
        let (things, path) = match one {
            ForgeUse::Runners(_) => ("runners", "actions/runners"),
            ForgeUse::Jobs => ("workflow runs", "actions/runs"),
        };
        let path = format!("{}/{path}?per_page=1", scope.api_path());
        let call = question(&format!("list the {things} of {scope}"), self, &path)?;
        self.send(call).await.map(drop).map_err(|error| error.needing(&one.needed_right()))
    }

    /// Returns the forge's limits for dayfly's calls, which it tells for free; none if it has no limits.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn rate_limits(&self) -> Result<Vec<RateLimit>, ForgeError> {
        #[derive(Deserialize)]
        struct Shown {
            resources: HashMap<String, Limit>,
        }
        #[derive(Deserialize)]
        struct Limit {
            limit: u64,
            remaining: u64,
            #[serde(default)]
            used: u64,
            reset: i64,
        }
        let answer = match self.send(question("look up the rate limits", self, "rate_limit")?).await {
            Ok(answer) => answer,
            // A GHES answers so if its limits are off (docs.github.com, "REST API endpoints for rate limits").
            Err(ForgeError::NotFound { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut shown: Shown = answer.json()?;
        let now_s = answer.server_time_s().unwrap_or_else(dayfly_host::clock::now_s);
        let known =
            LIMITS.into_iter().filter_map(|name| shown.resources.remove(name).map(|limit| (name, limit)));
        Ok(known
            .map(|(name, limit)| RateLimit {
                resource: name.to_owned(),
                limit: limit.limit,
                remaining: limit.remaining,
                used: limit.used,
                resets_in: Duration::from_secs(u64::try_from(limit.reset.saturating_sub(now_s)).unwrap_or(0)),
            })
            .collect())
    }
}

/// Returns a call that only asks. It has the importance of the calls that a person waits for, so that it is answered even if
/// dayfly would hold a search back.
fn question(what: &str, forge: &Forge, path: &str) -> Result<Call, ForgeError> {
    let call = Call::get(what, forge.base().join(path)?).importance(Importance::Register);
    Ok(call.once().timeout(CALL_TIMEOUT).answer_bytes_max(ANSWER_BYTES_MAX))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Returns the words of a list with commas.
fn listed(text: &str) -> Vec<String> {
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    words.take(SCOPES_MAX).map(str::to_owned).collect()
}
