//! placeholder

pub mod expression;
pub mod workflow;
