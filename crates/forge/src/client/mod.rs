//! A client of GitHub-like forges: runners, and as much of workflows as running one needs.
//!
//! Calls that may be repeated without harm are repeated a few times when the connection or the forge fails; a JIT config
//! is never asked for twice, since the first call may have registered a runner although its answer was lost.

mod address;
mod answer;
mod error;
mod lab;
mod request;
mod retry;
mod runner;
mod workflow;

use std::fmt;
use std::time::Duration;

pub use address::ApiBase;
pub use answer::{GithubJob, GithubRun, GithubRunner, GithubStep, RunnerLabel};
pub use error::ForgeError;
pub use runner::{Deletion, JitRequest, NewRunner, RunnerScope};
pub use workflow::Dispatch;

/// From the first byte sent to the last one got.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A forge and the token for it. Clones share their connections.
#[derive(Clone)]
pub struct Forge {
    http: reqwest::Client,
    base: ApiBase,
    token: String,
}

impl fmt::Debug for Forge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forge").field("base", &self.base).field("token", &"secret").finish_non_exhaustive()
    }
}

impl Forge {
    /// A client for the forge at `base`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ForgeError::TlsMissing`] for an address with `https`, which this client does not speak yet.
    pub fn new(base: ApiBase, token: impl Into<String>) -> Result<Self, ForgeError> {
        if base.url().scheme() == "https" {
            return Err(ForgeError::TlsMissing { url: base.url().to_string() });
        }
        let http = reqwest::Client::builder()
            .user_agent(concat!("dayfly/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            // A forge on this host or beside it; no proxy of the environment knows it.
            .no_proxy()
            .build()
            .map_err(|source| ForgeError::Client { source })?;
        Ok(Self { http, base, token: token.into() })
    }

    /// The REST API's address.
    pub fn base(&self) -> &ApiBase {
        &self.base
    }

    /// Asks the forge whether it is there and takes the token.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn check(&self) -> Result<(), ForgeError> {
        let call = request::Call::get("check the token", self.base.join("")?);
        self.send(call).await.map(drop)
    }
}
