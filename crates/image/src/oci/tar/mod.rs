//! Tar, as layers have it: POSIX (ustar and PAX) and GNU, read one after another with bounds, and written as PAX.
//!
//! Formats: POSIX.1-2001 `pax`, "ustar Interchange Format"; GNU tar's manual, "Basic Tar Format" and "Storing Sparse
//! Files"; `SCHILY.xattr.` as star, GNU tar and all container tools write it. What these leave open is decided as Go's
//! `archive/tar` does, since the tools whose layers are read are written with it.

mod header;
mod pax;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod properties;
mod reader;
mod sparse;
mod writer;

pub(crate) use header::{Header, Kind};
pub(crate) use reader::Reader;
pub(crate) use writer::Writer;

/// Size of a block, bytes.
const BLOCK: usize = 512;

/// Longest path or link of an entry, bytes: no system call takes longer ones.
pub(crate) const PATH_MAX: usize = 4096;
/// Longest PAX or GNU header of an entry, bytes. Extended attributes are its largest part: the kernel takes 64 KiB for all
/// of one file.
const EXTENSION_MAX: u64 = 1024 * 1024;
/// Most data segments of a sparse file.
const SEGMENTS_MAX: usize = 64 * 1024;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TarError {
    /// Not a tar archive, or a damaged one.
    #[error("at byte {at}: {what}")]
    Malformed {
        /// Where the header begins.
        at: u64,
        /// What is wrong.
        what: String,
    },
    /// What the archive is read from.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
