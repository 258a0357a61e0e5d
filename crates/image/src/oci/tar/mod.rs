//! Reads tar archives as layers use them, POSIX (ustar and PAX) and GNU, entry by entry and with bounds. Writes PAX.
//!
//! Formats: POSIX.1-2001 `pax`, "ustar Interchange Format"; GNU tar's manual, "Basic Tar Format" and "Storing Sparse
//! Files"; `SCHILY.xattr.` as star, GNU tar and all container tools write it. If these leave something open, the code does
//! the same as Go's `archive/tar`, because the tools that write the layers use it.

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

/// Longest path or link of an entry, bytes. No system call accepts longer ones.
pub(crate) const PATH_MAX: usize = 4096;
/// Longest PAX or GNU header of an entry, bytes. Extended attributes are its largest part; the kernel accepts 64 KiB for all
/// attributes of one file.
const EXTENSION_MAX: u64 = 1024 * 1024;
/// Most data segments of a sparse file.
const SEGMENTS_MAX: usize = 64 * 1024;

/// An error of reading an archive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TarError {
    /// The input is no tar archive, or a damaged one.
    #[error("at byte {at}: {what}")]
    Malformed {
        /// Offset of the header, bytes.
        at: u64,
        /// The problem.
        what: String,
    },
    /// The input cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
