//! Reads the text of a file to its types, and finds all that is wrong with it at once.
//!
//! ```text
//! text ──> tables with positions ──> unknown and missing keys, bounds ──> each value alone ──> ConfigFile of the rest
//!          (toml)                    (the schema)                         (serde)              (serde)
//! ```
//!
//! serde stops at the first value that it cannot read. So each value is tried in a file of its own, in which it is the only
//! one; every key has a default, or is required by the schema alone. A value that cannot be read is left out of the rest.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::file::ConfigFile;
use super::problem::Problem;
use super::schema::{Known, nearest};
use super::secret;

/// Most problems that are collected. Fewer are shown, but those in the order of the file.
const PROBLEMS_MAX: usize = 1000;

/// The positions of what a file has, by keys such as `pools.build.max`, and the keys that could not be read.
#[derive(Debug, Default)]
pub(super) struct Positions {
    keys: HashMap<String, (Range<usize>, Range<usize>)>,
    unread: BTreeSet<String>,
}

impl Positions {
    /// Returns the bytes of a key's value; those of the name of the table that would hold it, if the key is not there.
    pub(super) fn value(&self, key: &str) -> Range<usize> {
        match self.keys.get(key) {
            // A table's own bytes are those of its header, or all of it.
            Some((name, value)) => {
                if value.is_empty() {
                    name.clone()
                } else {
                    value.clone()
                }
            }
            None => self.name(key),
        }
    }

    /// Returns the bytes of a key's name; those of the table that would hold it, if the key is not there.
    pub(super) fn name(&self, key: &str) -> Range<usize> {
        let found = std::iter::successors(Some(key), |key| key.rfind(['.', '[']).map(|end| &key[..end]));
        let mut names = found.filter_map(|key| self.keys.get(key));
        names.next().map_or(0..0, |(name, _)| name.clone())
    }

    /// Returns true if the file has a key, even if its value cannot be read.
    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// Returns true if the value of a key, or a part of it, could not be read.
    pub(super) fn is_unread(&self, key: &str) -> bool {
        let has_below = |start: String| {
            self.unread.range(start.clone()..).next().is_some_and(|unread| unread.starts_with(&start))
        };
        self.unread.contains(key) || has_below(format!("{key}.")) || has_below(format!("{key}["))
    }
}

/// Reads a text. The file holds what could be read; it is complete if there is no problem.
pub(super) fn read(text: &str) -> (ConfigFile, Positions, Vec<Problem>) {
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let syntax = errors.iter().map(|error| {
            // Without a position the error is about the end of the text.
            let span = error.span().unwrap_or(text.len()..text.len());
            Problem::error("", span, error.message())
        });
        return (ConfigFile::default(), Positions::default(), syntax.collect());
    }
    let mut reader = Reader::default();
    let span = root.span();
    let kept = reader.table(root.into_inner(), Known::file(), "");
    let file = parse(Spanned::new(span.clone(), kept)).unwrap_or_else(|error| {
        // Each value could be read alone, so this is about values that exclude each other.
        reader.problems.push(Problem::error("", error.span().unwrap_or(span), error.message()));
        ConfigFile::default()
    });
    (file, reader.positions, reader.problems)
}

fn parse(table: Spanned<DeTable<'_>>) -> Result<ConfigFile, toml::de::Error> {
    ConfigFile::deserialize(toml::Deserializer::from(table))
}

#[derive(Default)]
struct Reader<'i> {
    positions: Positions,
    problems: Vec<Problem>,
    /// The way from the root to the current value.
    steps: Vec<Step<'i>>,
}

/// A step from a value to one that it contains.
#[derive(Clone)]
enum Step<'i> {
    Key(Spanned<DeString<'i>>),
    /// To an element of a list, with the bytes of the list.
    Element(Range<usize>),
}

