//! Scopes of runners at a forge, and how users name them.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::address::part;

/// GitHub's limit for the names of repositories. Names of owners are shorter.
const NAME_LEN_MAX: usize = 100;

/// The kind of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScopeKind {
    /// One repository.
    Repository,
    /// All repositories of an organisation.
    Organization,
    /// All organisations of an enterprise.
    Enterprise,
}

impl ScopeKind {
    /// Returns its name, as commands and variables take it and journals store it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Repository => "repo",
            Self::Organization => "org",
            Self::Enterprise => "ent",
        }
    }

    /// Parses any word that begins with `rep`, `org` or `ent`, ignoring case.
    ///
    /// # Errors
    /// [`ScopeError::UnknownScope`] for all other words.
    pub fn parse(word: &str) -> Result<Self, ScopeError> {
        let lower = word.to_ascii_lowercase();
        let known = [("rep", Self::Repository), ("org", Self::Organization), ("ent", Self::Enterprise)];
        let found = known.into_iter().find(|(prefix, _)| lower.starts_with(prefix));
        found.map(|(_, kind)| kind).ok_or_else(|| ScopeError::UnknownScope { word: word.to_owned() })
    }
}

/// The scope of a runner: the repository, organisation or enterprise that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub enum RunnerScope {
    /// One repository.
    Repository {
        /// Its owner.
        owner: String,
        /// Its name.
        name: String,
    },
    /// All repositories of an organisation.
    Organization(String),
    /// All organisations of an enterprise.
    Enterprise(String),
}

/// Errors of parsing a scope.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ScopeError {
    /// The word does not name a kind of scope.
    #[error(
        "\"{word}\" is no scope: it must begin with rep (repository), org (organisation) or ent (enterprise)"
    )]
    UnknownScope {
        /// The given text.
        word: String,
    },
    /// The scope is a repository, but the principal is not `OWNER/REPOSITORY`.
    #[error("\"{principal}\" names no repository: OWNER/REPOSITORY is needed")]
    NoRepository {
        /// The given text.
        principal: String,
    },
    /// The scope is an organisation or enterprise, but the principal is not a single name.
    #[error("\"{principal}\" names no {kind}: its name alone is needed, without a slash or a blank")]
    NoName {
        /// `organisation` or `enterprise`.
        kind: &'static str,
        /// The given text.
        principal: String,
    },
}

impl RunnerScope {
    /// Parses a scope from two texts that a user gives: the word for its kind (see [`ScopeKind::parse`]), and the
    /// principal, which is `OWNER/REPOSITORY` for a repository and one name otherwise.
    ///
    /// # Errors
    /// [`ScopeError`], which contains the given text and what is needed instead.
    pub fn parse(scope: &str, principal: &str) -> Result<Self, ScopeError> {
        let one_name = |kind| {
            if is_name(principal) {
                Ok(principal.to_owned())
            } else {
                Err(ScopeError::NoName { kind, principal: principal.to_owned() })
            }
        };
        match ScopeKind::parse(scope)? {
            ScopeKind::Repository => match principal.split_once('/') {
                Some((owner, name)) if is_name(owner) && is_name(name) => {
                    Ok(Self::Repository { owner: owner.to_owned(), name: name.to_owned() })
                }
                _ => Err(ScopeError::NoRepository { principal: principal.to_owned() }),
            },
            ScopeKind::Organization => one_name("organisation").map(Self::Organization),
            ScopeKind::Enterprise => one_name("enterprise").map(Self::Enterprise),
        }
    }

    /// Returns the owner: the user or organisation of a repository, else the organisation or enterprise itself.
    pub fn owner(&self) -> &str {
        match self {
            Self::Repository { owner, .. } => owner,
            Self::Organization(name) | Self::Enterprise(name) => name,
        }
    }

    /// Returns its kind.
    pub fn kind(&self) -> ScopeKind {
        match self {
            Self::Repository { .. } => ScopeKind::Repository,
            Self::Organization(_) => ScopeKind::Organization,
            Self::Enterprise(_) => ScopeKind::Enterprise,
        }
    }

