//! Judges the answers of a forge: whether a credential may do what it is used for, and what to change if not. Everything here is
//! pure.

use std::fmt::Display;

use dayfly_forge::{
    Access, CredentialKind, ForgeError, ForgeUse, Installation, Permission, Place, RunnerScope, ScopeKind,
};
use dayfly_vm::host::CheckState;

use crate::exit::Failure;

/// The result of a check, without its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) state: CheckState,
    pub(super) seen: String,
    pub(super) mend: Option<String>,
}

impl Verdict {
    pub(super) fn ok(seen: impl Into<String>) -> Self {
        Self { state: CheckState::Ok, seen: seen.into(), mend: None }
    }

    pub(super) fn note(seen: impl Into<String>) -> Self {
        Self { state: CheckState::Note, seen: seen.into(), mend: None }
    }

    /// The forge has not answered this question.
    pub(super) fn unknown(why: impl Display) -> Self {
        Self { state: CheckState::Warn, seen: format!("not known: {why}"), mend: None }
    }

    pub(super) fn missing(seen: impl Display, mend: Option<String>) -> Self {
        Self { state: CheckState::Missing, seen: seen.to_string(), mend }
    }
}

/// The facts by which the uses of one owner are judged.
pub(super) struct Evidence<'a> {
    pub(super) kind: CredentialKind,
    /// The scopes of the token, if the forge states them.
    pub(super) scopes: Option<&'a [String]>,
    /// The installation of the GitHub App, if the credential is one.
    pub(super) installation: Option<&'a Installation>,
    /// The address of the forge's pages.
    pub(super) web: &'a str,
    pub(super) scope: &'a RunnerScope,
}

impl Evidence<'_> {
    /// Returns the verdict on a suspended installation; none if it is not suspended.
    pub(super) fn suspended(&self) -> Option<Verdict> {
        let installation = self.installation?;
        let since = installation.suspended_at.as_deref()?;
        let seen = format!("the installation {} of the App is suspended since {since}", installation.id);
        Some(Verdict::missing(
            seen,
            Some(format!("\"Unsuspend\" on {}", self.installation_page(installation))),
        ))
    }

    /// Judges whether an owner is there and runs jobs.
    pub(super) fn place(&self, answer: Result<Place, ForgeError>) -> Verdict {
        match answer {
            Ok(Place { archived: true, .. }) => {
                let mend = "unarchive it in its settings".to_owned();
                Verdict::missing("it is archived, so no job of it runs", Some(mend))
            }
            Ok(Place { disabled: true, .. }) => Verdict::missing("the forge has disabled it", None),
            Ok(Place { actions: Some(false), .. }) => {
                let mend = "Settings, Actions, General: allow them".to_owned();
                Verdict::missing("GitHub Actions are off", Some(mend))
            }
            Ok(Place { actions: Some(true), .. }) => Verdict::ok("is there, and GitHub Actions are on"),
            Ok(Place { actions: None, .. }) => {
                Verdict::ok("is there; the credential may not see whether GitHub Actions are on")
            }
            Err(ForgeError::NotFound { .. }) => {
                let seen = "not found: it does not exist, or the credential may not see it";
                let one = ForgeUse::Runners(self.scope.kind());
                Verdict::missing(seen, Some(format!("correct the name, or {}", self.how_to_allow(one))))
            }
            Err(error) if error.is_temporary() => Verdict::unknown(Failure::cannot(error)),
            Err(error) => Verdict::missing(Failure::cannot(error), None),
        }
    }

    /// Judges a use by the forge's answer to the call that it begins with; none if that call could not be made.
    pub(super) fn judge(&self, one: ForgeUse, answer: Option<Result<(), ForgeError>>) -> Verdict {
        if let Some(missing) = self.missing_at_installation(one) {
            return missing;
        }
        match answer {
            None => Verdict::ok(format!("the permission is granted: {}", allowed(one))),
            Some(Ok(())) => self.allowed(one),
            Some(Err(error)) if error.is_temporary() => Verdict::unknown(Failure::cannot(error)),
            Some(Err(error)) => self.refused(one, error),
        }
    }

    /// Returns the verdict if the installation of an App does not grant the permission.
    fn missing_at_installation(&self, one: ForgeUse) -> Option<Verdict> {
        let installation = self.installation?;
        let permission = one.permission()?;
        let found = installation.access(&permission);
        if found >= Some(permission.access) {
            return None;
        }
        let seen = match found {
            None => format!("the installation of the App does not grant {}", quoted(&permission)),
            Some(_) => format!("the installation of the App lets dayfly only read {}", quoted(&permission)),
        };
        Some(Verdict::missing(seen, Some(self.how_to_allow(one))))
    }

    fn allowed(&self, one: ForgeUse) -> Verdict {
        let proves_all = self.installation.is_some()
            || self.is_classic()
            || matches!(self.kind, CredentialKind::Lab)
            || one.permission().is_some_and(|permission| permission.access == Access::Read);
        match (proves_all, one.permission()) {
            (false, Some(permission)) => Verdict::note(format!(
                "can be listed; whether the token may register and delete them is not known until the first runner, which needs {} \
                 ({})",
                quoted(&permission),
                permission.access.title()
            )),
            _ => Verdict::ok(allowed(one)),
        }
    }

    fn refused(&self, one: ForgeUse, error: ForgeError) -> Verdict {
        let scopes = self.scopes.filter(|_| self.is_classic());
        match scopes {
            Some(scopes) if !one.is_within(scopes) => {
                let seen = format!("the token lacks the scope \"{}\"", one.classic_scope());
                Verdict::missing(seen, Some(self.how_to_allow(one)))
            }
            Some(_) => {
                let mend = format!("the user of the token must be {}", role(one, self.scope));
                Verdict::missing(Failure::cannot(error), Some(mend))
            }
            None => Verdict::missing(Failure::cannot(error), Some(self.how_to_allow(one))),
        }
    }

    /// Returns true if the token has scopes. GitHub states an empty list for some tokens that have permissions.
    fn is_classic(&self) -> bool {
        match self.kind {
            CredentialKind::Classic => true,
            CredentialKind::Other | CredentialKind::OfApp => {
                self.scopes.is_some_and(|scopes| !scopes.is_empty())
            }
            CredentialKind::FineGrained | CredentialKind::Lab | CredentialKind::App => false,
        }
    }

    /// Returns the change that allows a use, and where to make it.
    fn how_to_allow(&self, one: ForgeUse) -> String {
        let (web, scope) = (self.web, self.scope);
        let classic =
            format!("add the scope \"{}\" to the token on {web}/settings/tokens", one.classic_scope());
        let Some(permission) = one.permission() else {
            return match self.is_classic() {
                true => classic,
                false => format!("use a classic token with the scope \"{}\"", one.classic_scope()),
            };
        };
        let set = format!("set {} to \"{}\"", quoted(&permission), permission.access.title());
        match (self.installation, self.kind) {
            (Some(installation), _) => format!(
                "{set} in the App's settings (Permissions & events), and have {} accept it on {}",
                scope.owner(),
                self.installation_page(installation)
            ),
            (None, CredentialKind::FineGrained) => {
                let select = match scope {
                    RunnerScope::Repository { .. } => format!(", with {scope} among its repositories,"),
                    RunnerScope::Organization(_) | RunnerScope::Enterprise(_) => {
                        format!(", with {scope} as its resource owner,")
                    }
                };
                format!("{set} for the token{select} on {web}/settings/personal-access-tokens")
            }
            (None, _) if self.is_classic() => classic,
            (None, CredentialKind::Lab) => "take the token of this lab".to_owned(),
            (None, _) => format!("{set}, or use a classic token with the scope \"{}\"", one.classic_scope()),
        }
    }

    fn installation_page(&self, installation: &Installation) -> String {
        match &installation.html_url {
            Some(page) if page.starts_with(self.web) => page.clone(),
            _ => format!("the page of the installation {}", installation.id),
        }
    }
}

