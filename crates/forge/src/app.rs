//! GitHub Apps: a credential whose tokens last an hour and can do only what their user needs.
//!
//! ```text
//! private key ──signs──> assertion (JWT, 10 min) ──> GET S/installation ──> id        once, unless the id is given
//!                                               └──> POST access_tokens ──> token     5 min before the last one ends
//! ```
//!
//! Sources: docs.github.com, "Authenticating with a GitHub App" and "REST API endpoints for GitHub Apps".

mod error;
mod key;
mod manifest;
mod tokens;

pub use error::AppError;
pub use key::{AppKey, AppKeyError};
pub use manifest::{AppManifest, NewApp};
pub(crate) use tokens::AppTokens;
pub use tokens::Installation;

use serde_json::{Value, json};

use super::permission::{Access, ForgeUse, Permission};
use super::scope::{RunnerScope, ScopeKind};

/// Longest id of an App or a client. GitHub's have at most 20 characters.
const ID_LEN_MAX: usize = 100;
/// Most repositories that a token can be restricted to (docs.github.com, "Create an installation access token").
const REPOSITORIES_MAX: usize = 500;

/// A GitHub App, and the use that is made of it.
#[derive(Debug, Clone)]
pub struct GithubApp {
    id: String,
    key: AppKey,
    installation: Option<u64>,
    serves: Vec<RunnerScope>,
    reads_jobs: bool,
}

impl GithubApp {
    /// Describes an App by its app id or client id, and the scopes whose runners it manages. An installation belongs to one
    /// owner, so all scopes must have the same. Without [`Self::installation`], the first scope leads to the installation.
    ///
    /// # Errors
    /// [`AppError::BadId`], [`AppError::NoScope`], [`AppError::Enterprise`] and [`AppError::SeveralOwners`].
    pub fn new(id: &str, key: AppKey, serves: Vec<RunnerScope>) -> Result<Self, AppError> {
        if !(1..=ID_LEN_MAX).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(AppError::BadId { id: id.chars().take(ID_LEN_MAX).collect() });
        }
        let first = serves.first().and_then(owner).map(str::to_owned);
        for scope in &serves {
            match (owner(scope), first.as_deref()) {
                (Some(other), Some(first)) if !other.eq_ignore_ascii_case(first) => {
                    return Err(AppError::SeveralOwners { first: first.to_owned(), other: other.to_owned() });
                }
                (Some(_), _) => {}
                (None, _) => return Err(AppError::Enterprise { scope: scope.to_string() }),
            }
        }
        match first {
            Some(_) => Ok(Self { id: id.to_owned(), key, installation: None, serves, reads_jobs: false }),
            None => Err(AppError::NoScope),
        }
    }

    /// Sets the id of the installation, so that it need not be found.
    pub fn installation(self, id: u64) -> Self {
        Self { installation: Some(id), ..self }
    }

    /// Requests the permission to read runs and jobs too, which a search for waiting jobs needs.
    pub fn reading_jobs(self) -> Self {
        Self { reads_jobs: true, ..self }
    }

    /// Returns true if both are the same App with the same key, and this one's tokens serve for everything that the other's do.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.id == other.id
            && self.installation == other.installation
            && other.serves.iter().all(|scope| self.serves.contains(scope))
            && (self.reads_jobs || !other.reads_jobs)
            && self.key.is_same(&other.key)
    }

    /// Returns the app id or client id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the body of a request for a token. The token can do only what its use needs, because an App may have been
    /// given more: "Administration" alone can delete every repository that the App is installed for.
    fn restriction(&self) -> Value {
        let mut permissions = serde_json::Map::new();
        for permission in self.permissions() {
            permissions.insert(permission.name.to_owned(), permission.access.word().into());
        }
        let mut body = json!({ "permissions": permissions });
        let names: Option<Vec<&str>> = self.serves.iter().map(repository).collect();
        if let Some(names) = names.filter(|names| names.len() <= REPOSITORIES_MAX) {
            body["repositories"] = json!(names);
        }
        body
    }

    /// Returns the permissions that the use needs.
    fn permissions(&self) -> Vec<Permission> {
        self.uses().filter_map(ForgeUse::permission).collect()
    }

    fn uses(&self) -> impl Iterator<Item = ForgeUse> {
        let kinds = [ScopeKind::Repository, ScopeKind::Organization];
        let served = kinds.into_iter().filter(|kind| self.serves.iter().any(|scope| scope.kind() == *kind));
        served.map(ForgeUse::Runners).chain(self.reads_jobs.then_some(ForgeUse::Jobs))
    }

    /// Returns the permissions that the use needs, by the names of the settings page.
    fn permissions_in_words(&self) -> String {
        let words = self.uses().filter_map(|one| {
            let Permission { title, level, access, .. } = one.permission()?;
            let access = match access {
                Access::Read => "read",
                Access::Write => "read and write",
            };
            let purpose = match one {
                ForgeUse::Runners(ScopeKind::Organization) => "to manage runners of an organisation",
                ForgeUse::Runners(_) => "to manage runners of a repository",
                ForgeUse::Jobs => "to find waiting jobs",
            };
            Some(format!("\"{title}\" ({} permission, {access}) {purpose}", level.word()))
        });
        words.collect::<Vec<_>>().join(", ")
    }
}

