//! [`Credential`]: the right to make calls, and the budget that comes with it.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use secrecy::{ExposeSecret as _, SecretString};

use super::Forge;
use super::app::{AppError, AppTokens, GithubApp};
use super::budget::{Budget, Usage};
use super::error::ForgeError;
use super::proof;

/// Differences between the clocks of this host and a forge up to this are normal.
const CLOCK_TOLERANCE_S: u64 = 30;
/// No answer has told the forge's time yet.
const NO_DATE: i64 = i64::MIN;

/// A credential for one forge: a personal access token, or an installation of a GitHub App. Clones share the budget of calls
/// and an App's tokens, so all clients of a process that use the same credential must have clones of one value.
#[derive(Clone)]
pub struct Credential(Arc<Inner>);

struct Inner {
    kind: RwLock<Arc<Kind>>,
    budget: Budget,
    /// Seconds by which this host's clock is ahead of the forge's, by the last answer with a date; [`NO_DATE`] before it.
    ahead_s: AtomicI64,
}

/// The kind of a credential, as far as its text shows it
/// (<https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    /// A classic personal access token, whose scopes the forge states in each answer.
    Classic,
    /// A fine-grained personal access token. The forge does not state its permissions.
    FineGrained,
    /// A token that an OAuth app, an App for a user, or an installation has made elsewhere; it ends soon.
    OfApp,
    /// The token of a lab, which may do everything there.
    Lab,
    /// A token of a form that is not known, such as those of old GHES.
    Other,
    /// A GitHub App with its private key.
    App,
}

enum Kind {
    Token(SecretString),
    App(Arc<AppTokens>),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.secret() {
            Kind::Token(token) => f.debug_tuple("Token").field(token).finish(),
            Kind::App(tokens) => f.debug_tuple("App").field(&tokens.app().id()).finish(),
        }
    }
}

impl Credential {
    fn new(kind: Kind) -> Self {
        let kind = RwLock::new(Arc::new(kind));
        Self(Arc::new(Inner { kind, budget: Budget::new(), ahead_s: AtomicI64::new(NO_DATE) }))
    }

    /// Returns the secret that is in use.
    fn secret(&self) -> Arc<Kind> {
        self.0.kind.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns true if this credential has the same secret as another one, and can do everything that the other one can.
    pub fn covers(&self, other: &Self) -> bool {
        match (&*self.secret(), &*other.secret()) {
            (Kind::Token(one), Kind::Token(other)) => one.expose_secret() == other.expose_secret(),
            (Kind::App(one), Kind::App(other)) => one.app().covers(other.app()),
            _ => false,
        }
    }

    /// Uses the secret of another credential from now on, in all clones. Returns a credential with the secret that was used
    /// before. The budget of calls stays.
    pub fn adopt(&self, other: &Self) -> Self {
        let kind = other.secret();
        let before =
            std::mem::replace(&mut *self.0.kind.write().unwrap_or_else(PoisonError::into_inner), kind);
        Self(Arc::new(Inner {
            kind: RwLock::new(before),
            budget: Budget::new(),
            ahead_s: AtomicI64::new(NO_DATE),
        }))
    }

    /// Creates a credential of a token: a personal access token, classic or fine-grained, or a lab's token.
    pub fn token(token: impl Into<SecretString>) -> Self {
        Self::new(Kind::Token(token.into()))
    }

    /// Creates a credential of an installation of a GitHub App.
    pub fn app(app: GithubApp) -> Self {
        Self::of_tokens(AppTokens::new(app))
    }

    pub(super) fn of_tokens(tokens: AppTokens) -> Self {
        Self::new(Kind::App(Arc::new(tokens)))
    }

    /// Returns the calls that this process has made with the credential, and what is left of its limits.
    pub fn usage(&self) -> Usage {
        self.0.budget.usage()
    }

    /// Returns the kind of the credential.
    pub fn kind(&self) -> CredentialKind {
        let secret = self.secret();
        let token = match &*secret {
            Kind::Token(token) => token.expose_secret(),
            Kind::App(_) => return CredentialKind::App,
        };
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| token.starts_with(prefix));
        match token {
            _ if begins(&["ghp_"]) => CredentialKind::Classic,
            _ if begins(&["github_pat_"]) => CredentialKind::FineGrained,
            _ if begins(&["gho_", "ghu_", "ghs_"]) => CredentialKind::OfApp,
            _ if proof::is_token(token) => CredentialKind::Lab,
            _ => CredentialKind::Other,
        }
    }

