//! Parses the names of images in registries, archives, folders and podman's store.
//!
//! The grammar of registry names is that of the distribution project's `reference` package, defaults included
//! (<https://github.com/distribution/reference/blob/main/reference.go>); transports are those of containers-transports(5).

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The registry of names without a registry.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag of names with neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";
/// Words before the first colon that do not mean a registry.
const TRANSPORTS: [&str; 12] = [
    "oci-archive",
    "docker-archive",
    "oci",
    "containers-storage",
    "dayfly",
    "docker",
    "docker-daemon",
    "dir",
    "ostree",
    "sif",
    "http",
    "https",
];
/// Longest repository with its registry, bytes: the limit of the grammar.
const NAME_LENGTH_MAX: usize = 255;
/// Longest tag, bytes.
const TAG_LENGTH_MAX: usize = 128;

/// The name of an image, which says where it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ImageName {
    /// In a registry.
    Registry(RegistryName),
    /// `oci-archive:PATH[:TAG]`: an OCI layout in a tar archive.
    OciArchive {
        /// The archive.
        path: PathBuf,
        /// Selects an image in it. None means the only one.
        tag: Option<String>,
    },
    /// `docker-archive:PATH[:NAME]`: the output of `docker save`.
    DockerArchive {
        /// The archive.
        path: PathBuf,
        /// Selects an image in it. None means the only one.
        name: Option<String>,
    },
    /// `oci:FOLDER[:TAG]`: an OCI layout.
    OciFolder {
        /// The folder.
        path: PathBuf,
        /// Selects an image in it. None means the only one.
        tag: Option<String>,
    },
    /// `containers-storage:NAME`: an image in podman's own store, by any name that podman knows.
    Containers(String),
    /// `dayfly:ID`: an image in dayfly's own store, by its id or the beginning of it.
    Own(String),
}

/// A name in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistryName {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A SHA-256 digest as OCI writes it: `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// An error of parsing a name or a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no image name: {what}")]
pub struct NameError {
    name: String,
    what: String,
}

impl Digest {
    /// Returns its hexadecimal digits.
    pub fn digits(&self) -> &str {
        self.0.trim_start_matches("sha256:")
    }

    /// Returns it as text, with its algorithm.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Creates a digest from the hexadecimal digits of a SHA-256.
    pub(crate) fn of_digits(digits: &str) -> Self {
        Self(format!("sha256:{digits}"))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for Digest {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = |what: &str| NameError { name: text.to_owned(), what: what.to_owned() };
        let digits = text
            .strip_prefix("sha256:")
            .ok_or_else(|| wrong("only digests of the form sha256:<64 hexadecimal digits> are supported"))?;
        if digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(text.to_owned()))
        } else {
            Err(wrong("a sha256 digest has 64 hexadecimal digits in lower case"))
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl RegistryName {
    /// Returns the same name at another registry.
    pub(crate) fn at(registry: &str, name: &Self) -> Self {
        Self { registry: registry.to_owned(), ..name.clone() }
    }

    /// Returns the host, with the port if one is named, e.g. `docker.io` or `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the path of the image in the registry, e.g. `library/ubuntu`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag, if the name has one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, if the name has one. The digest takes precedence over the tag.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns the reference to request from a registry: the digest, the tag, or the default tag.
    pub fn wanted(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => DEFAULT_TAG,
        }
    }
}

impl fmt::Display for RegistryName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.registry, self.repository)?;
        match (&self.tag, &self.digest) {
            (None, None) => write!(formatter, ":{DEFAULT_TAG}"),
            (tag, digest) => {
                tag.iter().try_for_each(|tag| write!(formatter, ":{tag}"))?;
                digest.iter().try_for_each(|digest| write!(formatter, "@{digest}"))
            }
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, which) = match self {
            Self::Registry(name) => {
                // Marks a registry whose host has the name of a transport, as in oci:5000/x.
                let host = name.registry.split_once(':').map_or("", |(host, _)| host);
                let mark = if TRANSPORTS.contains(&host) { "docker://" } else { "" };
                return write!(formatter, "{mark}{name}");
            }
            Self::Containers(name) => return write!(formatter, "containers-storage:{name}"),
            Self::Own(id) => return write!(formatter, "dayfly:{id}"),
            Self::OciArchive { path, tag } => ("oci-archive", path, tag),
            Self::DockerArchive { path, name } => ("docker-archive", path, name),
            Self::OciFolder { path, tag } => ("oci", path, tag),
        };
        write!(formatter, "{transport}:{}", path.display())?;
        which.iter().try_for_each(|which| write!(formatter, ":{which}"))
    }
}

