//! Errors of parsing and evaluating expressions.

use std::fmt::{self, Write as _};

use thiserror::Error;

use crate::visible::Visible;

/// An error of parsing or evaluating an expression.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct ExpressionError {
    /// The kind of error.
    pub problem: Problem,
    /// The position of the character with the error, counting from 1.
    pub position: usize,
    /// The expression's text.
    pub expression: String,
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { problem, position, expression } = self;
        write!(Visible(f), "{problem}, at position {position} of \"{}\"", shortened(expression))
    }
}

/// The kind of an [`ExpressionError`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// There is nothing between `${{` and `}}`.
    #[error("the expression is empty")]
    Empty,
    /// The expression is longer than [`LENGTH_MAX`](super::limits::LENGTH_MAX).
    #[error("the expression has more than {max} characters")]
    TooLong {
        /// The limit.
        max: usize,
    },
    /// The text around expressions is longer than [`TEMPLATE_BYTES_MAX`](super::limits::TEMPLATE_BYTES_MAX).
    #[error("the text has more than {max} bytes")]
    TemplateTooLong {
        /// The limit.
        max: usize,
    },
    /// The expression is nested deeper than [`DEPTH_MAX`](super::limits::DEPTH_MAX).
    #[error("the expression is nested more than {max} deep")]
    TooDeep {
        /// The limit.
        max: usize,
    },
    /// A symbol that is unknown or in a wrong place.
    #[error("unexpected symbol \"{symbol}\"{}", hint(.symbol))]
    UnexpectedSymbol {
        /// The text of the symbol.
        symbol: String,
    },
    /// A string has no closing quote.
    #[error("the string has no closing ' (write '' for a quote inside a string)")]
    UnclosedString,
    /// The expression ends too early.
    #[error("unexpected end of expression, expected {expected}")]
    UnexpectedEnd {
        /// The symbol or value that must follow.
        expected: &'static str,
    },
    /// A `${{` has no `}}`.
    #[error("\"${{{{\" without its closing \"}}}}\"")]
    Unclosed,
    /// There is no function with this name.
    #[error("unknown function \"{name}\" (known: {known})")]
    UnknownFunction {
        /// The name.
        name: String,
        /// The names of all functions.
        known: String,
    },
    /// A function is not available in this place.
    #[error("the function \"{name}\" cannot be used here")]
    FunctionNotHere {
        /// The name.
        name: String,
    },
    /// A function has too few or too many arguments.
    #[error("the function \"{name}\" takes {expected}, not {given}")]
    ArgumentCount {
        /// The function.
        name: &'static str,
        /// The allowed number of arguments, in words.
        expected: String,
        /// The number of arguments in the expression.
        given: usize,
    },
    /// A context does not exist or is not available in this place.
    #[error("unknown or unavailable context \"{name}\" (available here: {known})")]
    UnknownContext {
        /// The name.
        name: String,
        /// The contexts that are available.
        known: String,
    },
    /// `format` has a bad format string.
    #[error("format: {message}")]
    Format {
        /// The problem of the format string.
        message: String,
    },
    /// The argument of `fromJSON` is not JSON.
    #[error("fromJSON: not JSON: {message}")]
    Json {
        /// The error of the JSON parser.
        message: String,
    },
    /// A condition of `case` is not a boolean.
    #[error("case: the condition {number} is {found}, but must be true or false")]
    CaseCondition {
        /// The number of the condition, from 1.
        number: usize,
        /// The kind of its value.
        found: &'static str,
    },
    /// `hashFiles` is used outside of a runner.
    #[error("hashFiles needs a job's workspace, so it can be used in steps only")]
    NeedsWorkspace,
    /// The evaluation produces more than [`EVALUATION_BYTES_MAX`](super::limits::EVALUATION_BYTES_MAX).
    #[error("the evaluation produces more than {max} bytes")]
    TooLarge {
        /// The limit.
        max: usize,
    },
}

fn hint(symbol: &str) -> &'static str {
    match symbol.chars().next() {
        Some('"') => " (strings use single quotes)",
        Some('=') => " (compare with ==)",
        Some('&') => " (and is &&)",
        Some('|') => " (or is ||)",
        Some('+' | '-' | '/' | '%') => " (there is no arithmetic)",
        _ => "",
    }
}

fn shortened(text: &str) -> String {
    const SHOWN_MAX: usize = 120;
    if text.chars().count() <= SHOWN_MAX {
        return text.to_owned();
    }
    text.chars().take(SHOWN_MAX).chain("...".chars()).collect()
}
