//! Limits of expressions. Length and depth have GitHub's values (actions/runner, `ExpressionConstants`).

/// Longest expression, in characters.
pub const LENGTH_MAX: usize = 21_000;
/// Deepest nesting of one expression: parentheses, calls, indexing, comparison, negation.
pub const DEPTH_MAX: usize = 50;
/// Most bytes that one evaluation may produce, including the results of inner functions.
pub const EVALUATION_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Longest string with `${{ }}` in it, in bytes.
pub const TEMPLATE_BYTES_MAX: usize = 1024 * 1024;
