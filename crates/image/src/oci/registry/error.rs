//! Errors of registries.

use std::path::PathBuf;
use std::time::Duration;

use super::super::media::MediaError;

/// An error of fetching an image from a registry.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    /// The registry does not answer.
    #[error("{registry} cannot be reached: {why}")]
    Unreachable {
        /// The registry.
        registry: String,
        /// The cause, as shown to users.
        why: String,
    },
    /// The registry requires authentication and rejects the credentials.
    #[error("{registry} refuses access{}: log in there (docker login {registry}, or podman login {registry}), or check the name", of_user(.user.as_deref()))]
    Denied {
        /// The registry.
        registry: String,
        /// The user of the request. None if there were no credentials.
        user: Option<String>,
    },
    /// The registry does not have the image.
    #[error("{what} is not there{}", nearby_text(.nearby))]
    NotFound {
        /// The requested thing.
        what: String,
        /// Similar tags of the repository. Empty if the registry does not list its tags.
        nearby: Vec<String>,
    },
    /// The registry answered with an error.
    #[error("{registry} answers {status} to {what}{}", colon(.text))]
    Answer {
        /// The registry.
        registry: String,
        /// The requested thing.
        what: String,
        /// The status.
        status: u16,
        /// The text of the answer.
        text: String,
    },
    /// The registry asks to retry later, for longer than a request may wait.
    #[error("{registry} asks to come back later, and did so for {} s; try again later, or log in there", waited.as_secs())]
    Busy {
        /// The registry.
        registry: String,
        /// Time that the request has waited.
        waited: Duration,
    },
    /// The registry sent other content than its digest, length or protocol requires.
    #[error("{registry} sent an unexpected answer: {what}")]
    Lied {
        /// The registry.
        registry: String,
        /// The unexpected content.
        what: String,
    },
    /// The image cannot be used on this host.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// The stored credentials cannot be used.
    #[error("{0}")]
    Credentials(String),
    /// The disk has no room for the layers.
    #[error("no space for its layers in {}: {free_mib} MiB are free, and {needed_mib} MiB are needed", path.display())]
    NoSpace {
        /// Folder of the layers.
        path: PathBuf,
        /// Free space, MiB.
        free_mib: u64,
        /// Length of the layers that must still be fetched, MiB.
        needed_mib: u64,
    },
    /// An operation on a file failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The attempted operation.
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The caller cancelled the pull.
    #[error("stopped")]
    Cancelled,
}

impl RegistryError {
    /// Returns true if the registry failed, so that an image of an earlier pull may be used. The registry did not say that
    /// the image does not exist.
    pub(crate) fn is_of_registry(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Busy { .. } => true,
            Self::Answer { status, .. } => *status >= 500,
            _ => false,
        }
    }
}

fn of_user(user: Option<&str>) -> String {
    user.map_or_else(|| ", and nobody is logged in".to_owned(), |user| format!(" to {user}"))
}

fn nearby_text(tags: &[String]) -> String {
    if tags.is_empty() { String::new() } else { format!("; there is {}", tags.join(", ")) }
}

fn colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}
