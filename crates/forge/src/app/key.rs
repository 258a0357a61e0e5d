//! The private key of a GitHub App, and the assertions that it signs.
//!
//! `ring` signs, because rustls brings it along anyway, its signatures take the same time for every key, and it does nothing
//! else: an assertion is two small JSON objects, for which a crate of JWTs would be more code than this file.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use secrecy::zeroize::Zeroize as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use thiserror::Error;

/// Seconds by which an assertion is dated back, for forges whose clock is behind (docs.github.com, "Generating a JSON Web
/// Token (JWT) for a GitHub App").
const BACKDATED_S: i64 = 60;
/// Seconds from the dated-back time to the end of an assertion. GitHub allows ten minutes, counted from either time.
const LIFE_S: i64 = 600;

/// The private key of a GitHub App.
#[derive(Clone)]
pub struct AppKey(SecretString);

impl fmt::Debug for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AppKey([REDACTED])")
    }
}

/// Errors of private keys. No text holds a part of the key.
#[derive(Debug, Error)]
pub enum AppKeyError {
    /// There is no private key in the text.
    #[error(
        "the text holds no private key in PEM form; the settings page of a GitHub App creates one (\"Generate a private key\"), \
         which begins with -----BEGIN RSA PRIVATE KEY-----"
    )]
    NoKey,
    /// The key is encrypted.
    #[error(
        "the private key is encrypted; store it without a passphrase: openssl rsa -in FILE -out FILE.pem"
    )]
    Encrypted,
    /// The key is no RSA key.
    #[error("the private key is no RSA key; GitHub Apps have RSA keys")]
    NotRsa,
    /// The key is damaged, or has an unusual size.
    #[error("the private key cannot be used ({why}); RSA keys of 2048 to 4096 bits are supported")]
    Unusable {
        /// The reason.
        why: String,
    },
}

impl AppKey {
    /// Reads a key in PEM form, PKCS#1 (as GitHub creates them) or PKCS#8.
    ///
    /// # Errors
    /// See [`AppKeyError`].
    pub fn from_pem(pem: SecretString) -> Result<Self, AppKeyError> {
        let key = Self(pem);
        key.pair().map(|_| key)
    }

    /// Returns true if both were read from the same text.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }

    fn pair(&self) -> Result<RsaKeyPair, AppKeyError> {
        let pem = self.0.expose_secret();
        if pem.contains("ENCRYPTED") {
            return Err(AppKeyError::Encrypted);
        }
        let mut der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| AppKeyError::NoKey)?;
        let pair = match &der {
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
            // The error of a PKCS#8 key of another algorithm is the same as that of a damaged one.
            PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
            _ => return Err(AppKeyError::NotRsa),
        };
        der.zeroize();
        pair.map_err(|rejected| AppKeyError::Unusable { why: rejected.to_string() })
    }

    /// Signs an assertion (JWT, RS256) that its bearer is the App `id`. `now_s` is the time in seconds since 1970.
    pub(super) fn assertion(&self, id: &str, now_s: i64) -> Result<SecretString, AppKeyError> {
        let unusable = |why: String| AppKeyError::Unusable { why };
        let issued_s = now_s.saturating_sub(BACKDATED_S);
        let head = json!({"alg": "RS256", "typ": "JWT"}).to_string();
        let claims = json!({"iat": issued_s, "exp": issued_s.saturating_add(LIFE_S), "iss": id}).to_string();
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
        let pair = self.pair()?;
        let mut signature = vec![0; pair.public().modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|error| unusable(error.to_string()))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)).into())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::tests::{pem, rsa_key};

    #[test]
    fn an_assertion_verifies_with_the_public_key_and_lasts_ten_minutes() {
        for pem in [&rsa_key().pkcs1, &rsa_key().pkcs8] {
            let jwt = AppKey::from_pem(pem.clone().into()).unwrap().assertion("Iv23abc", 1_000_000).unwrap();
            let claims = rsa_key().verify(jwt.expose_secret()).expect("a valid signature");
            assert_eq!(claims, r#"{"iat":999940,"exp":1000540,"iss":"Iv23abc"}"#);
        }
    }

    #[test]
    fn a_text_that_is_no_usable_key_is_refused_without_being_quoted() {
        let pkcs8 = &rsa_key().pkcs8;
        let elliptic = pem("PRIVATE KEY", &rcgen::KeyPair::generate().unwrap().serialize_der());
        let cases = [
            (String::new(), "no private key"),
            ("ghp_XXXX".to_owned(), "no private key"),
            (pkcs8.replace("PRIVATE KEY", "PUBLIC KEY"), "no private key"),
            (pkcs8.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"), "encrypted"),
            (pkcs8.replace("PRIVATE KEY", "EC PRIVATE KEY"), "no RSA key"),
            (pkcs8.replace("PRIVATE KEY", "RSA PRIVATE KEY"), "cannot be used"),
            (elliptic, "cannot be used"),
            (
                pkcs8
                    .lines()
                    .enumerate()
                    .filter(|(n, _)| *n != 3)
                    .map(|(_, line)| format!("{line}\n"))
                    .collect(),
                "cannot be used",
            ),
        ];
        let body = pkcs8.lines().nth(1).unwrap();
        for (text, why) in cases {
            let error = AppKey::from_pem(text.into()).expect_err(why).to_string();
            assert!(error.contains(why) && !error.contains(body), "{why}: {error}");
        }
    }
}
