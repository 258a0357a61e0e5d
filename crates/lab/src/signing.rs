//! The lab's own tokens: JWTs signed with a key that only this lab has (HS256, RFC 7519 and RFC 2104).
//!
//! The lab issues such tokens to runners, for jobs, in signed addresses and to runner apps that register themselves. It
//! stores nothing about them, so they outlive a restart of the lab. They are JWTs because actions/runner decodes the
//! job's token and fails on any other form.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

use super::state::Scope;
use secrecy::{ExposeSecret as _, SecretSlice};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The permission that a token grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "use", rename_all = "snake_case")]
pub(crate) enum Grant {
    /// For a runner: its session, its messages and `acquirejob`.
    Runner { runner: u64 },
    /// For a job: `renewjob`, `completejob`, results and live feed.
    Job { job: u64 },
    /// For one blob of one job, through a signed address.
    Blob { job: u64, blob: Blob },
    /// For reading one job's log, through a signed address.
    Log { job: u64 },
    /// For registering or removing runners of one scope, and for managing its scale sets.
    Registration { scope: Scope, purpose: Purpose },
    /// For an installation of a GitHub App: calls that its permissions allow, for these repositories or all.
    App { permissions: BTreeMap<String, String>, repositories: Option<Vec<String>> },
    /// For the message queue of a scale set, in one session.
    Queue { scale_set: u64, session: String },
}

/// The purpose of a registration token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Purpose {
    /// Registering runners, and removing them too, as at GitHub.
    Register,
    /// Only removing runners.
    Remove,
}

/// A blob of a job that a runner uploads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Blob {
    /// The log of one step, identified by the step's GUID.
    StepLog(String),
    /// The log of the job.
    JobLog,
    /// The summary of one step, identified by the step's GUID in its hyphenated form.
    StepSummary(String),
    /// Blobs that are accepted and discarded: diagnostics.
    Ignored,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    #[serde(flatten)]
    grant: Grant,
    /// The expiry, in seconds since 1970.
    exp: i64,
    iat: i64,
    /// actions/runner reads this claim of the job's token.
    orch_id: String,
}

/// Signs and verifies tokens.
#[derive(Debug, Clone)]
pub(crate) struct Signer {
    key: SecretSlice<u8>,
}

impl Signer {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self { key: key.to_vec().into() }
    }

    /// Returns a token for `grant` that is valid for `seconds` from now.
    pub(crate) fn issue(&self, grant: Grant, now_ms: i64, seconds: i64) -> String {
        let iat = now_ms / 1000;
        let claims = Claims { grant, exp: iat + seconds, iat, orch_id: "dayfly-lab".to_owned() };
        let head = BASE64.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let body = BASE64.encode(serde_json::to_vec(&claims).expect("claims are plain data"));
        let signed = format!("{head}.{body}");
        let signature = BASE64.encode(self.mac(&signed).finalize().into_bytes());
        format!("{signed}.{signature}")
    }

    /// Returns the grant of `token`, if this lab issued the token and it has not expired.
    pub(crate) fn check(&self, token: &str, now_ms: i64) -> Option<Grant> {
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = BASE64.decode(signature).ok()?;
        // `verify_slice` compares in constant time.
        self.mac(signed).verify_slice(&signature).ok()?;
        let claims: Claims = serde_json::from_slice(&BASE64.decode(signed.split_once('.')?.1).ok()?).ok()?;
        (now_ms / 1000 < claims.exp).then_some(claims.grant)
    }

    fn mac(&self, signed: &str) -> Hmac<Sha256> {
        Hmac::new_from_slice(self.key.expose_secret())
            .expect("HMAC takes keys of any length")
            .chain_update(signed.as_bytes())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_token_grants_what_it_was_issued_for_until_it_is_too_old() {
        let signer = Signer::new([7; 32]);
        let token = signer.issue(Grant::Job { job: 3 }, 1_000_000, 60);
        assert_eq!(signer.check(&token, 1_059_000), Some(Grant::Job { job: 3 }));
        assert_eq!(signer.check(&token, 1_060_000), None);
        assert_eq!(Signer::new([8; 32]).check(&token, 1_000_000), None);
    }

    #[test]
    fn a_changed_token_grants_nothing() {
        let signer = Signer::new([7; 32]);
        let token = signer.issue(Grant::Runner { runner: 1 }, 0, 60);
        let other = signer.issue(Grant::Runner { runner: 2 }, 0, 60);
        let body = |token: &str| token.split('.').nth(1).unwrap().to_owned();
        assert_eq!(signer.check(&token.replace(&body(&token), &body(&other)), 0), None);
        for junk in ["", ".", "..", "a.b.c", "\u{1f600}"] {
            assert_eq!(signer.check(junk, 0), None);
        }
    }
}
