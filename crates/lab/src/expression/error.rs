//! What is wrong with an expression.

use thiserror::Error;

/// An expression that cannot be read or evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{problem}, at position {position} of \"{}\"", shortened(expression))]
pub struct ExpressionError {
    /// What is wrong.
    pub problem: Problem,
    /// The character it is about, counting from 1.
    pub position: usize,
    /// The expression's text.
    pub expression: String,
}

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// Nothing stands between `${{` and `}}`.
    #[error("the expression is empty")]
    Empty,
    /// Longer than [`LENGTH_MAX`](super::limits::LENGTH_MAX).
    #[error("the expression has more than {max} characters")]
    TooLong {
        /// The bound.
        max: usize,
    },
    /// Deeper than [`DEPTH_MAX`](super::limits::DEPTH_MAX).
    #[error("the expression is nested more than {max} deep")]
    TooDeep {
        /// The bound.
        max: usize,
    },
    /// A character that starts nothing.
    #[error("unexpected symbol \"{symbol}\"{}", hint(.symbol))]
    UnexpectedSymbol {
        /// The text.
        symbol: String,
    },
    /// A string without its closing quote.
    #[error("the string has no closing ' (write '' for a quote inside a string)")]
    UnclosedString,
    /// The expression stops where more must follow.
    #[error("unexpected end of expression, expected {expected}")]
    UnexpectedEnd {
        /// What must follow.
        expected: &'static str,
    },
    /// `${{` without `}}`.
    #[error("\"${{{{\" without its closing \"}}}}\"")]
    Unclosed,
    /// No such function.
    #[error("unknown function \"{name}\" (known: {known})")]
    UnknownFunction {
        /// The name.
        name: String,
        /// The functions there are.
        known: String,
    },
    /// A function that may not stand here.
    #[error("the function \"{name}\" cannot be used here")]
    FunctionNotHere {
        /// The name.
        name: String,
    },
    /// Too few or too many arguments.
    #[error("the function \"{name}\" takes {expected}, not {given}")]
    ArgumentCount {
        /// The function.
        name: &'static str,
        /// In words.
        expected: String,
        /// How many there are.
        given: usize,
    },
    /// No such context, or one that is not available here.
    #[error("unknown or unavailable context \"{name}\" (available here: {known})")]
    UnknownContext {
        /// The name.
        name: String,
        /// The contexts that are available.
        known: String,
    },
    /// `format` with a bad format string.
    #[error("format: {message}")]
    Format {
        /// What is wrong with it.
        message: String,
    },
    /// `fromJSON` of text that is not JSON.
    #[error("fromJSON: not JSON: {message}")]
    Json {
        /// What the JSON reader says.
        message: String,
    },
    /// `hashFiles` outside of a runner.
    #[error("hashFiles needs a job's workspace, so it can be used in steps only")]
    NeedsWorkspace,
    /// More than [`EVALUATION_BYTES_MAX`](super::limits::EVALUATION_BYTES_MAX).
    #[error("the evaluation makes more than {max} bytes")]
    TooLarge {
        /// The bound.
        max: usize,
    },
}

fn hint(symbol: &str) -> &'static str {
    match symbol.chars().next() {
        Some('"') => " (strings stand in single quotes)",
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
