//! Machines that are forked from a template: what each of them has for itself, what it is when something goes wrong, and
//! what is in the template.

mod fallback;
mod identity;
mod warm_up;

use std::path::Path;

use dayfly_e2e::machines::{Stage, enter_network_namespace};
use dayfly_e2e::{image, prepared};
use dayfly_vm::TemplateSettings;

/// Machines in a network of their own.
fn stage(state: &Path, template: TemplateSettings) -> Stage {
    enter_network_namespace();
    Stage::new(state, &prepared("DAYFLY_BINARY"), &image(), template).expect("a stage")
}
