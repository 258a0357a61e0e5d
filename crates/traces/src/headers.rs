//! The headers that a collector wants, such as a token.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};

/// Most headers.
const HEADERS_MAX: usize = 16;
/// Headers that this crate sets itself, or that frame the request.
const OWN: [&str; 6] =
    ["content-type", "content-length", "content-encoding", "transfer-encoding", "host", "user-agent"];

/// Headers that are sent with each request. Their values are secrets.
#[derive(Debug, Clone, Default)]
pub struct Headers(HeaderMap);

/// The reason why a text holds no headers. It never quotes a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadersError {
    /// A line is no header.
    #[error("line {line} is no header: each line must be NAME: VALUE, such as Authorization: Bearer TOKEN")]
    NoHeader {
        /// Number of the line, from 1.
        line: usize,
    },
    /// A header is not free.
    #[error("line {line} gives the header {name}, which dayfly sets itself")]
    Own {
        /// Number of the line, from 1.
        line: usize,
        /// Name of the header.
        name: String,
    },
    /// There are too many.
    #[error("there are more than {HEADERS_MAX} headers")]
    TooMany,
    /// There is none.
    #[error("there is no header")]
    None,
}

impl Headers {
    /// Reads headers, one a line. Blank lines count as nothing.
    ///
    /// # Errors
    /// See [`HeadersError`].
    pub fn parse(text: &SecretString) -> Result<Self, HeadersError> {
        let mut headers = HeaderMap::new();
        for (at, text) in text.expose_secret().lines().enumerate().filter(|(_, text)| !text.trim().is_empty())
        {
            let line = at + 1;
            let (name, value) = header(text).ok_or(HeadersError::NoHeader { line })?;
            if OWN.contains(&name.as_str()) {
                return Err(HeadersError::Own { line, name: name.to_string() });
            }
            headers.append(name, value);
            if headers.len() > HEADERS_MAX {
                return Err(HeadersError::TooMany);
            }
        }
        if headers.is_empty() { Err(HeadersError::None) } else { Ok(Self(headers)) }
    }

    /// Returns the headers.
    pub(crate) fn map(&self) -> HeaderMap {
        self.0.clone()
    }
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    let mut value: HeaderValue = value.trim().parse().ok().filter(|value: &HeaderValue| !value.is_empty())?;
    // Debugging output does not show it.
    value.set_sensitive(true);
    Some((name.trim().parse().ok()?, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Headers, String> {
        Headers::parse(&text.into()).map_err(|error| error.to_string())
    }

    #[test]
    fn each_line_is_a_header_whose_value_is_not_shown() {
        let headers = parsed("Authorization: Bearer s3cret\n\nX-Team : a:b \n").expect("headers");
        assert_eq!(headers.map()["authorization"], "Bearer s3cret");
        assert_eq!(headers.map()["x-team"], "a:b");
        assert!(!format!("{headers:?}").contains("s3cret"), "{headers:?}");
    }

    #[test]
    fn a_text_that_holds_no_headers_is_refused_without_its_values() {
        let many = "X-A: s3cret\n".repeat(HEADERS_MAX + 1);
        let all = ["s3cret", "A: b\nX-A:", "X A: s3cret", "X-A: s3c\u{1}ret", "Host: s3cret", " \n", &many]
            .map(|text| parsed(text).expect_err(text));
        insta::assert_snapshot!(all.join("\n"));
    }
}
