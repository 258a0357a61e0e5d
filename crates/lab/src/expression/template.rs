//! Parses text with `${{ }}` in it.

use super::error::{ExpressionError, Problem};
use super::limits::TEMPLATE_BYTES_MAX;
use super::parser;
use super::syntax::Expr;

/// Text that is split at its `${{ }}`.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    pieces: Vec<Piece>,
}

/// A part of a [`Template`].
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Literal text.
    Text(String),
    /// The expression between `${{` and `}}`.
    Expression(Expr),
}

impl Template {
    /// Splits text at its `${{ }}`. A `}}` within a string of an expression does not end the expression.
    ///
    /// # Errors
    /// Fails if the text is too long, or if an expression is invalid or has no `}}`.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        let fail = |problem, position| ExpressionError { problem, position, expression: text.to_owned() };
        if text.len() > TEMPLATE_BYTES_MAX {
            let within = text.char_indices().take_while(|(start, _)| *start < TEMPLATE_BYTES_MAX).count();
            return Err(fail(Problem::TemplateTooLong { max: TEMPLATE_BYTES_MAX }, within));
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("${{") {
            let (before, inner) = (&rest[..start], &rest[start + 3..]);
            let Some(end) = closing(inner) else {
                return Err(fail(Problem::Unclosed, text[..text.len() - inner.len()].chars().count() - 2));
            };
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::Expression(parser::parse(&inner[..end])?));
            rest = &inner[end + 2..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self { pieces })
    }

    /// Returns the parts in their order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Returns the text if there is no expression in it.
    pub fn as_text(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Converts the template into one expression. A single expression stays unchanged; anything else becomes
    /// `format('...', a, b)`, as GitHub's server sends it to runners.
    ///
    /// # Errors
    /// Fails if the result exceeds the limits of an expression.
    pub fn to_expression(&self) -> Result<Expr, ExpressionError> {
        if let [Piece::Expression(expr)] = self.pieces.as_slice() {
            return Ok(expr.clone());
        }
        let mut pattern = String::new();
        let mut arguments = String::new();
        let mut count = 0;
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => {
                    pattern.push_str(&text.replace('\'', "''").replace('{', "{{").replace('}', "}}"))
                }
                Piece::Expression(expr) => {
                    pattern.push_str(&format!("{{{count}}}"));
                    arguments.push_str(", ");
                    arguments.push_str(expr.source());
                    count += 1;
                }
            }
        }
        parser::parse(&format!("format('{pattern}'{arguments})"))
    }
}

/// Returns the position of the `}}` that ends an expression.
fn closing(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut in_string = false;
    for (position, byte) in bytes.iter().enumerate() {
        match byte {
            b'\'' => in_string = !in_string,
            b'}' if !in_string && bytes.get(position + 1) == Some(&b'}') => return Some(position),
            _ => {}
        }
    }
    None
}
