//! The tokens of an App's installation: requested once for all callers, renewed before they end, replaced if the forge
//! refuses one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::super::Forge;
use super::super::error::ForgeError;
use super::super::permission::{Access, Permission};
use super::super::request::Call;
use super::super::scope::RunnerScope;
use super::{AppError, GithubApp};

/// How long before its end a token is renewed.
const RENEWED_BEFORE: Duration = Duration::from_secs(5 * 60);
/// Time after a failure in which no new token is requested, if the failure stays until an admin acts, or if the old token is
/// still valid.
const FAILURE_PAUSE: Duration = Duration::from_secs(60);
/// Age below which a token that the forge refuses is not replaced, because a new one would be refused too.
const YOUNG: Duration = Duration::from_secs(60);

/// The tokens of an App's installation.
#[derive(Debug)]
pub(crate) struct AppTokens {
    app: GithubApp,
    state: Mutex<State>,
    /// Held while a token is requested.
    requesting: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    token: Option<Token>,
    /// The installation, if it was found.
    found: Option<u64>,
    failure: Option<(Instant, Arc<AppError>)>,
}

#[derive(Debug, Clone)]
struct Token {
    text: SecretString,
    begins: Instant,
    renewed_at: Instant,
    ends: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: SecretString,
    expires_at: jiff::Timestamp,
}

/// An installation of a GitHub App.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Installation {
    /// Its id.
    pub id: u64,
    /// The permissions that its owner has granted, by the names of the API, each with its access.
    #[serde(default)]
    pub permissions: BTreeMap<String, String>,
    /// Its settings page.
    #[serde(default)]
    pub html_url: Option<String>,
    /// The time of its suspension; `None` if it is not suspended.
    #[serde(default)]
    pub suspended_at: Option<String>,
}

impl Installation {
    /// Returns the access that the installation has by a permission; `None` if it lacks the permission.
    pub fn access(&self, permission: &Permission) -> Option<Access> {
        self.permissions.get(permission.name).and_then(|word| Access::parse(word))
    }
}

#[derive(Deserialize)]
struct AppAnswer {
    name: String,
}

impl AppTokens {
    pub(crate) fn new(app: GithubApp) -> Self {
        Self { app, state: Mutex::default(), requesting: tokio::sync::Mutex::default() }
    }

    pub(crate) fn app(&self) -> &GithubApp {
        &self.app
    }

    /// Returns a valid token. Callers that need a new one at the same time share one request and its failure.
    pub(crate) async fn token(&self, forge: &Forge) -> Result<SecretString, Arc<AppError>> {
        let asked = Instant::now();
        let aging = match self.state().token.clone().filter(|token| token.ends > asked) {
            Some(token) if token.renewed_at > asked => return Ok(token.text),
            aging => aging,
        };
        // The time of a request is bounded by the limits and the number of its calls.
        let _requesting = match (&aging, self.requesting.try_lock()) {
            (_, Ok(guard)) => guard,
            (Some(token), Err(_)) => return Ok(token.text.clone()),
            (None, Err(_)) => self.requesting.lock().await,
        };
        if let Some(token) = self.state().token.as_ref().filter(|token| token.renewed_at > Instant::now()) {
            return Ok(token.text.clone());
        }
        let result = match self.failure_for(asked, aging.is_some()) {
            Some(failure) => Err(failure),
            None => self.request(forge).await,
        };
        match (result, aging) {
            (Ok(text), _) => Ok(text),
            (Err(_), Some(token)) => Ok(token.text),
            (Err(error), None) => Err(error),
        }
    }

    /// Discards a token that the forge has refused. Returns true if another one may be accepted.
    pub(crate) fn refused(&self, text: &SecretString) -> bool {
        let mut state = self.state();
        match &state.token {
            Some(token) if token.text.expose_secret() != text.expose_secret() => true,
            Some(token) if token.begins.elapsed() < YOUNG => false,
            _ => {
                state.token = None;
                true
            }
        }
    }

    /// Returns the last failure if a call that has asked at this time shares it.
    fn failure_for(&self, asked: Instant, has_token: bool) -> Option<Arc<AppError>> {
        let state = self.state();
        let (failed, error) = state.failure.as_ref()?;
        let stays = (!error.is_temporary() || has_token) && failed.elapsed() < FAILURE_PAUSE;
        (*failed >= asked || stays).then(|| error.clone())
    }