    /// Returns the path of its page below the forge's web address, as `config.sh --url` takes it: `owner/name`, `org`,
    /// `enterprises/name`.
    pub fn web_path(&self) -> String {
        match self {
            Self::Repository { .. } | Self::Organization(_) => self.to_string(),
            Self::Enterprise(name) => format!("enterprises/{name}"),
        }
    }

    /// Returns its path below the REST API's address.
    pub(super) fn api_path(&self) -> String {
        match self {
            Self::Repository { owner, name } => format!("repos/{}/{}", part(owner), part(name)),
            Self::Organization(name) => format!("orgs/{}", part(name)),
            Self::Enterprise(name) => format!("enterprises/{}", part(name)),
        }
    }
}

/// Writes the principal: `owner/name`, or the single name.
impl fmt::Display for RunnerScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository { owner, name } => write!(f, "{owner}/{name}"),
            Self::Organization(name) | Self::Enterprise(name) => f.write_str(name),
        }
    }
}

/// Returns true if `text` consists of letters, digits, `-`, `_` and `.` and does not begin with a dot. GitHub accepts
/// such names, and they have no special meaning in a path.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=NAME_LEN_MAX).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(plain)
}

/// The form of a scope in a journal.
#[derive(Serialize, Deserialize)]
struct Written {
    scope: String,
    principal: String,
}

impl From<RunnerScope> for Written {
    fn from(scope: RunnerScope) -> Self {
        Self { scope: scope.kind().word().to_owned(), principal: scope.to_string() }
    }
}

impl TryFrom<Written> for RunnerScope {
    type Error = ScopeError;

    fn try_from(written: Written) -> Result<Self, ScopeError> {
        Self::parse(&written.scope, &written.principal)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scopes_go_by_the_beginning_of_their_word_in_any_case() {
        for word in ["rep", "repo", "REPOSITORY"] {
            assert_eq!(ScopeKind::parse(word), Ok(ScopeKind::Repository));
        }
        for word in ["org", "Organisation", "organization"] {
            assert_eq!(ScopeKind::parse(word), Ok(ScopeKind::Organization));
        }
        for word in ["ent", "ENTERPRISE"] {
            assert_eq!(ScopeKind::parse(word), Ok(ScopeKind::Enterprise));
        }
        let error = ScopeKind::parse("user").unwrap_err().to_string();
        insta::assert_snapshot!(error, @r#""user" is no scope: it must begin with rep (repository), org (organisation) or ent (enterprise)"#);
    }

    #[test]
    fn every_scope_has_its_page() {
        let path = |scope, principal| RunnerScope::parse(scope, principal).unwrap().web_path();
        assert_eq!(path("repo", "o/r"), "o/r");
        assert_eq!(path("org", "o"), "o");
        assert_eq!(path("ent", "big-corp"), "enterprises/big-corp");
    }

    #[test]
    fn a_principal_that_does_not_fit_its_scope_is_named() {
        for principal in ["", "o", "/r", "o/", "o/r/x", "o/..", "../r", "o r/x", "o/r\n"] {
            let error = RunnerScope::parse("repo", principal).unwrap_err();
            assert!(error.to_string().contains("OWNER/REPOSITORY"), "{principal:?}: {error}");
        }
        for scope in ["org", "ent"] {
            for principal in ["", "o/r", ".", "..", "a b", &"x".repeat(101)] {
                assert!(RunnerScope::parse(scope, principal).is_err(), "{scope} {principal:?}");
            }
        }
        let error = RunnerScope::parse("org", "o/r").unwrap_err().to_string();
        insta::assert_snapshot!(error, @r#""o/r" names no organisation: its name alone is needed, without a slash or a blank"#);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(kind in 0..3_usize, first in "[a-z0-9_-][a-z0-9._-]{0,20}", second in "[a-z0-9_-][a-z0-9._-]{0,20}") {
            let scope = match kind {
                0 => RunnerScope::Repository { owner: first, name: second },
                1 => RunnerScope::Organization(first),
                _ => RunnerScope::Enterprise(first),
            };
            let text = serde_json::to_string(&scope).unwrap();
            prop_assert_eq!(serde_json::from_str::<RunnerScope>(&text).unwrap(), scope);
        }
    }
}
