//! The JSON schema of the file, derived from its types. Editors get it, and the reader takes the known keys, the numbers'
//! bounds and the words of each key from it, so that there is one list of each.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::ConfigFile;

/// The address of the schema, for the first line of a generated file.
pub(crate) const ADDRESS: &str =
    "https://raw.githubusercontent.com/dayfly-ci/dayfly/main/docs/dayfly.schema.json";

/// Most alike that a word can be without being meant, from 0 to 1.
const ALIKE_MIN: f64 = 0.7;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    // Draft 7, because it is the newest that editors' TOML extensions know. Everything is inlined, because in draft 7 a
    // description beside a reference is ignored.
    let settings =
        SchemaSettings::draft07().for_deserialize().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<ConfigFile>().to_value();
    remove_null(&mut schema);
    schema
});

/// Returns the schema as a text with a newline at its end.
pub(crate) fn text() -> String {
    // A JSON value can always be written.
    let text = serde_json::to_string_pretty(&*SCHEMA).unwrap_or_default();
    format!("{text}\n")
}

/// Removes everything about null: TOML has none, and an optional key is left out.
fn remove_null(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|word| word != "null");
                if let [only] = &types[..] {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(words)) = object.get_mut("enum") {
                words.retain(|word| !word.is_null());
            }
            merge_only_choice(object);
            remove_defaults_of_required(object);
            object.values_mut().for_each(remove_null);
        }
        Value::Array(values) => values.iter_mut().for_each(remove_null),
        _ => {}
    }
}

/// Removes the defaults of keys that a table must have: they stand in the types only, for the reader.
fn remove_defaults_of_required(table: &mut Map<String, Value>) {
    let required = table.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    for key in required.iter().filter_map(Value::as_str) {
        let named = table.get_mut("properties").and_then(|keys| keys.get_mut(key)?.as_object_mut());
        named.and_then(|schema| schema.shift_remove("default"));
    }
}

/// Replaces "this or null" by "this". Its own description wins over that of its type.
fn merge_only_choice(object: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = object.get_mut("anyOf") else { return };
    choices.retain(|choice| choice.get("type") != Some(&Value::from("null")));
    if let [Value::Object(only)] = &choices[..] {
        let only = only.clone();
        object.shift_remove("anyOf");
        for (key, value) in only {
            object.entry(key).or_insert(value);
        }
    }
}

/// The schema of a value of the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known(&'static Value);

impl Known {
    /// Returns the schema of the whole file.
    pub(super) fn file() -> Self {
        Self(&SCHEMA)
    }

    /// Returns true if the value is a table.
    pub(super) fn is_table(self) -> bool {
        self.0.get("type") == Some(&Value::from("object"))
    }

    /// Returns the schema of a key of a table; none if the key is unknown.
    pub(super) fn key(self, key: &str) -> Option<Self> {
        let named = self.0.get("properties").and_then(|keys| keys.get(key));
        named.or_else(|| self.0.get("additionalProperties").filter(|any| any.is_object())).map(Self)
    }

    /// Returns the keys of a table whose keys are fixed.
    pub(super) fn keys(self) -> impl Iterator<Item = &'static str> {
        self.0
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(Map::keys)
            .map(String::as_str)
    }

    /// Returns the keys that a table must have.
    pub(super) fn required(self) -> impl Iterator<Item = &'static str> {
        self.0.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    /// Returns the schema of the elements of a list of tables.
    pub(super) fn table_items(self) -> Option<Self> {
        self.0.get("items").map(Self).filter(|items| items.is_table())
    }

    /// Returns the bounds of a number: the least and the largest.
    pub(super) fn bounds(self) -> (Option<f64>, Option<f64>) {
        let bound = |name: &str| self.0.get(name).and_then(Value::as_f64);
        (bound("minimum"), bound("maximum"))
    }

    /// Returns the words of which a value, or an element of a list, must be one. They are empty if any text will do.
    pub(super) fn words(self) -> Vec<&'static str> {
        let mut words = Vec::new();
        collect_words(self.0, &mut words);
        words
    }
}

fn collect_words(schema: &'static Value, words: &mut Vec<&'static str>) {
    let list = |name: &str| schema.get(name).and_then(Value::as_array).into_iter().flatten();
    words.extend(list("enum").chain(schema.get("const")).filter_map(Value::as_str));
    let parts = list("oneOf").chain(list("anyOf")).chain(schema.get("items"));
    parts.for_each(|part| collect_words(part, words));
}

/// Returns the known word that is most like a given one, if one is like it at all.
pub(crate) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The time that a comparison takes grows with both lengths.
    let plain = |word: &str| word.chars().take(64).collect::<String>().to_lowercase().replace('_', "-");
    let given = plain(given);
    let alike = known.into_iter().map(|word| (strsim::jaro_winkler(&given, &plain(word)), word));
    let best = alike.filter(|(alike, _)| *alike > ALIKE_MIN).max_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The schema in the repository, which editors read.
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/dayfly.schema.json");

    #[test]
    fn the_schema_in_the_repository_is_that_of_the_types() {
        let text = text();
        if std::env::var_os("INSTA_UPDATE").is_some_and(|mode| mode == "always") {
            std::fs::write(FILE, &text).expect("written");
        }
        let written = std::fs::read_to_string(FILE).expect("docs/dayfly.schema.json");
        assert!(
            written == text,
            "docs/dayfly.schema.json is old: dayfly validate --schema > docs/dayfly.schema.json"
        );
    }

    #[test]
    fn every_key_has_a_description_and_nothing_is_null() {
        fn check(schema: &Value, at: &str) {
            assert!(!schema.to_string().contains("null"), "{at}: {schema}");
            for (key, value) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                let at = format!("{at}.{key}");
                assert!(value.get("description").is_some_and(Value::is_string), "{at}: {value}");
                assert!(value.get("$ref").is_none(), "{at}: {value}");
                check(value, &at);
            }
            for part in ["additionalProperties", "items"].into_iter().filter_map(|part| schema.get(part)) {
                check(part, at);
            }
        }
        check(&SCHEMA, "");
    }

    #[test]
    fn the_nearest_word_is_found_if_there_is_one() {
        let known = ["memory", "mounts", "min_idle", "max"];
        assert_eq!(nearest("memroy", known), Some("memory"));
        assert_eq!(nearest("Min-Idle", known), Some("min_idle"));
        assert_eq!(nearest("xyz", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"m".repeat(1_000_000), []), None);
    }
}
