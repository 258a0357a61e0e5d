//! Which distribution this is, as `/etc/os-release` says it.

/// Where it stands.
pub(crate) const PATH: &str = "/etc/os-release";

/// What is read of it; see os-release(5).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OsRelease {
    /// `ID`: one lower-case word.
    pub(crate) id: String,
    /// `ID_LIKE`: what it is made from, nearest first.
    pub(crate) like: Vec<String>,
    /// `PRETTY_NAME`, for people.
    pub(crate) pretty: String,
}

impl OsRelease {
    /// Reads the file's text; what is missing stays empty.
    pub(crate) fn parse(text: &str) -> Self {
        let value = |name: &str| {
            let of_line = |line: &str| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
            let value = text.lines().find_map(of_line).unwrap_or_default();
            value.trim().trim_matches(['"', '\'']).to_owned()
        };
        let like = value("ID_LIKE").split_ascii_whitespace().map(str::to_owned).collect();
        Self { id: value("ID"), like, pretty: value("PRETTY_NAME") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_missing_values_are_understood() {
        let ubuntu = OsRelease::parse(
            "PRETTY_NAME=\"Ubuntu 24.04.3 LTS\"\nVERSION_ID=\"24.04\"\nID=ubuntu\nID_LIKE=debian\n",
        );
        assert_eq!((ubuntu.id.as_str(), ubuntu.pretty.as_str()), ("ubuntu", "Ubuntu 24.04.3 LTS"));
        assert_eq!(ubuntu.like, ["debian"]);
        assert_eq!(OsRelease::parse("ID='centos'\nID_LIKE=\"rhel fedora\"").like, ["rhel", "fedora"]);
        assert_eq!(OsRelease::parse("VERSION_ID=1\n"), OsRelease::default());
    }
}
