//! Loads text into a tree.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use thiserror::Error;

use super::super::diagnostic::Position;
use super::{Entry, Node, NodeKind, Scalar};

/// Largest workflow file, in bytes.
pub(in crate::workflow) const TEXT_BYTES_MAX: usize = 1024 * 1024;
/// Deepest nesting of lists and mappings.
const DEPTH_MAX: usize = 50;
/// Most bytes of text that all anchors and aliases together may hold and repeat; each node counts as another
/// [`NODE_BYTES`].
const ALIAS_BYTES_MAX: usize = 4 * 1024 * 1024;
const NODE_BYTES: usize = 16;

/// The error for text that is not YAML or exceeds the limits.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub(in crate::workflow) struct LoadError {
    pub(in crate::workflow) at: Option<Position>,
    pub(in crate::workflow) message: String,
}

impl LoadError {
    fn new(at: Position, message: impl Into<String>) -> Self {
        Self { at: Some(at), message: message.into() }
    }
}

/// Loads one document. Returns `None` if the file is empty.
pub(in crate::workflow) fn load(text: &str) -> Result<Option<Node>, LoadError> {
    if text.len() > TEXT_BYTES_MAX {
        let message =
            format!("the file has {} bytes; a workflow may have at most {TEXT_BYTES_MAX}", text.len());
        return Err(LoadError { at: None, message });
    }
    let mut loader = Loader::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            LoadError::new(position(error.marker()), format!("not valid YAML: {}", error.info()))
        })?;
        loader.take(event, position(&span.start))?;
    }
    Ok(loader.root)
}

fn position(marker: &Marker) -> Position {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Position { line: number(marker.line().max(1)), column: number(marker.col().saturating_add(1)) }
}

/// A list or mapping that is still open.
enum Open {
    Sequence {
        at: Position,
        anchor: usize,
        items: Vec<Node>,
    },
    Mapping {
        at: Position,
        anchor: usize,
        entries: Vec<Entry>,
        seen: HashMap<String, Position>,
        key: Option<(String, Position)>,
    },
}

#[derive(Default)]
struct Loader {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    alias_bytes: usize,
    documents: usize,
    root: Option<Node>,
}

impl Loader {
    fn take(&mut self, event: Event<'_>, at: Position) -> Result<(), LoadError> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(LoadError::new(
                        at,
                        "a second document begins here; a workflow file holds one",
                    ));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = resolve(&text, style, tag.as_deref(), at)?;
                self.finish(Node { at, kind: NodeKind::Scalar(scalar) }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_deref(), "seq", at)?;
                self.begin(Open::Sequence { at, anchor, items: Vec::new() }, at)
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_deref(), "map", at)?;
                self.begin(
                    Open::Mapping { at, anchor, entries: Vec::new(), seen: HashMap::new(), key: None },
                    at,
                )
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::Sequence { at, anchor, items }) => {
                    self.finish(Node { at, kind: NodeKind::Sequence(items) }, anchor)
                }
                Some(Open::Mapping { at, anchor, entries, .. }) => {
                    self.finish(Node { at, kind: NodeKind::Mapping(entries) }, anchor)
                }
                None => Err(LoadError::new(at, "not valid YAML: something ends here that never began")),
            },
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin(&mut self, open: Open, at: Position) -> Result<(), LoadError> {
        if self.open.len() >= DEPTH_MAX {
            return Err(LoadError::new(at, format!("nested more than {DEPTH_MAX} deep")));
        }
        if let Some(Open::Mapping { key: None, .. }) = self.open.last() {
            return Err(LoadError::new(at, "a key must be plain text, not a list or a mapping"));
        }
        self.open.push(open);
        Ok(())
    }

    fn alias(&mut self, anchor: usize, at: Position) -> Result<(), LoadError> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(LoadError::new(at, "this alias is inside the value that it repeats"));
        };
        self.alias_bytes = self.alias_bytes.saturating_add(weight(node));
        if self.alias_bytes > ALIAS_BYTES_MAX {
            return Err(LoadError::new(at, format!("the aliases repeat more than {ALIAS_BYTES_MAX} bytes")));
        }
        if self.open.len() + depth(node) > DEPTH_MAX {
            return Err(LoadError::new(at, format!("nested more than {DEPTH_MAX} deep")));
        }
        // The repeated node keeps its own position, so that an error in it is reported at that position.
        let node = node.clone();
        self.put(node)
    }

    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), LoadError> {
        if anchor != 0 {
            self.alias_bytes = self.alias_bytes.saturating_add(weight(&node));
            if self.alias_bytes > ALIAS_BYTES_MAX {
                return Err(LoadError::new(
                    node.at,
                    format!("the anchors hold more than {ALIAS_BYTES_MAX} bytes"),
                ));
            }
            self.anchors.insert(anchor, node.clone());
        }
        self.put(node)
    }

    fn put(&mut self, node: Node) -> Result<(), LoadError> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::Sequence { items, .. }) => items.push(node),
            Some(Open::Mapping { entries, key, seen, .. }) => match key.take() {
                Some((key, key_at)) => entries.push(Entry { key, key_at, value: node }),
                None => *key = Some(new_key(node, seen)?),
            },
        }
        Ok(())
    }
}

