//! Writes template tokens as JSON: text, booleans and numbers unchanged, everything else as `{"type": n, ...}`.

use serde_json::{Value as Json, json};

use super::super::token::{Token, TokenKind};
use crate::expression::Value;

const SEQUENCE: u8 = 1;
const MAPPING: u8 = 2;
const EXPRESSION: u8 = 3;

/// Converts a token for the runner. `null` becomes empty text because github-act-runner 0.13.0 panics on a null token;
/// GitHub converts it in the same way if text is expected.
pub(super) fn template_token(token: &Token) -> Json {
    match &token.kind {
        TokenKind::Null => Json::from(""),
        TokenKind::Bool(flag) => Json::from(*flag),
        TokenKind::Number(number) => Value::Number(*number).to_json(),
        TokenKind::String(text) => Json::from(text.as_str()),
        TokenKind::Expression(expr) => {
            json!({ "type": EXPRESSION, "file": 1, "line": token.at.line, "col": token.at.column, "expr": expr.source() })
        }
        TokenKind::Sequence(items) => {
            json!({ "type": SEQUENCE, "seq": items.iter().map(template_token).collect::<Vec<_>>() })
        }
        TokenKind::Mapping(entries) => {
            let pairs = entries.iter().map(|(key, value)| pair(template_token(key), template_token(value)));
            json!({ "type": MAPPING, "map": pairs.collect::<Vec<_>>() })
        }
    }
}

/// Builds a mapping with literal keys.
pub(super) fn mapping<'a>(entries: impl IntoIterator<Item = (&'a str, Json)>) -> Json {
    let pairs = entries.into_iter().map(|(key, value)| pair(Json::from(key), value));
    json!({ "type": MAPPING, "map": pairs.collect::<Vec<_>>() })
}

fn pair(key: Json, value: Json) -> Json {
    json!({ "key": key, "value": value })
}
