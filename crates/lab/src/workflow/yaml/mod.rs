//! YAML as a tree in which every node has its position in the file.
//!
//! saphyr-parser reads the text (YAML 1.2), event by event and without recursion. [`load`] adds the limits and checks that
//! workflows need: one document, a maximum depth, a maximum size of aliases, and keys that are scalars and occur once.

mod load;
mod scalar;

pub(super) use load::load;
pub(super) use scalar::Scalar;

use super::diagnostic::Position;

/// A node of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) kind: NodeKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum NodeKind {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    /// Keys are text, and no two of them are equal.
    Mapping(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_at: Position,
    pub(super) value: Node,
}

impl Node {
    /// Describes the node, for messages.
    pub(super) fn describe(&self) -> String {
        match &self.kind {
            NodeKind::Scalar(scalar) => scalar.describe(),
            NodeKind::Sequence(_) => "a list".to_owned(),
            NodeKind::Mapping(_) => "a mapping".to_owned(),
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.kind, NodeKind::Scalar(Scalar::Null))
    }
}
