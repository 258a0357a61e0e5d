//! Package managers: apt-get and dnf, with command lines that ask no questions and install no more than is named.

use super::distribution::Family;
use super::log::Log;
use super::program::{Program, ProgramError};
use dayfly_guest::packages::Packages;
use std::collections::BTreeSet;
use std::path::Path;

/// Path and content of Debian's policy file, which prevents packages from starting services.
const NO_SERVICES: (&str, &str) = ("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n");

#[derive(Debug, thiserror::Error)]
pub(crate) enum ManagerError {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(
        "this distribution has no package {}; is one of its archives switched off (Ubuntu's universe has some)?",
        .0.join(", ")
    )]
    Absent(Vec<String>),
    #[error("cannot write {path}: {source}")]
    Policy {
        path: &'static str,
        #[source]
        source: std::io::Error,
    },
}

/// The package manager of a family, in the system that this process runs in.
pub(super) struct Manager<'a> {
    pub(super) family: Family,
    pub(super) log: &'a Log,
}

impl Manager<'_> {
    /// Fetches the archives' lists of packages.
    pub(super) fn refresh(&self) -> Result<(), ManagerError> {
        Ok(refresh(self.family).run(self.log)?)
    }

    /// Returns those of the names that the archives have.
    pub(super) fn available(&self, names: &[String]) -> Result<BTreeSet<String>, ManagerError> {
        if names.is_empty() {
            return Ok(BTreeSet::new());
        }
        let answer = query(self.family).with(names.to_vec()).answer(self.log)?;
        Ok(parse_available(self.family, &answer, names))
    }

    /// Installs a list, without the wanted packages that the archives do not have.
    pub(super) fn install(&self, list: &Packages) -> Result<(), ManagerError> {
        let asked = asked(self.family, list);
        let names = choose(self.family, list, &self.available(&asked)?)?;
        self.log.say(&format!("installing {} packages", names.len()));
        let _quiet = self.quiet_services()?;
        Ok(install(self.family).with(names).run(self.log)?)
    }

    /// Removes everything that was fetched.
    pub(super) fn clean(&self) -> Result<(), ManagerError> {
        clean(self.family).run(self.log)?;
        let caches: &[&str] = match self.family {
            Family::Debian => &["/var/lib/apt/lists"],
            Family::Fedora => &["/var/cache/dnf", "/var/cache/libdnf5"],
        };
        for entry in caches.iter().flat_map(|cache| std::fs::read_dir(cache).into_iter().flatten().flatten())
        {
            let path = entry.path();
            // If this fails, only disk space is lost.
            let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
        }
        Ok(())
    }

    /// Prevents packages from starting services until the result is dropped, unless the image has its own policy file.
    fn quiet_services(&self) -> Result<Option<NoServices>, ManagerError> {
        let (path, text) = NO_SERVICES;
        if self.family != Family::Debian || Path::new(path).exists() {
            return Ok(None);
        }
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::write(path, text)
            .and_then(|()| std::fs::set_permissions(path, executable))
            .map_err(|source| ManagerError::Policy { path, source })?;
        Ok(Some(NoServices))
    }
}

/// Removes the policy file when it is dropped.
struct NoServices;

impl Drop for NoServices {
    fn drop(&mut self) {
        // The file may already have been removed on purpose.
        let _ = std::fs::remove_file(NO_SERVICES.0);
    }
}

/// Returns the names to look up in the archives. For Fedora these are only the wanted packages, because its renamed
/// packages still provide their old names: dnf resolves them at installation, and refuses a name that no package provides.
fn asked(family: Family, list: &Packages) -> Vec<String> {
    match family {
        Family::Debian => [list.needed.as_slice(), &list.wanted].concat(),
        Family::Fedora => list.wanted.clone(),
    }
}

/// Returns the packages of a list to install: all needed ones, and the wanted ones that are available.
fn choose(
    family: Family,
    list: &Packages,
    available: &BTreeSet<String>,
) -> Result<Vec<String>, ManagerError> {
    let absent: Vec<_> = list.needed.iter().filter(|name| !available.contains(*name)).cloned().collect();
    if family == Family::Debian && !absent.is_empty() {
        return Err(ManagerError::Absent(absent));
    }
    let wanted = list.wanted.iter().filter(|name| available.contains(*name));
    Ok(list.needed.iter().chain(wanted).cloned().collect())
}

fn apt_get() -> Program {
    Program::new(["apt-get", "-q", "-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=60"])
        .env("DEBIAN_FRONTEND", "noninteractive")
}

