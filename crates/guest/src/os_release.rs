//! The distribution of a system, as its `/etc/os-release` names it.

/// Path of the file.
pub const PATH: &str = "/etc/os-release";

/// The fields that dayfly uses; see os-release(5). A missing field is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OsRelease {
    /// `ID`: one lower-case word, e.g. `debian`.
    pub id: String,
    /// `ID_LIKE`: the distributions that it derives from, closest first.
    pub like: Vec<String>,
    /// `VERSION_CODENAME`, e.g. `bookworm`.
    pub codename: String,
    /// `PRETTY_NAME`, for people.
    pub pretty: String,
}

impl OsRelease {
    /// Reads the file of this system. A file that cannot be read has no fields.
    pub fn of_this_system() -> Self {
        Self::parse(&std::fs::read_to_string(PATH).unwrap_or_default())
    }

    /// Parses the file's text.
    pub fn parse(text: &str) -> Self {
        let value = |name: &str| {
            let of_line = |line: &str| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
            let value = text.lines().find_map(of_line).unwrap_or_default();
            value.trim().trim_matches(['"', '\'']).to_owned()
        };
        let like = value("ID_LIKE").split_ascii_whitespace().map(str::to_owned).collect();
        Self { id: value("ID"), like, codename: value("VERSION_CODENAME"), pretty: value("PRETTY_NAME") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_missing_values_are_understood() {
        let ubuntu = OsRelease::parse(
            "PRETTY_NAME=\"Ubuntu 24.04.3 LTS\"\nVERSION_ID=\"24.04\"\nVERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian\n",
        );
        assert_eq!((ubuntu.id.as_str(), ubuntu.pretty.as_str()), ("ubuntu", "Ubuntu 24.04.3 LTS"));
        assert_eq!((ubuntu.like, ubuntu.codename.as_str()), (vec!["debian".to_owned()], "noble"));
        assert_eq!(OsRelease::parse("ID='centos'\nID_LIKE=\"rhel fedora\"").like, ["rhel", "fedora"]);
        assert_eq!(OsRelease::parse("VERSION_ID=1\n"), OsRelease::default());
    }
}