/// Returns the owner of a scope's installation. An enterprise has none.
fn owner(scope: &RunnerScope) -> Option<&str> {
    match scope {
        RunnerScope::Repository { owner, .. } => Some(owner),
        RunnerScope::Organization(name) => Some(name),
        RunnerScope::Enterprise(_) => None,
    }
}

fn repository(scope: &RunnerScope) -> Option<&str> {
    match scope {
        RunnerScope::Repository { name, .. } => Some(name),
        RunnerScope::Organization(_) | RunnerScope::Enterprise(_) => None,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::tests::rsa_key;

    fn app(scopes: &[(&str, &str)]) -> Result<GithubApp, AppError> {
        let serves = scopes.iter().map(|(kind, name)| RunnerScope::parse(kind, name).unwrap()).collect();
        GithubApp::new("12", AppKey::from_pem(rsa_key().pkcs8.clone().into()).unwrap(), serves)
    }

    #[test]
    fn a_token_is_asked_for_only_what_its_use_needs() {
        let repository = app(&[("repo", "o/r")]).unwrap();
        insta::assert_snapshot!(repository.restriction(), @r#"{"permissions":{"administration":"write"},"repositories":["r"]}"#);
        let both = app(&[("org", "o"), ("repo", "o/r")]).unwrap().reading_jobs();
        insta::assert_snapshot!(both.restriction(), @r#"{"permissions":{"administration":"write","organization_self_hosted_runners":"write","actions":"read"}}"#);
    }

    #[test]
    fn an_app_covers_itself_with_less_use_and_no_other_one() {
        let one = app(&[("repo", "o/r")]).unwrap();
        let two = app(&[("repo", "o/r"), ("repo", "o/s")]).unwrap();
        assert!(two.covers(&one) && !one.covers(&two));
        let reading = one.clone().reading_jobs();
        assert!(reading.covers(&one) && !one.covers(&reading));
        assert!(!one.clone().installation(3).covers(&one));
    }

    #[test]
    fn an_app_that_cannot_serve_its_scopes_is_refused_with_the_reason() {
        insta::assert_snapshot!(app(&[("ent", "corp")]).unwrap_err(), @r#"corp is an enterprise, whose runners GitHub Apps cannot manage; use a classic token with the scope "manage_runners:enterprise", or runners of an organisation"#);
        insta::assert_snapshot!(app(&[("org", "a"), ("repo", "A/r"), ("repo", "b/r")]).unwrap_err(), @"an installation of a GitHub App serves one owner, not both a and b; use a credential for each of them");
        insta::assert_snapshot!(app(&[]).unwrap_err(), @"a GitHub App needs a repository or an organisation that it is used for");
        let key = AppKey::from_pem(rsa_key().pkcs8.clone().into()).unwrap();
        let scope = RunnerScope::Organization("o".into());
        insta::assert_snapshot!(GithubApp::new("my app", key, vec![scope]).unwrap_err(), @r#""my app" is no id of a GitHub App: its settings page shows the app id, a number, and the client id, letters and digits"#);
    }

    #[test]
    fn debugging_output_shows_no_key() {
        let shown = format!("{:?}", app(&[("repo", "o/r")]).unwrap());
        assert!(shown.contains("\"12\"") && !shown.contains("BEGIN"), "{shown}");
    }
}