impl FromStr for ImageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = |what: &str| NameError { name: text.to_owned(), what: what.to_owned() };
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        let (transport, rest) = text.split_once(':').unwrap_or(("", text));
        let (path, which) = path_and_rest(rest);
        // Paths of files and folders may have blanks, nothing else may.
        let has_path = matches!(transport, "oci-archive" | "docker-archive" | "oci");
        let without_blanks = if has_path { which.as_deref().unwrap_or_default() } else { text };
        let is_other_space = |c: char| c.is_control() || (c.is_whitespace() && c != ' ');
        if without_blanks.contains(' ') || text.contains(is_other_space) {
            return Err(wrong("it has white space in it"));
        }
        let needs_path = || if path.as_os_str().is_empty() { Err(wrong("no path follows")) } else { Ok(()) };
        match transport {
            "oci-archive" => needs_path().map(|()| Self::OciArchive { path, tag: which }),
            "docker-archive" => needs_path().map(|()| Self::DockerArchive { path, name: which }),
            // If only digits follow, it is a repository named `oci` with a tag.
            "oci" if which.is_some() || !rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b':') => {
                needs_path().map(|()| Self::OciFolder { path, tag: which })
            }
            "containers-storage" if rest.is_empty() => Err(wrong("no name follows")),
            "containers-storage" => Ok(Self::Containers(rest.to_owned())),
            "dayfly" => own(rest).map(Self::Own).ok_or_else(|| {
                wrong("after `dayfly:` comes an id of `dayfly image ls`, or the beginning of one")
            }),
            "docker" if rest.starts_with("//") => registry_name(&rest[2..], text).map(Self::Registry),
            "docker-daemon" => Err(wrong(
                "the store of a Docker daemon is not read; `docker save` it to a file, and name that: docker-archive:FILE",
            )),
            "dir" | "ostree" | "sif" | "http" | "https" => Err(wrong(
                "this transport is not understood; there are docker://, oci-archive:, docker-archive:, oci:, containers-storage: and dayfly:",
            )),
            _ => registry_name(text, text).map(Self::Registry),
        }
    }
}

/// Splits `PATH[:WHICH]`. The path has no colon.
fn path_and_rest(text: &str) -> (PathBuf, Option<String>) {
    match text.split_once(':') {
        Some((path, which)) if !which.is_empty() => (Path::new(path).to_owned(), Some(which.to_owned())),
        Some((path, _)) => (Path::new(path).to_owned(), None),
        None => (Path::new(text).to_owned(), None),
    }
}

fn own(text: &str) -> Option<String> {
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    fits.then(|| text.to_ascii_lowercase())
}

