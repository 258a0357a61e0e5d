//! Fetches files over the network with the image's own curl. The docs of the module `image` give the reason.

use super::super::log::Log;
use super::super::program::{Program, ProgramError};
use super::super::{ImageError, at};
use std::path::Path;

/// Largest size in bytes of an API response, and of an archive (2.336.0 has about 220 MB).
const ANSWER_MAX: u64 = 8 * 1024 * 1024;
const ARCHIVE_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// Longest time in seconds for an API response, and for an archive.
const ANSWER_TIME_MAX_S: u32 = 120;
const ARCHIVE_TIME_MAX_S: u32 = 1800;

/// curl's exit statuses for an unreachable server (<https://curl.se/docs/manpage.html#EXIT>): unknown proxy or host name,
/// no connection, timeout, no TLS, no response, connection cut off.
const UNREACHABLE: [i32; 10] = [5, 6, 7, 28, 35, 52, 55, 56, 60, 92];

#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("cannot reach {url}: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("cannot fetch {url}: {source}")]
    Curl {
        url: String,
        #[source]
        source: ProgramError,
    },
    #[error("{url} answered {status}{}", hint(*status))]
    Status { url: String, status: u16 },
    #[error("{0:?} is no http(s) URL")]
    Url(String),
    #[error("the token holds characters that no token has")]
    Token,
}

/// Returns advice for a status.
fn hint(status: u16) -> &'static str {
    match status {
        401 => ": the token is not valid there",
        403 | 429 => ": not allowed, or asked too often; a token (INSTALL_TOKEN) helps with both",
        404 => ": it does not exist, or can only be seen with a token (INSTALL_TOKEN)",
        _ => "",
    }
}

impl FetchError {
    /// Returns true if no server answered, so that another source may be used.
    pub(super) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Status { status: 404, .. })
    }
}

/// Fetches an API response into a file, and returns its text.
pub(super) fn answer(url: &str, token: Option<&str>, to: &Path, log: &Log) -> Result<String, ImageError> {
    fetch(url, token, to, (ANSWER_TIME_MAX_S, ANSWER_MAX), log)?;
    std::fs::read_to_string(to).map_err(at("cannot read", to))
}

/// Fetches an archive into a file.
pub(super) fn archive(url: &str, token: Option<&str>, to: &Path, log: &Log) -> Result<(), ImageError> {
    Ok(fetch(url, token, to, (ARCHIVE_TIME_MAX_S, ARCHIVE_MAX), log)?)
}

fn fetch(
    url: &str,
    token: Option<&str>,
    to: &Path,
    (time_max_s, bytes_max): (u32, u64),
    log: &Log,
) -> Result<(), FetchError> {
    let program = program(url, token, to, time_max_s, bytes_max)?;
    let url = url.to_owned();
    let told = match program.answer(log) {
        Ok(told) => told,
        Err(ProgramError::Failed { code: Some(code), last, .. }) if UNREACHABLE.contains(&code) => {
            let of_curl = |line: &str| line.trim().strip_prefix("curl: ").map(str::to_owned);
            let reason =
                last.lines().rev().find_map(of_curl).unwrap_or_else(|| format!("curl ended with {code}"));
            return Err(FetchError::Unreachable { url, reason });
        }
        Err(source) => return Err(FetchError::Curl { url, source }),
    };
    let status = told.lines().rev().find_map(|line| line.strip_prefix("status ")?.parse().ok()).unwrap_or(0);
    if (200..300).contains(&status) { Ok(()) } else { Err(FetchError::Status { url, status }) }
}

/// Returns the command line. Secrets go through standard input, because every user can read arguments.
fn program(
    url: &str,
    token: Option<&str>,
    to: &Path,
    time_max_s: u32,
    bytes_max: u64,
) -> Result<Program, FetchError> {
    let protocol = match url.split_once("://") {
        Some((scheme @ ("http" | "https"), _)) if !url.contains(|c: char| c.is_control() || c == ' ') => {
            scheme
        }
        _ => return Err(FetchError::Url(url.chars().take(200).collect())),
    };
    // Redirects from https to http are not allowed.
    let protocols = format!("={}", if protocol == "http" { "http,https" } else { "https" });
    let mut words =
        vec!["curl", "--config", "-", "--silent", "--show-error", "--location", "--max-redirs", "5"];
    words.extend([
        "--proto",
        &protocols,
        "--proto-redir",
        &protocols,
        "--connect-timeout",
        "20",
        "--retry",
        "3",
    ]);
    words.extend(["--write-out", "status %{http_code}\\n"]);
    let (time_max, bytes_max) = (time_max_s.to_string(), bytes_max.to_string());
    words.extend(["--max-time", &time_max, "--retry-max-time", &time_max, "--max-filesize", &bytes_max]);
    let to = to.display().to_string();
    words.extend(["--output", &to]);
    let mut input = format!("url = {}\n", quoted(url));
    if let Some(token) = token {
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(FetchError::Token);
        }
        input.push_str(&format!("header = {}\n", quoted(&format!("Authorization: Bearer {token}"))));
    }
    Ok(Program::new(words).input(input))
}

/// Quotes a value for curl's configuration.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(url: &str, token: Option<&str>) -> Result<Program, FetchError> {
        program(url, token, Path::new("/s/archive"), 60, 1000)
    }

    #[test]
    fn the_command_line_has_bounds_and_no_token() {
        let program = made("https://h/a?b=\"c", Some("ghp_\"XXXX")).expect("good");
        insta::assert_snapshot!(program.words.join(" "), @r"curl --config - --silent --show-error --location --max-redirs 5 --proto =https --proto-redir =https --connect-timeout 20 --retry 3 --write-out status %{http_code}\n --max-time 60 --retry-max-time 60 --max-filesize 1000 --output /s/archive");
        assert_eq!(
            program.input,
            "url = \"https://h/a?b=\\\"c\"\nheader = \"Authorization: Bearer ghp_\\\"XXXX\"\n"
        );
    }

    #[test]
    fn what_is_no_url_and_what_is_no_token_never_reaches_curl() {
        for url in ["", "file:///etc/passwd", "https:/x", "ftp://h/a", "https://h/\nurl = x", "h/a", "-o/x"] {
            assert!(matches!(made(url, None), Err(FetchError::Url(_))), "{url}");
        }
        assert!(matches!(made("https://h", Some("a\nurl = x")), Err(FetchError::Token)));
    }
}
