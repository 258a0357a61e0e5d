//! The job message, as far as this runner understands it, and the values in it.

use std::collections::BTreeMap;

use dayfly_lab::expression::{ExpressionError, Object, Scope, Value, parse};
use serde::Deserialize;
use serde_json::Value as Json;

/// A job message (`AgentJobRequestMessage` of actions/runner 2.336.0).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobMessage {
    pub(crate) job_display_name: String,
    #[serde(default)]
    pub(crate) variables: BTreeMap<String, Variable>,
    #[serde(default)]
    pub(crate) mask: Vec<MaskHint>,
    #[serde(default)]
    pub(crate) context_data: BTreeMap<String, Json>,
    #[serde(default)]
    pub(crate) environment_variables: Vec<Json>,
    pub(crate) steps: Vec<StepMessage>,
    #[serde(default)]
    pub(crate) job_outputs: Option<Json>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Variable {
    #[serde(default)]
    pub(crate) value: String,
    #[serde(default)]
    pub(crate) is_secret: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct MaskHint {
    pub(crate) value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StepMessage {
    pub(crate) id: String,
    pub(crate) context_name: String,
    pub(crate) condition: String,
    pub(crate) reference: Reference,
    #[serde(default)]
    pub(crate) display_name_token: Json,
    #[serde(default)]
    pub(crate) inputs: Json,
    #[serde(default)]
    pub(crate) environment: Json,
    #[serde(default)]
    pub(crate) continue_on_error: Json,
    #[serde(default)]
    pub(crate) timeout_in_minutes: Json,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Reference {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The name of the action, for other kinds than `script`.
    #[serde(default)]
    pub(crate) name: String,
}

impl JobMessage {
    /// Returns a context of the message.
    pub(crate) fn context(&self, name: &str) -> Value {
        self.context_data.get(name).map_or(Value::Null, context)
    }

    /// Returns the `secrets` context: the secret variables without those of the service itself.
    pub(crate) fn secrets(&self) -> Object {
        let secret = self.variables.iter().filter(|(name, it)| it.is_secret && !name.starts_with("system."));
        secret.map(|(name, it)| (name.to_uppercase(), Value::from(it.value.clone()))).collect()
    }

    /// Returns the texts that must not be in a log: the secrets, each of their lines, and the hints of the message. The lab's
    /// hints are texts whose punctuation is escaped.
    pub(crate) fn masked(&self) -> Vec<String> {
        let secrets = self.variables.values().filter(|it| it.is_secret).flat_map(|it| {
            std::iter::once(it.value.as_str()).chain(it.value.lines()).map(str::to_owned).collect::<Vec<_>>()
        });
        secrets.chain(self.mask.iter().map(|hint| hint.value.replace('\\', ""))).collect()
    }
}

/// Reads a context: plain JSON, or `{"t": n, ...}` for arrays (1) and dictionaries (2).
fn context(json: &Json) -> Value {
    match json["t"].as_u64() {
        Some(1) => Value::Array(json["a"].as_array().into_iter().flatten().map(context).collect()),
        Some(2) => {
            let entries = json["d"].as_array().into_iter().flatten();
            let entry =
                |entry: &Json| (entry["k"].as_str().unwrap_or_default().to_owned(), context(&entry["v"]));
            Value::Object(entries.map(entry).collect())
        }
        _ => Value::from_json(json),
    }
}

/// Evaluates a template token: plain JSON, or `{"type": n, ...}` for sequences (1), mappings (2) and expressions (3).
pub(crate) fn evaluate(token: &Json, scope: &Scope<'_>) -> Result<Value, ExpressionError> {
    match token["type"].as_u64() {
        Some(1) => {
            let items = token["seq"].as_array().into_iter().flatten();
            Ok(Value::Array(items.map(|item| evaluate(item, scope)).collect::<Result<_, _>>()?))
        }
        Some(2) => Ok(Value::Object(mapping(token, scope)?.into_iter().collect())),
        Some(3) => parse(token["expr"].as_str().unwrap_or_default())?.evaluate(scope),
        _ => Ok(Value::from_json(token)),
    }
}

/// Evaluates a mapping. Anything else is an empty one.
pub(crate) fn mapping(token: &Json, scope: &Scope<'_>) -> Result<Vec<(String, Value)>, ExpressionError> {
    let pairs = token["map"].as_array().into_iter().flatten();
    let pair = |pair: &Json| Ok((evaluate(&pair["key"], scope)?.to_text(), evaluate(&pair["value"], scope)?));
    pairs.map(pair).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn contexts_and_tokens_become_values() {
        let data = json!({"t": 2, "d": [{"k": "a", "v": {"t": 1, "a": [1, "x", true, null]}}]});
        assert_eq!(context(&data).to_json(), json!({"a": [1, "x", true, null]}));
        let scope = Scope::new().with("github", context(&json!({"t": 2, "d": [{"k": "ref", "v": "main"}]})));
        let token = json!({"type": 2, "map": [
            {"key": "A", "value": {"type": 3, "expr": "format('on {0}', github.ref)"}}, {"key": "B", "value": 2},
        ]});
        let pairs = mapping(&token, &scope).unwrap();
        assert_eq!((pairs[0].1.to_text(), pairs[1].1.to_text()), ("on main".to_owned(), "2".to_owned()));
        assert!(evaluate(&json!({"type": 3, "expr": "nothing.x"}), &scope).is_err());
    }
}