fn registry_name(text: &str, whole: &str) -> Result<RegistryName, NameError> {
    let wrong = |what: String| NameError { name: whole.to_owned(), what };
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (
            rest,
            Some(digest.parse::<Digest>().map_err(|error| wrong(format!("its digest: {}", error.what)))?),
        ),
        None => (text, None),
    };
    // A colon before the last slash belongs to a port.
    let name_ends = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (path, tag) = match rest[name_ends..].split_once(':') {
        Some((last, tag)) => (&rest[..name_ends + last.len()], Some(tag)),
        None => (rest, None),
    };
    let (registry, repository) = match path.split_once('/') {
        Some((first, rest)) if is_registry(first) => (first, rest.to_owned()),
        _ => (DEFAULT_REGISTRY, path.to_owned()),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    check_registry(registry).map_err(wrong)?;
    check_repository(&repository).map_err(wrong)?;
    if let Some(tag) = tag {
        check_tag(tag).map_err(wrong)?;
    }
    let short = registry == DEFAULT_REGISTRY && !repository.contains('/');
    let repository = if short { format!("library/{repository}") } else { repository };
    if registry.len() + 1 + repository.len() > NAME_LENGTH_MAX {
        return Err(wrong(format!("registry and repository are longer than {NAME_LENGTH_MAX} characters")));
    }
    Ok(RegistryName { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
}

/// Returns true if the part before the first slash is a host: it has a dot, a port or an upper-case letter, or is
/// `localhost`.
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn check_registry(registry: &str) -> Result<(), String> {
    let (host, port) = match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(format!("{address:?} is no IPv6 address"));
            }
            ("ipv6", rest.strip_prefix(':').or((!rest.is_empty()).then_some("no port")))
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        },
    };
    // The parser alone would accept a sign.
    let is_port =
        |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && matches!(port.parse::<u16>(), Ok(1..));
    if port.is_some_and(|port| !is_port(port)) {
        return Err(format!("the port in {registry:?} is not between 1 and 65535"));
    }
    let valid = |label: &str| {
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = label.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    if host.split('.').all(valid) { Ok(()) } else { Err(format!("{host:?} is no name of a host")) }
}

fn check_repository(repository: &str) -> Result<(), String> {
    if repository.is_empty() {
        return Err("it names no repository".to_owned());
    }
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(format!("the repository {repository:?} must be in lower case"));
    }
    match repository.split('/').find(|part| !is_path_part(part)) {
        None => Ok(()),
        Some("") => Err("a part of the repository between slashes is empty".to_owned()),
        Some(part) => Err(format!(
            "{part:?} may have only letters, digits, and single separators (., _, __ or -) between them"
        )),
    }
}

/// Returns true for `[a-z0-9]+` words with `.`, `_`, `__` or any number of `-` between them.
fn is_path_part(part: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    let edges = bytes.first().is_some_and(is_word) && bytes.last().is_some_and(is_word);
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let valid = |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    edges && separators.into_iter().all(valid)
}

