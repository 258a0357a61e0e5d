//! Errors of calls to a forge.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::app::AppError;
use crate::jit::JitError;
use crate::scale_set::ServiceFault;

/// Errors of calls to a forge.
#[derive(Debug, Error)]
pub enum ForgeError {
    /// The given text is not the address of a forge.
    #[error("\"{text}\" is no address of a forge: {why}")]
    BadAddress {
        /// The given text.
        text: String,
        /// The reason.
        why: String,
    },
    /// No certificate authority is known, so an https address cannot be verified.
    #[error(
        "{url}: no certificate authority is known that could verify it{why}; install the package ca-certificates, or name a \
         file of certificates in SSL_CERT_FILE"
    )]
    NoCertificates {
        /// The address.
        url: String,
        /// The reason with a colon before it; empty if reading the authorities caused no error.
        why: String,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls {
        /// The cause.
        #[source]
        source: rustls::Error,
    },
    /// The additional certificates that the caller gave are invalid.
    #[error("the additional certificates cannot be read: {why}; they must be in PEM form")]
    BadCertificates {
        /// The reason.
        why: String,
    },
    /// The HTTP client cannot be created.
    #[error("the HTTP client cannot be created")]
    Client {
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The forge did not answer, or the connection broke before its answer.
    #[error("cannot {what}: {url} does not answer; is the forge running, and is this its address?")]
    Connection {
        /// The action that failed, in words that follow "cannot".
        what: String,
        /// The address.
        url: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The connection broke in the middle of the answer, so the call may have been carried out.
    #[error(
        "cannot {what}: the answer of {url} broke off in the middle; a proxy on the way may cut answers that take a minute"
    )]
    Cut {
        /// The action that failed, in words that follow "cannot".
        what: String,
        /// The address.
        url: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The forge's certificate is not trusted.
    #[error(
        "cannot {what}: the certificate of {url} is not trusted; if its authority is your own, name a file with its certificate in SSL_CERT_FILE"
    )]
    Certificate {
        /// The action that failed, in words that follow "cannot".
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
        /// The action that failed, in words that follow "cannot".
        what: String,
        /// The message of the forge.
        message: String,
        /// The permission that the call needs, if it is known.
        needs: Option<String>,
    },
    /// A GitHub App has no token for the call, or its token is not accepted.
    #[error("cannot {what}: {source}")]
    App {
        /// The action that failed, in words that follow "cannot".
        what: String,
        /// The cause. Calls that waited for the same token share it.
        #[source]
        source: Arc<AppError>,
    },
    /// 401 of a service that the forge has named, or of its queue: its token has ended, or it is not known there yet.
    #[error("cannot {what}: the service does not accept the token that the forge made for it ({message})")]
    ServiceToken {
        /// The action that failed, in words that follow "cannot".
        what: String,
        /// The message of the service.
        message: String,
    },
    /// 403: the token is valid, but it may not do this.
    #[error("cannot {what}: the token may not do that ({message}){}{}", right("; ", .needs), acceptance(.message))]
    Forbidden {
        /// The action that failed, in words that follow "cannot".
        what: String,
        /// The message of the forge.
        message: String,
        /// The permission that the call needs, if it is known.
        needs: Option<String>,
    },
    /// 404: the object does not exist, or it is hidden from this token.
    #[error("cannot {what}: not found ({message}); check the names, and that the token may see it{}", right(": ", .needs))]
    NotFound {
        /// The action that failed, in words that follow "cannot".
        what: String,
        /// The message of the forge.
        message: String,
        /// The permission that the call needs, if it is known.
        needs: Option<String>,
    },
    /// 409: the object exists already, or its state does not allow this call.
    #[error("cannot {what}: {message}")]
    Conflict {
        /// The action that failed, in words that follow "cannot".
        what: String,
        /// The message of the forge.
        message: String,
    },
    /// 400, 413 and 422: the forge rejects the request.
    #[error("cannot {what}: {message}{}", listed(.errors))]
    Invalid {
        /// The action that failed, in words that follow "cannot".
        what: String,
        /// The message of the forge.
        message: String,
        /// The reasons, one text each, as the forge gives them.
        errors: Vec<String>,
    },
    /// The rate limit is used up.
    #[error("cannot {what}: the forge's rate limit is used up ({message}); try again in {} s", .wait.as_secs())]
    RateLimited {
        /// The action that failed, in words that follow "cannot".
        what: String,
        /// The message of the forge.
        message: String,
        /// How long to wait before the next call.
        wait: Duration,
    },
    /// The call was not sent, because the rest of the credential's calls is kept for more important ones, or because the
    /// forge has demanded a pause.
    #[error("cannot {what} now: dayfly holds the call back, because {why}; try again in {} s", .wait.as_secs().max(1))]
    Shed {
        /// The action that was not begun, in words that follow "cannot".
        what: String,
        /// The reason.
        why: String,
        /// How long to wait before the next call.
        wait: Duration,
    },
    /// The scope is a repository, which has only the default runner group.
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
        /// The groups that exist; only the first few if there are many.
        known: Vec<String>,
    },
    /// Strangers may bring jobs to the runners, and that was not allowed.
    #[error(
        "{scope} {}: a stranger who opens a pull request may run programs in machines of this host, with the network that they \
         have", .group.as_ref().map_or_else(|| "is a public repository".to_owned(), |group| format!("lets public repositories use the runner group {group:?}"))
    )]
    Public {
        /// The scope of the runners.
        scope: String,
        /// The group that lets public repositories use them; none for a public repository.
        group: Option<String>,
    },
    /// A redirect that is not followed: of another call than a GET, or to another host.
    #[error(
        "cannot {what}: the forge answered {status} and leads to {target}, where dayfly does not follow it; if a repository, \
         an organisation or the forge has a new name, give dayfly that name, and if {target} is a login or maintenance page, \
         let this host reach the API without it"
    )]
    Redirected {
        /// The action that failed, in words that follow "cannot".
        what: String,
        /// The status.
        status: u16,
        /// The address that the forge names, without its query.
        target: String,
    },
    /// 5xx, and every other status that a forge should not answer with.
    #[error("cannot {what}: the forge answered {status} ({message}); try again later")]
    Server {
        /// The action that failed, in words that follow "cannot".
        what: String,
        /// The status.
        status: u16,
        /// The message of the forge.
        message: String,
        /// How long to wait before the next call, if the forge says so (`retry-after`).
        wait: Option<Duration>,
    },
    /// The Actions Service refuses a call about a scale set, for a reason that dayfly knows.
    #[error("cannot {what}: {message}")]
    Service {
        /// The action that failed, in words that follow "cannot".
        what: String,
        /// The message of the service.
        message: String,
        /// The reason.
        fault: ServiceFault,
    },
    /// The answer does not come within the time that the caller can wait.
    #[error("cannot {what} within {} s", .limit.as_secs())]
    TooLate {
        /// The action that failed, in words that follow "cannot".
        what: String,
        /// The time limit.
        limit: Duration,
    },
    /// The error of an attempt that several callers have waited for.
    #[error(transparent)]
    Shared(Arc<ForgeError>),
    /// The answer does not have the form that the API documents.
    #[error("cannot {what}: the forge's answer is not understood: {why}")]
    BadAnswer {
        /// The action that failed, in words that follow "cannot".
        what: String,
        /// The reason.
        why: String,
    },
    /// The JIT config from the forge cannot be read.
    #[error("the forge made a JIT config that cannot be used")]
    BadJitConfig(#[from] JitError),
}