fn dnf() -> Program {
    Program::new(["dnf", "-y", "--setopt=retries=3", "--setopt=install_weak_deps=False"])
}

fn refresh(family: Family) -> Program {
    match family {
        Family::Debian => apt_get().with(["update"]),
        Family::Fedora => dnf().with(["makecache"]),
    }
}

fn query(family: Family) -> Program {
    match family {
        // Unlike `apt-cache show`, it prints nothing for names that only other packages provide, and fails for no name.
        Family::Debian => Program::new(["apt-cache", "madison"]),
        Family::Fedora => dnf().with(["-q", "repoquery", "--qf", "package %{name}\\n"]),
    }
}

/// Parses the output of either query: `name | version | archive`, or the requested format. Only requested names count, so
/// that a warning in between is not taken as a name.
fn parse_available(family: Family, answer: &str, names: &[String]) -> BTreeSet<String> {
    let name = |line: &str| match family {
        Family::Debian => line.split_once('|').map(|(name, _)| name.trim().to_owned()),
        Family::Fedora => line.strip_prefix("package ").map(|name| name.trim().to_owned()),
    };
    answer.lines().filter_map(name).filter(|name| names.contains(name)).collect()
}

fn install(family: Family) -> Program {
    match family {
        // Configuration files that the image has changed stay unchanged.
        Family::Debian => apt_get().with([
            "install",
            "-y",
            "--no-install-recommends",
            "-o",
            "Dpkg::Options::=--force-confold",
        ]),
        Family::Fedora => dnf().with(["--setopt=tsflags=nodocs", "install"]),
    }
}

fn clean(family: Family) -> Program {
    match family {
        Family::Debian => apt_get().with(["clean"]),
        Family::Fedora => dnf().with(["clean", "all"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn command_lines_ask_nothing_and_take_no_more_than_is_named() {
        let lines = |family| {
            [refresh(family), query(family), install(family), clean(family)]
                .map(|program| program.words.join(" "))
                .join("\n")
        };
        insta::assert_snapshot!(lines(Family::Debian), @r"
        apt-get -q -o Acquire::Retries=3 -o DPkg::Lock::Timeout=60 update
        apt-cache madison
        apt-get -q -o Acquire::Retries=3 -o DPkg::Lock::Timeout=60 install -y --no-install-recommends -o Dpkg::Options::=--force-confold
        apt-get -q -o Acquire::Retries=3 -o DPkg::Lock::Timeout=60 clean
        ");
        insta::assert_snapshot!(lines(Family::Fedora), @r"
        dnf -y --setopt=retries=3 --setopt=install_weak_deps=False makecache
        dnf -y --setopt=retries=3 --setopt=install_weak_deps=False -q repoquery --qf package %{name}\n
        dnf -y --setopt=retries=3 --setopt=install_weak_deps=False --setopt=tsflags=nodocs install
        dnf -y --setopt=retries=3 --setopt=install_weak_deps=False clean all
        ");
    }

    #[test]
    fn what_the_archives_have_is_read_from_both_managers_answers() {
        let asked = names(&["gh", "yq", "docker-cli"]);
        let debian = "        gh | 2.23.0+dfsg1-1 | http://h bookworm/main amd64 Packages\n\
                      W: something | else\n        yq |    3.1.0-3 | http://h bookworm/main amd64 Packages\n";
        let both: BTreeSet<_> = names(&["gh", "yq"]).into_iter().collect();
        assert_eq!(parse_available(Family::Debian, debian, &asked), both);
        let fedora = "Updating repositories\npackage yq\n\npackage gh\npackage gh\npackage other\n";
        assert_eq!(parse_available(Family::Fedora, fedora, &asked), both);
    }

    #[test]
    fn what_is_wanted_may_be_absent_and_what_is_needed_may_not() {
        let list = Packages { needed: names(&["git", "wget"]), wanted: names(&["docker-cli", "yq"]) };
        let chosen = |family, available: &[&str]| {
            choose(family, &list, &names(available).into_iter().collect()).map_err(|error| error.to_string())
        };
        assert_eq!(chosen(Family::Debian, &["wget", "git", "yq"]), Ok(names(&["git", "wget", "yq"])));
        let error = chosen(Family::Debian, &["yq"]).expect_err("absent");
        assert!(error.starts_with("this distribution has no package git, wget; "), "{error}");
        assert_eq!(chosen(Family::Fedora, &["yq"]), Ok(names(&["git", "wget", "yq"])));
        assert_eq!(asked(Family::Fedora, &list), ["docker-cli", "yq"]);
    }
}
