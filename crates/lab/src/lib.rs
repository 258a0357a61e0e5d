//! The lab: a GitHub-compatible forge of dayfly's own, for trying, testing and load.
//!
//! ```text
//!  people, dayfly          /api/v3/...  REST as GHES: workflows, runs, jobs, logs, runners, JIT configs, Apps
//!        \                 /lab/v1/...  the lab's own: the stream of events, summaries of jobs, the fault desk
//!         listener (http) -----------------> hub (one thread) -> state -> journal, logs
//!        /                 /runner/...  protocol V2: OAuth, session, messages, run service, results, live feed
//!  runner apps                                          |-> events -> subscribers
//!                                                       \-> deliveries -> webhooks
//! ```
//!
//! One thread owns the state ([`hub`]). The handlers send it work and wait for the answer. State that must outlive a
//! restart is written to the journal before the answer is sent. Every call needs the admin token, a token
//! or the signature of a GitHub App, a runner's token or a job's token; only the code of a new App is its own proof.
//!
//! Protocol facts were read in actions/runner 2.336.0 and observed with github-act-runner 0.13.0; the comments say which.

mod error;
mod event;
pub mod expression;
pub mod fault;
mod hook_sender;
mod http;
mod hub;
mod journal;
mod keys;
mod log_file;
mod mask;
mod nearest;
mod pem;
#[cfg(any(test, feature = "fuzzing"))]
pub mod properties;
mod refusal;
mod server;
mod settings;
mod signing;
mod state;
#[cfg(test)]
mod tests;
mod visible;
pub mod workflow;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::{Notify, broadcast};

pub use dayfly_forge::proof::TOKEN_FILE;
pub use error::LabError;
pub use event::{LabEvent, LabEventKind, LabEvents, Lagged};
pub use settings::{Clock, LabSettings, Limits};

use hub::Hub;
use keys::KeyPool;
use state::LabState;

/// Longest runner URL. A host name has at most 253 characters.
const RUNNER_URL_LEN_MAX: usize = 300;

/// Interval at which deadlines are checked.
const TICK: Duration = Duration::from_millis(250);

/// An open lab, which is not necessarily served. Clones refer to the same lab.
#[derive(Clone)]
pub struct Lab {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) hub: Hub,
    pub(crate) keys: KeyPool,
    pub(crate) token: SecretString,
    /// The path of the token's file. `None` if the caller chose the token.
    pub(crate) token_file: Option<String>,
    pub(crate) signer: signing::Signer,
    pub(crate) clock: Clock,
    pub(crate) limits: Limits,
    /// Wakes the task that sends the deliveries of webhooks.
    pub(crate) hook_work: Arc<Notify>,
    /// True if the fault desk has rules for calls.
    pub(crate) has_faults_of_calls: Arc<AtomicBool>,
    runner_url: Option<String>,
    events: broadcast::Sender<Arc<LabEvent>>,
}

impl Inner {
    /// Returns the address at which guests reach the lab if it listens on this port.
    pub(crate) fn runner_url_at(&self, port: u16) -> String {
        self.runner_url.clone().unwrap_or_else(|| format!("http://10.0.2.2:{port}"))
    }
}

impl std::fmt::Debug for Lab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lab").field("runner_url", &self.inner.runner_url).finish_non_exhaustive()
    }
}

impl Lab {
    /// Opens the lab in a folder, with all state that an earlier process stored there.
    ///
    /// # Errors
    /// If the folder cannot be used or belongs to another running lab, or if the runner URL is invalid.
    pub fn open(settings: LabSettings) -> Result<Self, LabError> {
        let runner_url = settings.runner_url.as_deref().map(check_runner_url).transpose()?;
        let state = LabState::open(&settings)?;
        let token_path = settings.data.join(TOKEN_FILE);
        let token = match &settings.token {
            Some(token) => token.clone(),
            None => state::read_or_make(&token_path, dayfly_forge::proof::new_token)
                .map_err(|source| LabError::Data { path: token_path.clone(), source })?
                .into(),
        };
        // A token that the caller chose is in no file, so such a lab cannot prove itself.
        let token_file = match settings.token {
            None => std::fs::canonicalize(&token_path).ok().and_then(|path| path.to_str().map(str::to_owned)),
            Some(_) => None,
        };
        let inner = Inner {
            keys: KeyPool::start(settings.limits.keys_ready).map_err(LabError::Thread)?,
            token,
            token_file,
            signer: state.signer.clone(),
            clock: settings.clock.clone(),
            limits: settings.limits.clone(),
            runner_url,
            events: state.bus.sender(),
            hook_work: Arc::clone(&state.hook_work),
            has_faults_of_calls: state.faults.has_rules_for_calls(),
            hub: Hub::start(state).map_err(LabError::Thread)?,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns the admin token.
    pub fn token(&self) -> &SecretString {
        &self.inner.token
    }

    /// Subscribes to the events from now on.
    pub fn subscribe(&self) -> LabEvents {
        event::subscribe(&self.inner.events)
    }

    /// Serves the lab until `shutdown` completes, and returns when the last connection is closed.
    ///
    /// # Errors
    /// If the listener has no address, or if the thread that owns the state has stopped.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), LabError> {
        let port = listener.local_addr().map_err(LabError::Listener)?.port();
        let url = self.inner.runner_url_at(port);
        let start = move |state: &mut LabState| {
            state.runner_url = url;
            state.tick();
        };
        self.inner.hub.ask(start).await.map_err(|_| LabError::Stopped)?;
        let ticking = self.tick_for_ever();
        let serving = server::serve(listener, http::router(self.clone()), &self.inner.limits, shutdown);
        tokio::select! {
            () = serving => Ok(()),
            error = ticking => Err(error),
            never = hook_sender::send_for_ever(self) => match never {},
        }
    }

    async fn tick_for_ever(&self) -> LabError {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(refusal) = self.inner.hub.ask(LabState::tick).await
                && refusal.status == 500
            {
                return LabError::Stopped;
            }
        }
    }
}

/// Checks `http://HOST[:PORT]`, with or without a slash at its end, and returns it without the slash.
pub(crate) fn check_runner_url(url: &str) -> Result<String, LabError> {
    let bad = || LabError::BadRunnerUrl { url: url.chars().take(200).collect() };
    let parsed = reqwest::Url::parse(url).map_err(|_| bad())?;
    let plain = parsed.scheme() == "http"
        && matches!(parsed.path(), "" | "/")
        && parsed.query().is_none()
        && parsed.fragment().is_none()
        && parsed.username().is_empty()
        && parsed.password().is_none()
        && url.len() <= RUNNER_URL_LEN_MAX;
    if plain && parsed.host_str().is_some() { Ok(url.trim_end_matches('/').to_owned()) } else { Err(bad()) }
}