impl ForgeError {
    /// Returns true if the same call may succeed later, because the cause is the connection, the forge or its rate limit.
    pub fn is_temporary(&self) -> bool {
        match self.cause() {
            Self::Connection { .. }
            | Self::Cut { .. }
            | Self::RateLimited { .. }
            | Self::Shed { .. }
            | Self::Server { .. }
            | Self::TooLate { .. } => true,
            Self::App { source, .. } => source.is_temporary(),
            _ => false,
        }
    }

    /// Returns true if a runner was refused because the forge has one of the same name. A new name helps.
    pub fn is_taken_name(&self) -> bool {
        matches!(
            self.cause(),
            Self::Conflict { .. } | Self::Service { fault: ServiceFault::RunnerExists, .. }
        )
    }

    /// Returns the error itself, or the one that it shares with other callers.
    pub(crate) fn cause(&self) -> &Self {
        match self {
            Self::Shared(error) => error.cause(),
            error => error,
        }
    }

    /// Adds the permission that the call needs, unless the forge has named one itself.
    pub(super) fn needing(mut self, right: &str) -> Self {
        if let Self::Unauthorized { needs, .. }
        | Self::Forbidden { needs, .. }
        | Self::NotFound { needs, .. } = &mut self
        {
            needs.get_or_insert_with(|| right.to_owned());
        }
        self
    }
}

fn right(joint: &str, needs: &Option<String>) -> String {
    needs.as_ref().map(|needs| format!("{joint}it needs {needs}")).unwrap_or_default()
}

/// Returns what else a missing permission of a GitHub App may lack. GitHub calls an App an integration.
fn acceptance(message: &str) -> &'static str {
    match message.contains("by integration") {
        true => "; the owner of an installation must accept a permission that its App was given later",
        false => "",
    }
}

fn listed(errors: &[String]) -> String {
    errors.iter().map(|error| format!("\n{error}")).collect()
}