/// Checks that a key is new. GitHub refuses keys that differ only in case, even for `env`.
fn new_key(node: Node, seen: &mut HashMap<String, Position>) -> Result<(String, Position), LoadError> {
    let NodeKind::Scalar(scalar) = node.kind else {
        return Err(LoadError::new(node.at, "a key must be plain text, not a list or a mapping"));
    };
    let key = scalar.to_text();
    if let Some(first) = seen.insert(key.to_lowercase(), node.at) {
        return Err(LoadError::new(
            node.at,
            format!("the key \"{key}\" appears twice in this mapping (first at {first})"),
        ));
    }
    Ok((key, node.at))
}

fn resolve(text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Position) -> Result<Scalar, LoadError> {
    let quoted = !matches!(style, ScalarStyle::Plain);
    match tag {
        None if quoted => Ok(Scalar::String(text.to_owned())),
        None => Ok(Scalar::from_plain(text)),
        Some(tag) if tag.is_yaml_core_schema() => match (tag.suffix.as_str(), Scalar::from_plain(text)) {
            ("str", _) => Ok(Scalar::String(text.to_owned())),
            ("null", scalar @ Scalar::Null)
            | ("bool", scalar @ Scalar::Bool(_))
            | ("int" | "float", scalar @ Scalar::Number(_)) => Ok(scalar),
            (suffix, _) => Err(LoadError::new(at, format!("\"{text}\" does not fit its tag !!{suffix}"))),
        },
        Some(tag) => Err(unknown_tag(tag, at)),
    }
}

fn check_tag(tag: Option<&Tag>, expected: &str, at: Position) -> Result<(), LoadError> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == expected) => Err(unknown_tag(tag, at)),
        _ => Ok(()),
    }
}

fn unknown_tag(tag: &Tag, at: Position) -> LoadError {
    let message = format!(
        "the YAML tag {}{} means nothing in a workflow (quote text that begins with !)",
        tag.handle, tag.suffix
    );
    LoadError::new(at, message)
}

/// Returns the size of a node, as [`ALIAS_BYTES_MAX`] counts it. [`DEPTH_MAX`] bounds the recursion.
fn weight(node: &Node) -> usize {
    NODE_BYTES
        + match &node.kind {
            NodeKind::Scalar(Scalar::String(text)) => text.len(),
            NodeKind::Scalar(_) => 0,
            NodeKind::Sequence(items) => items.iter().map(weight).sum(),
            NodeKind::Mapping(entries) => {
                entries.iter().map(|entry| entry.key.len() + weight(&entry.value)).sum()
            }
        }
}

fn depth(node: &Node) -> usize {
    match &node.kind {
        NodeKind::Scalar(_) => 0,
        NodeKind::Sequence(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        NodeKind::Mapping(entries) => 1 + entries.iter().map(|entry| depth(&entry.value)).max().unwrap_or(0),
    }
}
