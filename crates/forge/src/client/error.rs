//! Why a call to a forge did not do what it should.

use std::time::Duration;

use thiserror::Error;

use crate::jit::JitError;

/// Why a call to a forge did not do what it should.
#[derive(Debug, Error)]
pub enum ForgeError {
    /// What was given as the forge is none.
    #[error("\"{text}\" is no address of a forge: {why}")]
    BadAddress {
        /// What was given.
        text: String,
        /// Why.
        why: String,
    },
    /// The forge is reached by https, which is not built in yet.
    #[error("{url}: https is not yet supported; for now dayfly speaks to its own lab over http")]
    TlsMissing {
        /// The address.
        url: String,
    },
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be made")]
    Client {
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// Nobody answered, or the connection broke.
    #[error("cannot {what}: {url} does not answer; is the forge running, and is this its address?")]
    Connection {
        /// What was to be done.
        what: String,
        /// The address.
        url: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// 401: the token is wrong, too old or missing.
    #[error("cannot {what}: the forge refuses the token ({message}); make a new one")]
    Unauthorized {
        /// What was to be done.
        what: String,
        /// The forge's words.
        message: String,
    },
    /// 403: the token is known, but may not do this.
    #[error("cannot {what}: the token may not do that ({message}){}", needs(.permissions))]
    Forbidden {
        /// What was to be done.
        what: String,
        /// The forge's words.
        message: String,
        /// What would be needed, if the forge says so.
        permissions: Option<String>,
    },
    /// 404: it is not there, or hidden from this token.
    #[error("cannot {what}: not found ({message}); check the names, and that the token may see it")]
    NotFound {
        /// What was to be done.
        what: String,
        /// The forge's words.
        message: String,
    },
    /// 409: it is there already, or in a state that does not allow this.
    #[error("cannot {what}: {message}")]
    Conflict {
        /// What was to be done.
        what: String,
        /// The forge's words.
        message: String,
    },
    /// 400 and 422: the forge does not take what was asked.
    #[error("cannot {what}: {message}{}", listed(.errors))]
    Invalid {
        /// What was to be done.
        what: String,
        /// The forge's words.
        message: String,
        /// The reasons one by one, as the forge gives them.
        errors: Vec<String>,
    },
    /// Too many calls.
    #[error("cannot {what}: the forge's rate limit is used up ({message}); try again in {} s", .wait.as_secs())]
    RateLimited {
        /// What was to be done.
        what: String,
        /// The forge's words.
        message: String,
        /// How long to wait.
        wait: Duration,
    },
    /// 5xx and everything that no forge should answer.
    #[error("cannot {what}: the forge answered {status} ({message}); try again later")]
    Server {
        /// What was to be done.
        what: String,
        /// The status.
        status: u16,
        /// The forge's words.
        message: String,
    },
    /// The answer is not what the API says it is.
    #[error("cannot {what}: the forge's answer is not understood: {why}")]
    BadAnswer {
        /// What was to be done.
        what: String,
        /// Why.
        why: String,
    },
    /// The JIT config that the forge made cannot be read.
    #[error("the forge made a JIT config that cannot be used")]
    BadJitConfig(#[from] JitError),
}

impl ForgeError {
    /// True when the same call may do better later: the connection, the forge or its rate limit is in the way.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Connection { .. } | Self::RateLimited { .. } | Self::Server { .. })
    }
}

fn needs(permissions: &Option<String>) -> String {
    permissions.as_ref().map(|needed| format!("; it needs {needed}")).unwrap_or_default()
}

fn listed(errors: &[String]) -> String {
    errors.iter().map(|error| format!("\n{error}")).collect()
}
