//! The address that the server listens at.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// The prefix of the path of a unix socket.
const UNIX: &str = "unix:";

/// An address to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address of this host, with a port.
    Tcp(SocketAddr),
    /// The path of a unix socket. The folder decides who may connect.
    Unix(PathBuf),
}

/// Errors of parsing an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListenAddressError {
    /// The text is neither of the two forms.
    #[error(
        "{text:?} is no address to listen at: it must be ADDRESS:PORT, such as 127.0.0.1:9441 or [::1]:9441, or unix:PATH"
    )]
    Neither {
        /// The given text.
        text: String,
    },
    /// The path of a unix socket is relative.
    #[error("{text:?}: the path of the socket must be absolute, such as unix:/run/dayfly/web.sock")]
    Relative {
        /// The given text.
        text: String,
    },
}

impl ListenAddress {
    /// Returns true if only this host can connect.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Returns the address as a browser takes it, or the path of the socket.
    pub fn url(&self) -> String {
        match self {
            Self::Tcp(address) => format!("http://{address}/"),
            Self::Unix(_) => self.to_string(),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, ListenAddressError> {
        let Some(path) = text.strip_prefix(UNIX) else {
            let neither = |_| ListenAddressError::Neither { text: text.to_owned() };
            return text.parse().map(Self::Tcp).map_err(neither);
        };
        match path.starts_with('/') {
            true => Ok(Self::Unix(path.into())),
            false => Err(ListenAddressError::Relative { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_port_of_this_host_or_a_unix_socket() {
        for (text, is_local) in [
            ("127.0.0.1:9441", true),
            ("[::1]:9441", true),
            ("[::ffff:127.0.0.1]:9441", true),
            ("unix:/run/dayfly/web.sock", true),
            ("0.0.0.0:9441", false),
            ("[::]:9441", false),
            ("192.0.2.7:9441", false),
        ] {
            let address = text.parse::<ListenAddress>().expect(text);
            assert_eq!((address.is_local(), address.to_string().as_str()), (is_local, text));
        }
    }

    #[test]
    fn a_text_that_is_no_address_is_refused_with_its_forms() {
        for text in ["", "9441", "localhost:9441", "127.0.0.1", "127.0.0.1:99999", "/run/web.sock"] {
            let error = text.parse::<ListenAddress>().expect_err(text).to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains("unix:PATH"), "{error}");
        }
        let error = "unix:web.sock".parse::<ListenAddress>().expect_err("relative").to_string();
        assert!(error.contains("absolute"), "{error}");
    }
}
