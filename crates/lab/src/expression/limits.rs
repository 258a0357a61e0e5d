//! Bounds on expressions. Length and depth are GitHub's own (actions/runner, `ExpressionConstants`).

/// Characters of one expression.
pub const LENGTH_MAX: usize = 21_000;
/// Nesting of one expression: parentheses, calls, indexing, negation.
pub const DEPTH_MAX: usize = 50;
/// Bytes that one evaluation may make, results of inner functions included.
pub const EVALUATION_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Bytes of a string with `${{ }}` in it.
pub const TEMPLATE_BYTES_MAX: usize = 1024 * 1024;
