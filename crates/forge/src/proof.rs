//! The proof of a lab that it is a lab and that it runs on the asker's host.
//!
//! The asker sends a random nonce. The lab answers with the path of the file that holds its token, and with a MAC under
//! that token. If the asker can read the file and the MAC is right, it knows that the other end can read the file too,
//! and neither end has sent a secret. The MAC covers the address of the lab's end of the connection, so that a stranger
//! on the same host cannot forward the challenge to the real lab. The client and the lab share this module.

use std::net::SocketAddr;

use dayfly_host::digest::hexadecimal;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// The purpose of the MAC. It is part of the message, so that the MAC is valid for nothing else.
const CONTEXT: &str = "dayfly lab proof 1";
const NONCE_LEN: usize = 64;
/// The beginning of a token that a lab created.
const TOKEN_PREFIX: &str = "lab_";
const TOKEN_DIGITS: usize = 40;

/// Name of the file in a lab's folder that holds its admin token, mode 0600.
pub const TOKEN_FILE: &str = "token";
/// Name of the file in a lab's folder that a running lab holds a lock on.
pub const LOCK_FILE: &str = "lock";

/// The answer of a lab to a challenge.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProofAnswer {
    /// Always `dayfly`.
    pub lab: String,
    /// The absolute path of the file that holds the lab's token.
    pub token_file: String,
    /// The address at which guests of QEMU's user network reach the lab.
    pub runner_url: String,
    /// The MAC, in lower-case hexadecimal digits.
    pub mac: String,
}

/// A challenge: 64 lower-case hexadecimal digits.
#[derive(Debug, Clone)]
pub struct Nonce(String);

impl Nonce {
    /// Creates a random challenge.
    pub fn random() -> Self {
        Self(hexadecimal(&rand::random::<[u8; NONCE_LEN / 2]>()))
    }

    /// Parses a challenge. Returns `None` unless `text` is exactly 64 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == NONCE_LEN && is_hex(text)).then(|| Self(text.to_owned()))
    }

    /// Returns the digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Creates a token for a lab.
pub fn new_token() -> String {
    format!("{TOKEN_PREFIX}{}", hexadecimal(&rand::random::<[u8; TOKEN_DIGITS / 2]>()))
}

/// Returns true if a text has the form of a token that a lab created.
pub fn is_token(text: &str) -> bool {
    text.strip_prefix(TOKEN_PREFIX).is_some_and(|digits| digits.len() == TOKEN_DIGITS && is_hex(digits))
}

/// Computes the MAC of an answer. `lab` is the address of the lab's end of the connection.
pub fn mac(token: &str, nonce: &Nonce, lab: SocketAddr, runner_url: &str) -> String {
    // A listener on all IPv4 and IPv6 addresses sees an IPv4 address as an IPv4-mapped IPv6 address.
    let lab = SocketAddr::new(lab.ip().to_canonical(), lab.port());
    let message = format!("{CONTEXT}\n{}\n{lab}\n{runner_url}", nonce.0);
    let mac = Hmac::<Sha256>::new_from_slice(token.as_bytes()).expect("HMAC takes keys of any length");
    hexadecimal(&mac.chain_update(message.as_bytes()).finalize().into_bytes())
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
