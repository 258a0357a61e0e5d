//! The distributions that images are based on, and their package lists.

use dayfly_guest::os_release::{self, OsRelease};
use dayfly_guest::packages::Packages;

/// Distributions with the same package names and the same package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Debian, Ubuntu, and distributions that name them in `ID_LIKE`: apt-get.
    Debian,
    /// Fedora, and distributions that name it in `ID_LIKE`: dnf.
    Fedora,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Unknown {
    #[error(
        "this is {0:?} by {path}; known are Debian, Ubuntu and what is like them (apt-get), and Fedora (dnf)",
        path = os_release::PATH
    )]
    Distribution(String),
    #[error("cannot read {path}, so it is unknown which distribution this is: {0}", path = os_release::PATH)]
    Unreadable(#[source] std::io::Error),
}

/// A list of packages.
#[derive(Debug, Clone, Copy)]
pub(super) enum List {
    /// Packages that jobs expect.
    Jobs,
    /// Docker's engine and its client.
    Docker,
    /// podman, and Docker's client.
    Podman,
    /// Packages with the libraries that the official runner app links.
    Runner,
}

impl Family {
    /// Returns the family of the system that this process runs in.
    pub(super) fn here() -> Result<Self, Unknown> {
        let text = std::fs::read_to_string(os_release::PATH).map_err(Unknown::Unreadable)?;
        Self::of(&OsRelease::parse(&text))
    }

    fn of(release: &OsRelease) -> Result<Self, Unknown> {
        let mut words = std::iter::once(&release.id).chain(&release.like);
        words
            .find_map(|word| match word.as_str() {
                "debian" | "ubuntu" => Some(Self::Debian),
                "fedora" => Some(Self::Fedora),
                _ => None,
            })
            .ok_or_else(|| {
                let names = [&release.pretty, &release.id].into_iter().find(|name| !name.is_empty());
                Unknown::Distribution(names.cloned().unwrap_or_default())
            })
    }

    /// Returns the group whose members may become root.
    pub(super) fn sudo_group(self) -> &'static str {
        match self {
            Self::Debian => "sudo",
            Self::Fedora => "wheel",
        }
    }

    /// Returns a list of `images/`, as it was when this binary was built. An invalid list would be empty, but a test checks
    /// all of them.
    pub(super) fn list(self, list: List) -> Packages {
        Packages::parse(self.text(list)).unwrap_or_default()
    }

    fn text(self, list: List) -> &'static str {
        match (self, list) {
            (Self::Debian, List::Jobs) => include_str!("../../../../images/debian/packages.txt"),
            (Self::Debian, List::Docker) => include_str!("../../../../images/debian/docker.txt"),
            (Self::Debian, List::Podman) => include_str!("../../../../images/debian/podman.txt"),
            (Self::Debian, List::Runner) => include_str!("../../../../images/debian/runner.txt"),
            (Self::Fedora, List::Jobs) => include_str!("../../../../images/fedora/packages.txt"),
            (Self::Fedora, List::Docker) => include_str!("../../../../images/fedora/docker.txt"),
            (Self::Fedora, List::Podman) => include_str!("../../../../images/fedora/podman.txt"),
            (Self::Fedora, List::Runner) => include_str!("../../../../images/fedora/runner.txt"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: &str, like: &[&str]) -> Result<Family, String> {
        let like = like.iter().map(|word| (*word).to_owned()).collect();
        Family::of(&OsRelease {
            id: id.to_owned(),
            like,
            pretty: "A System".to_owned(),
            ..OsRelease::default()
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn a_distribution_is_known_by_itself_or_by_what_it_is_like() {
        assert_eq!(of("debian", &[]), Ok(Family::Debian));
        assert_eq!(of("linuxmint", &["ubuntu", "debian"]), Ok(Family::Debian));
        assert_eq!(of("fedora", &[]), Ok(Family::Fedora));
        assert_eq!(of("centos", &["rhel", "fedora"]), Ok(Family::Fedora));
        let error = of("alpine", &[]).expect_err("unknown");
        assert!(error.starts_with("this is \"A System\" by /etc/os-release; known are Debian"), "{error}");
    }

    #[test]
    fn every_list_is_valid_and_names_each_package_once() {
        for family in [Family::Debian, Family::Fedora] {
            for engine in [List::Docker, List::Podman] {
                let mut all = Vec::new();
                for list in [List::Jobs, engine, List::Runner] {
                    let packages = Packages::parse(family.text(list));
                    let packages = packages.unwrap_or_else(|error| panic!("{family:?} {list:?}: {error}"));
                    all.extend([packages.needed, packages.wanted].concat());
                }
                let count = all.len();
                all.sort();
                all.dedup();
                assert_eq!(all.len(), count, "{family:?} {engine:?}");
            }
        }
    }

    #[test]
    fn what_jobs_expect_is_in_both_families() {
        let debian = "lsb-release curl tar unzip zip sudo ca-certificates build-essential git git-lfs zlib1g-dev \
            libcurl4-openssl-dev libpq-dev zstd gettext iputils-ping jq wget dirmngr openssh-client python3 \
            python3-pip python3-setuptools python3-venv nodejs rsync pkg-config procps gh yq";
        let fedora = "lsb_release curl tar unzip zip sudo ca-certificates gcc gcc-c++ make git git-lfs zlib-devel \
            libcurl-devel libpq-devel zstd gettext iputils jq wget gnupg2 openssh-clients python3 python3-pip \
            python3-setuptools nodejs rsync pkgconf-pkg-config procps-ng gh yq";
        for (family, names) in [(Family::Debian, debian), (Family::Fedora, fedora)] {
            let packages = family.list(List::Jobs);
            for name in names.split_ascii_whitespace() {
                let known = packages.needed.iter().chain(&packages.wanted).any(|known| known == name);
                assert!(known, "{family:?}: {name}");
            }
        }
    }
}
