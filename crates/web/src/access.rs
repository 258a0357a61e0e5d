//! The decision whether a request may be answered. Pure.
//!
//! | the server has | a request is answered if |
//! | --- | --- |
//! | a token | it brings the token: `Authorization: Bearer TOKEN`, or as the password of any user (browsers) |
//! | no token, a port of loopback | its `Host` names loopback |
//! | no token, a unix socket | always: the folder of the socket decides who may connect |
//!
//! The `Host` is checked because a page elsewhere can let its own name lead to 127.0.0.1 (DNS rebinding), and its scripts
//! could then read every answer. With a token this is not needed, because such a page does not have it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use crate::listen::ListenAddress;

/// Shortest token, bytes. It has to resist guesses, of which the server takes any number.
pub const TOKEN_LENGTH_MIN: usize = 16;
/// Longest value of the header that is decoded, bytes.
const HEADER_LENGTH_MAX: usize = 4096;

/// The rule of a server.
#[derive(Debug)]
pub struct Access {
    token: Option<SecretString>,
    checks_host: bool,
}

/// The reason why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It brings no token, or another one.
    Token,
    /// Its `Host` is not a name of loopback.
    Host,
}

impl Access {
    /// Returns the rule for an address. None if the address needs a token, and there is none or one that is too short.
    pub fn new(address: &ListenAddress, token: Option<SecretString>) -> Option<Self> {
        let is_long_enough = token
            .as_ref()
            .map_or(address.is_local(), |token| token.expose_secret().len() >= TOKEN_LENGTH_MIN);
        let checks_host = matches!(address, ListenAddress::Tcp(_)) && token.is_none();
        is_long_enough.then_some(Self { token, checks_host })
    }

    /// Decides by the values of the headers `Host` and `Authorization`.
    pub(crate) fn admit(&self, host: Option<&str>, authorization: Option<&str>) -> Result<(), Denied> {
        if let Some(token) = &self.token {
            let given = authorization.and_then(token_in);
            let is_right = given.is_some_and(|given| is_same(&given, token));
            return is_right.then_some(()).ok_or(Denied::Token);
        }
        match !self.checks_host || host.is_some_and(is_loopback) {
            true => Ok(()),
            false => Err(Denied::Host),
        }
    }
}

fn is_same(given: &SecretString, token: &SecretString) -> bool {
    given.expose_secret().as_bytes().ct_eq(token.expose_secret().as_bytes()).into()
}

/// Returns the token of the header `Authorization`.
fn token_in(authorization: &str) -> Option<SecretString> {
    if authorization.len() > HEADER_LENGTH_MAX {
        return None;
    }
    let (scheme, value) = authorization.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().into());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| password.into())
}

/// Returns true if a `Host` header names loopback, with any port because of `ssh -L`.
fn is_loopback(host: &str) -> bool {
    let port = |rest: &str| rest.is_empty() || rest.strip_prefix(':').is_some_and(is_number);
    ["127.0.0.1", "localhost", "[::1]"].iter().any(|name| host.strip_prefix(name).is_some_and(port))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn access(address: &str, token: Option<&str>) -> Option<Access> {
        Access::new(&address.parse().expect("an address"), token.map(Into::into))
    }

    #[test]
    fn an_address_that_others_reach_needs_a_token_and_each_token_a_length() {
        for (address, token, is_taken) in [
            ("127.0.0.1:1", None, true),
            ("unix:/x", None, true),
            ("0.0.0.0:1", None, false),
            ("0.0.0.0:1", Some(TOKEN), true),
            ("0.0.0.0:1", Some("short"), false),
            ("127.0.0.1:1", Some(""), false),
        ] {
            assert_eq!(access(address, token).is_some(), is_taken, "{address} {token:?}");
        }
    }

    #[test]
    fn a_page_elsewhere_cannot_reach_loopback_under_its_own_name() {
        let access = access("127.0.0.1:9441", None).expect("allowed");
        for host in ["127.0.0.1:9441", "localhost", "localhost:1", "[::1]:9441"] {
            assert_eq!(access.admit(Some(host), None), Ok(()), "{host}");
        }
        for host in
            ["evil.example:9441", "127.0.0.1.evil.example", "localhost.evil.example:1", "localhost:1x", ""]
        {
            assert_eq!(access.admit(Some(host), None), Err(Denied::Host), "{host}");
        }
        assert_eq!(access.admit(None, None), Err(Denied::Host));
    }

    #[test]
    fn a_unix_socket_takes_any_host() {
        let access = access("unix:/x", None).expect("allowed");
        assert_eq!(access.admit(Some("anything"), None), Ok(()));
    }

    #[test]
    fn a_token_is_taken_from_a_scraper_and_from_a_browser_and_replaces_the_check_of_the_host() {
        let access = access("0.0.0.0:1", Some(TOKEN)).expect("allowed");
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        for good in [format!("Bearer {TOKEN}"), format!("bearer {TOKEN} "), basic(&format!("anyone:{TOKEN}"))]
        {
            assert_eq!(access.admit(Some("ci.example"), Some(&good)), Ok(()), "{good}");
        }
        let long = format!("Basic {}", "A".repeat(HEADER_LENGTH_MAX));
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            TOKEN,
            "Bearer 0123456789abcdeg",
            "Digest x",
            "Basic !!",
            &basic(TOKEN),
            &long,
        ] {
            assert_eq!(access.admit(Some("localhost"), Some(bad)), Err(Denied::Token), "{bad}");
        }
        assert_eq!(access.admit(Some("localhost"), None), Err(Denied::Token));
    }
}
