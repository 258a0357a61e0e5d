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
    /// No certificate authority is known, so no https address can be trusted.
    #[error(
        "{url}: no certificate authority is known to check it by{why}; install the package ca-certificates, or name a file of \
         certificates in SSL_CERT_FILE"
    )]
    NoCertificates {
        /// The address.
        url: String,
        /// What went wrong, with a colon before it; empty when there are just none.
        why: String,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls {
        /// The cause.
        #[source]
        source: rustls::Error,
    },
    /// Additional certificates that were given are none.
    #[error("the additional certificates cannot be read: {why}; they must be in PEM form")]
    BadCertificates {
        /// Why.
        why: String,
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
    /// The other end's certificate is not to be believed.
    #[error(
        "cannot {what}: the certificate of {url} is not trusted; if its authority is your own, name a file with its certificate in SSL_CERT_FILE"
    )]
    Certificate {
        /// What was to be done.
        what: String,
        /// The address.
        url: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// 401: the token is wrong, too old or missing.
    #[error("cannot {what}: the forge refuses the token ({message}); make a new one{}", right(": ", .needs))]
    Unauthorized {
        /// What was to be done.
        what: String,
        /// The forge's words.
        message: String,
        /// What right it takes, if that is known.
        needs: Option<String>,
    },
    /// 403: the token is known, but may not do this.
    #[error("cannot {what}: the token may not do that ({message}){}", right("; ", .needs))]
    Forbidden {
        /// What was to be done.
        what: String,
        /// The forge's words.
        message: String,
        /// What right it takes, if that is known.
        needs: Option<String>,
    },
    /// 404: it is not there, or hidden from this token.
    #[error("cannot {what}: not found ({message}); check the names, and that the token may see it{}", right(": ", .needs))]
    NotFound {
        /// What was to be done.
        what: String,
        /// The forge's words.
        message: String,
        /// What right it takes, if that is known.
        needs: Option<String>,
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
    /// A repository has one runner group.
    #[error(
        "{scope} is a repository, which knows only the runner group \"Default\", not \"{group}\": groups belong to organisations and enterprises"
    )]
    RepositoryGroup {
        /// The group.
        group: String,
        /// The repository.
        scope: String,
    },
    /// There is no runner group of that name.
    #[error("{scope} has no runner group \"{group}\"; it has {}", .known.join(", "))]
    UnknownGroup {
        /// The group.
        group: String,
        /// The organisation or enterprise.
        scope: String,
        /// Those that there are, the first few of them.
        known: Vec<String>,
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

fn right(joint: &str, needs: &Option<String>) -> String {
    needs.as_ref().map(|needs| format!("{joint}it needs {needs}")).unwrap_or_default()
}

fn listed(errors: &[String]) -> String {
    errors.iter().map(|error| format!("\n{error}")).collect()
}
