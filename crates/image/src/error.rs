//! Errors of images.

use std::io;
use std::path::PathBuf;

use dayfly_host::stage::StageError;

/// An error of building, finding or removing an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No image has this id.
    #[error("there is no image {wanted:?} in {}{}; `dayfly image ls` lists them, `dayfly image build` makes one", store.display(), known_text(known))]
    NotFound {
        /// The id that was requested.
        wanted: String,
        /// Folder of the images.
        store: PathBuf,
        /// Ids of the images in it.
        known: Vec<String>,
    },
    /// More than one id begins with the requested text.
    #[error("{wanted:?} means more than one image: {}", ids.join(", "))]
    Ambiguous {
        /// The id that was requested.
        wanted: String,
        /// Ids that begin with it.
        ids: Vec<String>,
    },
    /// A machine uses the image.
    #[error("image {id} is in use by a machine; end it first (`dayfly ps`)")]
    InUse {
        /// Its id.
        id: String,
    },
    /// A program that the build needs is not installed.
    #[error("{program} is not installed; install it: apt-get install {package}")]
    NoProgram {
        /// Its name.
        program: &'static str,
        /// The package that contains it.
        package: &'static str,
    },
    /// Go is missing or too old.
    #[error(
        "no Go of at least {least} found{}; it builds the runner app (`make setup` unpacks one under target/)",
        found_text(found)
    )]
    NoGo {
        /// Lowest usable version.
        least: &'static str,
        /// Toolchains that are too old or do not run.
        found: Vec<String>,
    },
    /// The state folder's file system is full.
    #[error("no space for {what} in {}: {free_mib} MiB are free, {}; make room there (`dayfly image gc` does, or `dayfly image rm`), and try again", path.display(), needed_text(*needed_mib))]
    NoSpace {
        /// The thing that needs the space.
        what: &'static str,
        /// A path in the file system.
        path: PathBuf,
        /// Free space, MiB. If an import ran out of space, measured after its files were removed.
        free_mib: u64,
        /// Needed space, MiB. None if it is unknown, because the operation was tried and ran out of space.
        needed_mib: Option<u64>,
    },
    /// The tools that an image lacks cannot be built.
    #[error(
        "{source}\nso the tools that the image lacks cannot be added ({lacks}); --image-tools none leaves them out"
    )]
    NoTools {
        /// The names of the missing tools.
        lacks: String,
        /// Cause.
        source: Box<ImageError>,
    },
    /// A program failed.
    #[error("{program} failed ({status}) while {phase}; its last lines:\n{tail}")]
    Failed {
        /// Its name.
        program: &'static str,
        /// The phase of the build.
        phase: &'static str,
        /// Its exit status.
        status: String,
        /// The last lines of its output.
        tail: String,
    },
    /// An image or one of its parts does not have what a machine needs.
    #[error("the image cannot be used: {what}")]
    Unusable {
        /// The missing or wrong part.
        what: String,
    },
    /// A package list is malformed.
    #[error("package list, line {line}: {what}")]
    PackageList {
        /// The line, from 1.
        line: usize,
        /// The problem.
        what: String,
    },
    /// A manifest cannot be parsed, because another version of this program wrote it or because it is damaged.
    #[error("cannot understand {}: {source}; remove the image's folder and build it again", path.display())]
    Manifest {
        /// Path of the manifest.
        path: PathBuf,
        /// Cause.
        source: serde_json::Error,
    },
    /// An image cannot be imported.
    #[error("the image {name} cannot be used: {what}")]
    Origin {
        /// Its name.
        name: String,
        /// The reason.
        what: String,
    },
    /// The import of an image exceeded its time limit.
    #[error("the image {name} did not arrive within {limit_s} s")]
    TooLong {
        /// The name.
        name: String,
        /// The limit, seconds.
        limit_s: u64,
    },
    /// A check of the image found that no job can run in it.
    #[error(
        "the image {id} is refused, since `dayfly image check {id}` has found this (and looks again): {why}"
    )]
    Broken {
        /// Its id, shortened.
        id: String,
        /// The problem that the check found.
        why: String,
    },
    /// The image is not in the store, and the pull policy forbids a pull.
    #[error("the image {name} was never pulled here; `dayfly image pull {name}` does it (or --pull missing)")]
    NotPulled {
        /// Its name.
        name: String,
    },
    /// The caller cancelled the build.
    #[error("the build was stopped, and its files were removed")]
    Cancelled,
    /// An operation on a file failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The attempted operation.
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

impl ImageError {
    /// Returns true if a manifest is damaged, as after a power cut. That of another version is whole.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, Self::Manifest { source, .. } if source.is_syntax() || source.is_eof())
    }

    /// Returns true if the error says that a disk is full.
    pub(super) fn is_of_full_disk(&self) -> bool {
        match self {
            // Programs in C begin this text with a capital letter; programs in Go do not.
            Self::Failed { tail, .. } => tail.to_ascii_lowercase().contains("no space left on device"),
            Self::Io { source, .. } => is_full(source),
            _ => false,
        }
    }
}

/// Returns true if an error says that a disk or a user's quota is full.
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

/// Returns a function that adds the attempted operation and the path to an I/O error.
pub(super) fn failed(what: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::Io { what, path, source }
}
