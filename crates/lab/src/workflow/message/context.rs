//! Writes contexts as JSON: text, booleans, numbers and null unchanged, arrays and objects as `{"t": n, ...}`.

use serde_json::{Value as Json, json};

use crate::expression::Value;

const ARRAY: u8 = 1;
const DICTIONARY: u8 = 2;

pub(super) fn context_data(value: &Value) -> Json {
    match value {
        Value::Array(items) => json!({ "t": ARRAY, "a": items.iter().map(context_data).collect::<Vec<_>>() }),
        Value::Object(object) => {
            let entries = object.iter().map(|(key, value)| json!({ "k": key, "v": context_data(value) }));
            json!({ "t": DICTIONARY, "d": entries.collect::<Vec<_>>() })
        }
        single => single.to_json(),
    }
}
