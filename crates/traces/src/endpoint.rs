//! The address of a collector.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use dayfly_forge::Url;

/// Path of traces below a collector's address (OTLP specification, "OTLP/HTTP Request").
const PATH: &str = "v1/traces";

/// The address of a collector, such as `http://127.0.0.1:4318`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    base: Url,
}

/// The reason why a text is no address of a collector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It is no URL of HTTP.
    #[error("{text:?} is no address of a collector: it must be a URL such as http://127.0.0.1:4318")]
    NoUrl {
        /// The text.
        text: String,
    },
    /// It has more than a host, a port and a path. The text is not part of the message, because it may hold a password.
    #[error("the address of a collector has only a host, a port and a path, and no {part}")]
    TooMuch {
        /// The part.
        part: &'static str,
    },
}

impl Endpoint {
    /// Returns the address that traces are sent to.
    pub(crate) fn traces(&self) -> Url {
        let mut url = self.base.clone();
        let path = format!("{}/{PATH}", self.base.path().trim_end_matches('/'));
        url.set_path(&path);
        url
    }

    /// Returns true if others on the way can read what is sent: HTTP to another host.
    pub fn is_open(&self) -> bool {
        let host = self.base.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let is_loopback = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        self.base.scheme() == "http" && !is_loopback
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let no_url = || EndpointError::NoUrl { text: text.to_owned() };
        let base = Url::parse(text).map_err(|_| no_url())?;
        let parts = [
            ("user or password", !base.username().is_empty() || base.password().is_some()),
            ("query", base.query().is_some()),
            ("fragment", base.fragment().is_some()),
        ];
        if let Some((part, _)) = parts.into_iter().find(|(_, is_there)| *is_there) {
            return Err(EndpointError::TooMuch { part });
        }
        if !["http", "https"].contains(&base.scheme()) || base.host_str().is_none() {
            return Err(no_url());
        }
        Ok(Self { base })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Endpoint, String> {
        text.parse().map_err(|error: EndpointError| error.to_string())
    }

    #[test]
    fn traces_go_below_the_path_of_the_collector() {
        for (text, traces, is_open) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces", false),
            ("http://[::1]:4318/", "http://[::1]:4318/v1/traces", false),
            ("http://localhost:4318", "http://localhost:4318/v1/traces", false),
            ("http://collector:4318", "http://collector:4318/v1/traces", true),
            ("https://api.example/otlp/", "https://api.example/otlp/v1/traces", false),
        ] {
            let endpoint = parsed(text).expect("an address");
            assert_eq!((endpoint.traces().as_str(), endpoint.is_open()), (traces, is_open));
            assert_eq!(endpoint.to_string(), text.trim_end_matches('/'));
        }
    }

    #[test]
    fn an_address_with_a_password_is_refused_and_not_shown() {
        let all = [
            "127.0.0.1:4318",
            "grpc://h:4317",
            "http://u:s3cret@h",
            "http://h/?token=s3cret",
            "http://h/#x",
            "",
        ]
        .map(|text| parsed(text).expect_err(text));
        insta::assert_snapshot!(all.join("\n"));
    }
}
