//! Merges layers into one tar stream, without an unpacked tree.
//!
//! ```text
//!   layer 1 ─ scan ─> entries ─┐
//!   layer 2 ─ scan ─> entries ─┼─> Tree (names and attributes only) ──> emit ──> one tar stream, each path once
//!   ...                        ┘        ^ the host's additions            ^ layers, read again for their contents
//! ```
//!
//! Each layer is read twice: first for its headers, in parallel with other layers, when its digest is checked too; then for
//! the contents of those files that are still visible. Between the two, memory holds only names and attributes.
//!
//! The tree follows the OCI image specification (`layer.md`, "Applying Changesets"). If that leaves something open, the tree
//! does the same as containers/storage when it unpacks: links of parent folders are followed inside the image, other links
//! are not; a folder over a folder keeps its content; missing parents are created. A whiteout hides the files of lower
//! layers, regardless of its position in its own layer.

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

/// Limits of an image: above the figures of any real image, and below those that would harm the host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Entries of all layers.
    pub(crate) entries: u64,
    /// Length of an unpacked layer, and of all files with their holes, bytes.
    pub(crate) bytes: u64,
    /// Length of all names, links and attributes, bytes. They are held in memory.
    pub(crate) names: u64,
    /// Length of the files on which the host's additions depend, bytes. They are held in memory, too.
    pub(crate) kept: u64,
    /// Depth of nested folders.
    pub(crate) depth: usize,
    /// Number of layers.
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

/// An error of merging layers. Layers are counted from 1, the lowest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerError {
    /// An entry is invalid.
    #[error("layer {layer}, entry \"{entry}\": {what}")]
    Entry {
        /// Number of the layer.
        layer: usize,
        /// Path of the entry, escaped.
        entry: String,
        /// The problem.
        what: String,
    },
    /// A layer as a whole cannot be used.
    #[error("layer {layer}: {what}")]
    Layer {
        /// Number of the layer.
        layer: usize,
        /// The problem.
        what: String,
    },
    /// A write failed.
    #[error("cannot write {what}: {source}")]
    Write {
        /// The target of the write.
        what: String,
        /// Cause.
        source: std::io::Error,
    },
    /// The caller cancelled the merge.
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

/// Returns the parts of a path, or none if the path leads above its beginning.
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
