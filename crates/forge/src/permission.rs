//! The permissions that dayfly needs at a forge: the one table of them. The texts of errors, the tokens and the manifest of a
//! GitHub App, and `dayfly doctor --forge` take them from here, and a test compares docs/github-app.md with it.
//!
//! Sources: docs.github.com, "Scopes for OAuth apps", "Permissions required for GitHub Apps", and "Permissions required for
//! fine-grained personal access tokens".

use super::scope::ScopeKind;

/// A use that dayfly makes of a forge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ForgeUse {
    /// Register, find and delete runners, find their group, and serve scale sets.
    Runners(ScopeKind),
    /// Read the runs and jobs of a repository, or receive the events about its jobs.
    Jobs,
}

/// A permission of a fine-grained token or a GitHub App.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Permission {
    /// Its name in the API: `administration`.
    pub name: &'static str,
    /// Its name on settings pages: `Administration`.
    pub title: &'static str,
    /// The list of settings pages that it is in.
    pub level: PermissionLevel,
    /// The access that is needed.
    pub access: Access,
}

/// The list of a settings page that a permission is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PermissionLevel {
    /// "Repository permissions".
    Repository,
    /// "Organization permissions".
    Organization,
}

/// An access that a permission gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// "Read-only".
    Read,
    /// "Read and write".
    Write,
}

impl ForgeUse {
    /// All uses.
    pub const ALL: [Self; 4] = [
        Self::Runners(ScopeKind::Repository),
        Self::Runners(ScopeKind::Organization),
        Self::Runners(ScopeKind::Enterprise),
        Self::Jobs,
    ];

    /// Returns the scope that a classic token needs. For jobs it is needed only if the repository is private.
    pub fn classic_scope(self) -> &'static str {
        match self {
            Self::Runners(ScopeKind::Repository) | Self::Jobs => "repo",
            Self::Runners(ScopeKind::Organization) => "admin:org",
            Self::Runners(ScopeKind::Enterprise) => "manage_runners:enterprise",
        }
    }

    /// Returns true if one of the scopes of a classic token allows the use.
    pub fn is_within(self, scopes: &[String]) -> bool {
        let other = match self {
            Self::Runners(ScopeKind::Repository) => "",
            Self::Runners(ScopeKind::Organization) => "manage_runners:org",
            Self::Runners(ScopeKind::Enterprise) => "admin:enterprise",
            Self::Jobs => "public_repo",
        };
        scopes.iter().any(|scope| scope == self.classic_scope() || scope == other)
    }

    /// Returns the permission that a fine-grained token or a GitHub App needs; `None` if GitHub lets neither do it.
    pub fn permission(self) -> Option<Permission> {
        use PermissionLevel::{Organization, Repository};
        let (name, title, level, access) = match self {
            Self::Runners(ScopeKind::Repository) => {
                ("administration", "Administration", Repository, Access::Write)
            }
            Self::Runners(ScopeKind::Organization) => {
                ("organization_self_hosted_runners", "Self-hosted runners", Organization, Access::Write)
            }
            Self::Runners(ScopeKind::Enterprise) => return None,
            Self::Jobs => ("actions", "Actions", Repository, Access::Read),
        };
        Some(Permission { name, title, level, access })
    }

    /// Returns what a credential needs, in words that follow "it needs".
    pub(super) fn needed_right(self) -> String {
        let classic = format!("the classic scope \"{}\"", self.classic_scope());
        let condition = if self == Self::Jobs { " if the repository is private" } else { "" };
        match self.permission() {
            Some(permission) => format!(
                "{classic}{condition}, or the {} permission \"{}\" ({}) of a fine-grained token or a GitHub App",
                permission.level.word(),
                permission.title,
                permission.access.word(),
            ),
            None => classic,
        }
    }
}

impl PermissionLevel {
    /// Returns `repository` or `organisation`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Repository => "repository",
            Self::Organization => "organisation",
        }
    }

    /// Returns the heading of the list on settings pages.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Repository => "Repository permissions",
            Self::Organization => "Organization permissions",
        }
    }
}

impl Access {
    /// Returns its name in the API: `read` or `write`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    /// Returns its name on settings pages.
    pub fn title(self) -> &'static str {
        match self {
            Self::Read => "Read-only",
            Self::Write => "Read and write",
        }
    }

    /// Parses the access that an API names; `admin` includes writing.
    pub(super) fn parse(word: &str) -> Option<Self> {
        match word {
            "read" => Some(Self::Read),
            "write" | "admin" => Some(Self::Write),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_use_says_what_a_credential_needs() {
        let needs: Vec<String> = ForgeUse::ALL.into_iter().map(ForgeUse::needed_right).collect();
        insta::assert_snapshot!(needs.join("\n"), @r#"
        the classic scope "repo", or the repository permission "Administration" (write) of a fine-grained token or a GitHub App
        the classic scope "admin:org", or the organisation permission "Self-hosted runners" (write) of a fine-grained token or a GitHub App
        the classic scope "manage_runners:enterprise"
        the classic scope "repo" if the repository is private, or the repository permission "Actions" (read) of a fine-grained token or a GitHub App
        "#);
    }

    #[test]
    fn the_page_about_apps_has_the_permissions_of_the_table() {
        let page = include_str!("../../../docs/github-app.md");
        for one in ForgeUse::ALL {
            let row = page.lines().find(|line| match one {
                ForgeUse::Runners(kind) => {
                    let words = match kind {
                        ScopeKind::Repository => "runners of a repository",
                        ScopeKind::Organization => "runners of an organisation",
                        ScopeKind::Enterprise => "runners of an enterprise",
                    };
                    line.starts_with(&format!("| {words} |"))
                }
                ForgeUse::Jobs => line.starts_with("| the jobs of a repository"),
            });
            let row = row.unwrap_or_else(|| panic!("{one:?} has no row"));
            assert!(row.contains(&format!("`{}`", one.classic_scope())), "{row}");
            let permission = one.permission().map_or_else(
                || "not possible at GitHub".to_owned(),
                |permission| {
                    let access = permission.access.title().to_lowercase();
                    format!("{} permission {}: {access}", permission.level.word(), permission.title)
                },
            );
            assert!(row.contains(&permission), "{row}: {permission}");
        }
    }
}
