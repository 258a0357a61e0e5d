//! Client assertions: the signed claims that a runner exchanges for an access token (RFC 7523).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use dayfly_forge::jit::RsaParameters;
use rsa::BoxedUint;
use rsa::sha2::Sha256;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

/// Signs claims as a JWT (RFC 7519) with the key of a JIT config. `algorithm` is `PS256` or `RS256`. Returns `None` if the
/// numbers are no RSA key.
pub fn sign(key: &RsaParameters, algorithm: &str, claims: &Value) -> Option<String> {
    let number = |text: &str| Some(BoxedUint::from_be_slice_vartime(&STANDARD.decode(text).ok()?));
    let key = rsa::PrivateKey::from_p_q(
        number(key.p.expose_secret())?,
        number(key.q.expose_secret())?,
        number(&key.exponent)?,
    )
    .ok()?;
    let head = json!({"alg": algorithm, "typ": "JWT"}).to_string();
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = match algorithm {
        "PS256" => key.pss_sign::<Sha256>(signed.as_bytes()),
        _ => key.pkcs1v15_sign::<Sha256>(signed.as_bytes()),
    };
    Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.ok()?)))
}
