//! One file per command. Its arguments are defined in [`crate::cli`]; its `run` returns how it ended.

mod annotation;
pub(crate) mod app;
pub(crate) mod clear;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod image;
pub(crate) mod init;
pub(crate) mod jobs;
pub(crate) mod lab;
pub(crate) mod logs;
mod machine;
pub(crate) mod orchestrator;
mod private_lab;
pub(crate) mod ps;
pub(crate) mod reload;
pub(crate) mod runner;
pub(crate) mod runs;
mod sentence;
pub(crate) mod steer;
mod subject;
pub(crate) mod template;
pub(crate) mod token;
pub(crate) mod trace;
pub(crate) mod validate;
pub(crate) mod vmm_launch;
pub(crate) mod why;
