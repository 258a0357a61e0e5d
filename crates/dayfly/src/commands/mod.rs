//! One file per command: its arguments come from [`crate::cli`], its `run` says how it ended.

pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod image;
pub(crate) mod lab;
mod machine;
pub(crate) mod runner;
pub(crate) mod vmm_launch;
