//! One file per command: its arguments come from [`crate::cli`], its `run` says how it ended.

pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod image;
pub(crate) mod lab;
pub(crate) mod logs;
mod machine;
pub(crate) mod orchestrator;
pub(crate) mod ps;
pub(crate) mod runner;
pub(crate) mod template;
pub(crate) mod token;
pub(crate) mod trace;
pub(crate) mod vmm_launch;