fn check_tag(tag: &str) -> Result<(), String> {
    let bytes = tag.as_bytes();
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    if bytes.is_empty() {
        return Err("no tag follows the colon".to_owned());
    }
    if bytes.len() > TAG_LENGTH_MAX {
        return Err(format!("its tag is longer than {TAG_LENGTH_MAX} characters"));
    }
    if is_word(&bytes[0]) && bytes.iter().all(|byte| is_word(byte) || b".-".contains(byte)) {
        Ok(())
    } else {
        Err(format!("the tag {tag:?} may have only letters, digits, ., _ and -, and no . or - first"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ZEROES: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

    fn shown(text: &str) -> String {
        text.parse::<ImageName>().map_or_else(|error| error.to_string(), |name| name.to_string())
    }

    #[test]
    fn short_names_get_the_defaults_of_docker() {
        assert_eq!(shown("ubuntu"), "docker.io/library/ubuntu:latest");
        assert_eq!(shown("ubuntu:24.04"), "docker.io/library/ubuntu:24.04");
        assert_eq!(shown("index.docker.io/ubuntu"), "docker.io/library/ubuntu:latest");
        assert_eq!(shown("team/app"), "docker.io/team/app:latest");
        assert_eq!(shown("docker://ghcr.io/o/r:main"), "ghcr.io/o/r:main");
        assert_eq!(shown("localhost/x"), "localhost/x:latest");
        assert_eq!(shown("localhost:5000/x/y__z:1"), "localhost:5000/x/y__z:1");
        assert_eq!(shown("[::1]:5000/x"), "[::1]:5000/x:latest");
        assert_eq!(shown("oci:5"), "docker.io/library/oci:5");
        assert_eq!(shown(&format!("a@{ZEROES}")), format!("docker.io/library/a@{ZEROES}"));
        assert_eq!(shown(&format!("h.io:1/a:t@{ZEROES}")), format!("h.io:1/a:t@{ZEROES}"));
    }

    #[test]
    fn a_digest_wins_over_the_tag() {
        let Ok(ImageName::Registry(name)) = format!("a:t@{ZEROES}").parse() else {
            panic!("no registry name")
        };
        assert_eq!((name.wanted(), name.tag()), (ZEROES, Some("t")));
    }

    #[test]
    fn transports_name_files_folders_and_stores() {
        let path = |text: &str| PathBuf::from(text);
        for (text, name) in [
            ("oci-archive:/a/b.tar", ImageName::OciArchive { path: path("/a/b.tar"), tag: None }),
            ("oci-archive:b.tar:v1", ImageName::OciArchive { path: path("b.tar"), tag: Some("v1".into()) }),
            (
                "docker-archive:b.tar:h:5000/x:1",
                ImageName::DockerArchive { path: path("b.tar"), name: Some("h:5000/x:1".into()) },
            ),
            (
                "oci-archive:/My Images/b 2.tar:v1",
                ImageName::OciArchive { path: path("/My Images/b 2.tar"), tag: Some("v1".into()) },
            ),
            ("docker-archive:a b", ImageName::DockerArchive { path: path("a b"), name: None }),
            ("oci:a b/c", ImageName::OciFolder { path: path("a b/c"), tag: None }),
            ("oci:some/folder", ImageName::OciFolder { path: path("some/folder"), tag: None }),
            ("containers-storage:localhost/x:1", ImageName::Containers("localhost/x:1".into())),
            ("dayfly:373D0218", ImageName::Own("373d0218".into())),
        ] {
            assert_eq!(text.parse(), Ok(name), "{text}");
        }
    }

    #[test]
    fn a_registry_that_is_called_like_a_transport_stays_one() {
        for host in TRANSPORTS {
            let text = format!("docker://{host}:80/x:v1");
            let name = text.parse::<ImageName>();
            assert!(
                matches!(&name, Ok(ImageName::Registry(name)) if name.registry() == format!("{host}:80"))
            );
            assert_eq!(shown(&text).parse::<ImageName>(), name);
            assert_eq!(shown(&text), text);
        }
        assert_eq!(shown("docker://h.io:80/x:v1"), "h.io:80/x:v1");
        assert_eq!(shown("oci:5:v1"), "oci:5:v1");
        assert!("oci:5:".parse::<ImageName>().is_err(), "printed without its colon it would be another one");
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        let refused = [
            "",
            "a b",
            "oci:a b:c d",
            "oci:a\tb",
            "oci:a\u{2028}b",
            "containers-storage:a b",
            "Ubuntu",
            "ghcr.io/Owner/app",
            "a:",
            "a:-x",
            "h.io:0/a",
            "h.io:99999/a",
            "h.io:+80/a",
            "-h.io/a",
            "a//b",
            "a/b-",
            "a@sha256:00",
            "a@md5:00",
            "oci-archive:",
            "docker-daemon:x:1",
            "https://ghcr.io/a/b",
            "dayfly:xyz",
            "[::x]:5/a",
        ];
        insta::assert_snapshot!(refused.map(shown).join("\n"));
    }

    proptest! {
        #[test]
        fn whatever_is_parsed_is_parsed_to_the_same_again(text in "(oci:|oci-archive:)?[a-zA-Z0-9:/@._\\[\\] -]{0,40}") {
            if let Ok(name) = text.parse::<ImageName>() {
                let shown = name.to_string();
                let again = shown.parse::<ImageName>().map(|name| name.to_string());
                prop_assert_eq!(again, Ok(shown));
            }
        }

        #[test]
        fn names_of_the_grammar_are_taken(
            host in "[a-z0-9]{1,9}(\\.[a-z0-9]{1,9}){1,2}(:[1-9][0-9]{0,3})?",
            path in "[a-z0-9]{1,9}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,9}){0,3}",
            tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}",
        ) {
            let text = format!("{host}/{path}:{tag}");
            prop_assert_eq!(shown(&text), text);
        }
    }
}
