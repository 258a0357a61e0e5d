//! Template tokens: parts of a workflow file that may contain expressions.
//!
//! GitHub's server sends template tokens to runners, so that one type serves the parser, the lab's own evaluation and the
//! job message. A string with `${{ }}` inside other text becomes an expression `format('...', a, b)`, as on GitHub.

use super::diagnostic::Position;
use crate::expression::{Expr, ExpressionError, Object, Scope, Value};

/// A value of the file with its position.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// The position in the file.
    pub at: Position,
    /// The value.
    pub kind: TokenKind,
}

/// The value of a [`Token`].
#[derive(Debug, Clone, PartialEq)]
pub enum TokenKind {
    /// No value, or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(f64),
    /// Text without expressions.
    String(String),
    /// An expression.
    Expression(Expr),
    /// A list.
    Sequence(Vec<Token>),
    /// Keys and values in the order of the file. Keys are literal.
    Mapping(Vec<(Token, Token)>),
}

impl Token {
    /// Evaluates every expression in the token.
    ///
    /// # Errors
    /// Returns the first expression that cannot be evaluated.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, ExpressionError> {
        Ok(match &self.kind {
            TokenKind::Null => Value::Null,
            TokenKind::Bool(flag) => Value::Bool(*flag),
            TokenKind::Number(number) => Value::Number(*number),
            TokenKind::String(text) => Value::String(text.clone()),
            TokenKind::Expression(expr) => expr.evaluate(scope)?,
            TokenKind::Sequence(items) => {
                Value::Array(items.iter().map(|item| item.evaluate(scope)).collect::<Result<_, _>>()?)
            }
            TokenKind::Mapping(entries) => {
                let mut object = Object::new();
                for (key, value) in entries {
                    object.insert(key.evaluate(scope)?.to_text(), value.evaluate(scope)?);
                }
                Value::Object(object)
            }
        })
    }
}
