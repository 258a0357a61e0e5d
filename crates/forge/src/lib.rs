//! placeholder

pub mod client;
pub mod expression;
pub mod jit;
pub mod lab;
pub mod workflow;
