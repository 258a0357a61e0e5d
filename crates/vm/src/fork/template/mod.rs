//! Templates: machines that were booted, prepared and frozen, so that other machines can be forked from them.
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
mod store;
mod templates;

use std::path::PathBuf;

pub(crate) use blueprint::Blueprint;
pub use key::TemplateId;
pub use make::{AGE_MAX, BYTES_MAX, sweep_templates};
pub use manifest::TemplateManifest;
pub(crate) use store::Opened;
pub use store::{Counts, FOLDER, Template, TemplateError, TemplateStore};
pub(super) use templates::{Forkable, blueprints, fork_failed};
pub use templates::{Templates, prepare, rebuild};

/// How machines of one kind are forked. A machine without these settings is booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSettings {
    /// The user that runner apps run as.
    pub user: String,
    /// The script that runs in the template before it is frozen.
    pub warm_up: Option<WarmUp>,
    /// Number of spares that are kept ready.
    pub spares: usize,
}

/// A script that runs in a template before it is frozen. It runs as the user that jobs run as, with network and without
/// secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmUp {
    /// The file that the script was read from, for messages.
    pub path: PathBuf,
    /// The script's text, which is part of the template's key.
    pub script: String,
}

impl Default for TemplateSettings {
    fn default() -> Self {
        Self { user: "runner".to_owned(), warm_up: None, spares: 0 }
    }
}

/// An event while a template is prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preparing {
    /// This process builds the template.
    Building {
        /// The template's id.
        template: String,
    },
    /// Another process or loop builds the template, which is waited for.
    Waiting {
        /// The template's id.
        template: String,
    },
    /// A line that the warm-up printed, or the agent: the reason why no runner app waits in the template.
    Line(String),
    /// The template was built.
    Built {
        /// The template's id.
        template: String,
        /// Duration of the build, milliseconds.
        took_ms: u64,
        /// Space that the template takes on the disk, bytes.
        bytes: u64,
    },
    /// The template could not be built. Machines are booted until it is.
    Failed {
        /// The template's id.
        template: String,
        /// The reason.
        reason: String,
    },
    /// Machines of this kind cannot be forked.
    Cold {
        /// The reason.
        reason: String,
    },
}
