//! RSA keys of runners: generated in advance, issued in JIT configs, and used to verify the runners' signatures.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rsa::BoxedUint;
use rsa::sha2::Sha256;
use rsa::traits::{PrivateKeyParts as _, PublicKeyParts as _};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use dayfly_forge::jit::RsaParameters;

/// The key size that runner apps expect. actions/runner 2.336.0 generates keys of this size too.
const KEY_BITS: usize = 2048;

/// A runner's public key as the lab stores it: big-endian numbers in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PublicKey {
    pub(crate) modulus: String,
    pub(crate) exponent: String,
}

/// A new key: the public half, which the lab stores, and the private half, which it gives to the runner.
pub(crate) struct KeyPair {
    pub(crate) public: PublicKey,
    pub(crate) private: RsaParameters,
}

/// A stock of keys that are generated in advance, because generating one takes a tenth of a second to several seconds.
/// That is too long for a caller to wait.
pub(crate) struct KeyPool {
    ready: tokio::sync::Mutex<mpsc::Receiver<KeyPair>>,
}

impl KeyPool {
    /// Starts a thread that keeps `ready` keys in stock. The thread exits after the pool is dropped.
    pub(crate) fn start(ready: usize) -> std::io::Result<Self> {
        let (stock, keys) = mpsc::channel(ready.max(1));
        std::thread::Builder::new().name("lab-keys".to_owned()).spawn(move || {
            while !stock.is_closed() {
                let Some(key) = KeyPair::generate() else { continue };
                if stock.blocking_send(key).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { ready: tokio::sync::Mutex::new(keys) })
    }

    /// Returns the next key; waits for one if the stock is empty. Returns `None` if the thread that generates keys has
    /// died.
    pub(crate) async fn take(&self) -> Option<KeyPair> {
        self.ready.lock().await.recv().await
    }
}

impl KeyPair {
    /// Generates a key. Returns `None` if the system's random numbers fail or if the key cannot be put into CRT form.
    pub(crate) fn generate() -> Option<Self> {
        let key = rsa::PrivateKey::new(&mut rand::rng(), KEY_BITS).ok()?;
        let public =
            PublicKey { modulus: STANDARD.encode(key.n_bytes()), exponent: STANDARD.encode(key.e_bytes()) };
        let [p, q] = key.primes() else { return None };
        // .NET requires the private numbers to be as long as the modulus or half of it, including leading zeros.
        let number = |number: &BoxedUint, len: usize| -> SecretString {
            let bytes = number.to_be_bytes_trimmed_vartime();
            let mut padded = vec![0_u8; len.saturating_sub(bytes.len())];
            padded.extend_from_slice(&bytes);
            STANDARD.encode(padded).into()
        };
        let (whole, half) = (KEY_BITS / 8, KEY_BITS / 16);
        let private = RsaParameters {
            d: number(key.d(), whole),
            dp: number(key.dp()?, half),
            dq: number(key.dq()?, half),
            exponent: public.exponent.clone(),
            inverse_q: number(&key.qinv()?.retrieve(), half),
            modulus: public.modulus.clone(),
            p: number(p.as_ref(), half),
            q: number(q.as_ref(), half),
        };
        Some(Self { public, private })
    }
}

/// The claims of a client assertion that the lab reads.
#[derive(Debug, Deserialize)]
pub(crate) struct Assertion {
    pub(crate) iss: String,
    #[serde(default)]
    pub(crate) nbf: i64,
    pub(crate) exp: i64,
}

/// Decodes a client assertion without verifying it, to find the client whose key must verify it.
pub(crate) fn read_assertion(token: &str) -> Option<Assertion> {
    let body = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body.trim_end_matches('=')).ok()?).ok()
}

/// Shortest accepted modulus. The crate `rsa` accepts none above 4096 bits.
const MODULUS_BYTES_MIN: usize = 256;
const XML_LEN_MAX: usize = 4096;

impl PublicKey {
    /// Parses `<RSAKeyValue><Modulus>...</Modulus><Exponent>...</Exponent></RSAKeyValue>`, the form in which runner apps
    /// send their key (.NET's `RSA.ToXmlString`). Returns `None` if the text is not a valid key.
    pub(crate) fn from_xml(xml: &str) -> Option<Self> {
        let inner = xml.trim().strip_prefix("<RSAKeyValue>")?.strip_suffix("</RSAKeyValue>")?;
        let element = |name: &str| {
            let (_, rest) = inner.split_once(&format!("<{name}>"))?;
            Some(rest.split_once(&format!("</{name}>"))?.0.trim().to_owned())
        };
        let key = Self { modulus: element("Modulus")?, exponent: element("Exponent")? };
        let long_enough = STANDARD.decode(&key.modulus).ok()?.len() >= MODULUS_BYTES_MIN;
        (xml.len() <= XML_LEN_MAX && long_enough && key.number().is_some()).then_some(key)
    }

