//! Template tokens: a part of a workflow file that may hold expressions.
//!
//! They are what GitHub's server sends to runners, so that one type serves the parser, the lab's own evaluation and the
//! job message. A string with `${{ }}` inside other text is an expression `format('...', a, b)`, as GitHub makes it.

use super::diagnostic::Position;
use crate::expression::{Expr, ExpressionError, Object, Scope, Value};

/// A value of the file with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Where it stands.
    pub at: Position,
    /// What it is.
    pub kind: TokenKind,
}

/// What a [`Token`] holds.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenKind {
    /// Nothing, or `null`.
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
    /// Keys and values in the order of the file; keys are literal.
    Mapping(Vec<(Token, Token)>),
}

impl Token {
    /// Evaluates every expression in it.
    ///
    /// # Errors
    /// The first expression that cannot be evaluated.
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
