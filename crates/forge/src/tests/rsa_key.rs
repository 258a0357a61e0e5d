//! An RSA key for tests, created once per process, and a verifier of assertions that is independent of the code under test.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rsa::sha2::Sha256;
use rsa::traits::{PrivateKeyParts as _, PublicKeyParts as _};

/// A key and its PEM forms.
pub(crate) struct RsaKey {
    key: rsa::PrivateKey,
    pub(crate) pkcs1: String,
    pub(crate) pkcs8: String,
}

static KEY: LazyLock<RsaKey> = LazyLock::new(|| {
    let key = rsa::PrivateKey::new(&mut rand::rng(), 2048).unwrap();
    let pkcs1 = pkcs1(&key);
    // RFC 5958: the version, the algorithm rsaEncryption without parameters, and the key of PKCS#1.
    let algorithm = [&[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1][..], &[5, 0]].concat();
    let pkcs8 = der(0x30, &[integer(&[0]), der(0x30, &algorithm), der(4, &pkcs1)].concat());
    RsaKey { pkcs1: pem("RSA PRIVATE KEY", &pkcs1), pkcs8: pem("PRIVATE KEY", &pkcs8), key }
});

/// Returns the key in the form of RFC 8017, appendix A.1.2.
fn pkcs1(key: &rsa::PrivateKey) -> Vec<u8> {
    let [p, q] = key.primes() else { panic!("two primes") };
    let private = [
        key.d(),
        p.as_ref(),
        q.as_ref(),
        key.dp().unwrap(),
        key.dq().unwrap(),
        &key.qinv().unwrap().retrieve(),
    ]
    .map(|number| integer(&number.to_be_bytes_trimmed_vartime()));
    der(0x30, &[integer(&[0]), integer(&key.n_bytes()), integer(&key.e_bytes()), private.concat()].concat())
}

fn integer(bytes: &[u8]) -> Vec<u8> {
    let zeroes = bytes.iter().take_while(|byte| **byte == 0).count().min(bytes.len() - 1);
    let bytes = &bytes[zeroes..];
    // A first bit that is set would make the number negative.
    let is_high = bytes.first().is_some_and(|byte| *byte > 0x7f);
    der(2, &if is_high { [&[0][..], bytes].concat() } else { bytes.to_vec() })
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).unwrap().to_be_bytes();
    let head = match content.len() {
        0..0x80 => vec![tag, len[1]],
        0x80..0x100 => vec![tag, 0x81, len[1]],
        _ => vec![tag, 0x82, len[0], len[1]],
    };
    [head, content.to_vec()].concat()
}

/// Returns a PEM text.
pub(crate) fn pem(name: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {name}-----\n{}\n-----END {name}-----\n", lines.join("\n"))
}

pub(crate) fn rsa_key() -> &'static RsaKey {
    &KEY
}

impl RsaKey {
    /// Returns the claims of an assertion. Returns `None` unless it is an RS256 assertion that this key has signed.
    pub(crate) fn verify(&self, jwt: &str) -> Option<String> {
        let (signed, signature) = jwt.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        self.key.as_public_key().pkcs1v15_verify::<Sha256>(signed.as_bytes(), &signature).ok()?;
        let (head, claims) = signed.split_once('.')?;
        let text = |part: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(part).ok()?).ok();
        (text(head)? == r#"{"alg":"RS256","typ":"JWT"}"#).then_some(text(claims)?)
    }
}
