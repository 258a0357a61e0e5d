//! What can go wrong with images.

use std::io;
use std::path::PathBuf;

use dayfly_host::stage::StageError;

/// Why an image could not be built, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is none of this name.
    #[error("there is no image {wanted:?} in {}{}; `dayfly image ls` lists them, `dayfly image build` makes one", store.display(), known_text(known))]
    NotFound {
        /// What was asked for.
        wanted: String,
        /// Where.
        store: PathBuf,
        /// Ids of those that are there.
        known: Vec<String>,
    },
    /// More than one id starts like this.
    #[error("{wanted:?} means more than one image: {}", ids.join(", "))]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// Ids that it fits.
        ids: Vec<String>,
    },
    /// A machine uses it.
    #[error("image {id} is in use by a machine; end it first (`dayfly ps`)")]
    InUse {
        /// Its id.
        id: String,
    },
    /// A program that builds images is not installed.
    #[error("{program} is not installed; install it: apt-get install {package}")]
    NoProgram {
        /// Its name.
        program: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// No Go, or only an old one.
    #[error(
        "no Go of at least {least} found{}; it builds the runner app (`make setup` unpacks one under target/)",
        found_text(found)
    )]
    NoGo {
        /// Least version.
        least: &'static str,
        /// Those that are too old or do not run.
        found: Vec<String>,
    },
    /// The state folder's file system is full.
    #[error("no space for {what} in {}: {free_mib} MiB are free, {}; make room there (`dayfly image gc` does, or `dayfly image rm`), and try again", path.display(), needed_text(*needed_mib))]
    NoSpace {
        /// For what.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Free space, MiB; of something that was begun, once that is gone.
        free_mib: u64,
        /// Needed space, MiB; none: it was tried, and is more than there is.
        needed_mib: Option<u64>,
    },
    /// What an image lacks cannot be made.
    #[error(
        "{source}\nso the image cannot be given what it lacks for jobs ({lacks}); --image-tools none does without"
    )]
    NoTools {
        /// What it lacks, in words.
        lacks: String,
        /// Why not.
        source: Box<ImageError>,
    },
    /// A program failed.
    #[error("{program} failed ({status}) while {phase}; its last lines:\n{tail}")]
    Failed {
        /// Its name.
        program: &'static str,
        /// What it did.
        phase: &'static str,
        /// How it ended.
        status: String,
        /// What it printed.
        tail: String,
    },
    /// What came out is not what a machine needs.
    #[error("the image cannot be used: {what}")]
    Unusable {
        /// What is missing or wrong.
        what: String,
    },
    /// A package list that cannot be read.
    #[error("package list, line {line}: {what}")]
    PackageList {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// A manifest that cannot be read: the image is of another version of this program, or damaged.
    #[error("cannot understand {}: {source}; remove the image's folder and build it again", path.display())]
    Manifest {
        /// Which.
        path: PathBuf,
        /// Cause.
        source: serde_json::Error,
    },
    /// An image from elsewhere that cannot be had or used.
    #[error("the image {name} cannot be used: {what}")]
    Origin {
        /// Its name.
        name: String,
        /// Why.
        what: String,
    },
    /// An image that took too long to come.
    #[error("the image {name} was not here within {limit_s} s")]
    TooLong {
        /// The name.
        name: String,
        /// The limit, seconds.
        limit_s: u64,
    },
    /// A look into it has found that no job can run in it.
    #[error(
        "the image {id} is refused, since `dayfly image check {id}` has found this (and looks again): {why}"
    )]
    Broken {
        /// Its id, shortened.
        id: String,
        /// What was found.
        why: String,
    },
    /// An image that is not to be asked for, and is not here.
    #[error("the image {name} was never pulled here; `dayfly image pull {name}` does it (or --pull missing)")]
    NotPulled {
        /// Its name.
        name: String,
    },
    /// It was given up because the caller asked for it.
    #[error("the build was stopped; nothing is left of it")]
    Cancelled,
    /// A file.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

impl ImageError {
    /// Whether it says, in whatever words, that a disk is full.
    pub(super) fn is_of_full_disk(&self) -> bool {
        match self {
            // Programs in C begin this with a capital letter, and those in Go do not.
            Self::Failed { tail, .. } => tail.to_ascii_lowercase().contains("no space left on device"),
            Self::Io { source, .. } => is_full(source),
            _ => false,
        }
    }
}

/// Whether an error says that a disk, or what a user may have of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl From<StageError> for ImageError {
    fn from(error: StageError) -> Self {
        match error {
            StageError::Cancelled => Self::Cancelled,
            StageError::Io { what, path, source } => Self::Io { what, path, source },
        }
    }
}

fn known_text(ids: &[String]) -> String {
    if ids.is_empty() {
        " (there is none at all)".to_owned()
    } else {
        format!(" (there are {})", ids.join(", "))
    }
}

fn needed_text(needed_mib: Option<u64>) -> String {
    needed_mib.map_or_else(|| "which was not enough".to_owned(), |mib| format!("and {mib} MiB are needed"))
}

fn found_text(versions: &[String]) -> String {
    if versions.is_empty() { String::new() } else { format!(" (found {})", versions.join(", ")) }
}

/// Names what was tried, and where.
pub(super) fn failed(what: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::Io { what, path, source }
}
