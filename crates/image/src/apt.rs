//! Selects the apt sources of an image: Debian's archives among the host's own sources, or Debian's public mirror.

use std::fs;
use std::path::Path;

use dayfly_guest::os_release::OsRelease;

/// The mirror that is used if the host's sources name none.
const MIRROR: &str = "http://deb.debian.org/debian";
/// The same for security updates.
const SECURITY_MIRROR: &str = "http://deb.debian.org/debian-security";
/// The suite of an image if none was requested, on any host: Debian 13, the first with a Docker of today (BuildKit, compose
/// and buildx). The keyrings of Debian 12 and Ubuntu 24.04 verify it.
pub(super) const DEFAULT_SUITE: &str = "trixie";

/// Returns the lines of a `sources.list` for a suite.
pub(super) fn for_suite(suite: &str, host: &OsRelease) -> String {
    let own = if host.id == "debian" && host.codename == suite { own_archives(suite) } else { Vec::new() };
    // The host's sources are used only if they have the suite itself, because updates alone are no complete system.
    let lines =
        if own.iter().any(|line| line.split(' ').nth(2) == Some(suite)) { own } else { public(suite) };
    lines.join("\n") + "\n"
}

fn public(suite: &str) -> Vec<String> {
    let mut lines = vec![format!("deb {MIRROR} {suite} main")];
    // Testing and unstable have neither updates nor security updates.
    if !matches!(suite, "sid" | "unstable" | "testing") {
        lines.push(format!("deb {MIRROR} {suite}-updates main"));
        lines.push(format!("deb {SECURITY_MIRROR} {suite}-security main"));
    }
    lines
}

fn own_archives(suite: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut files = vec![Path::new("/etc/apt/sources.list").to_owned()];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let entries = match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => parse_lines(&text),
            Some("sources") => parse_stanzas(&text),
            _ => continue,
        };
        lines.extend(entries.iter().flat_map(|entry| entry.debian_lines(suite)));
    }
    lines.dedup();
    lines
}

/// An apt source.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Entry {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: String,
}

impl Entry {
    /// Returns the lines for those parts of the entry that are Debian's own archive of a suite. Other archives use the same
    /// suite names, but not these paths together with this component and Debian's keys.
    fn debian_lines(&self, suite: &str) -> Vec<String> {
        let known = [suite.to_owned(), format!("{suite}-updates"), format!("{suite}-security")];
        let keys = self.signed_by.is_empty() || self.signed_by.contains("debian-archive");
        if !keys || !self.components.iter().any(|component| component == "main") {
            return Vec::new();
        }
        let mut lines = Vec::new();
        for uri in &self.uris {
            let path = uri.trim_end_matches('/');
            let debian = path.ends_with("/debian")
                || path.ends_with("/debian-security")
                || path.contains("snapshot.debian.org/archive/debian");
            for found in self.suites.iter().filter(|found| debian && known.contains(found)) {
                lines.push(format!("deb {uri} {found} main"));
            }
        }
        lines
    }
}

/// Parses the one-line form: `deb [options] URI SUITE COMPONENTS`.
fn parse_lines(text: &str) -> Vec<Entry> {
    let words_of = |line: &str| line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
    text.lines()
        .filter_map(|line| line.split('#').next().unwrap_or_default().trim().strip_prefix("deb "))
        .filter_map(|rest| {
            let rest = rest.trim_start();
            let (options, rest) = match rest.strip_prefix('[') {
                Some(inside) => inside.split_once(']')?,
                None => ("", rest),
            };
            let signed_by =
                words_of(options).iter().find_map(|o| o.strip_prefix("signed-by=").map(str::to_owned));
            let mut words = words_of(rest).into_iter();
            Some(Entry {
                uris: vec![words.next()?],
                suites: vec![words.next()?],
                components: words.collect(),
                signed_by: signed_by.unwrap_or_default(),
            })
        })
        .collect()
}

/// Parses the stanzas of deb822: fields, with continuation lines that start with a space.
fn parse_stanzas(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.trim().is_empty() {
            entries.extend(stanza(&std::mem::take(&mut fields)));
        } else if line.starts_with('#') {
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    entries
}

fn stanza(fields: &[(String, String)]) -> Option<Entry> {
    let value = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let words = |name| value(name).unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
    let types: Vec<String> = words("types");
    if value("enabled").is_some_and(|enabled| enabled.eq_ignore_ascii_case("no"))
        || !types.iter().any(|t| t == "deb")
    {
        return None;
    }
    Some(Entry {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by: value("signed-by").unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debian(entries: Vec<Entry>) -> Vec<String> {
        entries.iter().flat_map(|entry| entry.debian_lines("bookworm")).collect()
    }

    #[test]
    fn only_debians_own_archives_are_taken_from_stanzas() {
        let text = "Types: deb deb-src\n# a comment\nURIs: http://deb.debian.org/debian\nSuites: bookworm bookworm-updates bookworm-backports\nComponents: main contrib\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
                    Types: deb\nURIs: https://download.docker.com/linux/debian\nSuites: bookworm\nComponents: stable\n\n\
                    Types: deb\nURIs: https://example.org/debian\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n\n\
                    Enabled: no\nTypes: deb\nURIs: http://x/debian\nSuites: bookworm\nComponents: main\n";
        assert_eq!(
            debian(parse_stanzas(text)),
            [
                "deb http://deb.debian.org/debian bookworm main",
                "deb http://deb.debian.org/debian bookworm-updates main"
            ]
        );
    }

    #[test]
    fn the_one_line_form_is_understood() {
        let text = "deb-src http://m/debian bookworm main\n deb http://m/debian/ bookworm main non-free # ours\n\
                    deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://m/debian-security bookworm-security main\n\
                    deb [signed-by=/x.gpg] http://packages.example/debian bookworm main\ndeb http://m/debian trixie main\ndeb\n";
        assert_eq!(
            debian(parse_lines(text)),
            ["deb http://m/debian/ bookworm main", "deb http://m/debian-security bookworm-security main"]
        );
    }

    #[test]
    fn elsewhere_the_public_mirror_serves_a_fixed_suite() {
        let ubuntu =
            OsRelease::parse("ID=ubuntu\nVERSION_CODENAME=noble\nPRETTY_NAME=\"Ubuntu 24.04 LTS\"\n");
        assert_eq!(
            for_suite("bookworm", &ubuntu),
            "deb http://deb.debian.org/debian bookworm main\ndeb http://deb.debian.org/debian bookworm-updates main\n\
             deb http://deb.debian.org/debian-security bookworm-security main\n"
        );
    }
}
