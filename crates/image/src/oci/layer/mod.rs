//! Layers: what a list of them comes to, as one stream, without an unpacked tree.
//!
//! ```text
//!   layer 1 ─ scan ─> entries ─┐
//!   layer 2 ─ scan ─> entries ─┼─> Tree (names and attributes only) ──> emit ──> one tar stream, each path once
//!   ...                        ┘        ^ what the host adds              ^ layers, read again for their contents
//! ```
//!
//! Each layer is read twice: once for its headers, side by side with others and with its digest verified, and once for the
//! contents of those files that are still visible. Between the two only names and attributes are in memory.
//!
//! What the tree comes to is what the OCI image specification says (`layer.md`, "Applying Changesets"), and where that
//! leaves something open, what containers/storage does when it unpacks: links of parent folders are followed inside the
//! image, other links are not; a folder over a folder keeps what is in it; missing parents are made. A whiteout hides what
//! lower layers have, wherever in its own layer it stands.

mod blob;
mod emit;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod properties;
mod scan;
mod tree;

pub(crate) use blob::LayerBlob;
pub(crate) use emit::{Extract, emit};
pub(crate) use scan::scan_all;
pub(crate) use tree::{Attributes, Content, Tree};

/// What an image may come to: above what any real one has, and below what would hurt the host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Entries of all layers.
    pub(crate) entries: u64,
    /// Length of all layers, unpacked, and of all files with their holes, bytes.
    pub(crate) bytes: u64,
    /// Length of all names, links and attributes, bytes: they are kept in memory.
    pub(crate) names: u64,
    /// Length of the files that decide what the host adds, bytes: they are kept in memory too.
    pub(crate) kept: u64,
    /// Folders within folders.
    pub(crate) depth: usize,
    /// Layers.
    pub(crate) layers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 1_500_000,
            bytes: 128 << 30,
            names: 128 << 20,
            kept: 64 << 20,
            depth: 512,
            layers: 512,
        }
    }
}

/// Why layers cannot be used. Layers are counted from 1, the lowest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerError {
    /// An entry that no image may have.
    #[error("layer {layer}, entry \"{entry}\": {what}")]
    Entry {
        /// Which layer.
        layer: usize,
        /// Its path, escaped.
        entry: String,
        /// What is wrong.
        what: String,
    },
    /// The layer as a whole.
    #[error("layer {layer}: {what}")]
    Layer {
        /// Which layer.
        layer: usize,
        /// What is wrong.
        what: String,
    },
    /// What the stream is written to.
    #[error("cannot write {what}: {source}")]
    Write {
        /// To what.
        what: String,
        /// Cause.
        source: std::io::Error,
    },
    /// Nobody wants it any more.
    #[error("stopped")]
    Cancelled,
}

impl LayerError {
    fn entry(layer: usize, path: &[u8], what: impl Into<String>) -> Self {
        Self::Entry { layer: layer + 1, entry: path.escape_ascii().to_string(), what: what.into() }
    }

    fn layer(layer: usize, what: impl Into<String>) -> Self {
        Self::Layer { layer: layer + 1, what: what.into() }
    }
}

/// The parts of a path. What leads up from the beginning is refused.
fn clean(path: &[u8]) -> Option<Vec<&[u8]>> {
    let mut parts = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests;
