//! The calls that the token of an App's installation may make, by its permissions. All others are the admin's. Pure.

use std::collections::BTreeMap;

use axum::http::Method;

use crate::refusal::Refusal;

/// The permissions of a token, and the names of the repositories that it is restricted to.
#[derive(Debug, Clone)]
pub(super) struct AppRights {
    pub(super) permissions: BTreeMap<String, String>,
    pub(super) repositories: Option<Vec<String>>,
}

impl AppRights {
    /// Checks a call to the REST API by its whole path.
    ///
    /// # Errors
    /// 404 for a repository that the token does not reach, and 403 for a permission that it lacks, as at GitHub.
    pub(super) fn check(&self, method: &Method, path: &str) -> Result<(), Refusal> {
        let parts: Vec<&str> =
            path.strip_prefix("/api/v3").unwrap_or(path).trim_matches('/').split('/').collect();
        let needed = match parts[..] {
            [""] | ["rate_limit"] => None,
            ["repos", _, repository, ..] if !self.reaches(repository) => return Err(Refusal::not_found()),
            ["repos", _, _] | ["orgs", _] => None,
            ["repos", _, _, "actions", "runners" | "runner-groups" | "permissions", ..] => {
                Some("administration")
            }
            ["repos", _, _, "actions", "runs" | "jobs", ..] => Some("actions"),
            ["orgs", _, "actions", "runners" | "runner-groups", ..] => {
                Some("organization_self_hosted_runners")
            }
            _ => return Err(lacking("none")),
        };
        let is_read = method == Method::GET || method == Method::HEAD;
        match needed {
            None if is_read => Ok(()),
            None => Err(lacking("none")),
            Some(name) => match self.permissions.get(name).map(String::as_str) {
                Some("write" | "admin") => Ok(()),
                Some("read") if is_read => Ok(()),
                _ => Err(lacking(name)),
            },
        }
    }

    fn reaches(&self, repository: &str) -> bool {
        let listed = self.repositories.as_ref();
        listed.is_none_or(|names| names.iter().any(|name| name.eq_ignore_ascii_case(repository)))
    }
}

fn lacking(permission: &str) -> Refusal {
    tracing::debug!(permission, "the token of an App lacks a permission");
    Refusal::new(403, "Resource not accessible by integration")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(permissions: &[(&str, &str)], method: Method, path: &str) -> u16 {
        let permissions =
            permissions.iter().map(|(name, access)| ((*name).to_owned(), (*access).to_owned())).collect();
        let rights = AppRights { permissions, repositories: Some(vec!["r".to_owned()]) };
        rights.check(&method, path).map_or_else(|refusal| refusal.status, |()| 200)
    }

    #[test]
    fn a_token_may_do_what_its_permissions_say_and_nothing_else() {
        let all =
            [("administration", "write"), ("actions", "read"), ("organization_self_hosted_runners", "read")];
        for (method, path, expected) in [
            (Method::POST, "/api/v3/repos/o/r/actions/runners/generate-jitconfig", 200),
            (Method::DELETE, "/api/v3/repos/o/R/actions/runners/7", 200),
            (Method::GET, "/api/v3/repos/o/r/actions/runs", 200),
            (Method::POST, "/api/v3/repos/o/r/actions/runs/7/cancel", 403),
            (Method::GET, "/api/v3/orgs/o/actions/runners", 200),
            (Method::POST, "/api/v3/orgs/o/actions/runners/registration-token", 403),
            (Method::GET, "/api/v3/", 200),
            (Method::GET, "/api/v3/repos/o/r", 200),
            (Method::GET, "/api/v3/repos/o/other/actions/runners", 404),
            (Method::PUT, "/api/v3/repos/o/r/contents/.github/workflows/a.yml", 403),
            (Method::PUT, "/api/v3/repos/o/r/actions/secrets/KEY", 403),
            (Method::POST, "/api/v3/enterprises/e/actions/runners/registration-token", 403),
            (Method::POST, "/settings/apps/new", 403),
            (Method::DELETE, "/lab/v1/runners/7", 403),
            (Method::POST, "/lab/v1/faults", 403),
        ] {
            assert_eq!(status(&all, method.clone(), path), expected, "{method} {path}");
        }
        assert_eq!(status(&[], Method::GET, "/api/v3/repos/o/r/actions/runners"), 403);
    }
}
