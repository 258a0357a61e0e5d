//! The entries of the policy `allow`. Pure.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ranges::Prefix;

/// The names that a runner of github.com needs (docs.github.com, "Self-hosted runners reference"). Logs, artifacts and caches are
/// in Azure's storage, in which everyone can rent a place.
const GITHUB_NAMES: [&str; 18] = [
    "github.com",
    "api.github.com",
    "codeload.github.com",
    "*.actions.githubusercontent.com",
    "*.blob.core.windows.net",
    "raw.githubusercontent.com",
    "objects.githubusercontent.com",
    "objects-origin.githubusercontent.com",
    "release-assets.githubusercontent.com",
    "github-releases.githubusercontent.com",
    "github-registry-files.githubusercontent.com",
    "ghcr.io",
    "*.pkg.github.com",
    "pkg-containers.githubusercontent.com",
    "github-cloud.githubusercontent.com",
    "github-cloud.s3.amazonaws.com",
    "dependabot-actions.githubapp.com",
    "uploads.github.com",
];

/// The longest name, bytes.
const NAME_MAX: usize = 253;

/// An entry: destinations, and their ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AllowEntry {
    target: Target,
    ports: Ports,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// One name, in lower case.
    Name(String),
    /// All names below one.
    Below(String),
    /// Addresses, which no name is needed for.
    Network(Prefix),
    /// [`GITHUB_NAMES`].
    Github,
}

/// The ports of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ports {
    /// [`AllowEntry::WEB_PORTS`].
    Web,
    /// One port.
    One(u16),
    /// Every port.
    All,
}

impl Ports {
    /// Returns true if the port is one of them.
    pub(crate) fn contain(self, port: u16) -> bool {
        match self {
            Self::Web => AllowEntry::WEB_PORTS.contains(&port),
            Self::One(own) => own == port,
            Self::All => true,
        }
    }
}

impl AllowEntry {
    /// The word for the names that a runner of github.com needs.
    pub const GITHUB: &str = "github";
    /// The ports of an entry without one: those of HTTP and HTTPS.
    pub const WEB_PORTS: [u16; 2] = [80, 443];

    /// Returns the preset for github.com.
    pub fn github() -> Self {
        Self { target: Target::Github, ports: Ports::Web }
    }

    /// Returns true if the entry is the preset for github.com.
    pub fn is_github(&self) -> bool {
        self.target == Target::Github
    }

    /// Returns true if the entry lists a name at some port.
    pub fn lists(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        match &self.target {
            Target::Name(own) => *own == name,
            Target::Below(own) => is_below(&name, own),
            Target::Network(_) => false,
            Target::Github => GITHUB_NAMES.iter().any(|listed| match listed.strip_prefix("*.") {
                Some(own) => is_below(&name, own),
                None => *listed == name,
            }),
        }
    }

    /// Returns true if the entry lists a name at this port.
    pub(crate) fn lists_at(&self, name: &str, port: u16) -> bool {
        self.ports.contain(port) && self.lists(name)
    }

    /// Returns the network and the ports of an entry that has one.
    pub(super) fn network(&self) -> Option<(Prefix, Ports)> {
        match self.target {
            Target::Network(network) => Some((network, self.ports)),
            Target::Name(_) | Target::Below(_) | Target::Github => None,
        }
    }
}

fn is_below(name: &str, own: &str) -> bool {
    name.strip_suffix(own).and_then(|rest| rest.strip_suffix('.')).is_some_and(|rest| !rest.is_empty())
}

impl FromStr for AllowEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("{text:?} is no destination: {why}"));
        if text.contains("://") {
            return wrong("write the name alone, without https://");
        }
        if text.matches(':').count() > 1 {
            return wrong("machines have no IPv6");
        }
        let (target, ports) = match text.split_once(':') {
            None => (text, Ports::Web),
            Some((target, "*")) => (target, Ports::All),
            Some((target, port)) => match port.parse() {
                Ok(port) if port != 0 => (target, Ports::One(port)),
                _ => return wrong("a port is a number from 1 to 65535, or *"),
            },
        };
        if target == Self::GITHUB {
            return match ports {
                Ports::Web => Ok(Self { target: Target::Github, ports }),
                Ports::One(_) | Ports::All => wrong("the preset github has its own ports"),
            };
        }
        let target = match (network(target), target.strip_prefix("*.")) {
            (Some(Ok(network)), _) => Target::Network(network),
            (Some(Err(why)), _) => return wrong(why),
            (None, Some(own)) if is_name(own) => Target::Below(own.to_ascii_lowercase()),
            (None, None) if is_name(target) => Target::Name(target.to_ascii_lowercase()),
            _ => {
                return wrong(
                    "expected a name (example.com), all names below one (*.example.com), an address, a network \
                     (192.0.2.0/24), or the preset github; after it, :PORT or :*",
                );
            }
        };
        Ok(Self { target, ports })
    }
}

