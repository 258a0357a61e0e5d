//! Sorts the keys of a mapping into known, unsupported and unknown ones, and suggests the key that was probably meant.

use super::super::diagnostic::Position;
use super::super::yaml::{Node, NodeKind};
use super::Reader;

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

/// Returns the nearest candidate if it is at most two changes away, or one if it has up to three letters.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const WORD_MAX: usize = 64;
    if word.len() > WORD_MAX {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace('_', "-");
    let word = plain(word);
    let distances = candidates.into_iter().map(|candidate| (distance(&word, &plain(candidate)), candidate));
    let (distance, candidate) = distances.min_by_key(|(distance, _)| *distance)?;
    let allowed = if candidate.len() <= 3 { 1 } else { 2 };
    (distance <= allowed).then_some(candidate)
}

/// Returns the Levenshtein distance, with a swap of neighbours as one change.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_found_and_a_far_one_is_not() {
        let keys = ["steps", "runs-on", "needs", "if", "timeout-minutes"];
        assert_eq!(nearest("stepz", keys), Some("steps"));
        assert_eq!(nearest("setps", keys), Some("steps"));
        assert_eq!(nearest("runs_on", keys), Some("runs-on"));
        assert_eq!(nearest("Needs", keys), Some("needs"));
        assert_eq!(nearest("fi", keys), Some("if"));
        assert_eq!(nearest("timeout-minute", keys), Some("timeout-minutes"));
        assert_eq!(nearest("banana", keys), None);
        assert_eq!(nearest(&"x".repeat(10_000), keys), None);
    }
}
