//! Sorts the keys of a mapping into known, unsupported and unknown ones, and suggests the key that was probably meant.

use super::super::diagnostic::Position;
use super::super::yaml::{Node, NodeKind};
use super::Reader;
use crate::nearest::nearest;

/// The way in which the lab treats a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Support {
    /// The lab reads the key.
    Read,
    /// The lab reads the key, but only to display it.
    Shown,
    /// The lab accepts the key, which has no effect.
    Ignored,
    /// GitHub supports the key; the lab refuses it.
    NotYet,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    name: &'static str,
    support: Support,
}

impl Key {
    pub(super) const fn new(name: &'static str, support: Support) -> Self {
        Self { name, support }
    }
}

/// The values of the accepted keys.
pub(super) struct Fields<'a> {
    values: Vec<(&'static str, Position, &'a Node)>,
}

impl<'a> Fields<'a> {
    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.values.iter().find(|(name, _, _)| *name == key).map(|(_, _, node)| *node)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }
}

impl Reader {
    /// Sorts the entries of a mapping by the support for their keys. Returns `None` if the node is not a mapping.
    pub(super) fn fields<'a>(&mut self, node: &'a Node, path: &str, keys: &[Key]) -> Option<Fields<'a>> {
        let NodeKind::Mapping(entries) = &node.kind else {
            self.remark(node.at, path, format!("must be a mapping, but is {}", node.describe()));
            return None;
        };
        let mut values = Vec::new();
        for entry in entries {
            let Some(key) = keys.iter().find(|key| key.name == entry.key) else {
                self.unknown_key(&entry.key, entry.key_at, path, keys);
                continue;
            };
            match key.support {
                Support::Read => values.push((key.name, entry.key_at, &entry.value)),
                Support::Shown => {
                    self.shown.push((join(path, key.name), entry.key_at));
                    values.push((key.name, entry.key_at, &entry.value));
                }
                Support::Ignored => {
                    self.ignored.push((join(path, key.name), entry.key_at));
                    values.push((key.name, entry.key_at, &entry.value));
                }
                Support::NotYet => {
                    self.remark(entry.key_at, path, format!("\"{}\" is not yet supported", key.name));
                }
            }
        }
        Some(Fields { values })
    }

    fn unknown_key(&mut self, key: &str, at: Position, path: &str, keys: &[Key]) {
        let hint = if key == "<<" {
            " (merge keys are not part of workflows; repeat a whole value with an alias instead)".to_owned()
        } else {
            let nearest = nearest(key, keys.iter().map(|known| known.name));
            nearest.map(|name| format!(" (did you mean \"{name}\"?)")).unwrap_or_else(|| {
                format!(" (known: {})", keys.iter().map(|known| known.name).collect::<Vec<_>>().join(", "))
            })
        };
        self.remark(at, path, format!("unknown key {key:?}{hint}"));
    }
}

/// Joins `jobs.build` and `name` into `jobs.build.name`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
