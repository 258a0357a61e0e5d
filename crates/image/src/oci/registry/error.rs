//! What can go wrong with a registry.

use std::path::PathBuf;
use std::time::Duration;

use super::super::media::MediaError;

/// Why an image cannot be had from a registry.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    /// It does not answer.
    #[error("{registry} cannot be reached: {why}")]
    Unreachable {
        /// Which one.
        registry: String,
        /// In words.
        why: String,
    },
    /// It wants to know who asks, and does not take the answer.
    #[error("{registry} refuses access{}: log in there (docker login {registry}, or podman login {registry}), or check the name", of_user(.user.as_deref()))]
    Denied {
        /// Which one.
        registry: String,
        /// Who asked; none: nobody.
        user: Option<String>,
    },
    /// It has no such image.
    #[error("{what} is not there{}", nearby_text(.nearby))]
    NotFound {
        /// What was asked for.
        what: String,
        /// Tags that are, or none where they are not told.
        nearby: Vec<String>,
    },
    /// It answered with an error.
    #[error("{registry} answers {status} to {what}{}", colon(.text))]
    Answer {
        /// Which one.
        registry: String,
        /// What was asked for.
        what: String,
        /// The status.
        status: u16,
        /// What it said.
        text: String,
    },
    /// It asks for more patience than anybody has.
    #[error("{registry} asks to come back later, and did so for {} s; try again later, or log in there", waited.as_secs())]
    Busy {
        /// Which one.
        registry: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// What it sent is not what it must be.
    #[error("{registry} sent something else than was asked for: {what}")]
    Lied {
        /// Which one.
        registry: String,
        /// What it is.
        what: String,
    },
    /// The image is none for this host.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// What is known of credentials cannot be used.
    #[error("{0}")]
    Credentials(String),
    /// The layers do not fit.
    #[error("no space for its layers in {}: {free_mib} MiB are free, and {needed_mib} MiB are needed", path.display())]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// Free space, MiB.
        free_mib: u64,
        /// Length of the layers that are not here yet, MiB.
        needed_mib: u64,
    },
    /// A file.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// Nobody wants it any more.
    #[error("stopped")]
    Cancelled,
}

impl RegistryError {
    /// Whether an image that was pulled before may take its place: nobody said that there is none.
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
