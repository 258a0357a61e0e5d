//! The way to the Actions Service: its address and the admin token, renewed before the token ends.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dayfly_host::retry::NEW_TOKEN;
use reqwest::{Method, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::address::trusted;
use crate::request::{ApiAnswer, Call};
use crate::{Forge, ForgeError, RegistrationToken, RunnerScope};

/// A token is renewed this long before its end, as the official client does, or after half of a shorter life.
const MARGIN: Duration = Duration::from_secs(60);
/// Life of a token that does not tell its end. A token that ends earlier is refused, and then renewed.
const UNKNOWN_LIFE: Duration = Duration::from_secs(600);
/// Bounds of a token's life, because the forge's clock may be wrong.
const LIFE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(24 * 3600));
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// The access to the Actions Service of a scope. Callers that need a token at the same time wait for one exchange and share
/// its outcome.
#[derive(Debug, Default)]
pub(super) struct Connection(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    admin: Option<Admin>,
    /// The last failed exchange and its time, for the callers that waited for it.
    failed: Option<(Instant, Arc<ForgeError>)>,
}

/// The address of the service and a token for it.
#[derive(Debug, Clone)]
pub(super) struct Admin {
    /// The address, with a slash at its end.
    pub(super) service: Url,
    pub(super) token: SecretString,
    renew_at: Instant,
}

impl Connection {
    /// Returns a token that has not ended. Waits while another caller renews it.
    pub(super) async fn admin(&self, forge: &Forge, scope: &RunnerScope) -> Result<Admin, ForgeError> {
        self.renewed(forge, scope, None).await
    }

    /// Like [`Self::admin`], but returns another token than `refused`, which the service has refused.
    pub(super) async fn renewed(
        &self,
        forge: &Forge,
        scope: &RunnerScope,
        refused: Option<&Admin>,
    ) -> Result<Admin, ForgeError> {
        let asked_at = Instant::now();
        let mut state = self.0.lock().await;
        let is_refused = |admin: &Admin| {
            refused.is_some_and(|refused| refused.token.expose_secret() == admin.token.expose_secret())
        };
        if let Some(admin) = &state.admin
            && Instant::now() < admin.renew_at
            && !is_refused(admin)
        {
            return Ok(admin.clone());
        }
        if let Some((at, error)) = &state.failed
            && *at >= asked_at
        {
            return Err(ForgeError::Shared(error.clone()));
        }
        match exchange(forge, scope).await {
            Ok(admin) => {
                *state = State { admin: Some(admin.clone()), failed: None };
                Ok(admin)
            }
            Err(error) => {
                let error = Arc::new(error);
                state.failed = Some((Instant::now(), error.clone()));
                Err(ForgeError::Shared(error))
            }
        }
    }
}

/// Exchanges a registration token for an admin token. A token that was just made may be unknown to some servers of the forge,
/// which refuse it by 401 or 403 for some seconds. After a 404 one more token is made.
async fn exchange(forge: &Forge, scope: &RunnerScope) -> Result<Admin, ForgeError> {
    let (mut refusals, mut was_unknown) = (0, false);
    let mut token = forge.registration_token(scope).await?;
    loop {
        match register(forge, scope, &token).await {
            Ok(answer) => return read(&answer, forge.base().url()),
            Err(error @ (ForgeError::ServiceToken { .. } | ForgeError::Forbidden { .. })) => {
                refusals += 1;
                let Some(pause) = NEW_TOKEN.pause_after(refusals) else { return Err(error) };
                tokio::time::sleep(pause).await;
            }
            Err(ForgeError::NotFound { .. }) if !was_unknown => {
                was_unknown = true;
                token = forge.registration_token(scope).await?;
            }
            Err(error) => return Err(with_hint(error)),
        }
    }
}

async fn register(
    forge: &Forge,
    scope: &RunnerScope,
    token: &RegistrationToken,
) -> Result<ApiAnswer, ForgeError> {
    let base = forge.base();
    let web = format!("{}/{}", base.web_url(), scope.web_path());
    let call = Call::new(what(scope), Method::POST, base.join("actions/runner-registration")?)
        .body(json!({"url": web, "runner_event": "register"}))
        .service_token("RemoteAuth", &token.token, base.url())
        .answer_bytes_max(ANSWER_BYTES_MAX)
        // Each call returns a token and changes nothing.
        .repeatable();
    forge.send(call).await
}

fn what(scope: &RunnerScope) -> String {
    format!("reach the Actions Service of {scope}, which has its scale sets")
}

/// The forge answers 404 if Actions are off, which its message does not tell.
fn with_hint(mut error: ForgeError) -> ForgeError {
    if let ForgeError::NotFound { needs, .. } = &mut error {
        needs.get_or_insert_with(|| "GitHub Actions to be enabled there".to_owned());
    }
    error
}

fn read(answer: &ApiAnswer, forge: &Url) -> Result<Admin, ForgeError> {
    #[derive(Deserialize)]
    struct Exchanged {
        url: String,
        token: SecretString,
    }
    let Exchanged { mut url, token } = answer.json()?;
    if token.expose_secret().is_empty() {
        return Err(answer.bad("it has no token"));
    }
    if !url.ends_with('/') {
        url.push('/');
    }
    let service = trusted(&url, forge).map_err(|why| answer.bad(why))?;
    // The end of the token is compared with the clock of the server that made it, because this host's may be wrong.
    let now_s = answer.server_time_s().unwrap_or_else(dayfly_host::clock::now_s);
    let life = life(token.expose_secret(), now_s).unwrap_or(UNKNOWN_LIFE).clamp(LIFE.0, LIFE.1);
    Ok(Admin { service, token, renew_at: Instant::now() + life - MARGIN.min(life / 2) })
}

/// Returns how long a token lives: the claim `exp` of a JWT (RFC 7519), whose signature only the service can check.
fn life(token: &str, now_s: i64) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        exp: serde_json::Number,
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?.trim_end_matches('=')).ok()?;
    let exp = serde_json::from_slice::<Claims>(&claims).ok()?.exp;
    let exp_s = exp.as_i64().or_else(|| exp.as_f64().map(|seconds| seconds as i64))?;
    Some(Duration::from_secs(u64::try_from(exp_s.saturating_sub(now_s)).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn the_life_of_a_token_is_in_the_token() {
        assert_eq!(life(&jwt(r#"{"exp":1100}"#), 1000), Some(Duration::from_secs(100)));
        assert_eq!(life(&jwt(r#"{"exp":1100.9,"nbf":1}"#), 1000), Some(Duration::from_secs(100)));
        assert_eq!(life(&jwt(r#"{"exp":900}"#), 1000), Some(Duration::ZERO));
        assert_eq!(life(&jwt(r#"{"exp":-9223372036854775808}"#), i64::MAX), Some(Duration::ZERO));
        for token in ["", "opaque", "a.b.c", &jwt("{}"), &jwt(r#"{"exp":"soon"}"#), &jwt("[")] {
            assert_eq!(life(token, 0), None, "{token}");
        }
    }
}
