//! GitHub's expression language: the text between `${{` and `}}`.
//!
//! ```text
//! text --parse--> Expr --evaluate(&Scope)--> Value
//! ```
//!
//! This module is pure: it uses no I/O, no clock and no environment. Length, depth and the size of results are
//! bounded (see [`limits`]), so that an untrusted expression can neither hang nor exhaust the lab.
//!
//! Semantics follow GitHub's documentation, "Evaluate expressions in workflows and actions"
//! (<https://docs.github.com/en/actions/reference/workflows-and-actions/expressions>).

mod error;
mod evaluate;
mod function;
mod lexer;
mod parser;
mod scope;
mod syntax;
mod template;
mod value;

pub mod limits;

pub use error::{ExpressionError, Problem};
pub use parser::parse;
pub use scope::{Scope, Status};
pub use syntax::{Expr, Use};
pub use template::{Piece, Template};
pub use value::{Object, Value};

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
