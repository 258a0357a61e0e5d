//! `docs/reference/configuration.md`: each key of the configuration file, from its schema.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{cell, code, escaped, head, row};
use crate::config::schema;

/// The beginning of the page.
const BEGIN: &str = "# Configuration file

This page is written from the [schema](../dayfly.schema.json) of the file `/etc/dayfly/dayfly.toml`, which `dayfly validate
--schema` prints. [Pools](../pools.md) explains the keys with examples. Unknown keys are errors.
";

fn page() -> String {
    let schema: Value = serde_json::from_str(&schema::text()).expect("a schema");
    let mut text = BEGIN.to_owned();
    section("", &schema, &mut text);
    text
}

/// Writes the section of a table, and those of the tables in it. `path` is its name in the file.
fn section(path: &str, schema: &Value, text: &mut String) {
    if !path.is_empty() {
        let described = schema["description"].as_str().unwrap_or_default();
        let _ = write!(text, "\n## {}\n\n{}\n", escaped(path), escaped(described));
    }
    let empty = Map::new();
    let keys = schema["properties"].as_object().unwrap_or(&empty);
    let required = |key: &String| {
        schema["required"].as_array().is_some_and(|names| names.iter().any(|name| name == key.as_str()))
    };
    let rows = keys.iter().filter(|(_, key)| inner(key).is_none());
    let rows = rows.map(|(name, key)| {
        let default = match required(name) {
            true => "required".to_owned(),
            false => key.get("default").map(|value| code(&toml(value))).unwrap_or_default(),
        };
        row([code(name), cell(&kind(key)), default, meaning(key)])
    });
    let rows: String = rows.collect();
    if !rows.is_empty() {
        let _ = write!(text, "\n{}{rows}", head(["key", "value", "default", "meaning"]));
    }
    let inside = path.trim_start_matches('[').trim_end_matches(']');
    for (name, key) in keys {
        let Some(table) = inner(key) else { continue };
        let own = if inside.is_empty() { name.clone() } else { format!("{inside}.{name}") };
        match table {
            Inner::One(table) => section(&format!("[{own}]"), table, text),
            Inner::Named(table) => section(&format!("[{own}.NAME]"), table, text),
            Inner::Listed(table) => section(&format!("[[{own}]]"), table, text),
        }
    }
}

/// A table in a table.
enum Inner<'a> {
    One(&'a Value),
    /// A table for each name.
    Named(&'a Value),
    Listed(&'a Value),
}

fn inner(schema: &Value) -> Option<Inner<'_>> {
    let is_table = |schema: &Value| schema.get("properties").is_some();
    if is_table(schema) {
        return Some(Inner::One(schema));
    }
    let named = schema.get("additionalProperties").filter(|each| is_table(each)).map(Inner::Named);
    named.or_else(|| schema.get("items").filter(|each| is_table(each)).map(Inner::Listed))
}

/// Returns the kind of a value in words.
fn kind(schema: &Value) -> String {
    if let Some(choices) = ["oneOf", "anyOf"].iter().find_map(|name| schema[*name].as_array()) {
        let mut kinds: Vec<String> = choices.iter().map(kind).collect();
        kinds.dedup();
        return kinds.join(" or ");
    }
    if let Some(word) = schema["const"].as_str() {
        return format!("`\"{word}\"`");
    }
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ");
    }
    match schema["type"].as_str().unwrap_or_default() {
        "string" => "text".to_owned(),
        "boolean" => "`true` or `false`".to_owned(),
        "array" => format!("list of: {}", kind(&schema["items"])),
        "object" => format!("table of: {}", kind(&schema["additionalProperties"])),
        number => {
            format!("{}{}", if number == "integer" { "whole number" } else { "number" }, bounds(schema))
        }
    }
}

fn bounds(schema: &Value) -> String {
    match (schema.get("minimum"), schema.get("maximum")) {
        (Some(least), Some(most)) => format!(", {least} to {most}"),
        (Some(least), None) => format!(", at least {least}"),
        (None, Some(most)) => format!(", at most {most}"),
        (None, None) => String::new(),
    }
}

/// Returns a value as the file has it.
fn toml(value: &Value) -> String {
    match value {
        Value::Object(keys) if keys.is_empty() => "{}".to_owned(),
        value => value.to_string(),
    }
}

/// Returns the meaning of a key, with that of each word that it takes.
fn meaning(schema: &Value) -> String {
    let mut text = cell(schema["description"].as_str().unwrap_or_default());
    let mut words = Vec::new();
    described_words(schema, &mut words);
    for (word, meaning) in words {
        let _ = write!(text, "<br>{}: {}", code(word), cell(meaning));
    }
    text
}

fn described_words<'a>(schema: &'a Value, words: &mut Vec<(&'a str, &'a str)>) {
    if let (Some(word), Some(meaning)) = (schema["const"].as_str(), schema["description"].as_str())
        && words.iter().all(|(known, _)| *known != word)
    {
        words.push((word, meaning));
    }
    let choices = ["oneOf", "anyOf"].iter().filter_map(|name| schema[*name].as_array()).flatten();
    choices.for_each(|choice| described_words(choice, words));
}

#[test]
fn the_page_of_the_configuration_is_that_of_the_schema() {
    super::assert_current("configuration.md", &page());
}

#[test]
fn each_table_of_the_file_has_a_section() {
    let page = page();
    for part in
        ["\n## [forges.NAME]\n", "\n## [pools.NAME]\n", "\n## [host]\n", "| `principal` | text | required |"]
    {
        assert!(page.contains(part), "{part}: {page}");
    }
}
