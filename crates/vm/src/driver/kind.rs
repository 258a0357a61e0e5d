//! The names of the drivers.

use std::net::{IpAddr, Ipv4Addr};

/// A driver, i.e. a way to run machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum DriverKind {
    /// QEMU on this host, with KVM or under emulation.
    Qemu,
    /// podman with the `krun` runtime: a container in a machine of its own.
    PodmanKrun,
    /// krunvm.
    Krunvm,
    /// No machine: plain processes of this host. For the lab only, because nothing isolates a job.
    Process,
}

impl DriverKind {
    /// All drivers.
    pub const ALL: [Self; 4] = [Self::Qemu, Self::PodmanKrun, Self::Krunvm, Self::Process];

    /// Returns the driver's name on a command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::PodmanKrun => "podman-krun",
            Self::Krunvm => "krunvm",
            Self::Process => "process",
        }
    }

    /// Returns the address at which guests reach those ports of the host's loopback that they may reach. QEMU has a separate
    /// address for that (slirp's gateway). For a krun machine it is the loopback itself, because its VMM opens the sockets
    /// on the host.
    #[must_use]
    pub fn loopback_host(self) -> IpAddr {
        match self {
            Self::Qemu => Ipv4Addr::new(10, 0, 2, 2).into(),
            Self::PodmanKrun | Self::Krunvm | Self::Process => Ipv4Addr::LOCALHOST.into(),
        }
    }
}

impl std::fmt::Display for DriverKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<DriverKind> for &'static str {
    fn from(kind: DriverKind) -> Self {
        kind.as_str()
    }
}

impl TryFrom<String> for DriverKind {
    type Error = DriverKindError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// The error for a word that names no driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no driver (one of: qemu, podman-krun, krunvm, process)")]
pub struct DriverKindError(String);

impl std::str::FromStr for DriverKind {
    type Err = DriverKindError;

    /// Parses a driver's name. Any word that begins with `podman` is `podman-krun`, e.g. `podman+krun`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            _ if text.starts_with("podman") => Ok(Self::PodmanKrun),
            _ => Self::ALL
                .into_iter()
                .find(|kind| kind.as_str() == text)
                .ok_or_else(|| DriverKindError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_understood_and_what_begins_with_podman_is_podman_with_krun() {
        for kind in DriverKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        for text in ["podman", "podman+krun", "podman-krun", "podman+crun-krun"] {
            assert_eq!(text.parse(), Ok(DriverKind::PodmanKrun), "{text}");
        }
        insta::assert_snapshot!(
            "docker".parse::<DriverKind>().expect_err("unknown"),
            @r#""docker" is no driver (one of: qemu, podman-krun, krunvm, process)"#
        );
        assert!("".parse::<DriverKind>().is_err() && "Qemu".parse::<DriverKind>().is_err());
    }
}