fn allowed(one: ForgeUse) -> &'static str {
    match one {
        ForgeUse::Runners(_) => "can be registered and deleted",
        ForgeUse::Jobs => "can be listed",
    }
}

/// Returns a permission as a settings page shows it.
fn quoted(permission: &Permission) -> String {
    format!("\"{}\" ({})", permission.title, permission.level.heading())
}

/// Returns the role that a user needs for a use, beside the scope of the token.
fn role(one: ForgeUse, scope: &RunnerScope) -> String {
    match (one, scope.kind()) {
        (ForgeUse::Jobs, _) => format!("able to read {scope}"),
        (ForgeUse::Runners(_), ScopeKind::Repository) => format!("an admin of {scope}"),
        (ForgeUse::Runners(_), ScopeKind::Organization) => format!("an owner of {scope}"),
        (ForgeUse::Runners(_), ScopeKind::Enterprise) => format!("an owner of the enterprise {scope}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installation(permissions: &[(&str, &str)]) -> Installation {
        Installation {
            id: 5,
            permissions: permissions
                .iter()
                .map(|(name, access)| ((*name).to_owned(), (*access).to_owned()))
                .collect(),
            html_url: Some("https://github.com/organizations/acme/settings/installations/5".to_owned()),
            suspended_at: None,
        }
    }

    fn of_app(permissions: &[(&str, &str)], scope: &str, principal: &str, one: ForgeUse) -> String {
        let (scope, installation) =
            (RunnerScope::parse(scope, principal).expect("a scope"), installation(permissions));
        let evidence = Evidence {
            kind: CredentialKind::App,
            scopes: None,
            installation: Some(&installation),
            web: "https://github.com",
            scope: &scope,
        };
        let Verdict { state, seen, mend } = evidence.judge(one, None);
        format!("{state:?}: {seen}{}", mend.map(|mend| format!(" -> {mend}")).unwrap_or_default())
    }

    #[test]
    fn the_permission_that_an_app_lacks_is_named_with_the_page_of_its_installation() {
        let (repository, organization) =
            (ForgeUse::Runners(ScopeKind::Repository), ForgeUse::Runners(ScopeKind::Organization));
        let lines = [
            of_app(&[("administration", "write")], "repo", "acme/app", repository),
            of_app(&[("administration", "read"), ("metadata", "read")], "repo", "acme/app", repository),
            of_app(&[("administration", "write")], "org", "acme", organization),
            of_app(&[("administration", "write")], "repo", "acme/app", ForgeUse::Jobs),
            of_app(&[("actions", "write")], "repo", "acme/app", ForgeUse::Jobs),
        ];
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_suspended_installation_is_told_with_the_page_that_ends_it() {
        let scope = RunnerScope::Organization("acme".to_owned());
        let suspended = Installation {
            suspended_at: Some("2026-01-01T00:00:00Z".to_owned()),
            html_url: Some("https://elsewhere.example/".to_owned()),
            ..installation(&[])
        };
        let evidence = Evidence {
            kind: CredentialKind::App,
            scopes: None,
            installation: Some(&suspended),
            web: "https://github.com",
            scope: &scope,
        };
        let Verdict { state, seen, mend } = evidence.suspended().expect("suspended");
        insta::assert_snapshot!(format!("{state:?}: {seen} -> {}", mend.expect("a remedy")));
    }
}
