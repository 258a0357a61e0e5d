//! How a lab proves that it is one, and that it runs on the asker's own host.
//!
//! The asker sends a number that nobody can foresee. The lab answers with the path of the file that holds its token, and
//! with a MAC under that token. Who can read the file and finds the MAC right knows that the other end can read it too,
//! and no secret has gone anywhere. The address of the lab's end of the connection is in the MAC, so that a stranger on
//! the same host cannot have the real lab answer for it. Client and lab share what is here.

use std::net::SocketAddr;

use dayfly_host::digest::hexadecimal;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// What the MAC is for, so that it is good for nothing else.
const CONTEXT: &str = "dayfly lab proof 1";
const NONCE_LEN: usize = 64;
/// A lab's own tokens begin so.
const TOKEN_PREFIX: &str = "lab_";
const TOKEN_DIGITS: usize = 40;

/// Name of the file in a lab's folder that holds its admin token, mode 0600.
pub const TOKEN_FILE: &str = "token";
/// Name of the file in a lab's folder that a running lab holds a lock on.
pub const LOCK_FILE: &str = "lock";

/// What a lab answers to a challenge.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// `dayfly`.
    pub lab: String,
    /// The absolute path of the file that holds the lab's token.
    pub token_file: String,
    /// How the guests of QEMU's user network reach the lab.
    pub runner_url: String,
    /// In lower-case hexadecimal digits.
    pub mac: String,
}

/// A challenge: 64 lower-case hexadecimal digits.
#[derive(Debug, Clone)]
pub struct Nonce(String);

impl Nonce {
    /// Draws one.
    pub fn random() -> Self {
        Self(hexadecimal(&rand::random::<[u8; NONCE_LEN / 2]>()))
    }

    /// Parses the digits; none if they are not exactly that.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == NONCE_LEN && is_hex(text)).then(|| Self(text.to_owned()))
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A new token for a lab.
pub fn new_token() -> String {
    format!("{TOKEN_PREFIX}{}", hexadecimal(&rand::random::<[u8; TOKEN_DIGITS / 2]>()))
}

/// Whether a text has the form of a lab's own token.
pub fn is_token(text: &str) -> bool {
    text.strip_prefix(TOKEN_PREFIX).is_some_and(|digits| digits.len() == TOKEN_DIGITS && is_hex(digits))
}

/// The MAC of an answer. `lab` is the address of the lab's end of the connection.
pub fn mac(token: &str, nonce: &Nonce, lab: SocketAddr, runner_url: &str) -> String {
    // A listener on all addresses of both kinds sees IPv4 in the clothes of IPv6.
    let lab = SocketAddr::new(lab.ip().to_canonical(), lab.port());
    let message = format!("{CONTEXT}\n{}\n{lab}\n{runner_url}", nonce.0);
    let mac = Hmac::<Sha256>::new_from_slice(token.as_bytes()).expect("HMAC takes keys of any length");
    hexadecimal(&mac.chain_update(message.as_bytes()).finalize().into_bytes())
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
