//! The signature of a delivery: HMAC-SHA256 of the raw body under the hook's secret (docs.github.com, "Validating webhook
//! deliveries").

use dayfly_host::digest::hexadecimal;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;

/// The beginning of a signature's header.
const PREFIX: &str = "sha256=";

/// The secret of a hook, which the forge and the receiver share.
#[derive(Debug, Clone)]
pub struct WebhookSecret(SecretString);

impl WebhookSecret {
    /// Takes a secret. Returns `None` if it is empty, because anyone could sign with it.
    pub fn new(secret: SecretString) -> Option<Self> {
        (!secret.expose_secret().is_empty()).then_some(Self(secret))
    }

    /// Returns the value of the signature's header for a body: `sha256=` and lower-case hexadecimal digits.
    pub fn sign(&self, body: &[u8]) -> String {
        format!("{PREFIX}{}", hexadecimal(&self.mac(body).finalize().into_bytes()))
    }

    /// Returns true if a signature's header is that of this body. The comparison takes the same time for each wrong
    /// signature.
    pub fn verifies(&self, body: &[u8], header: &str) -> bool {
        let signature = header.strip_prefix(PREFIX).and_then(bytes_of);
        signature.is_some_and(|signature| self.mac(body).verify_slice(&signature).is_ok())
    }

    fn mac(&self, body: &[u8]) -> Hmac<Sha256> {
        let mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret().as_bytes());
        mac.expect("HMAC takes keys of any length").chain_update(body)
    }
}

/// Returns the bytes of 64 hexadecimal digits.
fn bytes_of(digits: &str) -> Option<[u8; 32]> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok();
    let bytes: Vec<u8> = pairs.iter().map(byte).collect::<Option<_>>()?;
    bytes.try_into().ok().filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of docs.github.com, "Validating webhook deliveries".
    const EXAMPLE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    fn secret(text: &str) -> WebhookSecret {
        WebhookSecret::new(text.into()).expect("a secret")
    }

    #[test]
    fn githubs_own_example_is_signed_and_verified() {
        let secret = secret("It's a Secret to Everybody");
        assert_eq!(secret.sign(b"Hello, World!"), EXAMPLE);
        assert!(secret.verifies(b"Hello, World!", EXAMPLE));
    }

    #[test]
    fn another_body_secret_or_form_of_the_signature_is_refused() {
        let right = secret("It's a Secret to Everybody");
        assert!(!right.verifies(b"Hello, World?", EXAMPLE));
        assert!(!secret("another").verifies(b"Hello, World!", EXAMPLE));
        let digits = &EXAMPLE[PREFIX.len()..];
        for header in ["", "sha256=", digits, &EXAMPLE[..70], &format!("{EXAMPLE}0"), &format!("{EXAMPLE}00")]
        {
            assert!(!right.verifies(b"Hello, World!", header), "{header}");
        }
        assert!(!right.verifies(b"Hello, World!", &EXAMPLE.replace("sha256", "sha1")));
        assert!(!right.verifies(b"Hello, World!", &EXAMPLE.replace("57", "+7")));
    }

    #[test]
    fn an_empty_secret_is_none_and_no_secret_is_shown() {
        assert!(WebhookSecret::new("".into()).is_none());
        assert!(!format!("{:?}", secret("s3cret")).contains("s3cret"));
    }

    proptest! {
        #[test]
        fn any_body_is_verified_by_its_own_signature_alone(
            body in proptest::collection::vec(any::<u8>(), 0..200), at in 0..64_usize, header in "\\PC{0,80}",
        ) {
            let secret = secret("x");
            let signature = secret.sign(&body);
            prop_assert!(secret.verifies(&body, &signature));
            let mut wrong = signature.into_bytes();
            let at = PREFIX.len() + at;
            wrong[at] = if wrong[at] == b'0' { b'1' } else { b'0' };
            prop_assert!(!secret.verifies(&body, str::from_utf8(&wrong).expect("text")));
            prop_assert!(!secret.verifies(&body, &header));
        }
    }
}