    async fn request(&self, forge: &Forge) -> Result<SecretString, Arc<AppError>> {
        let result = self.request_token(forge).await.map_err(Arc::new);
        let mut state = self.state();
        match result {
            Ok(token) => {
                state.failure = None;
                let text = token.text.clone();
                state.token = Some(token);
                Ok(text)
            }
            Err(error) => {
                if state.token.is_some() {
                    tracing::warn!(app = %self.app.id, %error, "the token of the GitHub App is not renewed yet");
                }
                state.failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Requests a token, for a second time if the first answer shows how.
    async fn request_token(&self, forge: &Forge) -> Result<Token, AppError> {
        match self.request_by_clock(forge, 0).await {
            Err(AppError::Clock { ahead_s, .. }) if ahead_s != 0 => {
                tracing::warn!(
                    ahead_s,
                    "this host's clock differs from the forge's, which counts for the GitHub App; synchronise it (NTP)"
                );
                self.request_by_clock(forge, ahead_s).await
            }
            // An App that was installed again has another installation, which can be found.
            Err(AppError::NoInstallation { .. }) if self.app.installation.is_none() => {
                self.state().found = None;
                self.request_by_clock(forge, 0).await
            }
            result => result,
        }
    }

    async fn request_by_clock(&self, forge: &Forge, ahead_s: i64) -> Result<Token, AppError> {
        let now_s = dayfly_host::clock::now_s().saturating_sub(ahead_s);
        let assertion = self.app.key.assertion(&self.app.id, now_s)?;
        let known = self.app.installation.or_else(|| self.state().found);
        let installation = match known {
            Some(id) => id,
            None => self.find_installation(forge, &assertion).await?,
        };
        let path = format!("app/installations/{installation}/access_tokens");
        let call = self.call("request a token", Method::POST, forge, &path, &assertion)?;
        let began = Instant::now();
        let sent = Box::pin(forge.send(call.body(self.app.restriction()).repeatable())).await;
        let answer = sent.map_err(|error| self.explain(error, forge, Some(installation)))?;
        let given: TokenAnswer = answer.json()?;
        let now_s = answer.server_time_s().unwrap_or_else(dayfly_host::clock::now_s);
        Token::new(given, now_s, began).ok_or_else(|| {
            let (what, why) = (self.what("request a token"), "the token has expired already".to_owned());
            ForgeError::BadAnswer { what, why }.into()
        })
    }

    async fn find_installation(&self, forge: &Forge, assertion: &SecretString) -> Result<u64, AppError> {
        let scope = self.app.serves.first().ok_or(AppError::NoScope)?;
        let id = self.look_up_installation(forge, scope, assertion).await?.id;
        self.state().found = Some(id);
        Ok(id)
    }

    /// Returns the installation that a scope belongs to.
    pub(crate) async fn installation(
        &self,
        forge: &Forge,
        scope: &RunnerScope,
    ) -> Result<Installation, AppError> {
        self.look_up_installation(forge, scope, &self.assertion_by_the_forge(forge)?).await
    }

    async fn look_up_installation(
        &self,
        forge: &Forge,
        scope: &RunnerScope,
        assertion: &SecretString,
    ) -> Result<Installation, AppError> {
        let path = format!("{}/installation", scope.api_path());
        let call = self.call("find the installation", Method::GET, forge, &path, assertion)?;
        let answer = Box::pin(forge.send(call)).await;
        let answer = answer.map_err(|error| match error {
            ForgeError::NotFound { message, .. } => {
                AppError::NotInstalled { app: self.app.id.clone(), scope: scope.to_string(), message }
            }
            error => self.explain(error, forge, None),
        })?;
        Ok(answer.json()?)
    }

    /// Returns the App's name.
    pub(crate) async fn name(&self, forge: &Forge) -> Result<String, AppError> {
        let assertion = self.assertion_by_the_forge(forge)?;
        let call = self.call("look up the name", Method::GET, forge, "app", &assertion)?;
        let answer = Box::pin(forge.send(call)).await.map_err(|error| self.explain(error, forge, None))?;
        Ok(answer.json::<AppAnswer>()?.name)
    }

    /// Signs an assertion for the time of the forge, as far as an answer has told it.
    fn assertion_by_the_forge(&self, forge: &Forge) -> Result<SecretString, AppError> {
        let now_s = dayfly_host::clock::now_s().saturating_sub(forge.credential().ahead_s());
        Ok(self.app.key.assertion(&self.app.id, now_s)?)
    }

    fn call(
        &self,
        what: &str,
        method: Method,
        forge: &Forge,
        path: &str,
        assertion: &SecretString,
    ) -> Result<Call, ForgeError> {
        let base = forge.base();
        let call = Call::new(self.what(what), method, base.join(path)?);
        Ok(call.service_token("Bearer", assertion, base.url()))
    }

    fn what(&self, what: &str) -> String {
        format!("{what} of the GitHub App {}", self.app.id)
    }

    /// Converts the error of a call with an assertion.
    fn explain(&self, error: ForgeError, forge: &Forge, installation: Option<u64>) -> AppError {
        let app = self.app.id.clone();
        match (error, installation) {
            (ForgeError::ServiceToken { message, .. }, _) if is_about_time(&message) => {
                AppError::Clock { app, message, ahead_s: forge.credential().ahead_s() }
            }
            (ForgeError::ServiceToken { message, .. }, _) => AppError::WrongKey { app, message },
            (ForgeError::NotFound { message, .. }, Some(installation)) => {
                AppError::NoInstallation { app, installation, message }
            }
            (ForgeError::Forbidden { message, .. }, Some(installation)) if message.contains("suspended") => {
                AppError::Suspended { app, installation, message }
            }
            (ForgeError::Invalid { message, .. }, Some(installation)) => {
                let needs = self.app.permissions_in_words();
                AppError::NotGranted { app, installation, message, needs }
            }
            (error, _) => error.into(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Token {
    /// Measures the life of a token by the forge's clock, and its end by this host's monotonic one, because the wall clock
    /// of this host may be wrong or be set. `now_s` is the forge's time. Returns `None` if the token has expired.
    fn new(given: TokenAnswer, now_s: i64, begins: Instant) -> Option<Self> {
        let life_s = u64::try_from(given.expires_at.as_second().saturating_sub(now_s))
            .ok()
            .filter(|life| *life > 0)?;
        let life = Duration::from_secs(life_s.min(24 * 3600));
        let renewed_after = life.saturating_sub(RENEWED_BEFORE).max(life / 2);
        Some(Self { text: given.token, begins, renewed_at: begins + renewed_after, ends: begins + life })
    }
}

/// Returns true if a forge refuses the times of an assertion. GitHub's messages name the claim.
fn is_about_time(message: &str) -> bool {
    message.contains("('exp')") || message.contains("('iat')")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tests::rsa_key;
    use crate::tests::scripted::{Reply, ScriptedForge};
    use crate::{ApiBase, AppKey, Credential, Deletion, RunnerScope};

    #[tokio::test]
    async fn a_token_that_the_forge_refuses_in_the_middle_of_its_life_is_replaced_once() {
        let server = ScriptedForge::start(|request| match request.bearer.as_str() {
            "old" => Reply::new(401, json!({"message": "Bad credentials"})),
            "new" => Reply::new(204, ""),
            _ => Reply::new(201, json!({"token": "new", "expires_at": "2100-01-01T00:00:00Z"})),
        })
        .await;
        let scope = RunnerScope::Organization("o".into());
        let key = AppKey::from_pem(rsa_key().pkcs8.clone().into()).unwrap();
        let app = GithubApp::new("12", key, vec![scope.clone()]).unwrap().installation(5);
        let tokens = AppTokens::new(app);
        let (begins, later) = (Instant::now() - YOUNG, Instant::now() + YOUNG);
        tokens.state().token = Some(Token { text: "old".into(), begins, renewed_at: later, ends: later });
        let base = ApiBase::from_host_or_url(&server.url).unwrap();
        let forge = Forge::new(base, Credential::of_tokens(tokens)).unwrap();
        assert_eq!(forge.delete_runner(&scope, 7).await.unwrap(), Deletion::Deleted);
        let bearers: Vec<String> =
            server.requests("DELETE").into_iter().map(|request| request.bearer).collect();
        assert_eq!(bearers, ["old", "new"]);
        assert_eq!(server.requests("access_tokens").len(), 1);
    }

    fn token(life_s: i64) -> Option<(u64, u64)> {
        let (now_s, begins) = (1_700_000_000, Instant::now());
        let expires_at = jiff::Timestamp::from_second(now_s + life_s).unwrap();
        let token = Token::new(TokenAnswer { token: "t".into(), expires_at }, now_s, begins)?;
        Some(((token.renewed_at - begins).as_secs(), (token.ends - begins).as_secs()))
    }

    #[test]
    fn a_token_is_renewed_five_minutes_before_its_end() {
        assert_eq!(token(3600), Some((3300, 3600)));
        assert_eq!(token(60), Some((30, 60)), "one that is short-lived at half of its life");
        assert_eq!(token(1_000_000_000), Some((24 * 3600 - 300, 24 * 3600)));
        assert_eq!(token(0), None);
        assert_eq!(token(-5), None);
    }

    #[test]
    fn githubs_words_about_times_are_known() {
        for message in [
            "'Expiration time' claim ('exp') is too far in the future",
            "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires",
            "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued",
        ] {
            assert!(is_about_time(message), "{message}");
        }
        assert!(!is_about_time("A JSON web token could not be decoded"));
    }
}
