//! Parsed expressions.

use super::error::{ExpressionError, Problem};
use super::function::Function;
use super::value::Value;

/// A parsed expression. The names of its functions are checked, the names of its contexts are not.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    pub(super) source: String,
    pub(super) node: Node,
}

/// A name that an expression uses, with the position of its first character, counting from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use<'a> {
    /// A context such as `github`, as the expression spells it.
    Context(&'a str, usize),
    /// A function, in its documented spelling.
    Function(&'static str, usize),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Literal(Value),
    Context { name: String, at: usize },
    Index { base: Box<Node>, index: Box<Node> },
    Wildcard { base: Box<Node> },
    Call { function: Function, arguments: Vec<Node>, at: usize },
    Not(Box<Node>),
    Compare { operator: Comparison, left: Box<Node>, right: Box<Node> },
    And(Vec<Node>),
    Or(Vec<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Expr {
    /// Returns the trimmed text, without `${{` and `}}`.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Returns every context and function that the expression uses, in the order of the text.
    pub fn uses(&self) -> Vec<Use<'_>> {
        let mut uses = Vec::new();
        self.node.collect_uses(&mut uses);
        uses
    }

    /// Returns true if the expression calls `success`, `failure`, `cancelled` or `always`.
    pub fn uses_status(&self) -> bool {
        self.uses()
            .iter()
            .any(|used| matches!(used, Use::Function("success" | "failure" | "cancelled" | "always", _)))
    }

    /// Completes an `if` as GitHub does: a condition without a status function becomes `success() && (...)`.
    #[must_use]
    pub fn with_default_status(self) -> Self {
        if self.uses_status() {
            return self;
        }
        let success = Node::Call { function: Function::Success, arguments: Vec::new(), at: 1 };
        Self { source: format!("success() && ({})", self.source), node: Node::And(vec![success, self.node]) }
    }

    /// Checks that the expression uses only these contexts and, of the special functions, only these.
    ///
    /// # Errors
    /// Returns the first use that is not allowed.
    pub fn check(&self, contexts: &[&str], functions: &[&str]) -> Result<(), ExpressionError> {
        for used in self.uses() {
            let (problem, at) = match used {
                Use::Context(name, at) if !contexts.iter().any(|known| known.eq_ignore_ascii_case(name)) => {
                    let known = if contexts.is_empty() { "none".to_owned() } else { contexts.join(", ") };
                    (Problem::UnknownContext { name: name.to_owned(), known }, at)
                }
                Use::Function(name, at) if Function::is_special(name) && !functions.contains(&name) => {
                    (Problem::FunctionNotHere { name: name.to_owned() }, at)
                }
                _ => continue,
            };
            return Err(self.error(problem, at));
        }
        Ok(())
    }

    pub(super) fn error(&self, problem: Problem, position: usize) -> ExpressionError {
        ExpressionError { problem, position, expression: self.source.clone() }
    }
}

impl Node {
    fn collect_uses<'a>(&'a self, uses: &mut Vec<Use<'a>>) {
        match self {
            Self::Literal(_) => {}
            Self::Context { name, at } => uses.push(Use::Context(name, *at)),
            Self::Index { base, index } => {
                base.collect_uses(uses);
                index.collect_uses(uses);
            }
            Self::Wildcard { base: inner } | Self::Not(inner) => inner.collect_uses(uses),
            Self::Call { function, arguments, at } => {
                uses.push(Use::Function(function.name(), *at));
                arguments.iter().for_each(|argument| argument.collect_uses(uses));
            }
            Self::Compare { left, right, .. } => {
                left.collect_uses(uses);
                right.collect_uses(uses);
            }
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.collect_uses(uses)),
        }
    }
}