impl<'i> Reader<'i> {
    /// Adds a problem, unless there are so many that it would not be shown.
    fn report(&mut self, problem: impl FnOnce() -> Problem) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem());
        }
    }

    /// Checks a table, and returns the part of it that can be read.
    fn table(&mut self, table: DeTable<'i>, known: Known, at: &str) -> DeTable<'i> {
        let mut kept = DeTable::new();
        for (key, value) in table {
            let below = join(at, key.get_ref());
            self.positions.keys.insert(below.clone(), (key.span(), value.span()));
            let Some(known_value) = known.key(key.get_ref()) else {
                self.report(|| unknown_key(&below, &key, known));
                continue;
            };
            self.steps.push(Step::Key(key.clone()));
            if let Some(value) = self.value(value, known_value, &below) {
                kept.insert(key, value);
            } else {
                self.positions.unread.insert(below);
            }
            self.steps.pop();
        }
        let missing: Vec<&str> = known.required().filter(|key| !self.positions.has(&join(at, key))).collect();
        for missing in missing {
            let span = self.positions.name(at);
            self.report(|| Problem::error(at, span, format!("the key {missing} is missing")));
            self.positions.unread.insert(join(at, missing));
        }
        kept
    }

    /// Checks a value. Returns it, or the part of it that can be read.
    fn value(&mut self, value: Spanned<DeValue<'i>>, known: Known, at: &str) -> Option<Spanned<DeValue<'i>>> {
        let span = value.span();
        let value = match value.into_inner() {
            DeValue::Table(table) if known.is_table() => DeValue::Table(self.table(table, known, at)),
            DeValue::Array(list) if list.iter().all(|element| element.get_ref().is_table()) => {
                match known.table_items() {
                    Some(items) => DeValue::Array(self.tables(list, items, at, &span)),
                    None => self.alone(DeValue::Array(list), known, at, &span)?,
                }
            }
            value => self.alone(value, known, at, &span)?,
        };
        Some(Spanned::new(span, value))
    }

    fn tables(&mut self, list: DeArray<'i>, items: Known, at: &str, span: &Range<usize>) -> DeArray<'i> {
        let mut kept = DeArray::new();
        for (index, element) in list.iter().enumerate() {
            let below = format!("{at}[{index}]");
            self.positions.keys.insert(below.clone(), (element.span(), element.span()));
            self.steps.push(Step::Element(span.clone()));
            if let Some(element) = self.value(element.clone(), items, &below) {
                kept.push(element);
            }
            self.steps.pop();
        }
        kept
    }

    /// Tries a value in a file of its own.
    fn alone(
        &mut self,
        value: DeValue<'i>,
        known: Known,
        at: &str,
        span: &Range<usize>,
    ) -> Option<DeValue<'i>> {
        for (index, element) in value.as_array().into_iter().flat_map(|list| list.iter().enumerate()) {
            self.positions.keys.insert(format!("{at}[{index}]"), (element.span(), element.span()));
        }
        if let Some(problem) = out_of_bounds(&value, known, at, span) {
            self.report(|| problem);
            return None;
        }
        let words = known.words();
        match parse(self.file_of(value.clone(), span)) {
            Ok(_) => Some(value),
            Err(error) => {
                let message = error.message().replacen("unknown variant", "unknown word", 1);
                let span = error.span().unwrap_or(span.clone());
                let mut elements = value.as_array().into_iter().flat_map(|list| list.iter());
                let element = elements.find(|element| element.span() == span);
                let given = element.map_or(value.as_str(), |element| element.get_ref().as_str());
                let hint = given.and_then(|given| nearest(given, words)).map(did_you_mean);
                self.report(|| Problem::error(at, span, message).hint(hint));
                None
            }
        }
    }

    /// Returns a file that has nothing but a value in its place.
    fn file_of(&self, value: DeValue<'i>, span: &Range<usize>) -> Spanned<DeTable<'i>> {
        let around = |inner: Spanned<DeValue<'i>>, step: &Step<'i>| match step {
            Step::Key(key) => {
                let (span, mut table) = (inner.span(), DeTable::new());
                table.insert(key.clone(), inner);
                Spanned::new(span, DeValue::Table(table))
            }
            Step::Element(span) => {
                let mut list = DeArray::new();
                list.push(inner);
                Spanned::new(span.clone(), DeValue::Array(list))
            }
        };
        let whole = self.steps.iter().rev().fold(Spanned::new(span.clone(), value), around);
        let table = match whole.into_inner() {
            DeValue::Table(table) => table,
            // The first step leads to a key of the root.
            _ => DeTable::new(),
        };
        Spanned::new(span.clone(), table)
    }
}

fn unknown_key(at: &str, key: &Spanned<DeString<'_>>, table: Known) -> Problem {
    let name = key.get_ref();
    if secret::is_its_key(name) || secret::looks_like_one(name) {
        let why = "a secret must not be in this file, because the file may be read by others and kept in a repository";
        let places = match table.keys().any(|key| key == "secret_file") {
            true => "use secret_file, secret_env or secret_credential",
            false => "use token_file, token_env or token_credential; for a GitHub App, app_id and key_file",
        };
        return Problem::error(at, key.span(), why).hint(Some(places.to_owned()));
    }
    let near = nearest(name, table.keys()).map(did_you_mean);
    let all = || format!("the keys here are {}", table.keys().collect::<Vec<_>>().join(", "));
    Problem::error(at, key.span(), "unknown key").hint(near.or_else(|| Some(all())))
}

fn out_of_bounds(value: &DeValue<'_>, known: Known, at: &str, span: &Range<usize>) -> Option<Problem> {
    let number = match value {
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok()? as f64,
        DeValue::Float(number) => number.as_str().parse().ok()?,
        _ => return None,
    };
    let (least, largest) = known.bounds();
    if least.is_none_or(|least| number >= least) && largest.is_none_or(|largest| number <= largest) {
        return None;
    }
    let expected = match (least, largest) {
        (Some(least), Some(largest)) => format!("must be between {least} and {largest}"),
        (Some(least), None) => format!("must be at least {least}"),
        (None, Some(largest)) => format!("must be at most {largest}"),
        (None, None) => return None,
    };
    Some(Problem::error(at, span.clone(), format!("{number} {expected}")))
}

/// Returns the hint that names a key or a word.
pub(super) fn did_you_mean(word: &str) -> String {
    format!("did you mean {word}?")
}

/// Returns the key below another, as the file would have it.
pub(super) fn join(at: &str, key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let key = match key.chars().all(is_bare) && !key.is_empty() {
        true => key.to_owned(),
        false => format!("{key:?}"),
    };
    if at.is_empty() { key } else { format!("{at}.{key}") }
}
