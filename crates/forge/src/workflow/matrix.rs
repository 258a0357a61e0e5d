//! Expansion of `strategy.matrix`.
