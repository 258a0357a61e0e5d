//! Scopes of runners. An enterprise in the lab contains all organisations, so its runners serve every repository. The
//! runners of an organisation serve the repositories of the owner of that name.

use serde::{Deserialize, Serialize};

use super::repository::{RepositoryName, is_plain_name};
use crate::refusal::Refusal;

/// The first part of the path of an enterprise's page.
const ENTERPRISES: &str = "enterprises";

/// The scope of a runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scope {
    Repository(RepositoryName),
    Organization(String),
    Enterprise(String),
}

impl Scope {
    pub(crate) fn repository(owner: &str, name: &str) -> Result<Self, Refusal> {
        RepositoryName::new(owner, name).map(Self::Repository)
    }

    pub(crate) fn organization(name: &str) -> Result<Self, Refusal> {
        is_plain_name(name).then(|| Self::Organization(name.to_owned())).ok_or_else(Refusal::not_found)
    }

    pub(crate) fn enterprise(name: &str) -> Result<Self, Refusal> {
        is_plain_name(name).then(|| Self::Enterprise(name.to_owned())).ok_or_else(Refusal::not_found)
    }

    /// Parses the address that `config.sh --url` was given: `http://HOST/o/r`, `.../org`, `.../enterprises/name`. The
    /// host is ignored, because the lab can be reached under several.
    pub(crate) fn from_web_url(url: &str) -> Result<Self, Refusal> {
        let url = reqwest::Url::parse(url).map_err(|_| Refusal::not_found())?;
        let parts: Vec<&str> = url.path().trim_matches('/').split('/').collect();
        match parts[..] {
            [organization] => Self::organization(organization),
            [first, name] if first.eq_ignore_ascii_case(ENTERPRISES) => Self::enterprise(name),
            [owner, name] => Self::repository(owner, name),
            _ => Err(Refusal::not_found()),
        }
    }

    /// Returns true if both scopes have the same name, ignoring case.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.web_path().eq_ignore_ascii_case(&other.web_path())
    }

    pub(super) fn serves(&self, repository: &RepositoryName) -> bool {
        match self {
            Self::Repository(name) => name.key() == repository.key(),
            Self::Organization(name) => name.eq_ignore_ascii_case(&repository.owner),
            Self::Enterprise(_) => true,
        }
    }

    /// Returns the path of its page.
    pub(crate) fn web_path(&self) -> String {
        match self {
            Self::Repository(name) => name.full_name(),
            Self::Organization(name) => name.clone(),
            Self::Enterprise(name) => format!("{ENTERPRISES}/{name}"),
        }
    }

    /// Returns its path below the REST API's address.
    pub(crate) fn api_path(&self) -> String {
        match self {
            Self::Repository(name) => format!("repos/{}", name.full_name()),
            Self::Organization(name) => format!("orgs/{name}"),
            Self::Enterprise(_) => self.web_path(),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_page_says_what_it_is_of() {
        let path = |url: &str| Scope::from_web_url(url).map(|scope| scope.api_path());
        assert_eq!(path("http://127.0.0.1:8080/o/r").unwrap(), "repos/o/r");
        assert_eq!(path("http://10.0.2.2:8080/o/").unwrap(), "orgs/o");
        assert_eq!(path("http://lab/enterprises/big").unwrap(), "enterprises/big");
        for url in ["", "o/r", "http://lab", "http://lab/o/r/x", "http://lab/o/..%2Fx", "http://lab/a%20b"] {
            assert!(path(url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_runners_of_an_enterprise_serve_every_repository() {
        let repository = RepositoryName::new("o", "r").unwrap();
        let serves = |scope: Result<Scope, Refusal>| scope.unwrap().serves(&repository);
        assert!(serves(Scope::enterprise("big")) && serves(Scope::organization("O")));
        assert!(serves(Scope::repository("O", "R")));
        assert!(!serves(Scope::organization("other")) && !serves(Scope::repository("o", "other")));
        assert!(!Scope::organization("big").unwrap().same(&Scope::enterprise("big").unwrap()));
    }
}
