//! Registration tokens, runner groups, and error texts that name the missing permission.

use reqwest::Method;
use secrecy::SecretString;
use serde::Deserialize;

use super::Forge;
use super::budget::Importance;
use super::error::ForgeError;
use super::permission::ForgeUse;
use super::request::Call;
use super::scope::RunnerScope;

/// Longest list of runner groups that is read, in pages of 100 groups.
const PAGES_MAX: usize = 50;
/// Number of groups that an error lists.
const NAMED_MAX: usize = 10;
/// The group that every scope has, and its id (docs.github.com, "Managing access to self-hosted runners using groups").
const DEFAULT_GROUP: (&str, u64) = ("Default", 1);

/// A token with which a runner app registers itself (`config.sh --token`). It can be used more than once until it
/// expires.
#[derive(Debug, Clone, Deserialize)]
pub struct RegistrationToken {
    /// The token.
    pub token: SecretString,
    /// Its expiry; at GitHub one hour after the token was created.
    pub expires_at: jiff::Timestamp,
}

#[derive(Deserialize)]
struct Group {
    id: u64,
    name: String,
    /// Older servers do not have it.
    #[serde(default)]
    allows_public_repositories: bool,
}

impl Forge {
    /// Requests a registration token. The call may be repeated, because a new token does not replace an earlier one.
    ///
    /// # Errors
    /// [`ForgeError::Unauthorized`], [`ForgeError::Forbidden`] and [`ForgeError::NotFound`] name the permission that the
    /// token needs. For the rest see [`ForgeError`].
    pub async fn registration_token(&self, scope: &RunnerScope) -> Result<RegistrationToken, ForgeError> {
        let url = self.base().join(&format!("{}/actions/runners/registration-token", scope.api_path()))?;
        let call = Call::new(format!("make a registration token for {scope}"), Method::POST, url);
        let call = call.repeatable().importance(Importance::Register);
        self.send(call).await.map_err(|error| needing_right(error, scope))?.json()
    }

    /// Returns the id of a runner group by its name, ignoring case. A repository has only `Default`.
    ///
    /// # Errors
    /// [`ForgeError::RepositoryGroup`] and [`ForgeError::UnknownGroup`]. For the rest see [`ForgeError`].
    pub async fn group_id(&self, scope: &RunnerScope, name: &str) -> Result<u64, ForgeError> {
        if name.eq_ignore_ascii_case(DEFAULT_GROUP.0) {
            return Ok(DEFAULT_GROUP.1);
        }
        if let RunnerScope::Repository { .. } = scope {
            return Err(ForgeError::RepositoryGroup { group: name.to_owned(), scope: scope.to_string() });
        }
        let groups = self.groups(scope).await?;
        match groups.iter().find(|group| group.name.eq_ignore_ascii_case(name)) {
            Some(group) => Ok(group.id),
            None => {
                let mut known: Vec<String> =
                    groups.iter().take(NAMED_MAX).map(|group| group.name.clone()).collect();
                if groups.len() > NAMED_MAX {
                    known.push(format!("and {} more", groups.len() - NAMED_MAX));
                }
                Err(ForgeError::UnknownGroup { group: name.to_owned(), scope: scope.to_string(), known })
            }
        }
    }

    /// Returns true if strangers may bring jobs to runners of a scope and a group: by a pull request to a public repository. For an
    /// organisation or an enterprise the group decides (`allows_public_repositories`).
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn takes_public_jobs(&self, scope: &RunnerScope, group: &str) -> Result<bool, ForgeError> {
        #[derive(Deserialize)]
        struct Repository {
            // False for `public` alone; `internal` ones of an enterprise are private too.
            #[serde(default = "is_private")]
            private: bool,
        }
        const fn is_private() -> bool {
            true
        }
        if let RunnerScope::Repository { .. } = scope {
            let url = self.base().join(&scope.api_path())?;
            let call = Call::get(format!("look up {scope}"), url);
            return Ok(!self.send(call).await?.json::<Repository>()?.private);
        }
        let groups = match self.groups(scope).await {
            // A server without groups has only the default one, and that one is closed to public repositories.
            Err(ForgeError::NotFound { .. }) if group.eq_ignore_ascii_case(DEFAULT_GROUP.0) => {
                return Ok(false);
            }
            groups => groups?,
        };
        let group = groups.iter().find(|known| known.name.eq_ignore_ascii_case(group));
        Ok(group.is_some_and(|group| group.allows_public_repositories))
    }

    async fn groups(&self, scope: &RunnerScope) -> Result<Vec<Group>, ForgeError> {
        #[derive(Deserialize)]
        struct Page {
            runner_groups: Vec<Group>,
        }
        let path = format!("{}/actions/runner-groups?per_page=100", scope.api_path());
        let mut url = Some(self.base().join(&path)?);
        let mut groups = Vec::new();
        for _ in 0..PAGES_MAX {
            let Some(page_url) = url else { break };
            let call = Call::get(format!("list the runner groups of {scope}"), page_url);
            let answer = self.send(call).await.map_err(|error| needing_right(error, scope))?;
            groups.extend(answer.json::<Page>()?.runner_groups);
            url = answer.next_page();
        }
        Ok(groups)
    }
}

/// Adds to an error the permission that managing runners of `scope` needs, unless the forge has named one itself.
pub(super) fn needing_right(error: ForgeError, scope: &RunnerScope) -> ForgeError {
    error.needing(&ForgeUse::Runners(scope.kind()).needed_right())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(needs: Option<&str>) -> ForgeError {
        let (what, message) = ("register the runner \"a\" at o/r".to_owned(), "Not Found".to_owned());
        ForgeError::NotFound { what, message, needs: needs.map(str::to_owned) }
    }

    #[test]
    fn a_refusal_says_which_right_is_needed() {
        let repository = RunnerScope::Repository { owner: "o".into(), name: "r".into() };
        insta::assert_snapshot!(needing_right(refused(None), &repository), @r#"cannot register the runner "a" at o/r: not found (Not Found); check the names, and that the token may see it: it needs the classic scope "repo", or the repository permission "Administration" (write) of a fine-grained token or a GitHub App"#);
        let organization = RunnerScope::Organization("o".into());
        assert!(needing_right(refused(None), &organization).to_string().contains("admin:org"));
        let enterprise = RunnerScope::Enterprise("e".into());
        assert!(needing_right(refused(None), &enterprise).to_string().contains("manage_runners:enterprise"));
    }

    #[test]
    fn the_forges_own_word_for_a_right_goes_first() {
        let repository = RunnerScope::Repository { owner: "o".into(), name: "r".into() };
        let error = needing_right(refused(Some("administration=write")), &repository).to_string();
        assert!(error.ends_with("it needs administration=write"), "{error}");
    }

    #[test]
    fn debugging_output_shows_no_token() {
        let token = RegistrationToken { token: "AABBCC".into(), expires_at: jiff::Timestamp::UNIX_EPOCH };
        assert!(!format!("{token:?}").contains("AABB"));
    }
}