/// Reads an address or a network; none if the text looks like neither.
fn network(text: &str) -> Option<Result<Prefix, &'static str>> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: Ipv4Addr = match (address.parse(), length) {
        (Ok(address), _) => address,
        (Err(_), Some(_)) => return Some(Err("before the / there is no IPv4 address")),
        (Err(_), None) => return None,
    };
    let length = match length.map_or(Ok(32), str::parse) {
        Ok(length @ 1..=32) => length,
        _ => return Some(Err("a network has a length from 1 to 32")),
    };
    let network = Prefix::of(address, length);
    Some(if network.is_whole() {
        Ok(network)
    } else {
        Err("the address has bits behind the network's length")
    })
}

/// Returns true if the text is a host name with a dot in it, and not a number.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= NAME_MAX
        && text.contains('.')
        && text.split('.').all(is_label)
        && !text.rsplit('.').next().is_some_and(is_number)
}

impl fmt::Display for AllowEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Name(name) => f.write_str(name),
            Target::Below(name) => write!(f, "*.{name}"),
            Target::Network(network) => write!(f, "{network}"),
            Target::Github => f.write_str(Self::GITHUB),
        }?;
        match self.ports {
            Ports::Web => Ok(()),
            Ports::One(port) => write!(f, ":{port}"),
            Ports::All => f.write_str(":*"),
        }
    }
}

impl TryFrom<String> for AllowEntry {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<AllowEntry> for String {
    fn from(entry: AllowEntry) -> Self {
        entry.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(text: &str) -> AllowEntry {
        text.parse().unwrap_or_else(|why| panic!("{why}"))
    }

    #[test]
    fn an_entry_lists_names_at_its_ports() {
        for (text, name, port, is_listed) in [
            ("example.com", "example.com", 443, true),
            ("Example.com", "EXAMPLE.COM", 80, true),
            ("example.com", "example.com", 22, false),
            ("example.com", "www.example.com", 443, false),
            ("example.com:22", "example.com", 22, true),
            ("example.com:22", "example.com", 443, false),
            ("example.com:*", "example.com", 9418, true),
            ("*.example.com", "a.b.example.com", 443, true),
            ("*.example.com", "example.com", 443, false),
            ("*.example.com", "evilexample.com", 443, false),
            ("*.example.com", ".example.com", 443, false),
            ("github", "broker.actions.githubusercontent.com", 443, true),
            ("github", "actions.githubusercontent.com", 443, false),
            ("github", "github.com.evil.example", 443, false),
            ("192.0.2.0/24", "192.0.2.7", 443, false),
        ] {
            assert_eq!(entry(text).lists_at(name, port), is_listed, "{text} {name}:{port}");
        }
        assert_eq!(
            entry("10.1.0.0/16:5432").network(),
            Some((Prefix::of(Ipv4Addr::new(10, 1, 0, 0), 16), Ports::One(5432)))
        );
    }

    #[test]
    fn what_is_no_destination_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "expected a name"),
            ("*", "expected a name"),
            ("githb", "expected a name"),
            ("*.com.", "expected a name"),
            ("a*.example.com", "expected a name"),
            ("1.2.3", "expected a name"),
            ("https://example.com", "without https://"),
            ("example.com:0", "a port is a number"),
            ("example.com:https", "a port is a number"),
            ("github:22", "has its own ports"),
            ("10.0.0.1/8", "has bits behind"),
            ("10.0.0.0/33", "from 1 to 32"),
            ("0.0.0.0/0", "from 1 to 32"),
            ("example.com/24", "no IPv4 address"),
            ("2001:db8::1", "no IPv6"),
        ] {
            let error = text.parse::<AllowEntry>().expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn an_entry_reads_back_as_itself(text in "(\\*\\.)?[a-zA-Z0-9._-]{0,20}(/[0-9]{1,2})?(:[0-9*]{1,5})?") {
            if let Ok(entry) = text.parse::<AllowEntry>() {
                prop_assert_eq!(entry.to_string().parse::<AllowEntry>(), Ok(entry.clone()));
            }
        }
    }
}