    /// Returns the seconds by which this host's clock is ahead of the forge's, by the last answer that had a date.
    pub fn clock_ahead_s(&self) -> Option<i64> {
        Some(self.0.ahead_s.load(Ordering::Relaxed)).filter(|ahead_s| *ahead_s != NO_DATE)
    }

    /// Returns the tokens of the GitHub App, if the credential is one.
    pub(super) fn app_tokens(&self) -> Option<Arc<AppTokens>> {
        match &*self.secret() {
            Kind::Token(_) => None,
            Kind::App(tokens) => Some(Arc::clone(tokens)),
        }
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.0.budget
    }

    /// Returns the token for the next call. `forge` is the client that asks; an App's token may have to be requested.
    pub(super) async fn bearer(&self, forge: &Forge) -> Result<SecretString, Arc<AppError>> {
        match &*self.secret() {
            Kind::Token(token) => Ok(token.clone()),
            Kind::App(tokens) => tokens.token(forge).await,
        }
    }

    /// Takes note that the forge does not accept a token. Returns true if the call may succeed with another one.
    pub(super) fn refused(&self, token: &SecretString) -> bool {
        match &*self.secret() {
            Kind::Token(_) => false,
            Kind::App(tokens) => tokens.refused(token),
        }
    }

    /// Converts the refusal of a call's token into the error of the credential.
    pub(super) fn explain(&self, error: ForgeError) -> ForgeError {
        match (error, &*self.secret()) {
            (ForgeError::Unauthorized { what, message, .. }, Kind::App(tokens)) => {
                let app = tokens.app().id().to_owned();
                ForgeError::App { what, source: Arc::new(AppError::TokenRefused { app, message }) }
            }
            (error, _) => error,
        }
    }

    /// Stores the time of an answer, in seconds since 1970 by the forge's clock and by this host's.
    pub(super) fn compare_clocks(&self, forge_s: i64, host_s: i64) {
        self.0.ahead_s.store(host_s.saturating_sub(forge_s), Ordering::Relaxed);
    }

    /// Returns the seconds by which this host's clock is ahead of the forge's; zero if that is no cause of trouble.
    pub(super) fn ahead_s(&self) -> i64 {
        self.clock_ahead_s().filter(|ahead_s| ahead_s.unsigned_abs() > CLOCK_TOLERANCE_S).unwrap_or(0)
    }
}

impl From<SecretString> for Credential {
    fn from(token: SecretString) -> Self {
        Self::token(token)
    }
}

impl From<&str> for Credential {
    fn from(token: &str) -> Self {
        Self::token(token)
    }
}

impl From<GithubApp> for Credential {
    fn from(app: GithubApp) -> Self {
        Self::app(app)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debugging_output_shows_no_token() {
        assert!(!format!("{:?}", Credential::token("ghp_XXXX")).contains("ghp"));
    }

    #[tokio::test]
    async fn all_clones_use_an_adopted_secret_until_the_old_one_comes_back() {
        let forge = |credential: &Credential| {
            let base = crate::ApiBase::from_host_or_url("http://127.0.0.1:1").expect("an address");
            Forge::new(base, credential.clone()).expect("a client")
        };
        let bearer = async |credential: &Credential| {
            credential.bearer(&forge(credential)).await.expect("a token").expose_secret().to_owned()
        };
        let (used, fresh) = (Credential::token("old"), Credential::token("new"));
        let clone = used.clone();
        assert!(!used.covers(&fresh));
        let before = used.adopt(&fresh);
        assert_eq!((bearer(&clone).await.as_str(), clone.covers(&fresh)), ("new", true));
        used.adopt(&before);
        assert_eq!(bearer(&clone).await, "old");
    }

    #[test]
    fn the_kind_of_a_token_is_known_by_its_beginning() {
        let kind = |token: &str| Credential::token(token).kind();
        assert_eq!(kind("ghp_XXXX"), CredentialKind::Classic);
        assert_eq!(kind("github_pat_XXXX"), CredentialKind::FineGrained);
        assert_eq!(kind("ghs_XXXX"), CredentialKind::OfApp);
        assert_eq!(kind(&proof::new_token()), CredentialKind::Lab);
        assert_eq!(kind("0123456789abcdef"), CredentialKind::Other);
    }

    #[test]
    fn small_differences_of_clocks_do_not_count() {
        let credential = Credential::token("x");
        assert_eq!((credential.clock_ahead_s(), credential.ahead_s()), (None, 0));
        for (forge_s, host_s, ahead_s) in
            [(100, 130, 0), (100, 131, 31), (131, 100, -31), (i64::MIN, 1, i64::MAX)]
        {
            credential.compare_clocks(forge_s, host_s);
            assert_eq!(credential.ahead_s(), ahead_s);
        }
    }
}