    fn number(&self) -> Option<rsa::PublicKey> {
        let number = |text: &str| Some(BoxedUint::from_be_slice_vartime(&STANDARD.decode(text).ok()?));
        rsa::PublicKey::new(number(&self.modulus)?, number(&self.exponent)?).ok()
    }

    /// Returns true if `token` is a JWT signed by this key with RS256 or PS256 (RFC 7518, sections 3.3 and 3.5).
    pub(crate) fn signed(&self, token: &str) -> bool {
        self.verify(token).is_some()
    }

    fn verify(&self, token: &str) -> Option<()> {
        #[derive(Deserialize)]
        struct Head {
            alg: String,
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (head, _) = signed.split_once('.')?;
        let head: Head = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).ok()?).ok()?;
        let signature = URL_SAFE_NO_PAD.decode(signature.trim_end_matches('=')).ok()?;
        let key = self.number()?;
        match head.alg.as_str() {
            "PS256" => key.pss_verify::<Sha256>(signed.as_bytes(), &signature).ok(),
            "RS256" => key.pkcs1v15_verify::<Sha256>(signed.as_bytes(), &signature).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    /// Signs a client assertion with the private half, as a runner app does.
    fn sign(private: &RsaParameters, algorithm: &str, claims: &serde_json::Value) -> String {
        dayfly_light_runner::sign(private, algorithm, claims).unwrap()
    }

    #[test]
    fn assertions_of_the_own_key_pass_and_others_do_not() {
        let (own, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let claims = serde_json::json!({"iss": "me", "nbf": 1, "exp": 2});
        for alg in ["PS256", "RS256"] {
            let token = sign(&own.private, alg, &claims);
            assert!(own.public.signed(&token), "{alg}");
            assert!(!other.public.signed(&token), "{alg}");
            assert_eq!(read_assertion(&token).unwrap().iss, "me");
            let (signed, signature) = token.rsplit_once('.').unwrap();
            assert!(!own.public.signed(&format!("{signed}x.{signature}")), "{alg}");
        }
        let unsigned =
            sign(&own.private, "PS256", &claims).replacen("eyJhbGciOiJQUzI1NiIs", "eyJhbGciOiJub25lIiwg", 1);
        assert!(!own.public.signed(&unsigned));
        assert!(!own.public.signed("a.b.c"));
    }

    #[test]
    fn a_key_is_read_as_dotnet_writes_it_and_nothing_else() {
        let key = KeyPair::generate().unwrap().public;
        let xml = |modulus: &str, exponent: &str| {
            format!("<RSAKeyValue><Modulus>{modulus}</Modulus><Exponent>{exponent}</Exponent></RSAKeyValue>")
        };
        assert_eq!(PublicKey::from_xml(&xml(&key.modulus, &key.exponent)), Some(key.clone()));
        let long = STANDARD.encode([0xff; 2048]);
        for (modulus, exponent) in [
            ("", "AQAB"),
            ("AQAB", "AQAB"),
            ("%%", "AQAB"),
            (&key.modulus, ""),
            (&key.modulus, "Ag=="),
            (&long, "AQAB"),
        ] {
            assert_eq!(PublicKey::from_xml(&xml(modulus, exponent)), None, "{modulus} {exponent}");
        }
        for junk in ["", "<RSAKeyValue></RSAKeyValue>", "<Modulus>AQAB</Modulus>"] {
            assert_eq!(PublicKey::from_xml(junk), None);
        }
    }

    #[test]
    fn private_numbers_have_the_lengths_that_dotnet_wants() {
        let key = KeyPair::generate().unwrap().private;
        let len = |text: &str| STANDARD.decode(text).unwrap().len();
        assert_eq!((len(key.d.expose_secret()), len(&key.modulus), len(&key.exponent)), (256, 256, 3));
        for half in [&key.p, &key.q, &key.dp, &key.dq, &key.inverse_q] {
            assert_eq!(len(half.expose_secret()), 128);
        }
    }
}
