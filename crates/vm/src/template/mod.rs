//! Templates: machines that were booted, got ready and frozen, so that others are forked from them.
//!
//! ```text
//!   prepare ──> key ──> on disk? ──no──> build: boot, agent's Prepare, freeze ──> stage ──> <state>/templates/<id>/
//!                          │ yes                                                        memory, state, disk, manifest
//!                          └──> opened once in this process: memory in a sealed memfd
//!   start   ──> fork of an opened template; whatever is wrong with it: a cold boot, with the reason
//! ```

mod blueprint;
mod build;
mod key;
mod make;
mod manifest;
mod memory;
mod store;
mod templates;

use std::path::PathBuf;

pub(crate) use blueprint::Blueprint;
pub use key::TemplateId;
pub use make::{AGE_MAX, BYTES_MAX, sweep_templates};
pub use manifest::TemplateManifest;
pub(crate) use store::Opened;
pub use store::{Counts, Template, TemplateError, TemplateStore};
pub use templates::{Templates, prepare, rebuild};
pub(crate) use templates::{blueprints, fork_failed};

/// How machines of one kind are forked. Where a machine has none, it is booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSettings {
    /// User that runner apps run as.
    pub user: String,
    /// What runs in the template before it is frozen.
    pub warm_up: Option<WarmUp>,
    /// How many forks are kept ready, made and stopped.
    pub spares: usize,
}

/// A script that runs in a template before it is frozen, as the user that jobs run as, with network and without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmUp {
    /// Where it was read from, for messages.
    pub path: PathBuf,
    /// What it says; part of the template's key.
    pub script: String,
}

impl Default for TemplateSettings {
    fn default() -> Self {
        Self { user: "runner".to_owned(), warm_up: None, spares: 0 }
    }
}

/// What a machine was started from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartedFrom {
    /// Its kernel.
    Boot,
    /// A template, by its id.
    Fork(String),
    /// A fork of this template that had been made before.
    Spare(String),
}

/// What happens while a template is got ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preparing {
    /// It is built.
    Building {
        /// Its id.
        template: String,
    },
    /// Another process or loop builds it.
    Waiting {
        /// Its id.
        template: String,
    },
    /// A line of the machine that becomes it: what the warm-up prints.
    Line(String),
    /// It is there now.
    Built {
        /// Its id.
        template: String,
        /// How long that took, milliseconds.
        took_ms: u64,
        /// What it takes on the disk, bytes.
        bytes: u64,
    },
    /// It could not be built: machines are booted until it can.
    Failed {
        /// Its id.
        template: String,
        /// Why.
        reason: String,
    },
    /// Machines of this kind cannot be forked.
    Cold {
        /// Why.
        reason: String,
    },
}
