//! Writes private keys as GitHub gives them to a new App: PKCS#1 (RFC 8017, appendix A.1.2) in PEM (RFC 7468).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dayfly_forge::jit::RsaParameters;
use secrecy::zeroize::Zeroize as _;
use secrecy::{ExposeSecret as _, SecretString};

/// DER's tags of an integer and of a sequence (X.690).
const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const LINE: usize = 64;

/// Returns a private key in PEM form; `None` if a number of it is no base64.
pub(crate) fn pkcs1(key: &RsaParameters) -> Option<SecretString> {
    let secret = [&key.d, &key.p, &key.q, &key.dp, &key.dq, &key.inverse_q];
    let mut content = integer(&[0]);
    for number in
        [key.modulus.as_str(), key.exponent.as_str()].into_iter().chain(secret.map(|it| it.expose_secret()))
    {
        let mut bytes = STANDARD.decode(number).ok()?;
        content.extend(integer(&bytes));
        bytes.zeroize();
    }
    let mut der = element(SEQUENCE, &content);
    content.zeroize();
    let mut text = STANDARD.encode(&der);
    der.zeroize();
    let mut pem = "-----BEGIN RSA PRIVATE KEY-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    text.zeroize();
    pem.push_str("-----END RSA PRIVATE KEY-----\n");
    Some(pem.into())
}

fn integer(bytes: &[u8]) -> Vec<u8> {
    let zeroes = bytes.iter().take_while(|byte| **byte == 0).count().min(bytes.len().saturating_sub(1));
    let bytes = &bytes[zeroes..];
    // A first bit that is set would make the number negative.
    let is_high = bytes.first().is_some_and(|byte| *byte > 0x7f);
    element(INTEGER, &if is_high { [&[0], bytes].concat() } else { bytes.to_vec() })
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut element = vec![tag];
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    match content.len() {
        0..0x80 => element.extend(if length.is_empty() { &[0] } else { length }),
        // A key of 2048 bits has about 1200 bytes, so the number of bytes of its length is 2.
        _ => {
            element.push(0x80 | length.len() as u8);
            element.extend(length);
        }
    }
    element.extend(content);
    element
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeyPair;

    #[test]
    fn a_key_is_read_back_by_the_client_of_forges() {
        let key = KeyPair::generate().expect("a key");
        let pem = pkcs1(&key.private).expect("good numbers");
        assert!(pem.expose_secret().lines().all(|line| line.len() <= LINE));
        dayfly_forge::AppKey::from_pem(pem).expect("a private key");
    }

    #[test]
    fn numbers_have_no_needless_zeroes_and_are_never_negative() {
        assert_eq!(integer(&[0, 0, 1]), [INTEGER, 1, 1]);
        assert_eq!(integer(&[0x80]), [INTEGER, 2, 0, 0x80]);
        assert_eq!(integer(&[0]), [INTEGER, 1, 0]);
        assert_eq!(element(SEQUENCE, &[])[..], [SEQUENCE, 0]);
        assert_eq!(element(SEQUENCE, &[7; 200])[..4], [SEQUENCE, 0x81, 200, 7]);
        assert_eq!(element(SEQUENCE, &[7; 300])[..4], [SEQUENCE, 0x82, 1, 44]);
    }
}
